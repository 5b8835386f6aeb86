"""Many texts over one compiled generator: rows that begin and end while others go on, each as if it were alone.

A row that begins is fed its own first states and the start symbol with ``fresh`` false, since ``fresh`` would set its
automata to the first state of the stack. Primes are read in calls of their own, as no stop string counts within them.
"""

from __future__ import annotations

import collections
import itertools
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from gentext.bundle import Bundle
from gentext.compiled import MAX_POSITIONS, PREFILL_POSITIONS, GeneratorModel
from gentext.describe import chain_of
from gentext.errors import FileFormatError, GenError, UsageError
from gentext.interfaces import Finish
from gentext.manager import host
from gentext.row_batch import DrawnRows, RowBatch
from gentext.rows import RowRequest, RowState, Slot, begin_slot
from gentext.signature import FINISH_BY_CODE
from gentext.writing import BATCH_NUMBERS

#: Seconds between two chunks of a text, about.
CHUNK_SECONDS = 0.1
#: The same while a text waits for its first symbol.
FIRST_SECONDS = 0.01
#: Positions of a call, at least: with fewer, what a call costs by itself would take a good part of the time.
MIN_POSITIONS = 12


class SlotPiece(NamedTuple):
    """What a text has gained by a call."""

    slot: Slot
    text: str
    tokens: list[int]
    """The symbols that were drawn; characters that may become a stop string are not yet in ``text``."""
    logprobs: list[float]
    """Log-probability of each token, from the logits before the chain."""
    finish: Finish
    """"running", or why the text has ended."""
    error: GenError | None = None
    """Why the text cannot go on, which ends it too."""


class Schedule:
    """Chooses how many positions a call has: few while a text waits for its first symbol, many while none does.

    Times decide when a symbol is drawn, never which one.
    """

    def __init__(self, chunk_seconds: float, first_seconds: float) -> None:
        self.chunk_seconds, self.first_seconds = chunk_seconds, first_seconds
        self._position_seconds: dict[int, float] = {}
        """Seconds of a position in the last call of 2^(n-1) to 2^n - 1 rows, by n."""

    def choose_positions(self, rows: int, waits: bool, batches: int) -> int:
        """Return the positions of a call of so many rows, where as many batches take turns."""
        if not self._position_seconds:
            return 1
        size = rows.bit_length()
        nearest = min(self._position_seconds, key=lambda measured: abs(measured - size))
        # Twice the rows take at most twice the time, and half of them may take as long.
        position_seconds = self._position_seconds[nearest] * 2.0 ** max(0, size - nearest)
        seconds = (self.first_seconds if waits else self.chunk_seconds) / batches
        return max(MIN_POSITIONS, int(seconds / max(position_seconds, 1e-9)))

    def record_call(self, rows: int, positions: int, seconds: float) -> None:
        """Remember how long a call took."""
        self._position_seconds[rows.bit_length()] = seconds / positions


