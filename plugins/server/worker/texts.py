"""A text that a worker writes: from its job to a row of the generator, and from the row's pieces to events."""

from __future__ import annotations

import codecs
import collections
import dataclasses
from collections.abc import Collection

import numpy as np

from gentext.console import quiet
from gentext.errors import SessionError, UsageError, nearest
from gentext.exported.metadata import Bundle, readable_symbol
from gentext.generation.rows import RowRequest, RowState, Slot, SlotPiece, row_requests
from gentext.generation.slots import Slots
from gentext.library.loading import TextModel
from gentext.plugins.server.tasks.messages import SymbolScore, TextEvent, TextJob
from gentext.requests.declaration import ManyTextsArguments
from gentext.requests.fields import fields_of
from gentext.requests.spelling import KeywordSpelling
from gentext.sessions.continuation import continue_text, is_within_match, make_session
from gentext.sessions.session import pack, unpack
from gentext.sessions.session_settings import SessionSettings, settings_of

#: The ``finish`` of a text that the server has ended.
CUT = "cut"
#: The names that a prime and options have in a request.
REQUEST_NAMES = {"prime": "prompt"} | {name: field.name for name, field in fields_of(ManyTextsArguments).items()}


class RequestSpelling(KeywordSpelling):
    """Parameters as fields of a request."""

    def name(self, parameter: str) -> str:
        return REQUEST_NAMES.get(parameter, parameter)

    def full_name(self, link: str, parameter: str) -> str:
        return f"{link}.{parameter}"

    def assignment(self, parameter: str, setting: object) -> str:
        return super().assignment(self.name(parameter), setting)

    def unknown_parameter(self, parameter: str, parameters: Collection[str]) -> UsageError:
        return UsageError(f"no parameter {parameter}.{nearest(parameter, parameters)} See /docs")


class RunningText:
    """A text in a slot, or held."""

    def __init__(
        self, job: TextJob, request: RowRequest, state: RowState | None, settings: SessionSettings, bundle: Bundle
    ) -> None:
        self.number = job.number
        self._request, self._state = request, state
        self._settings, self._bundle = settings, bundle
        self.slot: Slot | None = None
        """Its slot; None before it has one, and while it is held."""
        self._drawn = 0
        """The symbols that were drawn in the slot up to the last event, less those of earlier slots without one."""
        self._prompt_tokens = len(request.prime)
        """The number of symbols of the prompt, until an event has told it."""
        self._echoed_prompt = job.prompt if job.options["echo"] and state is not None else ""
        """The prompt, until an event has it; without a session the server has it in the answer before any event."""
        self._held_back = len(_find_held_back(job, state))
        self._scores = _Scores(job, state, bundle.token_bytes) if job.has_logprobs else None

    @property
    def is_held(self) -> bool:
        """Whether it waits for its client."""
        return self.slot is None

    def join(self, slots: Slots) -> None:
        """Begin in a free slot, or go on in one."""
        self.slot = slots.join(self._request, self._state)

    def hold(self, slots: Slots) -> None:
        """Leave the slot, with all that is needed to go on. A text whose prompt is still read goes on."""
        if self.slot is None or len(self.slot.unread) or (state := slots.state(self.slot)) is None:
            return
        written, slot = self.slot.text, self.slot
        assert self._request.length is not None
        self._state = state
        self._request = dataclasses.replace(
            self._request,
            prime=self._request.prime[:0],
            length=slot.decoder.length_left,
            most_symbols=self._request.most_symbols and self._request.most_symbols - written.token_count,
            echo=False,
        )
        slots.leave(slot)
        self.slot = None
        self._drawn -= written.token_count

    def leave(self, slots: Slots) -> None:
        """End here."""
        if self.slot is not None:
            slots.leave(self.slot)

    def cut(self, slots: Slots) -> TextEvent:
        """Return the last event of a text that ends here, because the server does not go on with it."""
        state = self._state if self.slot is None else slots.state(self.slot)
        drawn = -self._drawn if self.slot is None else self.slot.text.token_count - self._drawn
        event = TextEvent(self.number, self._add_prompt(""), drawn, CUT, prompt_tokens=self._take_prompt_tokens())
        event.session = None if state is None else self._pack(state)
        return event

    def take_piece(self, piece: SlotPiece) -> TextEvent:
        """Return what a piece adds to the text, and at its end the session."""
        drawn, self._drawn = piece.token_count - self._drawn, piece.token_count
        event = TextEvent(self.number, self._add_prompt(piece.text), drawn, prompt_tokens=self._take_prompt_tokens())
        if self._scores is not None:
            event.scores = self._scores.take(piece)
        if piece.finish != "running":
            event.finish = piece.finish
            if piece.slot.last_state is not None:
                event.session = self._pack(piece.slot.last_state)
        return event

    def _add_prompt(self, text: str) -> str:
        """Return the first characters of a text with the echoed prompt, behind what was held back before it."""
        prompt, self._echoed_prompt = self._echoed_prompt, ""
        return text[: self._held_back] + prompt + text[self._held_back :] if prompt else text

    def _take_prompt_tokens(self) -> int:
        count, self._prompt_tokens = self._prompt_tokens, 0
        return count

    def _pack(self, state: RowState) -> bytes | None:
        """Return the session of the text; None where the file cannot have one, or it would be too large."""
        try:
            return pack(make_session(self._bundle, self._settings, state))
        except SessionError:
            return None


