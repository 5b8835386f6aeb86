"""The processes that write texts with one file, and the tasks that they have."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from gentext.console import warn
from gentext.errors import GenError, RunError
from gentext.plugins.server.tasks.messages import (
    LENGTH,
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
    TextEvent,
    TextJob,
    encode_frame,
)

#: Seconds before a worker that has ended is started again; each time twice as long as before.
RESTART_SECONDS = 0.5
#: The longest of these pauses.
MAX_RESTART_SECONDS = 30.0
#: Seconds that a worker has to end after its stdin was closed.
END_SECONDS = 2.0
#: What a client hears whose text was in a worker that has ended.
WORKER_ENDED = "the process that wrote this text has ended unexpectedly; send the request again"
#: The largest message of a worker in bytes.
MAX_MESSAGE = 2**28

#: The answer to a task, or a part of it.
Part = TextEvent | Answer | Failed


class Task:
    """One text, score or search of a request, as the server sees it."""

    _numbers = itertools.count()

    def __init__(self, job: TextJob | ScoreJob | BestJob, receive: Callable[[Task, Part], None]) -> None:
        self.job, self.receive = job, receive
        job.number = next(self._numbers)
        self.worker: Worker | None = None
        """The worker that has it; None while it waits for a slot."""
        self.is_done = False
        """Whether its last part has come, or nobody wants it any longer."""

    def hold(self) -> None:
        """Let the text wait for its client."""
        self._send(Hold(self.job.number))

    def resume(self) -> None:
        """Go on after `hold`."""
        self._send(Resume(self.job.number))

    def cut(self) -> None:
        """End the text where it is; its last part is still to come."""
        self._send(Cut(self.job.number))

    def _send(self, message: Request) -> None:
        if self.worker is not None and not self.is_done:
            self.worker.send(message)


class Worker:
    """One process, which has a number of slots."""

    def __init__(self, start: Start, is_freed: Callable[[], None]) -> None:
        """``is_freed`` is called when a task has ended, so that there is a free slot."""
        self._start, self._is_freed = start, is_freed
        self._process: asyncio.subprocess.Process | None = None
        self.tasks: dict[int, Task] = {}
        """Those that are under way, by the numbers of their jobs."""
        self.model: dict[str, Any] = {}
        """What the worker says of its model, see `gentext.plugins.server.worker.answers.describe_model`."""
        self.is_ready = False

    @property
    def free(self) -> int:
        """The number of tasks that it can begin."""
        return self._start.slots - len(self.tasks) if self.is_ready else 0

    async def open(self) -> None:
        """Start the process, and wait for it to open its file. Raises RunError where it cannot."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gentext.plugins.server.worker.program",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C reaches the server alone
        )
        self._write(encode_frame(self._start))
        reply = await self._read()
        if not isinstance(reply, Ready):
            await self.close()
            raise RunError(reply.message if isinstance(reply, Failed) else "a worker has ended before it was ready")
        self.model, self.is_ready = reply.model, True

    async def listen(self) -> None:
        """Hand out the parts of tasks until the process has ended."""
        while (reply := await self._read()) is not None:
            if isinstance(reply, Events):
                for event in reply.texts:
                    self._hand_out(event.number, event, event.finish is not None)
            elif isinstance(reply, Answer | Failed):
                self._hand_out(reply.number, reply, True)
        self.is_ready = False
        for number in list(self.tasks):
            self._hand_out(number, Failed(number, 500, WORKER_ENDED), True)

    def begin(self, task: Task) -> None:
        """Give the worker a task."""
        task.worker = self
        self.tasks[task.job.number] = task
        self.send(task.job)

    def leave(self, task: Task) -> None:
        """End a task that nobody wants any longer."""
        if self.tasks.pop(task.job.number, None) is not None:
            self.send(Leave(task.job.number))
            self._is_freed()

    def send(self, message: Request) -> None:
        """Send a request. To a process that has ended nothing is sent; `listen` notices that."""
        self._write(encode_frame(message))

    async def close(self) -> None:
        """End the process."""
        self.is_ready = False
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), END_SECONDS)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    @property
    def process_id(self) -> int | None:
        """The number of the process."""
        return None if self._process is None else self._process.pid

    def _write(self, frame: bytes) -> None:
        assert self._process is not None and self._process.stdin is not None
        if not self._process.stdin.is_closing():
            self._process.stdin.write(frame)

    async def _read(self) -> Reply | None:
        """Return the next reply; None when the process has ended."""
        assert self._process is not None and self._process.stdout is not None
        try:
            [length] = LENGTH.unpack(await self._process.stdout.readexactly(LENGTH.size))
            if length > MAX_MESSAGE:
                return None
            return _decoder.decode(await self._process.stdout.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError):
            return None

    def _hand_out(self, number: int, part: Part, is_last: bool) -> None:
        task = self.tasks.get(number)
        if task is None:  # its client has gone
            return
        if is_last:
            del self.tasks[number]
            task.is_done = True
            self._is_freed()
        task.receive(task, part)


