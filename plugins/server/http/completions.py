"""The answers of ``/v1/completions``: whole, or as events while the texts are written."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import msgspec

from gentext.plugins.server.http.requests import Completion
from gentext.plugins.server.logs import RequestRecord
from gentext.plugins.server.problems import Problem
from gentext.plugins.server.settings import Limits
from gentext.plugins.server.tasks.messages import Answer, Failed, SymbolScore, TextEvent
from gentext.plugins.server.tasks.models import ServedModel
from gentext.plugins.server.tasks.workers import Part, Task
from gentext.sessions.session_keys import SessionKeys

#: Seconds between two events of a stream, for each text that is written: an event costs the server and its client
#: time, however little text it has, and with a thousand texts most of it.
SECONDS_PER_TEXT = 0.0004
#: What a symbol's log-probability counts in the buffer of a stream.
SCORE_BYTES = 100
#: The last event of a stream.
LAST_EVENT = b"data: [DONE]\n\n"
#: Why a text ends after `Limits.request_seconds`.
TIME_OVER = "the time of the request is over"


class Choice:
    """One text of a request, as far as it is written."""

    def __init__(self, index: int, task: Task | None = None) -> None:
        self.index, self.task = index, task
        self.text = ""
        """What the client does not have yet."""
        self.scores: list[SymbolScore] = []
        """The same for the log-probabilities of symbols."""
        self.finish: str | None = None
        self.session: str | None = None
        self.problem: Problem | None = None
        self.received_at = 0.0
        """When the last symbols came; 0 before the first ones."""
        self.sent_at = 0.0
        """When the client got its last event; 0 before the first one."""
        self.is_held = False
        """Whether the text waits because its client has not read enough."""
        self.is_sent = False
        """Whether the client has the end."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes."""
        return self.finish is not None or self.problem is not None


