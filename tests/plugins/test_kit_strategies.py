"""The check of gentext.testing for strategies finds each planted fault, and names its rule."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

from gentext.export.strategies.namespace import xp as compiled_xp
from gentext.strategy import Param, State, Strategy, Table
from gentext.testing import check_strategy


class Base(Strategy):
    """Halves the logits, or does one thing wrong."""

    params = {"amount": Param(0.0, "how much", low=0, high=1)}  # noqa: RUF012

    def apply(self, xp: Any, logits: Any, params: Any, state: Any, noise: Any, tables: Any) -> Any:
        return self.change(xp, logits, params["amount"], state), state

    def change(self, xp: Any, logits: Any, amount: Any, state: Any) -> Any:
        return logits * (1.0 - amount / 2.0)


class Good(Base):
    """Everything at once, within the rules."""

    uniforms = 2
    state = {"seen": State((3,), "int64")}  # noqa: RUF012
    tables = {"bias": Table((None,), "float32", 0.0)}  # noqa: RUF012

    def apply(self, xp: Any, logits: Any, params: Any, state: Any, noise: Any, tables: Any) -> Any:
        shift = params["amount"] * noise[:, :1] + tables["bias"] * params["amount"]
        return logits - shift, state

    def accept(self, xp: Any, token: Any, logits: Any, params: Any, state: Any, tables: Any, new: Any) -> Any:
        return {"seen": xp.concat([state["seen"][:, 1:], xp.where(new, token[:, None], -1)], axis=1)}


class ReducesOverRows(Base):
    def change(self, xp: Any, logits: Any, amount: Any, state: Any) -> Any:
        return xp.where((amount > 0.0) & (logits < xp.max(logits, axis=0, keepdims=True)), -xp.inf, logits)


class ReadsTheRow(Base):
    def change(self, xp: Any, logits: Any, amount: Any, state: Any) -> Any:
        return logits - amount * xp.astype(xp.arange(logits.shape[0])[:, None], xp.float32)


class ChangesInPlace(Base):
    def change(self, xp: Any, logits: Any, amount: Any, state: Any) -> Any:
        logits *= 1.0 - amount
        return logits


class Float64(Base):
    def change(self, xp: Any, logits: Any, amount: Any, state: Any) -> Any:
        return xp.astype(logits, xp.float64)


class OtherShape(Base):
    def change(self, xp: Any, logits: Any, amount: Any, state: Any) -> Any:
        return logits[:, :-1]


class Unmasks(Base):
    def change(self, xp: Any, logits: Any, amount: Any, state: Any) -> Any:
        return xp.where((logits == -xp.inf) & (amount > 0.0), 0.0, logits)


class GivesNaN(Base):
    def change(self, xp: Any, logits: Any, amount: Any, state: Any) -> Any:
        return xp.where(amount > 0.0, logits - logits, logits)


class ChangesAtNeutral(Base):
    def change(self, xp: Any, logits: Any, amount: Any, state: Any) -> Any:
        return logits + 0.1


class IgnoresItsSwitch(Base):
    params = {"amount": Param(0.0, "how much", low=0, high=1), "extra": Param(0.0, "how much more", low=0, high=1)}  # noqa: RUF012
    switch = "amount"

    def apply(self, xp: Any, logits: Any, params: Any, state: Any, noise: Any, tables: Any) -> Any:
        return logits * (1.0 - params["amount"] / 2.0) - params["extra"], state


class UnknownSwitch(Base):
    switch = "amuont"


class ChangesWithNeutralTables(Strategy):
    tables = {"shift": Table((None,), "float32", 0.0)}  # noqa: RUF012

    def make_tables(self, tokenizer: Any, options: Any) -> Any:
        return {"shift": [1.0]}

    def apply(self, xp: Any, logits: Any, params: Any, state: Any, noise: Any, tables: Any) -> Any:
        return logits + 2.0 - tables["shift"][None, :], state


class UnknownPlace(Base):
    place = "end"  # type: ignore[assignment]


class OneNameTwice(Base):
    state = {"amount": State((1,))}  # noqa: RUF012


class DrawsItself(Base):
    def change(self, xp: Any, logits: Any, amount: Any, state: Any) -> Any:
        return logits * (1.0 - amount * xp.asarray(np.random.default_rng().random(1), dtype=xp.float32))


class CountsItsCalls(Base):
    calls = 0.0

    def change(self, xp: Any, logits: Any, amount: Any, state: Any) -> Any:
        self.calls += 0.001
        return logits * (1.0 - amount * self.calls)


class OtherwiseCompiled(Base):
    def change(self, xp: Any, logits: Any, amount: Any, state: Any) -> Any:
        return logits * (1.0 - amount / (4.0 if xp is compiled_xp else 2.0))


class ForgetsCompiled(Base):
    """Its state is another one compiled, and shows in the logits one position later."""

    state = {"count": State((1,))}  # noqa: RUF012

    def change(self, xp: Any, logits: Any, amount: Any, state: Any) -> Any:
        return logits * (1.0 + amount * state["count"])

    def accept(self, xp: Any, token: Any, logits: Any, params: Any, state: Any, tables: Any, new: Any) -> Any:
        return {"count": state["count"] + (0.0 if xp is compiled_xp else 1.0)}


class CountsUniqueValues(Base):
    def change(self, xp: Any, logits: Any, amount: Any, state: Any) -> Any:
        return logits * (1.0 - amount / 2.0) if xp.unique_values(amount).shape[0] > 0 else logits


class NeedsFiveSymbols(Base):
    def change(self, xp: Any, logits: Any, amount: Any, state: Any) -> Any:
        return xp.where((amount > 0.0) & (logits[:, 4:5] == 9.5), 0.5 * logits, logits)


class NumpyOnly(Base):
    def change(self, xp: Any, logits: Any, amount: Any, state: Any) -> Any:
        return xp.where(amount > 0.0, xp.nan_to_num(logits, neginf=-xp.inf), logits)


class ForgetsItsState(Base):
    state = {"count": State((2,))}  # noqa: RUF012

    def accept(self, xp: Any, token: Any, logits: Any, params: Any, state: Any, tables: Any, new: Any) -> Any:
        return {}


class StateOfAnotherType(ForgetsItsState):
    def accept(self, xp: Any, token: Any, logits: Any, params: Any, state: Any, tables: Any, new: Any) -> Any:
        return {"count": xp.astype(state["count"], xp.int64)}


class ChangesTheState(ForgetsItsState):
    def accept(self, xp: Any, token: Any, logits: Any, params: Any, state: Any, tables: Any, new: Any) -> Any:
        state["count"][:, 0] += 1.0
        return state


class EndsRows(Base):
    """Ends a row with its first new token."""

    state = {"ended": State((), "bool")}  # noqa: RUF012
    ends = "ended"

    def accept(self, xp: Any, token: Any, logits: Any, params: Any, state: Any, tables: Any, new: Any) -> Any:
        return {"ended": state["ended"] | new[:, 0]}


class EndsByAnotherName(EndsRows):
    ends = "end"


class EndsByANumber(EndsRows):
    state = {"ended": State((1,))}  # noqa: RUF012


class EndsInThePrime(EndsRows):
    def accept(self, xp: Any, token: Any, logits: Any, params: Any, state: Any, tables: Any, new: Any) -> Any:
        return {"ended": state["ended"] | (token >= 0)}


class GoesOn(EndsRows):
    def accept(self, xp: Any, token: Any, logits: Any, params: Any, state: Any, tables: Any, new: Any) -> Any:
        return {"ended": ~state["ended"] & new[:, 0]}


class DecidesOnAValue(Base):
    def change(self, xp: Any, logits: Any, amount: Any, state: Any) -> Any:
        return logits * 0.5 if amount[0, 0] > 0.5 else logits


@pytest.mark.parametrize("cls", [Base, Good, EndsRows])
def test_kit_accepts_a_good_strategy(cls: type[Strategy]) -> None:
    check_strategy(cls)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (ReducesOverRows, "never mix rows"),
        (ReadsTheRow, "never mix rows"),
        (ChangesInPlace, "changes an array in place"),
        (Float64, "must return float32"),
        (OtherShape, "must return float32 logits of shape"),
        (Unmasks, "a masked symbol came back"),
        (GivesNaN, "have NaN"),
        (ChangesAtNeutral, "changes the logits at its neutral values"),
        (IgnoresItsSwitch, "changes the logits at its neutral values {'amount': 0.0, 'extra': 1"),
        (UnknownPlace, "place is 'end'; expected one of first, penalty, mask, shape, last"),
        (OneNameTwice, "one name stands for two of its parameters, states and tables"),
        (DrawsItself, "gives other logits the second time; draw no random numbers but those of noise"),
        (CountsItsCalls, "gives other logits the second time; .* keep nothing in the strategy"),
        (OtherwiseCompiled, "compiled and in NumPy, .* of the draws would differ.*{'amount'"),
        (ForgetsCompiled, "compiled and in NumPy, .* of the draws would differ.*apply and accept"),
        (CountsUniqueValues, r"cannot be compiled: test_kit_strategies.py:\d+ `return .*xp.unique_values is not among"),
        (NeedsFiveSymbols, "with 2 symbols, though not with more: .*`return xp.where.*Incompatible dimensions"),
        (UnknownSwitch, r"switch is 'amuont'; expected one of its parameters \(amount\)"),
        (ChangesWithNeutralTables, "changes the logits at its neutral values {'shift': 0.0}"),
        (NumpyOnly, "the Array API does not have.*nan_to_num"),
        (ForgetsItsState, "state"),
        (StateOfAnotherType, "state count is"),
        (ChangesTheState, "changes an array in place"),
        (EndsByAnotherName, r"ends is 'end'; expected None, or the name of a state State\(\(\), 'bool'\)"),
        (EndsByANumber, "ends is 'ended'; expected None, or the name of a state"),
        (EndsInThePrime, "ended is true in the prime, which never ends a row"),
        (GoesOn, "ended becomes false again; a row that has ended stays so"),
        (DecidesOnAValue, "never mix rows"),
    ],
)
def test_kit_rejects(cls: type[Strategy], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_strategy(cls)


def test_kit_says_that_it_did_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the train extra what is found on NumPy counts, and a warning tells what is missing."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "spox" else find_spec(name))
    with pytest.warns(UserWarning, match=r"Base was not compiled: that needs pip install 'gentext\[train\]'"):
        check_strategy(Base)
    with pytest.raises(AssertionError, match="never mix rows"):
        check_strategy(ReducesOverRows)
