"""A text that a user and a model write in turns, as a tree: versions of the text share the pieces of their beginnings.

Whoever shows the text keeps it as a string. The tree finds the pieces that a string consists of, and so the state of
the model behind them: undoing a change is showing the string that was there before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from gentext.console import quiet
from gentext.generation.rows import RowRequest, RowState, Slot, row_requests
from gentext.generation.slots import Slots
from gentext.interfaces import Finish
from gentext.library.loading import TextModel
from gentext.noise import SEED_LIMIT
from gentext.requests.declaration import WritingOptions
from gentext.requests.spelling import KEYWORD_SPELLING, Spelling
from gentext.sessions.text_pieces import (
    NO_CONTENT,
    ContentDecoder,
    Piece,
    PlacedPiece,
    divide_piece,
    find_pieces,
    newest_text,
    sort_branches,
)

#: Characters of a piece, about. A branch from within a piece draws its symbols again, up to there.
PIECE_CHARACTERS = 1000


class TextTree:
    """All that was typed and written, for one thread at a time.

    A text to which only `write` has added is the one that ``gen sample`` writes with its seed. Behind typed text the
    model goes on with the state and at the position of the noise that it had.
    """

    def __init__(
        self,
        model: TextModel,
        slots: Slots,
        options: WritingOptions,
        seed: int,
        spelling: Spelling = KEYWORD_SPELLING,
    ) -> None:
        """Raises UsageError for options that the compiled chain cannot fulfil.

        :param slots: slots of the model, of which one is free.
        :param seed: what the first text is written with.
        """
        self._model, self._slots, self._spelling = model, slots, spelling
        self.options = options
        self.seed = seed
        """The seed that was used last."""
        self._is_seed_chosen = True
        """Whether the next text is written with `seed`, also where its beginning has another one."""
        self.finish: Finish = "length"
        """Why the last text has ended; "running" where it was stopped."""
        self.notes: list[str] = []
        """Remarks on the options, such as those that have no effect."""
        self.version = 0
        """Changes where a text may have got log-probabilities that it did not have."""
        self._calls = 0
        self._root = Piece(None, options)
        self.change_options(options)

    def change_options(self, options: WritingOptions) -> None:
        """Write with other options from now on. Raises UsageError for impossible ones, and then changes nothing."""
        self._request("", options, self.seed)
        self.options = options

    def choose_seed(self, seed: int) -> None:
        """Write the next text with a seed. Raises UsageError for what is no seed."""
        self._request("", self.options, seed)
        self.seed, self._is_seed_chosen = seed, True

    def write(self, text: str) -> Generator[str, None, None]:
        """Have the model go on behind a text, and yield what it adds, call by call; "" while it only reads.

        Closing the iterator stops the model; what it has written remains. A text that was written before goes on with
        its own seed. Where the model has gone on with that seed already, the next free seed is taken, which makes a new
        branch. A stop string ends the text, and is part of it.

        Raises PrimeError for characters that the model does not know, UsageError as the constructor.
        """
        self._calls += 1
        self.finish = "running"
        place, new_text = self._split(text)
        if new_text:
            place = yield from self._read(place, new_text)
        seed = self._free_seed(place)
        self.seed, self._is_seed_chosen = seed, False
        yield from self._draw(place, seed)

    def last_begin(self, text: str) -> int:
        """Return where the model began to write the end of a text, or where that branched off; its length if typed."""
        path, end = find_pieces(self._root, text)
        if end < len(text) or path[-1].piece.seed is None:
            return len(text)
        for place, before in zip(path[:0:-1], path[-2::-1], strict=True):
            if before.piece.seed is None or before.piece.call != place.piece.call or len(place.parent.children) > 1:
                return place.begin
        return 0

    def branch(self, text: str, cursor: int, step: int) -> str:
        """Return the text with another branch instead, at the last place before the cursor where there are some.

        The branches at a place are in the order in which they began; ``step`` is 1 for the next one, -1 for the one
        before.
        """
        place = self._last_fork(text, cursor)
        if place is None:
            return text
        branches = sort_branches(place.parent)
        piece = branches[(branches.index(place.piece) + step) % len(branches)]
        piece.use()
        return text[: place.begin] + piece.text + newest_text(piece)

    def describe_branch(self, text: str, cursor: int) -> tuple[int, int, int] | None:
        """Return the number of the branch that the text has at the cursor, from 1, of how many, and where it begins."""
        place = self._last_fork(text, cursor)
        if place is None:
            return None
        branches = sort_branches(place.parent)
        return branches.index(place.piece) + 1, len(branches), place.begin

    def character_logprobs(self, text: str) -> NDArray[np.float32]:
        """Return the log-probability of each character, as the model gave it; NaN where nobody has computed it."""
        path, end = find_pieces(self._root, text)
        parts = [piece.content.character_logprobs() for piece, _ in path]
        logprobs = np.full(len(text), np.nan, np.float32)
        computed = np.concatenate(parts)[:end]
        logprobs[: len(computed)] = computed
        return logprobs

    # -- places -------------------------------------------------------------------------

    def _last_fork(self, text: str, cursor: int) -> PlacedPiece | None:
        """Return the last piece of a text that begins before the cursor and has others beside it."""
        path, _ = find_pieces(self._root, text)
        forks = [
            place
            for place in path
            if place.piece.parent is not None and len(place.parent.children) > 1 and place.begin <= cursor
        ]
        return forks[-1] if forks else None

    def _split(self, text: str) -> tuple[Piece, str]:
        """Return the piece behind which the model goes on, and what is to be read behind it first.

        A piece that agrees in its beginning only is divided.
        """
        path, end = find_pieces(self._root, text)
        for piece, _ in path:
            piece.use()
        piece, begin = path[-1]
        if end < begin + len(piece.text):
            first = divide_piece(piece, end - begin)
            end = begin if first is path[-2].piece else begin + len(first.text)
            piece = first
        return piece, text[end:]

    def _free_seed(self, place: Piece) -> int:
        seed = self.seed if place.seed is None or self._is_seed_chosen else place.seed
        used_seeds = {child.seed for child in place.children if child.options == self.options}
        while seed in used_seeds:
            seed = (seed + 1) % SEED_LIMIT
        return seed

    # -- reading and writing -----------------------------------------------------------------------

    def _request(
        self, prime: str, options: WritingOptions, seed: int, *, reads: bool = False, continues: bool = True
    ) -> RowRequest:
        """Return a request for the text behind a prime; with ``reads``, one that only reads the prime.

        ``continues`` is whether it goes on behind other text. Raises the errors of
        `gentext.generation.writing.prepare_writing`.
        """
        options = options | {"seed": seed, "echo": reads, "continues": continues}
        with quiet():
            writing = self._model.prepare_writing(
                [prime], options | {"length": 0} if reads else options, self._spelling
            )
            [request] = row_requests(writing, keeps_state=True)
        self.notes = writing.notes
        return request

    def _run_slot(self, request: RowRequest, state: RowState | None) -> Generator[str, None, Slot]:
        """Run a request to its end, and return its slot; yields after each call, so that it can be stopped there."""
        slot = self._slots.join(request, state)
        try:
            while not slot.is_free:
                self._slots.advance()
                yield ""
        finally:
            self._slots.leave(slot)
        return slot

    def _read(self, parent: Piece, text: str) -> Generator[str, None, Piece]:
        """Read text behind a piece, and return it as a piece."""
        request = self._request(text, self.options, self.seed, reads=True)
        state = yield from self._compute_state(parent)
        slot = yield from self._run_slot(request, state)
        tokens = [int(token) for token in request.prime]
        content = ContentDecoder(self._model.bundle).decode(tokens, slot.text.prime_logprobs)
        if content.text != text:  # characters that the model does not know were left out or replaced
            content = NO_CONTENT._replace(text=text)
        piece = Piece(parent, self.options, call=self._calls, content=content, state=_clean(slot.last_state))
        parent.children.append(piece)
        self.version += 1
        return piece

    def _draw(self, parent: Piece, seed: int) -> Generator[str, None, None]:
        """Write behind a piece until the text ends or the iterator is closed.

        A text that has its length ends where a character does: until then the model draws on.
        """
        request = self._request("", self.options, seed, continues=parent is not self._root)
        state = yield from self._compute_state(parent)
        slot = self._slots.join(request, state)
        decoder = ContentDecoder(self._model.bundle)
        piece = Piece(parent, self.options, seed, self._calls)
        try:
            while not slot.is_free:
                for drawn in self._slots.advance():
                    if drawn.error is not None:
                        raise drawn.error
                    symbols = len(drawn.tokens) - (drawn.finish == "end")  # the end of a record is no part of the text
                    content = decoder.decode(drawn.tokens[:symbols], drawn.logprobs[:symbols])
                    piece.content = piece.content.join(content)
                    if piece.text and piece not in parent.children:
                        parent.children.append(piece)
                    self.finish = drawn.finish
                    yield content.text
                if slot.is_free and self.finish == "length" and decoder.is_unfinished:
                    slot = self._slots.join(dataclasses.replace(request, length=1), _clean(slot.last_state))
                if len(piece.text) >= PIECE_CHARACTERS and not decoder.is_unfinished and not slot.is_free:
                    piece.state = _clean(self._slots.state(slot))
                    parent, piece = piece, Piece(piece, self.options, seed, self._calls)
        finally:
            is_complete = slot.is_free and not decoder.is_unfinished
            self._slots.leave(slot)
            piece.state = _clean(slot.last_state) if is_complete else None

    def _compute_state(self, piece: Piece) -> Generator[str, None, RowState | None]:
        """Return the state behind a piece; where a piece was divided, draw or read its symbols again."""
        missing = []
        while piece.state is None and piece.parent is not None:
            missing.append(piece)
            piece = piece.parent
        state = piece.state
        for piece in reversed(missing):
            if piece.seed is None:
                request = self._request("", piece.options, self.seed, reads=True)
                request = dataclasses.replace(request, prime=piece.content.tokens)
            else:
                request = self._request("", piece.options | {"length": len(piece.text)}, piece.seed)
            slot = yield from self._run_slot(request, state)
            piece.state = state = _clean(slot.last_state)
        return state


def _clean(state: RowState | None) -> RowState | None:
    """Return a state without characters that wait, as they may become a stop string: the text has them already."""
    if state is None:
        return None
    return dataclasses.replace(state, decoder=dataclasses.replace(state.decoder, pending="", excess=""))
