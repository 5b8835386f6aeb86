"""What the hook `adjust_settings` gets and returns: what plugins may know and change before training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gentext.values import Model

__all__ = ["Budget", "Change", "TrainingFacts"]


@dataclasses.dataclass(frozen=True)
class Budget:
    """How long a run will train, as far as it is known before its first step."""

    steps: int | None
    """Optimizer steps, where the user gave the budget as steps."""
    symbols: int
    """Symbols that training will read. With a budget of steps, it is the number of one pass over the text."""
    timed: bool
    """Whether the budget is in minutes: then ``symbols`` was measured on this machine."""


@dataclasses.dataclass(frozen=True)
class TrainingFacts:
    """What a plugin may know about a new run before it trains."""

    symbols: int
    """How many symbols of text there are to learn from; of records, with the end of each."""
    vocab_size: int
    """How many different symbols there are."""
    processes: int
    """How many processes share a batch."""
    preset: str
    """The preset that the run begins with."""
    model: Callable[..., Model]
    """What is registered under the name of the model: usually its class."""
    records: int = 0
    """How many records there are to learn from; 0: the corpus is one text."""
    budget: Budget | None = None
    """None in the first call, which comes before a budget in minutes is measured."""


@dataclasses.dataclass(frozen=True)
class Change:
    """One setting that a plugin changes."""

    key: str
    """``section.name``, for example ``model.hidden``."""
    value: Any
    """The new value, as a config file would have it."""
    reason: str
    """Why, in a few words that are printed after the value."""
