"""Records side by side over one compiled generator: a row that ends is given the next record before the next call.

`gentext.slots` does this for texts of any kind, with Python objects for each row. Records are short, often of ten
symbols, and alike but for their streams and prefixes. So here all rows are arrays: their states are reset where a
record begins, and prefixes are read in the calls in which other rows draw.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gentext.bundle import Bundle
from gentext.compiled import MAX_LOGITS, GeneratorModel, check_results, draw_noise
from gentext.errors import FileFormatError
from gentext.interfaces import Finish
from gentext.record_schedule import RecordSchedule
from gentext.row_batch import CALL_INPUTS
from gentext.row_state import FirstStates
from gentext.rows import RowRequest
from gentext.signature import FINISH_BY_CODE
from gentext.stacking import KINDS, AutomatonStack
from gentext.stored import stored_chain

#: Columns by which the buffers of symbols grow.
BUFFER_COLUMNS = 64


class RecordTry(NamedTuple):
    """A record to draw."""

    place: int
    """Its place in the order of the records to write."""
    attempt: int
    """How many records were drawn for this place before, and thrown away."""
    seed: int
    stream: int
    """The random numbers to draw with."""
    prefix: int
    """The number of the prefix that it begins with."""


class DrawnRecord(NamedTuple):
    """A record that has ended, or was given up."""

    source: RecordTry
    text: str
    """Without its prefix."""
    finish: Finish
    """``end``; ``length`` for a record without an end within the symbols that it may have; ``masked``."""
    logprob: float
    """The sum of the log-probabilities of its symbols, that of the end among them."""
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Of each symbol; both are empty where nobody needs them."""


def symbol_limit(bundle: Bundle, length: int) -> int:
    """Return how many symbols a record of at most ``length`` characters may have, with its end.

    A symbol that may be a part of a character counts as a byte of UTF-8, of which a character has at most four.
    """
    return (length if bundle.characters_by_token is not None else 4 * length) + 1


