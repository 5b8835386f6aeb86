"""Beginnings of texts, and a model that reads the next symbol of many of them in one call.

Inside a search the rows of a state come first, whatever axis the model has them on, so that rows can be copied from
and to any place.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gentext.components.samplers import check_model_logits, describe_sampler
from gentext.errors import FileFormatError, PluginError, refuse_exit
from gentext.exported.metadata import Bundle
from gentext.interfaces import Ids
from gentext.search.endings import TextFinish
from gentext.stepping import PREFILL_POSITIONS, ModelState, StepModel

#: The states of N rows: an array [N, ...] for each state of the model.
RowStates = list[NDArray[Any]]
#: Bytes that a beginning takes in a search, besides its state and 12 bytes for each symbol of the model.
PREFIX_BYTES = 1000


class Prefix:
    """The beginning of a text, up to and with one symbol; the first of all, whose parent is None, has no symbol."""

    __slots__ = ("child_logprobs", "child_tokens", "logprob", "parent", "position", "slot", "slot_users", "token")

    def __init__(self, parent: Prefix | None, token: int, logprob: float, position: tuple[int, ...] = ()) -> None:
        self.parent, self.token, self.logprob = parent, token, logprob
        self.position = position
        """Its position, see `gentext.search.endings`; empty until the model reads the symbol."""
        self.child_tokens: NDArray[np.int32] | None = None
        """The symbols that may follow, the most probable first; None before the model reads the last symbol."""
        self.child_logprobs: NDArray[np.float64] | None = None
        """The log-probability of this beginning with each of them."""
        self.slot = -1
        """Where the state after the symbol is stored, or -1."""
        self.slot_users = 0
        """How many entries of a search still need that state."""

    def tokens(self) -> tuple[int, ...]:
        """Return its symbols, from the first to the last."""
        tokens = []
        prefix = self
        while prefix.parent is not None:
            tokens.append(prefix.token)
            prefix = prefix.parent
        return tuple(reversed(tokens))


class Child(NamedTuple):
    """An entry of the heap: the symbol of that rank behind a prefix, which the model has not read yet."""

    prefix: Prefix
    rank: int


class Ending(NamedTuple):
    """An entry of the heap: a text that stop strings may end, some of which the model has not read to their end."""

    prefix: Prefix
    logprob: float
    """Of the text with the stop strings that one symbol completes."""
    tokens: NDArray[np.int64]
    """The symbols with which the longer stop strings begin."""
    logprobs: NDArray[np.float64]
    """The log-probability of the text with each of these."""
    boundary_logprob: float
    """The log-probability of the text with the boundary symbol; -inf in a model of one text."""


@dataclasses.dataclass(frozen=True)
class BestText:
    """One of the most probable texts of a model."""

    text: str
    """The new characters, without the prime and without the stop string."""
    logprob: float
    """Natural logarithm of its probability."""
    finish: TextFinish
    """What ends it: ``stop``, ``length``, ``match``, or ``end`` for a record."""
    tokens: tuple[int, ...] = dataclasses.field(repr=False)
    """The id of each of its symbols, without those of the stop string; a record's last one is the boundary symbol."""


class CompleteText(NamedTuple):
    """A complete text: a prefix, and its last symbol if the prefix does not have it yet."""

    prefix: Prefix
    token: int | None
    logprob: float
    finish: TextFinish

    def decode(self, token_bytes: Sequence[bytes]) -> BestText:
        """Return the text; ``token_bytes`` are the bytes of each symbol."""
        tokens = self.prefix.tokens() + (() if self.token is None else (self.token,))
        return BestText(b"".join(token_bytes[token] for token in tokens).decode(), self.logprob, self.finish, tokens)