def begin_text(model: TextModel, job: TextJob) -> RunningText:
    """Check a job, and return its text. Raises the errors of `gentext.TextModel.write`."""
    options = job.options
    settings = settings_of(options, job.prompt)
    with quiet():  # notes for the user of a command are none for a client
        state = None
        if job.session is None:
            [request] = row_requests(model.prepare_writing([job.prompt], options, RequestSpelling()), keeps_state=True)
        else:
            session = unpack(job.session)
            request, state = continue_text(model._sampler, session, job.prompt, options, RequestSpelling())
            if is_within_match(session, options["match"], options["json_schema"]):
                settings = settings | {"prime": session.settings["prime"]}
    request = dataclasses.replace(request, keeps_tokens=job.has_logprobs, streams=True)
    return RunningText(job, request, state, settings, model.bundle)


def _find_held_back(job: TextJob, state: RowState | None) -> str:
    """Return what was held back when the text was cut: it comes first, also before an appended prompt."""
    if state is None:
        return ""
    unfinished = state.decoder.unfinished if job.prompt else b""
    return state.decoder.pending + state.decoder.excess + unfinished.decode("utf-8", "replace")


class _Scores:
    """The log-probabilities of a text's symbols, each until its characters are certain.

    Characters that may become a stop string are not yet in the text, and never are where they become one.
    """

    def __init__(self, job: TextJob, state: RowState | None, symbols: list[bytes]) -> None:
        self._symbols = symbols
        self._has_prompt, self._has_tops = job.options["echo"], job.options["top_logprobs"] > 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._waiting: collections.deque[SymbolScore] = collections.deque()
        self._decoded = 0
        """Characters in front of the next symbol: those of the symbols so far, and of an echoed prompt."""
        self._unread = len(state.unread) if state is not None and self._has_prompt else 0
        """Symbols of an earlier prompt that are read in front of the echoed one, and have no scores."""
        if state is not None:
            self._decoded = len(_find_held_back(job, state))
            if not job.prompt:
                self._decoder.setstate((state.decoder.unfinished, 0))
        self._certain = len(job.prompt) if self._has_prompt else 0
        """Characters that the client has, or gets with the next event."""
        self._prompt_read = self._unread
        self._is_first = job.session is None

    def take(self, piece: SlotPiece) -> list[SymbolScore]:
        """Return the scores of the characters that a piece makes certain."""
        written = piece.slot.text
        tokens = written.prime_tokens[self._prompt_read :] + piece.tokens
        logprobs = written.prime_logprobs[self._prompt_read :] + piece.logprobs
        self._prompt_read = max(self._prompt_read, len(written.prime_tokens))
        tops = self._take_tops(piece, len(tokens))
        for token, logprob, top in zip(tokens, logprobs, tops, strict=True):
            is_unconditional = self._is_first and self._has_prompt
            self._is_first = False
            symbol = self._symbols[token]
            self._waiting.append(
                SymbolScore(readable_symbol(symbol), None if is_unconditional else logprob, top, self._decoded)
            )
            self._decoded += len(self._decoder.decode(symbol))
        self._certain += len(piece.text)
        certain = []
        # The end of a record has no character of its own.
        while self._waiting and (piece.finish == "end" or self._waiting[0].offset < self._certain):
            certain.append(self._waiting.popleft())
        return certain

    def _take_tops(self, piece: SlotPiece, count: int) -> list[list[tuple[str, float]]]:
        """Return the most probable symbols at the next ``count`` symbols."""
        if not self._has_tops:
            return [[]] * count
        blocks = list(piece.slot.text.prime_top_blocks)
        piece.slot.text.prime_top_blocks.clear()
        if piece.top_symbols is not None:
            blocks.append(piece.top_symbols)
        if not blocks:
            return []
        tokens = np.concatenate([block.tokens for block in blocks])
        logprobs = np.concatenate([block.logprobs for block in blocks])
        skipped = min(self._unread, len(tokens))
        self._unread -= skipped
        return [
            [(readable_symbol(self._symbols[token]), logprob) for token, logprob in zip(*row, strict=True)]
            for row in zip(tokens[skipped:].tolist(), logprobs[skipped:].tolist(), strict=True)
        ]
