"""The program that writes texts with one model: a process of its own, so that the server never waits for a model.

It reads requests from stdin and writes replies to stdout, see `gentext.plugins.server.tasks.messages`; with the end of
stdin it ends. The main thread runs one call of the generator after the other. Other threads read requests, prepare
texts, compile what texts must match, and run scores and searches, so that no text waits for the preparation of another.
"""

from __future__ import annotations

import concurrent.futures
import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from gentext.errors import GenError, UsageError, reason, text_of
from gentext.generation.rows import SlotPiece
from gentext.generation.slots import Slots
from gentext.library.loading import TextModel, open_text_model
from gentext.matching.constraints import use_compiler
from gentext.plugins.samplers.onnx import OnnxGenerator
from gentext.plugins.server.logs import LogWriter
from gentext.plugins.server.problems import problem_of
from gentext.plugins.server.tasks.messages import (
    Answer,
    BestJob,
    Cut,
    Events,
    Failed,
    Hold,
    Leave,
    Ready,
    Reply,
    Request,
    Resume,
    ScoreJob,
    Start,
    TextJob,
    encode_frame,
    read_frames,
)
from gentext.plugins.server.worker.answers import answer_job, describe_model
from gentext.plugins.server.worker.expressions import ExpressionProcess
from gentext.plugins.server.worker.texts import RunningText, begin_text
from gentext.requests.options import is_matched, writing_options
from gentext.runs.source import FILE_SAMPLER

#: The number of the `Failed` that ends the worker.
WORKER = -1


class Worker:
    """One model, its slots, and the texts in them."""

    def __init__(self, model: TextModel, slots: Slots, send: Callable[[Reply], None]) -> None:
        self._model, self._slots, self._send = model, slots, send
        self._inbox: queue.SimpleQueue[RunningText | Hold | Resume | Leave | Cut | None] = queue.SimpleQueue()
        """What the main thread does before its next call; None ends it."""
        self._texts: dict[int, RunningText] = {}
        """The texts in slots, and those that are held, by their numbers."""
        self._waiting: set[int] = set()
        """Jobs that are prepared, or answered, by other threads."""
        self._ended_early: set[int] = set()
        """Those of them whose clients have gone."""
        self._cut_early: set[int] = set()
        """Those of them that end as soon as they are prepared, with a session."""
        self._plain = concurrent.futures.ThreadPoolExecutor(1, "prepare")
        self._matched = concurrent.futures.ThreadPoolExecutor(1, "match")
        self._searches = concurrent.futures.ThreadPoolExecutor(1, "search")

    def take(self, request: Request) -> None:
        """Take a request, in the thread that reads them."""
        if isinstance(request, TextJob | ScoreJob | BestJob):
            self._waiting.add(request.number)
        if isinstance(request, TextJob):
            is_slow = is_matched(request.options) or request.session is not None
            executor = self._matched if is_slow else self._plain
            executor.submit(self._prepare, request)
        elif isinstance(request, ScoreJob | BestJob):
            self._searches.submit(self._answer, request)
        else:
            self._inbox.put(request)

    def end(self) -> None:
        """Let the main thread end."""
        self._inbox.put(None)

    def run(self) -> None:
        """Write texts until `end`."""
        while True:
            while not (self._slots.busy and self._inbox.empty()):
                message = self._inbox.get()
                if message is None:
                    return
                self._handle(message)
            self._report(self._slots.advance())

    def _prepare(self, job: TextJob) -> None:
        try:
            text = begin_text(self._model, job)
        except Exception as error:
            self._forget(job.number)
            self._fail(job.number, error)
        else:
            self._inbox.put(text)

    def _answer(self, job: ScoreJob | BestJob) -> None:
        try:
            if job.number not in self._ended_early:
                result = answer_job(self._model, job, lambda: job.number in self._ended_early)
                self._send(Answer(job.number, result))
        except Exception as error:
            self._fail(job.number, error)
        finally:
            self._forget(job.number)

    def _handle(self, message: RunningText | Hold | Resume | Leave | Cut) -> None:
        number = message.number
        text = self._texts.get(number)
        if isinstance(message, RunningText):
            if number not in self._ended_early:
                self._texts[number] = message
                self._join(message)
                if number in self._cut_early and number in self._texts:
                    self._handle(Cut(number))
            self._forget(number)
        elif text is None:
            # The end of a text that is not prepared yet, or one that has crossed the text's last event.
            if isinstance(message, Leave | Cut) and number in self._waiting:
                (self._cut_early if isinstance(message, Cut) else self._ended_early).add(number)
        elif isinstance(message, Hold):
            text.hold(self._slots)
        elif isinstance(message, Resume):
            if text.is_held:
                self._join(text)
        else:
            if isinstance(message, Cut):
                self._send(Events([text.cut(self._slots)]))
            text.leave(self._slots)
            del self._texts[number]

    def _forget(self, number: int) -> None:
        self._waiting.discard(number)
        self._ended_early.discard(number)
        self._cut_early.discard(number)

    def _join(self, text: RunningText) -> None:
        try:
            text.join(self._slots)
        except Exception as error:
            self._texts.pop(text.number, None)
            self._fail(text.number, error)

    def _report(self, pieces: list[SlotPiece]) -> None:
        events = []
        text_by_slot = {text.slot: text for text in self._texts.values()}
        for piece in pieces:
            text = text_by_slot.get(piece.slot)
            if text is None:
                continue
            if piece.error is not None:
                self._fail(text.number, piece.error)
            else:
                events.append(text.take_piece(piece))
            if piece.error is not None or piece.finish != "running":
                del self._texts[text.number]
        if events:
            self._send(Events(events))

    def _fail(self, number: int, error: Exception) -> None:
        if isinstance(error, GenError):
            problem = problem_of(error)
            self._send(Failed(number, problem.status, problem.message, problem.parameter, problem.code))
            return
        LogWriter().write_exception(error)
        self._send(Failed(number, 500, "the server failed; its log has the reason"))


