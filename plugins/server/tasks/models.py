"""The models of a server by name: the queue of each, and its files, which can be loaded again."""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from gentext.console import say
from gentext.errors import GenError, UsageError, nearest
from gentext.plugins.server.metrics import Metrics, ModelMetrics
from gentext.plugins.server.problems import Problem
from gentext.plugins.server.settings import Limits
from gentext.plugins.server.tasks.messages import BestJob, Failed, ScoreJob, TextJob
from gentext.plugins.server.tasks.workers import Part, Task, WorkerGroup, WorkerOptions

Job = TextJob | ScoreJob | BestJob


class ServedModel:
    """One model: the tasks that wait for a slot, and the workers."""

    def __init__(self, name: str, path: Path, options: WorkerOptions, limits: Limits, metrics: ModelMetrics) -> None:
        self.name, self.path, self.metrics = name, path, metrics
        self._options, self._limits = options, limits
        self._queue: collections.deque[Task] = collections.deque()
        self.group = WorkerGroup(path, options, self._begin_tasks)
        """The workers of the file as it was loaded last."""
        self._old_groups: dict[asyncio.Task[None], WorkerGroup] = {}
        """Groups whose texts are still written, by the tasks that wait for their ends."""
        self.is_ready = False
        self.loaded_at = 0
        """When the file was loaded, in seconds since 1970."""
        self._old_restarts = 0
        """Restarts of workers of files that were loaded before."""
        metrics.watch(lambda: self.busy, lambda: self.queued, lambda: self._old_restarts + self.group.restarts)

    @property
    def queued(self) -> int:
        """The number of tasks that wait."""
        return len(self._queue)

    @property
    def busy(self) -> int:
        """The number of tasks that are under way, with those of the file that was loaded before."""
        return self.group.busy + sum(group.busy for group in self._old_groups.values())

    async def open(self) -> None:
        """Start the workers. Raises RunError where they cannot open the file."""
        await self.group.open()
        self.is_ready, self.loaded_at = True, int(time.time())
        self._begin_tasks()

    async def reload(self) -> None:
        """Load the file again. Texts that have begun go on with the old one; so does all if the new one fails."""
        group = WorkerGroup(self.path, self._options, self._begin_tasks)
        try:
            await group.open()
        except (GenError, OSError) as error:
            say(f"gen: {self.name}: {error}; the file that was loaded before is still used")
            return
        old_group, self.group, self.loaded_at = self.group, group, int(time.time())
        self._old_restarts += old_group.restarts
        ending = asyncio.create_task(_close_when_idle(old_group))
        self._old_groups[ending] = old_group
        ending.add_done_callback(self._old_groups.pop)
        say(f"gen: {self.name}: loaded again from {self.path}")
        self._begin_tasks()

    async def close(self) -> None:
        """End all workers."""
        self.is_ready = False
        for ending in list(self._old_groups):
            ending.cancel()
        await asyncio.gather(self.group.close(), *self._old_groups, return_exceptions=True)

    def check_ready(self) -> None:
        """Raise Problem where no worker has opened the file yet: until then nothing is known of the model."""
        if not self.is_ready:
            raise Problem(503, f"the model {self.name} is not loaded yet", headers={"Retry-After": "1"})

    def submit(self, jobs: Iterable[Job], receive: Callable[[Task, Part], None]) -> list[Task]:
        """Queue the jobs of one request, and return their tasks; ``receive`` gets the parts of their answers.

        Raises Problem where the model is not loaded yet, or the queue has no room for them.
        """
        tasks = [Task(job, receive) for job in jobs]
        self.check_ready()
        if self.queued + len(tasks) > self._limits.queue + max(0, self._options.slots - self.busy):
            raise Problem(
                429,
                f"{self.queued} texts wait already; at most {self._limits.queue} can",
                code="queue_full",
                headers={"Retry-After": "1"},
            )
        self._queue.extend(tasks)
        self._begin_tasks()
        return tasks

    def end(self, tasks: Iterable[Task]) -> None:
        """End tasks that nobody wants any longer, if they have not ended yet."""
        for task in tasks:
            if task.is_done:
                continue
            task.is_done = True
            if task.worker is None:
                self._queue.remove(task)
            else:
                task.worker.leave(task)

    def cut(self, tasks: Iterable[Task], reason: str) -> None:
        """End tasks where they are; texts get their last parts, and all others fail for a reason."""
        for task in tasks:
            if task.is_done:
                continue
            if task.worker is not None and isinstance(task.job, TextJob):
                task.cut()
                continue
            self.end([task])
            task.receive(task, Failed(task.job.number, 503, reason))

    def cut_all(self, reason: str) -> None:
        """End everything where it is."""
        for group in [self.group, *self._old_groups.values()]:
            for worker in group.workers:
                self.cut(list(worker.tasks.values()), reason)
        self.cut(list(self._queue), reason)

    def _begin_tasks(self) -> None:
        """Begin tasks as long as one waits and there is a free slot."""
        while self._queue and self.group.begin(self._queue[0]):
            self._queue.popleft()


async def _close_when_idle(group: WorkerGroup) -> None:
    try:
        while group.busy:
            await asyncio.sleep(0.1)
    finally:
        await group.close()


class Models:
    """All models of a server, by name."""

    def __init__(self, models: Iterable[ServedModel], metrics: Metrics) -> None:
        self.metrics = metrics
        self.by_name: dict[str, ServedModel] = {}
        for model in models:
            if model.name in self.by_name:
                other = self.by_name[model.name]
                raise UsageError(
                    f"{other.path} and {model.path} are both named {model.name}: expected different names; "
                    f"give one another name with NAME=PATH"
                )
            self.by_name[model.name] = model

    @property
    def is_ready(self) -> bool:
        """Whether all of them are loaded."""
        return all(model.is_ready for model in self.by_name.values())

    def find(self, name: str | None) -> ServedModel:
        """Return the model of that name; without a name, the only one. Raises Problem where there is none."""
        if name is None and len(self.by_name) == 1:
            return next(iter(self.by_name.values()))
        names = ", ".join(self.by_name)
        if name is None:
            raise Problem(400, f"model is missing; expected {names}", parameter="model")
        if name not in self.by_name:
            message = f"no model {name!r}.{nearest(name, self.by_name)} Expected {names}"
            raise Problem(404, message, parameter="model", code="model_not_found")
        return self.by_name[name]

    async def open(self) -> None:
        """Load all files. Raises RunError where one cannot be opened."""
        await asyncio.gather(*(model.open() for model in self.by_name.values()))

    @property
    def busy(self) -> int:
        """The number of tasks that wait or are under way."""
        return sum(model.queued + model.busy for model in self.by_name.values())

    def cut_all(self, reason: str) -> None:
        """End everything where it is."""
        for model in self.by_name.values():
            model.cut_all(reason)

    async def reload(self) -> None:
        """Load all files again."""
        for model in self.by_name.values():
            await model.reload()

    async def close(self) -> None:
        """End all workers."""
        await asyncio.gather(*(model.close() for model in self.by_name.values()))
