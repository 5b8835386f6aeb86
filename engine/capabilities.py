"""Optional methods and attributes of components, as Protocols: a class that has them need not inherit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gentext.token_corpus import TokenCorpus


@runtime_checkable
class ReadsRecords(Protocol):
    """The class of a batcher that can cut records, see `gentext.token_corpus.TokenCorpus`."""

    reads_records: bool
    """True."""


@runtime_checkable
class ReportsPadding(Protocol):
    """A batcher that pads rows, and says by how much."""

    @property
    def padding(self) -> float:
        """Share of the positions of an epoch that have no target."""
        ...


@runtime_checkable
class SupportsPrepare(Protocol):
    """A model that adapts its initial weights to the training text."""

    def prepare(self, counts: NDArray[np.int64]) -> None:
        """Called once on a new model; counts [V] is how often each symbol occurs in the training text."""
        ...


@runtime_checkable
class SupportsSymbolAxes(Protocol):
    """A model whose weights can be loaded into a model for other symbols, by ``gen train --init-from``."""

    def symbol_axes(self) -> Mapping[str, int]:
        """Return the axis of the symbols for each tensor of the state dict that has a row for each symbol.

        For example ``{"embedding.weight": 0}``.
        """
        ...


@runtime_checkable
class SupportsHiddenMatrices(Protocol):
    """A model whose hidden matrices the optimizer Muon can train."""

    def hidden_matrices(self) -> Mapping[str, int]:
        """Return the two-dimensional parameters that lead from hidden units to hidden units: no embedding, no head.

        Each name maps to the number of matrices of equal height that are stacked in the parameter:
        ``{"lstm.weight_hh_l0": 4}`` for the four gates of an LSTM.
        """
        ...


@runtime_checkable
class SupportsMembers(Protocol):
    """A model of several networks that predict together, each of which learns by a loss of its own."""

    def member_logits(self, tokens: Any, state: Any) -> tuple[Any, Any]:
        """tokens [B, T] and the state give the logits of each member [members, B, T, V] and the new state.

        The trainer calls it in place of `forward`, whose logits [B, T, V] are what the members predict together.
        """
        ...


@runtime_checkable
class SupportsLogitScale(Protocol):
    """A model whose probabilities a trainer can make sharper or flatter when it is trained."""

    def scale_logits(self, factor: float) -> None:
        """Change the weights so that all logits are the former ones times ``factor``."""
        ...


@runtime_checkable
class SetsTextAside(Protocol):
    """A trainer that needs a part of the training text for something else than learning."""

    def part_to_learn(self, train: TokenCorpus) -> TokenCorpus:
        """Return the part that the batcher gets. `Trainer.fit` gets all of the training text."""
        ...


@runtime_checkable
class SupportsProcesses(Protocol):
    """The class of a trainer that can be one of several processes (`World.of_process`), which torchrun started.

    Each process then calls all methods of `Trainer` with its own part of the batches. Only rank 0 may write into the
    run; the hooks of the other ranks do nothing.
    """

    distributed: bool
    """True."""
