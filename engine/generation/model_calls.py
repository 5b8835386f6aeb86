"""Calls of a compiled generator: what its graph is fed for K positions of N rows, and a check of what it returns."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gentext.errors import FileFormatError
from gentext.exported.signature import FINISH_BY_CODE, TOP_OUTPUTS, Signature
from gentext.interfaces import Ids, OpenSampler, TopSymbols

#: Positions of a call, at most.
MAX_POSITIONS = 256
#: Logits of one call, at most: rows * positions * symbols, which the graph holds in memory at once (float32, 32 MB).
MAX_LOGITS = 2**23

#: Inputs of a call by name. A state may be anything that `numpy.asarray` reads, so that it can stay on a device.
Feeds = dict[str, Any]


class GeneratorModel(Protocol):
    """A backend that runs the graph of a generator."""

    signature: Signature
    """The inputs and outputs of the graph, with their shapes."""

    @property
    def positions(self) -> int | None:
        """The number of positions K of a call that draws tokens, and of one that reads, at most; None: any number."""
        ...

    def call(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run the graph for the K positions of ``forced`` [K, N], and return its outputs by name."""
        ...


@runtime_checkable
class SlotSampler(OpenSampler, Protocol):
    """An opened sampler that may have a generator for `gentext.generation.slots`."""

    @property
    def slot_model(self) -> GeneratorModel | None:
        """The generator; None where it has to prepare for each number of rows, as on a GPU."""
        ...


@dataclasses.dataclass(frozen=True)
class DrawnRows:
    """What a call of K positions has drawn in N rows."""

    tokens: NDArray[np.int64]
    """[K, N]; -1 after the end of a row."""
    logprobs: NDArray[np.float32]
    """[K, N]."""
    ended: NDArray[np.int64]
    """[N]: an index into `gentext.exported.signature.FINISH_BY_CODE`."""
    top_symbols: TopSymbols | None
    """[K, N, T] the most probable symbols, as many as a row wants; None where none does."""

    # Lists of all rows are made faster than those of one row after the other.
    @functools.cached_property
    def token_rows(self) -> list[list[int]]:
        """The tokens of each row."""
        return self.tokens.T.tolist()  # type: ignore[no-any-return]

    @functools.cached_property
    def logprob_rows(self) -> list[list[float]]:
        """The log-probabilities of each row."""
        return self.logprobs.T.tolist()  # type: ignore[no-any-return]


def first_feeds(signature: Signature, rows: int) -> Feeds:
    """Return the last tokens, the states and ``fresh`` of rows for their first call, of the right shapes.

    In rows that are ``fresh`` the graph begins with its own.
    """
    states = {
        port.name: np.zeros([rows if size == "N" else int(size) for size in port.shape], port.dtype)
        for port in signature.states
    }
    return states | {"token": np.zeros(rows, np.int64), "fresh": np.ones(rows, np.bool_)}


def next_feeds(signature: Signature, results: Mapping[str, Any]) -> Feeds:
    """Return the last tokens, the states and ``fresh`` for the call that continues after these results."""
    last_tokens = np.asarray(results["tokens"])[-1]
    states = {port.name: results[f"{port.name}_out"] for port in signature.states}
    return states | {"token": np.maximum(last_tokens, 0), "fresh": np.zeros(len(last_tokens), np.bool_)}


def forced_tokens(size: int, rows: int, unread: Iterable[tuple[int, Ids]] = ()) -> NDArray[np.int64]:
    """Return the tokens [K, N] that the rows of a call read in K = ``size`` positions, -1 where they draw.

    :param unread: the number of each row that reads, and all tokens that it has still to read.
    """
    forced = np.full((size, rows), -1, np.int64)
    for row, tokens in unread:
        block = tokens[:size]
        forced[: len(block), row] = block
    return forced


def read_results(results: Mapping[str, Any], positions: int, rows: int, top_count: int = 0) -> DrawnRows:
    """Return what a graph has drawn.

    Raises FileFormatError when it returned arrays of other shapes than were asked for, or an unknown code.
    """
    shapes: dict[str, tuple[int, ...]] = {
        "tokens": (positions, rows),
        "logprobs": (positions, rows),
        "ended_out": (rows,),
    }
    if top_count:
        shapes |= dict.fromkeys(TOP_OUTPUTS, (positions, rows, top_count))
    for name, shape in shapes.items():
        if np.shape(results[name]) != shape:
            raise _results_error(f"{name} of shape {np.shape(results[name])}", f"{shape}")
    ended = np.asarray(results["ended_out"])
    codes = ended.tolist()  # of a few rows a list is read faster than an array
    if min(codes) < 0 or max(codes) >= len(FINISH_BY_CODE):
        raise _results_error(f"ended_out from {min(codes)} to {max(codes)}", f"0 to {len(FINISH_BY_CODE) - 1}")
    top_symbols = TopSymbols(*(np.asarray(results[name]) for name in TOP_OUTPUTS)) if top_count else None
    return DrawnRows(np.asarray(results["tokens"]), np.asarray(results["logprobs"]), ended, top_symbols)


def check_tokens(tokens: NDArray[np.int64], vocab_size: int) -> None:
    """Raise FileFormatError for tokens [K, N] of a graph that are no symbols of its file."""
    if tokens.min() < -1 or tokens.max() >= vocab_size:
        raise _results_error(f"tokens from {tokens.min()} to {tokens.max()}", f"-1, or 0 to {vocab_size - 1}")


def _results_error(actual: str, expected: str) -> FileFormatError:
    return FileFormatError(
        f"the graph of the file returned {actual}; expected {expected}. "
        f"The file is not as gen export writes it: export it again"
    )
