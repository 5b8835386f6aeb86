"""The test kit for authors: a good strategy passes, and each broken rule is told."""

from __future__ import annotations

from typing import Any

import pytest

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


class DecidesOnAValue(Base):
    def change(self, xp: Any, logits: Any, amount: Any, state: Any) -> Any:
        return logits * 0.5 if amount[0, 0] > 0.5 else logits


@pytest.mark.parametrize("cls", [Base, Good])
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
        (UnknownSwitch, r"switch is 'amuont'; expected one of its parameters \(amount\)"),
        (ChangesWithNeutralTables, "changes the logits at its neutral values {'shift': 0.0}"),
        (NumpyOnly, "the Array API does not have.*nan_to_num"),
        (ForgetsItsState, "state"),
        (StateOfAnotherType, "state count is"),
        (ChangesTheState, "changes an array in place"),
        (DecidesOnAValue, "never mix rows"),
    ],
)
def test_kit_rejects(cls: type[Strategy], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_strategy(cls)