class TextRanking:
    """Complete texts, of which those with the greatest log-probabilities are wanted.

    :param count: how many are wanted.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._serials = itertools.count()  # so that two texts of the same log-probability are never compared
        self._texts: list[tuple[float, int, CompleteText]] = []
        """A heap of the texts that were not taken out, by the negative of their log-probability."""
        self._best_logprobs: list[float] = []
        """A heap of the best log-probabilities, also of texts that were taken out."""

    @property
    def floor(self) -> float:
        """The log-probability that another text must exceed to be wanted; -inf while there are too few texts."""
        return self._best_logprobs[0] if len(self._best_logprobs) == self._count else -math.inf

    @property
    def highest(self) -> float:
        """The log-probability of the best text; -inf where there is none."""
        return -self._texts[0][0] if self._texts else -math.inf

    def add(self, text: CompleteText) -> None:
        """Add a text, if its log-probability is above the floor."""
        if text.logprob <= self.floor:
            return
        heapq.heappush(self._texts, (-text.logprob, next(self._serials), text))
        if len(self._best_logprobs) == self._count:
            heapq.heapreplace(self._best_logprobs, text.logprob)
        else:
            heapq.heappush(self._best_logprobs, text.logprob)

    def take(self) -> CompleteText:
        """Take out the best text."""
        return heapq.heappop(self._texts)[2]


class StatePool:
    """The states of many beginnings, each in a slot. Its memory is taken page by page, as slots are first used."""

    def __init__(self, bundle: Bundle, slots: int) -> None:
        self._arrays = [
            np.empty((slots, *(size for size in state.shape if size is not None)), state.dtype)
            for state in bundle.states
        ]
        self._slots, self._used = slots, 0
        self._released: list[int] = []

    @property
    def free(self) -> int:
        """How many slots are not used."""
        return self._slots - self._used + len(self._released)

    def store(self, states: RowStates, prefixes: Sequence[tuple[int, Prefix]]) -> None:
        """Store rows of states, each for a prefix, which gets its slot."""
        for _, prefix in prefixes:
            if self._released:
                prefix.slot = self._released.pop()
            else:
                prefix.slot = self._used
                self._used += 1
        rows, slots = [row for row, _ in prefixes], [prefix.slot for _, prefix in prefixes]
        for array, state in zip(self._arrays, states, strict=True):
            array[slots] = state[rows]

    def read(self, prefixes: Sequence[Prefix]) -> RowStates:
        """Return copies of the states of prefixes."""
        slots = [prefix.slot for prefix in prefixes]
        return [array[slots] for array in self._arrays]

    def release(self, prefix: Prefix) -> None:
        """Let other prefixes use the slot of this one."""
        self._released.append(prefix.slot)
        prefix.slot = -1
        prefix.child_tokens = prefix.child_logprobs = None


def state_bytes(bundle: Bundle) -> int:
    """Return the bytes of the states of one row."""
    return sum(
        math.prod(size for size in state.shape if size is not None) * np.dtype(state.dtype).itemsize
        for state in bundle.states
    )


class RowStepper:
    """A model that reads one symbol of each of N rows at a time, with their states in NumPy arrays.

    :param max_rows: rows of one call to the model; others are left to further calls.
    """

    def __init__(self, model: StepModel, bundle: Bundle, max_rows: int) -> None:
        self._model, self._bundle, self._max_rows = model, bundle, max_rows
        self._name = describe_sampler(model)

    def read_prime(self, prime: Ids) -> tuple[NDArray[np.float32], RowStates]:
        """Return the logits [1, V] and the states after the start token and a prime."""
        tokens = np.append(self._bundle.start, prime).astype(np.int64)[None]
        with refuse_exit(self._name):
            state = self._model.initial(1)
            for begin in range(0, tokens.shape[1], PREFILL_POSITIONS):
                logits, state = self._advance(tokens[:, begin : begin + PREFILL_POSITIONS], state)
        return logits[:, -1], self._rows_first(state, 1)

    def step(self, tokens: NDArray[np.int64], states: RowStates) -> tuple[NDArray[np.float32], RowStates]:
        """Read a token of each of N rows [N]; return the logits [N, V] after them, and the new states."""
        pieces = []
        for begin in range(0, len(tokens), self._max_rows):
            rows = slice(begin, begin + self._max_rows)
            logits, new_states = self.read(tokens[rows, None], [state[rows] for state in states])
            pieces.append((logits[:, -1], new_states))
        if len(pieces) == 1:
            return pieces[0]
        all_states = [np.concatenate(arrays) for arrays in zip(*(states for _, states in pieces), strict=True)]
        return np.concatenate([logits for logits, _ in pieces]), all_states

    def read(self, tokens: NDArray[np.int64], states: RowStates) -> tuple[NDArray[np.float32], RowStates]:
        """Read tokens [N, T] in one call, whatever N is; return the logits [N, T, V] after each, and the new states."""
        axes = [meta.spec.batch_axis for meta in self._bundle.states]
        state = tuple(
            np.ascontiguousarray(np.moveaxis(array, 0, axis)) for array, axis in zip(states, axes, strict=True)
        )
        with refuse_exit(self._name):
            logits, new_state = self._advance(tokens, state)
        return logits, self._rows_first(new_state, len(tokens))

    def _advance(self, tokens: NDArray[np.int64], state: ModelState) -> tuple[NDArray[np.float32], ModelState]:
        logits, new_state = self._model.advance(tokens, state)
        check_model_logits(self._model, logits, (*tokens.shape, self._bundle.vocab_size))
        return logits, new_state

    def _rows_first(self, state: ModelState, rows: int) -> RowStates:
        """Return a model's state of so many rows as arrays [rows, ...], or raise PluginError."""
        expected = [(meta.spec.with_batch(rows), np.dtype(meta.dtype)) for meta in self._bundle.states]
        try:
            arrays = [np.asarray(array) for array in state]
        except (TypeError, ValueError, RuntimeError):  # such as a tensor on a GPU
            arrays = []
        if [(array.shape, array.dtype) for array in arrays] != expected:
            raise PluginError(
                f"{self._name} has no arrays as its state, which must be copied for each beginning of a text; open an "
                f"exported file with the sampler onnx"
            )
        return [
            np.moveaxis(array, meta.spec.batch_axis, 0) for array, meta in zip(arrays, self._bundle.states, strict=True)
        ]


def log_probabilities(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """Return the log-softmax of logits [N, V] divided by a temperature, never above 0.

    Raises FileFormatError where the logits are no numbers.
    """
    logits64 = logits.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # infinite logits make NaN, which is reported below
        distances = (logits64 - logits64.max(axis=1, keepdims=True)) / temperature
        logprobs: NDArray[np.float64] = distances - np.log(np.exp(distances).sum(axis=1, keepdims=True))
    if np.isnan(logprobs).any():
        raise FileFormatError(
            "the model's logits are not a number (NaN): its weights are damaged; export or train it again"
        )
    return logprobs


def sum_probabilities(logprobs: NDArray[np.float64], is_counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the logarithm of the summed probabilities of each row's counted symbols; -inf where there are none."""
    totals: NDArray[np.float64] = np.logaddexp.reduce(np.where(is_counted, logprobs, -np.inf), axis=1)
    return totals


def prefix_bytes(bundle: Bundle) -> int:
    """Return the bytes that an open beginning takes in a search."""
    return state_bytes(bundle) + 12 * bundle.vocab_size + PREFIX_BYTES