class RecordRows:
    """Up to N rows over one compiled generator, each of which writes a record.

    Which records share a call, and how many positions it has, changes no record.
    """

    def __init__(
        self,
        model: GeneratorModel,
        bundle: Bundle,
        requests: Sequence[RowRequest],
        count: int,
        most_symbols: int,
        *,
        keeps_tokens: bool = False,
    ) -> None:
        """``requests`` has one for each prefix, all with the same tables; ``most_symbols`` is that of `symbol_limit`.

        Raises UnknownComponent where the code of a link with states is missing.
        """
        self.count = count
        self._model, self._bundle, self._requests = model, bundle, requests
        self._most_symbols, self._keeps_tokens = most_symbols, keeps_tokens
        self._characters = bundle.characters_by_token
        self._schedule = RecordSchedule()
        self._graph_seconds = 0.0
        """Of the last call."""
        self._first_states = FirstStates(bundle)
        self._first_arrays: tuple[object, dict[str, NDArray[Any]]] = (None, {})
        """The parameters of the last request, and the arrays in which its records begin."""
        inputs = model.signature.inputs
        self._axis_by_name = {
            port.name: axis for port in inputs if (axis := port.row_axis) is not None and port.name not in CALL_INPUTS
        }
        active_links = frozenset().union(*{request.active_links for request in requests})
        self._unused_noise = {
            link.name for link in stored_chain(bundle) if link.strategy.params and link.name not in active_links
        }
        self._constant_feeds = dict(requests[0].tables)
        for kind in KINDS:  # all requests have the same automaton, which is then the whole stack
            stack = AutomatonStack(kind)
            stack.build([requests[0].automata.get(kind.state)])
            self._constant_feeds |= stack.feeds
        self._sources: list[RecordTry] = []
        """The record of each row."""
        self._free: list[int] = []
        """The rows whose records have ended."""
        self._arrays = self._make_first_arrays(requests[0])
        """The last tokens, states and parameters of the rows, by the names of the inputs."""
        self._keys = np.zeros((1, 2), np.uint64)
        """[N, 2] seed and stream of each row."""
        self._prefix_lengths = np.zeros(1, np.int64)
        """[N]."""
        self._counts = np.zeros(1, np.int64)
        """[N] the symbols that each row has read and drawn."""
        self._tokens = np.zeros((1, BUFFER_COLUMNS), np.int32)
        self._logprobs = np.zeros((1, BUFFER_COLUMNS), np.float32)
        """[N, C] those symbols, and their log-probabilities; 0 for those of prefixes."""

    @property
    def busy(self) -> int:
        """How many rows write a record."""
        return len(self._sources) - len(self._free)

    def advance(self, sources: Sequence[RecordTry]) -> list[DrawnRecord]:
        """Begin records, at most as many as rows are free, run the next call, and return the records that it ended."""
        self._begin(sources)
        rows = len(self._sources)
        if not rows:
            return []
        begin = time.perf_counter()
        most_positions = max(1, MAX_LOGITS // (rows * self._bundle.vocab_size))
        positions = self._model.positions or min(self._schedule.choose_positions(), most_positions)
        ended = self._call(positions)
        drawn = self._collect(ended)
        own_seconds = time.perf_counter() - begin - self._graph_seconds
        self._schedule.record_call(rows, positions, self._graph_seconds, own_seconds)
        return drawn

    def _begin(self, sources: Sequence[RecordTry]) -> None:
        """Give records to free rows, and to new rows where none is left; remove rows that stay free."""
        begun = self._free[: len(sources)]
        missing = len(sources) - len(begun)
        if missing or len(self._free) > len(begun):
            staying = np.delete(np.arange(len(self._sources)), self._free[len(begun) :])
            begun = [*np.searchsorted(staying, begun).tolist(), *range(len(staying), len(staying) + missing)]
            self._sources = [self._sources[row] for row in staying.tolist()] + [*sources[len(sources) - missing :]]
            if self._sources:
                # Whatever a new row has is replaced below.
                self._select(np.concatenate([staying, np.zeros(missing, np.int64)]))
        self._free = []
        for row, source in zip(begun, sources, strict=True):
            self._sources[row] = source
        if begun:
            self._reset(np.array(begun), sources)

    def _select(self, rows: NDArray[np.int64]) -> None:
        """Replace the rows of all arrays by those with these numbers."""
        for name, axis in self._axis_by_name.items():
            self._arrays[name] = np.take(self._arrays[name], rows, axis)
        self._keys, self._prefix_lengths, self._counts = (
            self._keys[rows],
            self._prefix_lengths[rows],
            self._counts[rows],
        )
        self._tokens, self._logprobs = self._tokens[rows], self._logprobs[rows]

    def _reset(self, rows: NDArray[np.int64], sources: Sequence[RecordTry]) -> None:
        """Have rows begin with records."""
        self._keys[rows] = np.array([(source.seed, source.stream) for source in sources], np.uint64)
        requests = [self._requests[source.prefix] for source in sources]
        self._prefix_lengths[rows] = [len(request.prime) for request in requests]
        self._counts[rows] = 0
        begin = 0
        for end in range(1, len(requests) + 1):  # rows with the same parameters begin together
            if end == len(requests) or requests[end].params is not requests[begin].params:
                first_arrays = self._make_first_arrays(requests[begin])
                for name, axis in self._axis_by_name.items():
                    self._arrays[name][(slice(None),) * axis + (rows[begin:end],)] = first_arrays[name]
                begin = end

    def _make_first_arrays(self, request: RowRequest) -> dict[str, NDArray[Any]]:
        """Return the arrays of one row before it has read anything."""
        params, arrays = self._first_arrays
        if params is not request.params:
            arrays = self._first_states.make(request).arrays | dict(request.params)
            self._first_arrays = request.params, arrays
        return dict(arrays)

    def _call(self, size: int) -> NDArray[np.int64]:
        """Run the graph for ``size`` positions, take over what it returns, and return the rows that have ended."""
        rows, signature = len(self._sources), self._model.signature
        positions = self._counts - self._prefix_lengths
        forced = np.full((size, rows), -1, np.int64)
        for row in np.flatnonzero(positions < 0).tolist():
            unread = self._requests[self._sources[row].prefix].prime[int(self._counts[row]) :][:size]
            forced[: len(unread), row] = unread
        noise = draw_noise(signature, self._keys, positions, size, self._unused_noise)
        feeds = {"forced": forced, "noise": noise, "fresh": np.zeros(rows, np.bool_)}
        begin = time.perf_counter()
        results = self._model.call(self._arrays | self._constant_feeds | feeds)
        self._graph_seconds = time.perf_counter() - begin
        check_results(results, size, rows)
        tokens, codes = np.asarray(results["tokens"]), np.asarray(results["ended_out"])
        if tokens.min() < -1 or tokens.max() >= self._bundle.vocab_size:
            raise FileFormatError(
                f"the graph of the file returned tokens from {tokens.min()} to {tokens.max()}; expected -1, or 0 to "
                f"{self._bundle.vocab_size - 1}. The file is not as gen export writes it: export it again"
            )
        self._arrays |= {port.name: np.asarray(results[f"{port.name}_out"]) for port in signature.states}
        self._arrays["token"] = np.maximum(tokens[-1], 0)
        self._store(tokens, np.where(forced < 0, results["logprobs"], 0))
        drawn_counts = self._counts - self._prefix_lengths
        return np.flatnonzero((codes != 0) | (drawn_counts >= self._most_symbols))

    def _store(self, tokens: NDArray[np.int64], logprobs: NDArray[np.float32]) -> None:
        """Put the tokens [K, N] of a call, -1 behind an end, behind those of the rows."""
        size = len(tokens)
        end = int(self._counts.max()) + size
        if end > self._tokens.shape[1]:
            more_columns = max(end - self._tokens.shape[1], self._tokens.shape[1])
            self._tokens = np.pad(self._tokens, ((0, 0), (0, more_columns)))
            self._logprobs = np.pad(self._logprobs, ((0, 0), (0, more_columns)))
        places = np.arange(len(self._counts))[:, None], self._counts[:, None] + np.arange(size)
        self._tokens[places], self._logprobs[places] = tokens.T, logprobs.T
        self._counts += (tokens >= 0).sum(axis=0)

    def _collect(self, ended: NDArray[np.int64]) -> list[DrawnRecord]:
        """Return the records of rows that have ended, which are free from now on."""
        if not len(ended):
            return []
        counts, begins = self._counts[ended], self._prefix_lengths[ended]
        self._schedule.record_ends(counts)
        ends = np.minimum(counts, begins + self._most_symbols)
        columns = max(1, int(ends.max()))
        logprobs = self._logprobs[ended, :columns]
        # One after the other, so that the sum depends on no neighbour, and is easily made elsewhere.
        sums = np.add.accumulate(logprobs, axis=1, dtype=np.float64)[np.arange(len(ended)), np.maximum(ends - 1, 0)]
        sums = sums.tolist()
        codes = np.asarray(self._arrays["ended"])[ended].tolist()
        token_rows = self._tokens[ended, :columns].tolist()
        is_cut = (counts > ends).tolist()
        drawn = []
        for number, (row, begin, end) in enumerate(zip(ended.tolist(), begins.tolist(), ends.tolist(), strict=True)):
            tokens = token_rows[number][begin:end]
            finish: Finish = "length" if is_cut[number] or not codes[number] else FINISH_BY_CODE[codes[number]]
            text = self._decode(tokens)
            own_logprobs = tuple(logprobs[number, begin:end].tolist()) if self._keeps_tokens else ()
            own_tokens = tuple(tokens) if self._keeps_tokens else ()
            drawn.append(DrawnRecord(self._sources[row], text, finish, sums[number], own_tokens, own_logprobs))
        self._free = ended.tolist()
        return drawn

    def _decode(self, tokens: list[int]) -> str:
        """Return the text of symbols; the boundary symbol has none."""
        if self._characters is not None:
            characters = self._characters
            return "".join([characters[token] for token in tokens])
        return self._bundle.join_symbols(tokens).decode("utf-8", "replace")