class Slots:
    """N slots over one compiled generator, for one thread. The caller keeps those who wait for a free one.

    Between two calls of `advance` texts may begin, with `join`, and end, with `leave`; `state` copies a row's state.
    Every text is the one that ``gen sample`` writes with its seed and stream, whatever else runs.
    """

    def __init__(
        self,
        model: GeneratorModel,
        bundle: Bundle,
        count: int,
        *,
        chunk_seconds: float = CHUNK_SECONDS,
        first_seconds: float = FIRST_SECONDS,
    ) -> None:
        """Raises UsageError for more slots than fit into memory, UnknownComponent when a link with states is missing.

        A row begins with the states that the installed code of the link returns.
        """
        most_slots = max(1, BATCH_NUMBERS // bundle.row_elements)
        if not 1 <= count <= most_slots:
            raise UsageError(f"{count} slots: expected 1 to {most_slots} for a model of this size")
        self.model, self.bundle, self.count = model, bundle, count
        self.schedule = Schedule(chunk_seconds, first_seconds)
        links_with_states = [link.name for link in bundle.chain if link.state]
        self._chain = chain_of(bundle, host().registry, links_with_states)
        self._joined: list[tuple[Slot, RowState]] = []
        """Rows that begin with the next call."""
        self._turns: collections.deque[RowBatch] = collections.deque()
        """Batches take turns: primes, and texts whose tables cannot be stacked."""
        self.busy = 0
        """The number of slots that write a text."""

    @property
    def free(self) -> int:
        """The number of slots that wait for a text."""
        return self.count - self.busy

    def join(self, request: RowRequest, state: RowState | None = None) -> Slot:
        """Begin a text with the next call; with ``state``, go on with it and read the prime behind it.

        Raises UsageError when no slot is free.
        """
        if not self.free:
            raise UsageError(f"all {self.count} slots write a text; expected a free one")
        slot, first_state = begin_slot(request, state, self.bundle, self._chain)
        self._joined.append((slot, first_state))
        self.busy += 1
        return slot

    def leave(self, slot: Slot) -> None:
        """End a text early: its slot is free, and the next call does without it."""
        if not slot.is_free:
            slot.is_free = True
            self.busy -= 1

    def state(self, slot: Slot) -> RowState | None:
        """Return a copy of a text's state between two calls; None while its prime is read, and after `leave`.

        A text that has ended has one where its request keeps it.
        """
        if slot.is_free or len(slot.unread):
            return slot.last_state
        for joined_slot, state in self._joined:
            if joined_slot is slot:
                return state
        batch = next(batch for batch in self._turns if slot in batch.slots)
        return batch.state(batch.slots.index(slot))

    def advance(self) -> list[SlotPiece]:
        """Run the next call, and return what texts have gained by it: nothing where it read primes."""
        self._let_go()
        ended = self._place(self._joined)
        self._joined = []
        if not self._turns:
            return ended
        batch = self._turns[0]
        self._turns.rotate(-1)
        waits = batch.reads or any(slot.waits for slot in batch.slots)
        rows = len(batch.slots)
        positions = self.schedule.choose_positions(rows, waits, len(self._turns))
        begin = time.perf_counter()
        positions, pieces = self._read(batch, positions) if batch.reads else self._draw(batch, positions)
        self.schedule.record_call(rows, positions, time.perf_counter() - begin)
        if not batch.slots:
            self._turns.remove(batch)
        return ended + pieces

    def _let_go(self) -> None:
        """Remove the rows that have left."""
        self._joined = [(slot, state) for slot, state in self._joined if not slot.is_free]
        for batch in list(self._turns):
            rows = [row for row, slot in enumerate(batch.slots) if slot.is_free]
            if rows:
                batch.remove(rows)
            if not batch.slots:
                self._turns.remove(batch)

    def _place(self, rows: list[tuple[Slot, RowState]]) -> list[SlotPiece]:
        """Put each row into the first batch that it fits in, or into a new one, whose turn is next.

        Returns the pieces of texts without length, which have nothing to draw.
        """
        pieces = []
        for slot, state in rows:
            reads = len(slot.unread) > 0
            if not reads and slot.request.length == 0:
                slot.decoder.end_row(slot.request.full_finish)
                slot.last_state = state if slot.request.keeps_state else None
                self.leave(slot)
                pieces.append(SlotPiece(slot, slot.text.text, [], [], slot.text.finish))
                continue
            batch = next((batch for batch in self._turns if batch.reads == reads and batch.fits(slot.request)), None)
            if batch is None:
                batch = RowBatch(self.model, self.bundle, slot.request.tables_key, reads=reads)
                self._turns.appendleft(batch)
            batch.add(slot, state)
        return pieces

    def _read(self, batch: RowBatch, positions: int) -> tuple[int, list[SlotPiece]]:
        """Read on in the primes of a batch, up to the end of the shortest. Rows that have read theirs draw from now on.

        Returns the positions of the call, and a piece of each text that ends with its prime.
        """
        shortest = min(len(slot.unread) for slot in batch.slots)
        positions = min(positions, PREFILL_POSITIONS, batch.max_positions, shortest)
        read = batch.read(positions)
        for row, slot in enumerate(batch.slots):
            if slot.request.echo:
                _feed(slot, read, row)
        read_rows = [row for row, slot in enumerate(batch.slots) if not len(slot.unread)]
        pieces: list[SlotPiece] = []
        if read_rows:
            ready = [(batch.slots[row], batch.state(row)) for row in read_rows]
            batch.remove(read_rows)
            pieces = self._place(ready)
        return positions, pieces

    def _draw(self, batch: RowBatch, positions: int) -> tuple[int, list[SlotPiece]]:
        """Draw in the rows of a batch. Returns the positions of the call, and what each text has gained."""
        positions = min(positions, MAX_POSITIONS, batch.max_positions, batch.most_symbols_left)
        positions = self.model.positions or positions
        drawn = batch.draw(positions)
        pieces, ended_rows = [], []
        for row, slot in enumerate(batch.slots):
            piece = _decode(slot, drawn, row)
            pieces.append(piece)
            if piece.finish == "running" and piece.error is None:
                continue
            ended_rows.append(row)
            self.leave(slot)
            if slot.request.keeps_state and piece.error is None:
                slot.last_state = batch.replay(row, len(piece.tokens))
        if ended_rows:
            batch.remove(ended_rows)
        return positions, pieces


def write_all(slots: Slots, requests: Iterable[RowRequest]) -> Iterator[SlotPiece]:
    """Write the texts of requests, each as soon as a slot is free, and yield what each call has added to them."""
    waiting = iter(requests)
    while True:
        for request in itertools.islice(waiting, slots.free):
            slots.join(request)
        if not slots.busy:
            return
        yield from slots.advance()


def _feed(slot: Slot, drawn: DrawnRows, row: int) -> None:
    slot.decoder.feed_tokens(drawn.tokens[:, row], drawn.logprobs[:, row])
    if slot.request.top_count and drawn.top_symbols is not None:
        slot.decoder.add_top_symbols(drawn.tokens[:, row], drawn.top_symbols[..., : slot.request.top_count], row)


def _decode(slot: Slot, drawn: DrawnRows, row: int) -> SlotPiece:
    """Add the new tokens of a row to its text, and return what that has gained."""
    text = slot.text
    characters, count = len(text.text), len(text.tokens)
    error = None
    try:
        _feed(slot, drawn, row)
    except FileFormatError as reason:  # the text would have no end; its neighbours go on
        error = reason
    finish = FINISH_BY_CODE[drawn.ended[row]]
    if not slot.decoder.done and finish != "running":
        slot.decoder.end_row(finish)
    return SlotPiece(slot, text.text[characters:], text.tokens[count:], text.logprobs[count:], text.finish, error)
