"""What authors of strategies will try, and the one line that each of them gets."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from gentext import NoConfig, Param, State, Strategy, keep_largest
from gentext.chain import Link
from gentext.errors import PluginError
from gentext.export.strategies.check import check_compiles

V = 11


class Author(Strategy):
    params: ClassVar[dict[str, Param]] = {"strength": Param(0.0, "how much", low=0, high=1)}
    state: ClassVar[dict[str, State]] = {"seen": State((V,))}

    def apply(self, xp: Any, logits: Any, params: Any, state: Any, noise: Any, tables: Any) -> Any:
        return self.write(xp, logits, params["strength"], state["seen"]), state

    def accept(self, xp: Any, token: Any, logits: Any, params: Any, state: Any, tables: Any, new: Any) -> Any:
        return {"seen": self.see(xp, token, state["seen"], new)}

    def write(self, xp: Any, logits: Any, strength: Any, seen: Any) -> Any:
        return logits - strength * seen

    def see(self, xp: Any, token: Any, seen: Any, new: Any) -> Any:
        return seen + xp.astype(xp.arange(V, dtype=xp.int64)[None, :] == token[:, None], xp.float32)


def in_place(xp: Any, logits: Any, strength: Any, seen: Any) -> Any:
    logits[:, 0] = 0.0
    return logits


#: What an author wrote, and the words that the line must have.
MISTAKES = {
    "if": (lambda xp, lg, s, seen: lg if s > 0 else lg * 2, "Python decision"),
    "max": (lambda xp, lg, s, seen: lg * max(s, 1.0), "Python decision"),
    "float": (lambda xp, lg, s, seen: lg * float(s), "Python decision"),
    "numpy": (lambda xp, lg, s, seen: np.exp(lg), "xp.<name>"),
    "item": (lambda xp, lg, s, seen: lg * s.item(), "no 'item'"),
    "method": (lambda xp, lg, s, seen: lg.clip(0, 1), "xp.clip"),
    "loop": (lambda xp, lg, s, seen: [row * 2.0 for row in lg], "loop over an array"),
    "len": (lambda xp, lg, s, seen: lg * len(lg), "len()"),
    "rows": (lambda xp, lg, s, seen: lg - xp.mean(lg, axis=0, keepdims=True), "mix rows"),
    "all": (lambda xp, lg, s, seen: lg - xp.max(lg), "without axis"),
    "batch": (lambda xp, lg, s, seen: xp.zeros((lg.shape[0], V)), "axis 0, the batch"),
    "row": (lambda xp, lg, s, seen: lg[0:1], "every row must be treated alike"),
    "mask": (lambda xp, lg, s, seen: lg[lg > 0], "array as an index"),
    "in place": (in_place, "in place"),
    "unknown": (lambda xp, lg, s, seen: xp.unique_values(lg), "xp.unique_values is not among"),
    "float64": (lambda xp, lg, s, seen: xp.astype(lg, xp.float64), "float64"),
    "mixed": (lambda xp, lg, s, seen: lg * xp.arange(V), "cast"),
    "shape": (lambda xp, lg, s, seen: lg[:, 1:], "expected float32[N, 11]"),
    "divide": (lambda xp, lg, s, seen: lg + xp.astype(xp.arange(V) / xp.arange(V), xp.float32), "division of integers"),
    "count": (lambda xp, lg, s, seen: xp.where(keep_largest(xp, lg, 3), lg, -xp.inf), "the count is int"),
    "nothing": (lambda xp, lg, s, seen: None, "NoneType"),
}


def link(cls: type[Strategy]) -> Link:
    return Link("mine", cls(NoConfig(), V), {"strength": 0.0})


def test_a_strategy_that_keeps_the_rules_compiles() -> None:
    check_compiles(link(Author))


@pytest.mark.parametrize("name", list(MISTAKES))
def test_mistakes_get_one_line_with_the_rule(name: str) -> None:
    wrong, words = MISTAKES[name]
    cls = type("Wrong", (Author,), {"write": lambda self, *given: wrong(*given)})
    with pytest.raises(PluginError) as caught:
        check_compiles(link(cls))
    line = str(caught.value)
    assert "'mine' cannot be compiled" in line
    assert words in line
    assert "\n" not in line


def test_the_line_names_the_source() -> None:
    class Wrong(Author):
        def apply(self, xp: Any, logits: Any, params: Any, state: Any, noise: Any, tables: Any) -> Any:
            if params["strength"] > 0:
                logits = logits * 2.0
            return logits, state

    with pytest.raises(PluginError, match=r'test_rules.py:\d+ `if params\["strength"\] > 0:`: a Python decision'):
        check_compiles(link(Wrong))


def test_a_state_other_than_declared_is_refused() -> None:
    class Wrong(Author):
        def see(self, xp: Any, token: Any, seen: Any, new: Any) -> Any:
            return seen[:, 1:]

    with pytest.raises(PluginError, match=r"accept\(\) returned state 'seen' as float32\[N, 10\]"):
        check_compiles(link(Wrong))
