"""Many texts over one compiled generator: rows that begin and end while others go on, each as if it were alone.

A row that begins is fed its own first states and the start symbol with ``fresh`` false, since ``fresh`` would set its
automata to the first state of the stack. Primes are read in calls of their own, as no stop string counts within them.
"""

from __future__ import annotations

import collections
import dataclasses
import time

from gentext.errors import UsageError
from gentext.exported.batch_size import max_rows
from gentext.exported.metadata import Bundle
from gentext.exported.signature import FINISH_BY_CODE
from gentext.generation.first_states import FirstStates
from gentext.generation.model_calls import MAX_POSITIONS, GeneratorModel
from gentext.generation.row_batch import RowBatch
from gentext.generation.rows import RowRequest, RowState, Slot, SlotPiece

#: Seconds between two chunks of a text, about.
CHUNK_SECONDS = 0.1
#: The same while a text waits for its first symbol.
FIRST_SECONDS = 0.01
#: From so many rows on, rows with other links draw in calls of their own. With six kinds of rows, in one thread, that
#: took 12 % longer for 100 rows, and 14 % less for 200.
MIN_ROWS_APART = 150
#: Batches among which rows are divided by their links, at most.
MAX_BATCHES = 8
#: Positions of a call, at least: with fewer, what a call costs by itself would take a good part of the time.
MIN_POSITIONS = 12
#: Calls in which a text of the usual length is drawn, at least: on average it ends in the middle of its last call.
CALLS_OF_A_TEXT = 4
#: The share of the last text in the usual length.
LAST_TEXT_SHARE = 0.1