def open_slots(start: Start) -> tuple[TextModel, Slots]:
    """Open the file of a worker. Raises a GenError where it has no compiled generator."""
    options = {"threads": start.threads} if start.threads else {}
    model = open_text_model(Path(start.path), start.device, FILE_SAMPLER, options)
    sampler = model._sampler
    if not isinstance(sampler, OnnxGenerator):
        raise UsageError(f"{model.path} has no compiled generator, which a server needs: gen export {model.path}")
    slots = Slots(sampler.model, model.bundle, start.slots)
    # The first call takes longer than others. No client should wait for it.
    warm_up = begin_text(model, TextJob(0, "", writing_options(seed=0, length=2)))
    warm_up.join(slots)
    while slots.busy:
        slots.advance()
    return model, slots


def main() -> None:
    """Write the texts that the process which has started this one asks for."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what plugins print goes to stderr, not among the replies
    lock = threading.Lock()

    def send(reply: Reply) -> None:
        frame = encode_frame(reply)
        with lock:
            replies.write(frame)
            replies.flush()

    requests = read_frames(sys.stdin.buffer)
    try:
        start = next(requests)
        assert isinstance(start, Start)
        model, slots = open_slots(start)
        use_compiler(ExpressionProcess(start.expression_seconds).compile)
        worker = Worker(model, slots, send)
        send(Ready(describe_model(model)))
    except Exception as error:
        send(Failed(WORKER, 500, text_of(error) if isinstance(error, GenError) else reason(error)))
        return

    def listen() -> None:
        for request in requests:
            assert not isinstance(request, Start)
            worker.take(request)
        worker.end()

    threading.Thread(target=listen, daemon=True).start()
    try:
        worker.run()
    except BrokenPipeError:  # the server has gone
        return
    os._exit(0)  # without waiting for a search that may take long


if __name__ == "__main__":
    main()