_decoder: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


@dataclasses.dataclass(frozen=True)
class WorkerOptions:
    """How the workers of a model are started."""

    slots: int
    """Slots of all workers together."""
    workers: int = 0
    """0: as many as the file is fastest with."""
    device: str = "auto"
    expression_seconds: float = 20.0
    """How long what texts must match is compiled."""


class WorkerGroup:
    """The workers of one file. A file that is loaded again has another group."""

    def __init__(self, path: Path, options: WorkerOptions, is_freed: Callable[[], None]) -> None:
        self.path = path
        count, threads = choose_workers(path, options)
        slots = -(-options.slots // count)
        start = Start(str(path), slots, options.device, threads, options.expression_seconds)
        self.workers = [Worker(start, is_freed) for _ in range(count)]
        self._is_freed = is_freed
        self._listeners: list[asyncio.Task[None]] = []
        self.is_closing = False
        self.restarts = 0
        """How often a process had to be started again."""

    @property
    def model(self) -> dict[str, Any]:
        """What the workers say of their model."""
        return self.workers[0].model

    @property
    def busy(self) -> int:
        """The number of tasks that are under way."""
        return sum(len(worker.tasks) for worker in self.workers)

    async def open(self) -> None:
        """Start all processes. Raises RunError where one cannot open the file; none is left then."""
        try:
            await asyncio.gather(*(worker.open() for worker in self.workers))
        except BaseException:
            await self.close()
            raise
        self._listeners = [asyncio.create_task(self._watch(worker)) for worker in self.workers]

    async def close(self) -> None:
        """End all processes."""
        self.is_closing = True
        await asyncio.gather(*(worker.close() for worker in self.workers))
        for listener in self._listeners:
            listener.cancel()

    def begin(self, task: Task) -> bool:
        """Give a task to the worker with the most free slots; return whether there is a free one."""
        worker = max(self.workers, key=lambda each: each.free)
        if worker.free <= 0:
            return False
        worker.begin(task)
        return True

    async def _watch(self, worker: Worker) -> None:
        """Hand out a worker's parts, and start the process again where it ends."""
        pause = RESTART_SECONDS
        while True:
            await worker.listen()
            await worker.close()
            if self.is_closing:
                return
            self.restarts += 1
            warn(f"a worker of {self.path} has ended unexpectedly; it is started again")
            while not worker.is_ready:
                try:
                    await worker.open()
                except GenError as error:
                    warn(f"{error}; the next attempt is in {pause:g} seconds")
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, MAX_RESTART_SECONDS)
                else:
                    pause = RESTART_SECONDS
                    self._is_freed()


#: Files of at most so many bytes have one worker a core, each with one thread: threads that work together on one node
#: of the graph wait for each other after every node. The workers of a larger file would all read its weights.
SMALL_FILE_BYTES = 8 * 2**20


def choose_workers(path: Path, options: WorkerOptions) -> tuple[int, int]:
    """Return the number of workers and the threads of each, 0 for the number that suits the file."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if options.workers:
        return options.workers, 1 if options.workers > 1 else 0
    if options.device == "cuda" or path.stat().st_size > SMALL_FILE_BYTES:
        return 1, 0
    return cores, 1