class CompletionAnswer:
    """The texts of one request while they are written."""

    def __init__(
        self,
        record: RequestRecord,
        completion: Completion,
        model: ServedModel,
        limits: Limits,
        session_keys: SessionKeys,
    ) -> None:
        self._record, self._completion, self._model, self._limits = record, completion, model, limits
        self._session_keys = session_keys
        record.model = model.name
        self._created = int(time.time())
        self._id = f"cmpl-{uuid.uuid4().hex}"
        self._changed = asyncio.Event()
        self.prompt_tokens = 0
        self.tokens = 0
        """Symbols of all prompts, and symbols drawn in all texts."""
        jobs = completion.jobs()
        self._prompts = [job.prompt if job.options["echo"] and job.session is None else "" for job in jobs]
        self._choices = [Choice(index) for index in range(len(jobs))]
        self._choice_by_number: dict[int, Choice] = {}
        self._tasks = model.submit(jobs, self._receive)
        for choice, task in zip(self._choices, self._tasks, strict=True):
            choice.task = task
            choice.text = self._prompts[choice.index]
            self._choice_by_number[task.job.number] = choice

    async def body(self) -> dict[str, Any]:
        """Wait for all texts, and return the body of the answer. Raises Problem where a text fails."""
        with self._running():
            while not all(choice.has_ended for choice in self._choices):
                await self._wait()
                self._raise_problem()
            self._raise_problem()
        return self._make_body([self._take(choice) for choice in self._choices]) | {"usage": self._usage()}

    async def events(self) -> AsyncGenerator[bytes]:
        """Yield the events of the answer, as server-sent events."""
        with self._running():
            while not all(choice.is_sent for choice in self._choices):
                await self._wait()
                for choice in self._choices:
                    if self._is_due(choice):
                        yield self._event(choice)
            if self._completion.fields.stream_options.include_usage:
                yield format_event(self._make_body([]) | {"usage": self._usage()})
            yield LAST_EVENT

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        """End the texts after the time of a request, and when nobody wants them any longer."""
        loop = asyncio.get_running_loop()
        end = loop.call_later(self._limits.request_seconds, self._model.cut, self._tasks, TIME_OVER)
        try:
            yield
        finally:
            end.cancel()
            self.end()

    def end(self) -> None:
        """End the texts that nobody wants any longer, and record the request."""
        self._model.end(self._tasks)
        self._record.symbols = self.tokens
        self._record.finish = ",".join(sorted({choice.finish or "none" for choice in self._choices}))

    async def _wait(self) -> None:
        await self._changed.wait()
        self._changed.clear()

    def _receive(self, task: Task, part: Part) -> None:
        """Take a part of a text; a worker's listener calls this."""
        choice = self._choice_by_number[task.job.number]
        if isinstance(part, Failed):
            choice.problem = Problem(part.status, part.message, parameter=part.parameter, code=part.code)
        elif not isinstance(part, Answer):
            self._measure(choice, part)
            choice.text += part.text
            choice.scores += part.scores or ()
            choice.finish = part.finish
            choice.session = None if part.session is None else self._session_keys.seal(part.session)
            self.tokens += part.tokens
            self.prompt_tokens += part.prompt_tokens
            unread = len(choice.text) + SCORE_BYTES * len(choice.scores)
            if unread > self._limits.buffer and not choice.is_held and self._completion.fields.stream:
                choice.is_held = True
                task.hold()
        if choice.has_ended or (self._completion.fields.stream and self._is_due(choice)):
            self._changed.set()

    def _measure(self, choice: Choice, part: TextEvent) -> None:
        """Count the symbols of a part, and the time since the one before, or since the request came."""
        moment = time.monotonic()
        metrics = self._model.metrics
        if choice.received_at:
            metrics.chunk(moment - choice.received_at)
        elif part.tokens:
            metrics.first_symbol(self._record.seconds)
        if part.tokens:
            choice.received_at = moment
            metrics.symbols(part.tokens)

    def _is_due(self, choice: Choice) -> bool:
        """Return whether the client should get an event of a text now."""
        if choice.is_sent:
            return False
        if choice.has_ended:
            return True
        is_time = time.monotonic() - choice.sent_at >= SECONDS_PER_TEXT * self._model.busy
        return bool(choice.text or choice.scores) and is_time

    def _event(self, choice: Choice) -> bytes:
        """Return what a client does not have yet of a text."""
        if choice.problem is not None:
            choice.is_sent = True
            return format_event(choice.problem.to_json())
        choice.is_sent = choice.has_ended
        choice.sent_at = time.monotonic()
        event = format_event(self._make_body([self._take(choice)]))
        if choice.is_held and choice.task is not None:
            choice.is_held = False
            choice.task.resume()
        return event

    def _take(self, choice: Choice) -> dict[str, Any]:
        """Return the new part of a text, as OpenAI's API has it, and mark it as sent."""
        fields: dict[str, Any] = {
            "index": choice.index,
            "text": choice.text,
            "logprobs": format_scores(choice.scores) if self._completion.has_logprobs else None,
            "finish_reason": None,
        }
        if choice.finish is not None:
            fields["finish_reason"] = "length" if choice.finish in ("length", "cut") else "stop"
            fields |= {"finish": choice.finish, "session": choice.session}
        choice.text, choice.scores = "", []
        return fields

    def _make_body(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": self._model.name,
            "seed": self._completion.seed,
            "choices": choices,
        }

    def _usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": self.prompt_tokens + self.tokens,
        }

    def _raise_problem(self) -> None:
        for choice in self._choices:
            if choice.problem is not None:
                raise choice.problem


def format_event(content: dict[str, Any]) -> bytes:
    """Return a server-sent event."""
    return b"data: " + msgspec.json.encode(content) + b"\n\n"


def format_scores(scores: list[SymbolScore]) -> dict[str, Any]:
    """Return the log-probabilities of symbols, as OpenAI's API has them."""
    return {
        "tokens": [score.text for score in scores],
        "token_logprobs": [score.logprob for score in scores],
        "top_logprobs": [None if score.logprob is None else dict(score.top) for score in scores],
        "text_offset": [score.offset for score in scores],
    }
