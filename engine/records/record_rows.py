"""Records side by side over one compiled generator: a row that ends is given the next record before the next call.

`gentext.generation.slots` does this for texts of any kind, with Python objects for each row. Records are short, often
of ten symbols, and alike but for their streams and prefixes. So here all rows are arrays: their states are reset where
a record begins, and prefixes are read in the calls in which other rows draw. Which rows share a call is chosen by
`gentext.records.record_schedule`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gentext.exported.metadata import Bundle
from gentext.exported.signature import FINISH_BY_CODE
from gentext.generation.first_states import FirstStates
from gentext.generation.model_calls import GeneratorModel, forced_tokens
from gentext.generation.row_table import RowTable
from gentext.generation.rows import RowRequest
from gentext.generation.stacking import KINDS, AutomatonStack
from gentext.interfaces import Finish
from gentext.records.record_schedule import RecordSchedule

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


#: Stands for the record of a row that has none.
NO_TRY = RecordTry(place=-1, attempt=0, seed=0, stream=0, prefix=0)


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
        self._bundle, self._requests = bundle, requests
        self._most_symbols, self._keeps_tokens = most_symbols, keeps_tokens
        self._characters = bundle.characters_by_token
        self._schedule = RecordSchedule()
        self._first_states = FirstStates(bundle)
        self._first_arrays: tuple[object, dict[str, NDArray[Any]]] = (None, {})
        """The parameters of the last request, and the arrays in which its records begin."""
        # Parameters that all records share are fed as they are.
        is_shared = all(request.params is requests[0].params for request in requests)
        shared_params = requests[0].params if is_shared else {}
        self._table = RowTable(model, bundle)
        self._table.set_active_links(frozenset().union(*{request.active_links for request in requests}))
        self._table.shared_feeds = {**requests[0].tables, **shared_params}
        for kind in KINDS:  # all requests have the same automaton, which is then the whole stack
            stack = AutomatonStack(kind)
            stack.build([requests[0].automata.get(kind.state)])
            self._table.shared_feeds |= stack.feeds
        self._sources = [NO_TRY] * count
        """The record of each row."""
        self._free = [*range(count)]
        """The rows without a record."""
        self._calls = 0
        self._last_calls = np.zeros(count, np.int64)
        """[N] the number of the last call in which each row was, or before which it began."""
        first_arrays = {
            name: np.repeat(array, count, self._table.axis_by_name[name])
            for name, array in self._make_first_arrays(requests[0]).items()
        }
        self._table.add(first_arrays, np.zeros((count, 2), np.uint64), np.zeros(count, np.int64))
        self._length_by_prefix = np.array([len(request.prime) for request in requests])
        self._prefix_lengths = np.zeros(count, np.int64)
        """[N]."""
        self._counts = np.zeros(count, np.int64)
        """[N] the symbols that each row has read and drawn."""
        self._tokens = np.zeros((count, BUFFER_COLUMNS), np.int32)
        self._logprobs = np.zeros((count, BUFFER_COLUMNS), np.float32)
        """[N, C] those symbols, and their log-probabilities; 0 for those of prefixes."""

    @property
    def busy(self) -> int:
        """How many rows write a record."""
        return self.count - len(self._free)

    def advance(self, sources: Sequence[RecordTry]) -> list[DrawnRecord]:
        """Begin records, at most as many as rows are free, run the next call, and return the records that it ended."""
        began, processor_began = time.perf_counter(), time.process_time()
        if sources:
            self._reset(np.array(self._free[: len(sources)]), sources)
            del self._free[: len(sources)]
        busy = np.delete(np.arange(self.count), self._free)
        if not len(busy):
            return []
        chosen, positions = self._schedule.choose_call(self._counts[busy], self._last_calls[busy])
        rows = busy[chosen]
        positions = self._table.call_size(positions, len(rows))
        ended = self._call(rows, positions)
        drawn = self._collect(ended)
        # Other programs make the first of these longer, and several threads the second.
        seconds = min(time.perf_counter() - began, time.process_time() - processor_began)
        self._schedule.record_call(len(rows), positions, seconds, self._counts[ended])
        return drawn

    def _reset(self, rows: NDArray[np.int64], sources: Sequence[RecordTry]) -> None:
        """Have rows begin with records."""
        for row, source in zip(rows.tolist(), sources, strict=True):
            self._sources[row] = source
        _, _, seeds, streams, prefixes = zip(*sources, strict=True)
        prefix_lengths = self._length_by_prefix[list(prefixes)]
        self._table.restart(rows, np.array([seeds, streams], np.uint64).T, -prefix_lengths)
        self._prefix_lengths[rows] = prefix_lengths
        self._counts[rows], self._last_calls[rows] = 0, self._calls
        begin = 0
        for end in range(1, len(rows) + 1):  # rows with the same parameters begin together
            if end == len(rows) or self._requests[prefixes[end]].params is not self._requests[prefixes[begin]].params:
                self._table.put(rows[begin:end], self._make_first_arrays(self._requests[prefixes[begin]]))
                begin = end

    def _make_first_arrays(self, request: RowRequest) -> dict[str, NDArray[Any]]:
        """Return the arrays of one row before it has read anything."""
        params, arrays = self._first_arrays
        if params is not request.params:
            first_arrays = self._first_states.make(request).arrays | dict(request.params)
            shared = self._table.shared_feeds
            arrays = {name: array for name, array in first_arrays.items() if name not in shared}
            self._first_arrays = request.params, arrays
        return arrays

    def _call(self, rows: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        """Run the graph for ``size`` positions of rows, store what it returns, and return the rows that have ended."""
        positions = self._table.positions[rows]
        unread = [
            (column, self._requests[self._sources[rows[column]].prefix].prime[positions[column] :])
            for column in np.flatnonzero(positions < 0).tolist()
        ]
        forced = forced_tokens(size, len(rows), unread)
        drawn = self._table.call(forced, rows)
        self._store(rows, drawn.tokens, np.where(forced < 0, drawn.logprobs, 0))
        self._calls += 1
        self._last_calls[rows] = self._calls
        drawn_counts = self._counts[rows] - self._prefix_lengths[rows]
        return np.compress((drawn.ended != 0) | (drawn_counts >= self._most_symbols), rows)

    def _store(self, rows: NDArray[np.int64], tokens: NDArray[np.int64], logprobs: NDArray[np.float32]) -> None:
        """Put the tokens [K, N] of a call, -1 behind an end, behind those of its rows."""
        size, counts = len(tokens), self._counts[rows]
        end = int(counts.max()) + size
        if end > self._tokens.shape[1]:
            more_columns = max(end - self._tokens.shape[1], self._tokens.shape[1])
            self._tokens = np.pad(self._tokens, ((0, 0), (0, more_columns)))
            self._logprobs = np.pad(self._logprobs, ((0, 0), (0, more_columns)))
        places = rows[:, None], counts[:, None] + np.arange(size)
        self._tokens[places], self._logprobs[places] = tokens.T, logprobs.T
        self._counts[rows] = counts + (tokens >= 0).sum(axis=0)

    def _collect(self, ended: NDArray[np.int64]) -> list[DrawnRecord]:
        """Return the records of rows that have ended, which are free from now on."""
        if not len(ended):
            return []
        counts, begins = self._counts[ended], self._prefix_lengths[ended]
        ends = np.minimum(counts, begins + self._most_symbols)
        columns = max(1, int(ends.max()))
        logprobs = self._logprobs[ended, :columns]
        # One after the other, so that the sum depends on no neighbour, and is easily made elsewhere.
        sums = np.add.accumulate(logprobs, axis=1, dtype=np.float64)[np.arange(len(ended)), np.maximum(ends - 1, 0)]
        codes = np.where(counts > ends, 0, self._table.arrays["ended"][ended]).tolist()
        token_rows = self._tokens[ended, :columns].tolist()
        logprob_rows = logprobs.tolist() if self._keeps_tokens else [[]] * len(ended)
        rows, drawn = ended.tolist(), []
        for row, begin, end, code, logprob, row_tokens, row_logprobs in zip(
            rows, begins.tolist(), ends.tolist(), codes, sums.tolist(), token_rows, logprob_rows, strict=True
        ):
            source, tokens = self._sources[row], row_tokens[begin:end]
            finish: Finish = FINISH_BY_CODE[code] if code else "length"
            own_tokens, own_logprobs = (
                (tuple(tokens), tuple(row_logprobs[begin:end])) if self._keeps_tokens else ((), ())
            )
            drawn.append(DrawnRecord(source, self._decode(tokens), finish, logprob, own_tokens, own_logprobs))
        self._free += rows
        return drawn

    def _decode(self, tokens: list[int]) -> str:
        """Return the text of symbols; the boundary symbol has none."""
        if self._characters is not None:
            characters = self._characters
            return "".join([characters[token] for token in tokens])
        return self._bundle.join_symbols(tokens).decode("utf-8", "replace")
