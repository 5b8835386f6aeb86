"""What models and trainers may offer beyond their interfaces. There is nothing to inherit: it is enough to have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class SupportsPrepare(Protocol):
    """A model that may begin nearer to its text."""

    def prepare(self, counts: NDArray[np.int64]) -> None:
        """Called once on a new model; counts [V] tell how often each symbol stands in the training text."""
        ...


@runtime_checkable
class SupportsSymbolAxes(Protocol):
    """A model whose weights another run may begin with, even where its text has other symbols."""

    def symbol_axes(self) -> Mapping[str, int]:
        """Return the axis of the symbols for each tensor of the state dict that has a row for each symbol.

        For example ``{"embedding.weight": 0}``.
        """
        ...


@runtime_checkable
class SupportsHiddenMatrices(Protocol):
    """A model whose hidden matrices the optimizer Muon can train."""

    def hidden_matrices(self) -> Mapping[str, int]:
        """Return the names of the parameters of two dimensions that lead from hidden units to hidden units.

        No embedding and no head is among them. Behind each name stands how many matrices of equal height lie in the
        parameter below one another: ``{"lstm.weight_hh_l0": 4}``.
        """
        ...


@runtime_checkable
class SupportsProcesses(Protocol):
    """The class of a trainer that can be one of several processes (`World.of_process`), which torchrun started.

    Each process then calls all methods of `Trainer` with its own part of the batches, gets a run and hooks that
    only matter on rank 0, and must write nothing elsewhere.
    """

    distributed: bool
    """True."""
