"""Mistakes that authors of strategies make, and the one line that each of them gets."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from gentext import NoConfig, Param, State, Strategy, keep_largest
from gentext.errors import PluginError
from gentext.export.strategies.check import check_compiles
from gentext.sampling.chain import Link

V = 11


class Author(Strategy):
    params: ClassVar[dict[str, Param]] = {"strength": Param(0.0, "how much", low=0, high=1)}
    state: ClassVar[dict[str, State]] = {"counts": State((V,))}

    def apply(self, xp: Any, logits: Any, params: Any, state: Any, noise: Any, tables: Any) -> Any:
        return self.write(xp, logits, params["strength"], state["counts"]), state

    def accept(self, xp: Any, token: Any, logits: Any, params: Any, state: Any, tables: Any, new: Any) -> Any:
        return {"counts": self.add(xp, token, state["counts"], new)}

    def write(self, xp: Any, logits: Any, strength: Any, counts: Any) -> Any:
        return logits - strength * counts

    def add(self, xp: Any, token: Any, counts: Any, new: Any) -> Any:
        return counts + xp.astype(xp.arange(V, dtype=xp.int64)[None, :] == token[:, None], xp.float32)


def in_place(xp: Any, logits: Any, strength: Any, counts: Any) -> Any:
    logits[:, 0] = 0.0
    return logits


#: The author's code, and the words that the line must have.
MISTAKES = {
    "if": (lambda xp, lg, s, counts: lg if s > 0 else lg * 2, "Python decision"),
    "max": (lambda xp, lg, s, counts: lg * max(s, 1.0), "Python decision"),
    "float": (lambda xp, lg, s, counts: lg * float(s), "Python decision"),
    "numpy": (lambda xp, lg, s, counts: np.exp(lg), "xp.<name>"),
    "item": (lambda xp, lg, s, counts: lg * s.item(), "no 'item'"),
    "method": (lambda xp, lg, s, counts: lg.clip(0, 1), "xp.clip"),
    "loop": (lambda xp, lg, s, counts: [row * 2.0 for row in lg], "loop over an array"),
    "len": (lambda xp, lg, s, counts: lg * len(lg), "len()"),
    "rows": (lambda xp, lg, s, counts: lg - xp.mean(lg, axis=0, keepdims=True), "mix rows"),
    "all": (lambda xp, lg, s, counts: lg - xp.max(lg), "without axis"),
    "batch": (lambda xp, lg, s, counts: xp.zeros((lg.shape[0], V)), "axis 0, the batch"),
    "row": (lambda xp, lg, s, counts: lg[0:1], "every row must be treated alike"),
    "mask": (lambda xp, lg, s, counts: lg[lg > 0], "array as an index"),
    "in place": (in_place, "in place"),
    "unknown": (lambda xp, lg, s, counts: xp.unique_values(lg), "xp.unique_values is not among"),
    "float64": (lambda xp, lg, s, counts: xp.astype(lg, xp.float64), "float64"),
    "mixed": (lambda xp, lg, s, counts: lg * xp.arange(V), "cast"),
    "shape": (lambda xp, lg, s, counts: lg[:, 1:], "expected float32[N, 11]"),
    "divide": (
        lambda xp, lg, s, counts: lg + xp.astype(xp.arange(V) / xp.arange(V), xp.float32),
        "division of integers",
    ),
    "count": (lambda xp, lg, s, counts: xp.where(keep_largest(xp, lg, 3), lg, -xp.inf), "the count is int"),
    "nothing": (lambda xp, lg, s, counts: None, "NoneType"),
}


def link(cls: type[Strategy]) -> Link:
    return Link("mine", cls(NoConfig(), V), {"strength": 0.0})


def test_a_strategy_that_keeps_the_rules_compiles() -> None:
    check_compiles(link(Author))


@pytest.mark.parametrize("name", list(MISTAKES))
def test_mistakes_get_one_line_with_the_rule(name: str) -> None:
    mistake, words = MISTAKES[name]
    cls = type("Wrong", (Author,), {"write": lambda self, *arguments: mistake(*arguments)})
    with pytest.raises(PluginError) as raised:
        check_compiles(link(cls))
    line = str(raised.value)
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
        def add(self, xp: Any, token: Any, counts: Any, new: Any) -> Any:
            return counts[:, 1:]

    with pytest.raises(PluginError, match=r"accept\(\) returned state 'counts' as float32\[N, 10\]"):
        check_compiles(link(Wrong))