class Schedule:
    """Chooses how many positions a call has: few while a text waits for its first symbol, many while none does.

    Times and lengths decide when a symbol is drawn, never which one.
    """

    def __init__(self, chunk_seconds: float, first_seconds: float) -> None:
        self.chunk_seconds, self.first_seconds = chunk_seconds, first_seconds
        self._position_seconds: dict[int, float] = {}
        """Seconds of a position in the last call of 2^(n-1) to 2^n - 1 rows, by n."""
        self._usual_length: float | None = None
        """Symbols of the texts that have ended, where later ones count for more."""

    def choose_positions(self, rows: int, waits: bool, batches: int, longest: int = MAX_POSITIONS) -> int:
        """Return the positions of a call of so many rows, where as many batches take turns.

        No call has more than the longest of the texts has symbols, as a text may end soon.
        """
        if not self._position_seconds:
            return 1
        size = rows.bit_length()
        nearest = min(self._position_seconds, key=lambda measured: abs(measured - size))
        # Twice the rows take at most twice the time, and half of them may take as long.
        position_seconds = self._position_seconds[nearest] * 2.0 ** max(0, size - nearest)
        seconds = (self.first_seconds if waits else self.chunk_seconds) / batches
        limit = longest if self._usual_length is None else min(longest, self._usual_length / CALLS_OF_A_TEXT)
        return max(MIN_POSITIONS, int(min(limit, seconds / max(position_seconds, 1e-9))))

    def record_call(self, rows: int, positions: int, seconds: float) -> None:
        """Remember how long a call took."""
        self._position_seconds[rows.bit_length()] = seconds / positions

    def record_end(self, length: int) -> None:
        """Remember how many symbols a text had that has ended."""
        usual_length = length if self._usual_length is None else self._usual_length
        self._usual_length = usual_length + LAST_TEXT_SHARE * (length - usual_length)


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
        """Raises UsageError for more slots than fit into memory, UnknownComponent where a link is missing."""
        most_slots = max_rows(bundle)
        if not 1 <= count <= most_slots:
            raise UsageError(f"{count} slots: expected 1 to {most_slots} for a model of this size")
        self.model, self.bundle, self.count = model, bundle, count
        self.schedule = Schedule(chunk_seconds, first_seconds)
        self._first_states = FirstStates(bundle)
        self._joined: list[tuple[Slot, RowState]] = []
        """Rows that begin with the next call."""
        self._turns: collections.deque[RowBatch] = collections.deque()
        """Batches take turns: primes, and texts whose tables cannot be stacked."""
        self._has_left = False
        """Whether a text has left since the last call."""
        self.busy = 0
        """The number of slots that write a text."""

    @property
    def free(self) -> int:
        """The number of slots that wait for a text."""
        return self.count - self.busy

    def join(self, request: RowRequest, state: RowState | None = None) -> Slot:
        """Begin a text with the next call; with ``state``, go on with it and read the prime behind it.

        Raises UsageError when no slot is free, and for a state that no row of this file can have.
        """
        if not self.free:
            raise UsageError(f"all {self.count} slots write a text; expected a free one")
        state = self._first_states.make(request) if state is None else self._first_states.enter(state, request)
        slot = Slot(request, self.bundle, state)
        self._joined.append((slot, state))
        self.busy += 1
        return slot

    def leave(self, slot: Slot) -> None:
        """End a text early: its slot is free, and the next call does without it."""
        if not slot.is_free:
            slot.is_free = self._has_left = True
            self.busy -= 1

    def state(self, slot: Slot) -> RowState | None:
        """Return a copy of a text's state between two calls; None after `leave`.

        A text that has ended has one where its request keeps it. A text that goes on from the state gets those
        characters that are held back, as they may become a stop string.
        """
        if slot.is_free:
            return slot.last_state
        for joined_slot, state in self._joined:
            if joined_slot is slot:
                return dataclasses.replace(state, unread=tuple(slot.unread.tolist()), decoder=slot.decoder.state)
        batch = next(batch for batch in self._turns if slot in batch.slots)
        return batch.states([batch.slots.index(slot)])[0]

    def advance(self) -> list[SlotPiece]:
        """Run the next call, or read primes for a while; return a piece of each text that has gained or ended by it."""
        self._let_go()
        ended = self._place(self._joined)
        self._joined = []
        if not self._turns:
            return ended
        batch = self._turns[0]
        self._turns.rotate(-1)
        begin = time.perf_counter()
        pieces = ended + self._run_call(batch)
        # Otherwise the other rows would draw between the ends of two primes, and all longer primes wait for them.
        while batch.reads and batch.slots and time.perf_counter() - begin < self.schedule.chunk_seconds:
            pieces += self._run_call(batch)
        if not batch.slots:
            self._turns.remove(batch)
        return pieces

    def _run_call(self, batch: RowBatch) -> list[SlotPiece]:
        """Run the next call of a batch, and return what texts have gained by it."""
        waits = batch.reads or any(slot.waits for slot in batch.slots)
        rows = len(batch.slots)
        longest = MAX_POSITIONS if batch.reads else max(slot.text.token_count for slot in batch.slots)
        positions = self.schedule.choose_positions(rows, waits, len(self._turns), longest)
        begin = time.perf_counter()
        positions, pieces = self._read(batch, positions) if batch.reads else self._draw(batch, positions)
        self.schedule.record_call(rows, positions, time.perf_counter() - begin)
        return pieces

    def _let_go(self) -> None:
        """Remove the rows that have left."""
        if not self._has_left:
            return
        self._has_left = False
        self._joined = [(slot, state) for slot, state in self._joined if not slot.is_free]
        for batch in list(self._turns):
            rows = [row for row, slot in enumerate(batch.slots) if slot.is_free]
            if rows:
                batch.remove(rows)
            if not batch.slots:
                self._turns.remove(batch)

    def _place(self, rows: list[tuple[Slot, RowState]]) -> list[SlotPiece]:
        """Put each row into the first batch that it fits in, or into a new one, whose turn is next.

        Returns the pieces of texts that have nothing to draw.
        """
        pieces = []
        for slot, state in rows:
            reads, request, first_characters = len(slot.unread) > 0, slot.request, ""
            if not slot.has_begun:
                slot.has_begun = True
                first_characters = slot.decoder.release_before_prime() if reads else slot.decoder.release_excess()
            if not reads and request.length == 0 and not slot.decoder.done:
                slot.decoder.end_row(request.full_finish)
            if first_characters or slot.decoder.done:
                pieces.append(SlotPiece(slot, first_characters, slot.text.finish, 0, [], []))
            if slot.decoder.done:
                if request.keeps_state:
                    slot.last_state = dataclasses.replace(state, decoder=slot.decoder.state)
                self.leave(slot)
                continue
            batch = self._find_batch(request, reads)
            if batch is None:
                batch = RowBatch(self.model, self.bundle, request.tables_key, reads=reads)
                self._turns.appendleft(batch)
            batch.add(slot, state)
        return pieces

    def _find_batch(self, request: RowRequest, reads: bool) -> RowBatch | None:
        """Return the batch for a row that reads its prime or draws; None: it needs a new one.

        Where there are many rows, those that draw with the same links share calls: a row would make the others pay for
        its links. Few rows share calls whatever their links, as a call of a few costs nearly as much as one of many.
        """
        batches = [batch for batch in self._turns if batch.reads == reads and batch.fits(request)]
        alike = next((batch for batch in batches if batch.active_links == request.active_links), None)
        rows = sum(len(batch.slots) for batch in batches)
        if alike is None and batches and (reads or rows < MIN_ROWS_APART or len(batches) >= MAX_BATCHES):
            return batches[0]
        return alike

    def _read(self, batch: RowBatch, positions: int) -> tuple[int, list[SlotPiece]]:
        """Read on in the primes of a batch, up to the end of the shortest. Rows that have read theirs draw from now on.

        Returns the positions of the call, and a piece of each text that ends with its prime.
        """
        shortest = min(len(slot.unread) for slot in batch.slots)
        positions = batch.table.call_size(min(positions, shortest), len(batch.slots), reads=True)
        read = batch.read(positions)
        for row, slot in enumerate(batch.slots):
            if slot.request.echo:
                slot.feed(read, row)
        read_rows = [row for row, slot in enumerate(batch.slots) if not len(slot.unread)]
        pieces: list[SlotPiece] = []
        if read_rows:
            ready = list(zip([batch.slots[row] for row in read_rows], batch.states(read_rows), strict=True))
            batch.remove(read_rows)
            pieces = self._place(ready)
        return positions, pieces

    def _draw(self, batch: RowBatch, positions: int) -> tuple[int, list[SlotPiece]]:
        """Draw in the rows of a batch. Returns the positions of the call, and what each text has gained."""
        positions = batch.table.call_size(min(positions, batch.most_symbols_left), len(batch.slots))
        counts_before = [slot.text.token_count for slot in batch.slots]
        drawn = batch.draw(positions)
        pieces, ended_rows = [], []
        ended = drawn.ended.tolist()
        for row, slot in enumerate(batch.slots):
            piece = slot.write(drawn, row, FINISH_BY_CODE[ended[row]])
            if piece.finish != "running" or piece.error is not None:
                ended_rows.append(row)
                self.schedule.record_end(piece.token_count)
                self.leave(slot)
            elif not (piece.text or piece.tokens):
                continue
            pieces.append(piece)
        if ended_rows:
            self._keep_states(
                batch, {row: batch.slots[row].text.token_count - counts_before[row] for row in ended_rows}
            )
            batch.remove(ended_rows)
        return positions, pieces

    @staticmethod
    def _keep_states(batch: RowBatch, counts: dict[int, int]) -> None:
        """Keep the states of rows that have ended after so many symbols of the last call, where they are needed.

        That of a record is in front of its end: whoever goes on draws the end again, or something else.
        """
        needed = {
            row: count - (batch.slots[row].text.finish == "end")
            for row, count in counts.items()
            if batch.slots[row].request.keeps_state
        }
        for row, state in zip(needed, batch.replay(needed) if needed else [], strict=True):
            batch.slots[row].last_state = state
