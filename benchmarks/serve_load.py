"""Clients that come and go: how fast a server delivers, how evenly, and whether every text is right."""

from __future__ import annotations

import array
import asyncio
import dataclasses
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from serve_client import Behaviour, Choice, Connection, ServerError, error_message
from serve_process import Metrics, Server
from serve_texts import LENGTHS, SETTINGS, Text, compare_texts, draw_text, measure_bare

#: Of a hundred requests: from clients that pause after each piece, that cut the connection, that do not stream.
SLOW, VANISHING, WHOLE = 5, 5, 5
#: Seconds that a slow client pauses, and the number of pieces after which a vanishing one cuts its connection at most.
PAUSE, MAX_PIECES = 0.7, 30
#: Texts of a request that does not stream.
WHOLE_COUNT = 3
#: Seconds between two measurements of memory.
MEMORY_SECONDS = 5
#: Seconds in which all clients arrive, at most.
MAX_RAMP_SECONDS = 10.0
LAG_METRIC = "gentext_event_loop_lag_seconds"


@dataclasses.dataclass
class Figures:
    """What the clients of one phase have seen."""

    gaps: array.array[float] = dataclasses.field(default_factory=lambda: array.array("d"))
    """Seconds between two pieces of a stream, of clients that read as fast as they can."""
    first: array.array[float] = dataclasses.field(default_factory=lambda: array.array("d"))
    """Seconds from a request to its first character."""
    finished: dict[Text, tuple[str, str | None]] = dataclasses.field(default_factory=dict)
    kinds: Counter[str] = dataclasses.field(default_factory=Counter)
    lost: list[str] = dataclasses.field(default_factory=list)
    characters: int = 0
    """Characters of all answers that have ended."""
    delivered: int = 0
    """Characters that arrived within ``seconds``, while all clients were there."""
    seconds: float = 0.0
    client_seconds: float = 0.0
    """Processor time of the client."""
    server_seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    memory: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    """Seconds since the beginning, and MB of the server's processes."""

    @property
    def rate(self) -> float:
        """Characters a second that arrived."""
        return self.delivered / self.seconds

    def add_choices(self, texts: Sequence[Text], choices: dict[int, Choice]) -> None:
        """Record the choices of an answer that is complete."""
        for text in texts:
            choice = choices.get(text.stream)
            if choice is None or choice.finish_reason is None:
                self.lost.append(f"{text}: no end")
            else:
                self.finished[text] = (choice.text, choice.finish)
                self.characters += len(choice.text)


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What there is at one time."""

    at: float
    characters: int
    client_seconds: float
    server_seconds: dict[str, float]


class Clients:
    """So many clients at a time, of which each begins a new text when its last one has ended."""

    def __init__(self, server: Server, count: int, seed: int, lengths: Sequence[int] = LENGTHS) -> None:
        self.server, self.count, self.lengths = server, count, lengths
        self.rng = random.Random(seed)
        self.figures = Figures()
        self.misbehaves = True
        self._asking: set[Connection] = set()
        self._ends_at = 0.0
        self._ignored: array.array[float] = array.array("d")

    async def run(self, seconds: float) -> Figures:
        """Begin texts for so many seconds, and wait for the last ones.

        The clients arrive during the first tenth of the time. Rates and processor times are of the rest of it.
        """
        figures, begin = self.figures, time.perf_counter()
        self._ends_at = begin + seconds
        ramp = min(MAX_RAMP_SECONDS, seconds / 10)
        clients = [asyncio.create_task(self._run_client(ramp * number / self.count)) for number in range(self.count)]
        watcher = asyncio.create_task(self._watch_memory(begin))
        await asyncio.sleep(ramp)
        first = self._take_snapshot()
        await asyncio.sleep(self._ends_at - time.perf_counter())
        last = self._take_snapshot()
        await asyncio.gather(*clients)
        watcher.cancel()
        figures.seconds = last.at - first.at
        figures.delivered = last.characters - first.characters
        figures.client_seconds = last.client_seconds - first.client_seconds
        figures.server_seconds = {
            name: seconds - first.server_seconds[name] for name, seconds in last.server_seconds.items()
        }
        return figures

    def _take_snapshot(self) -> Snapshot:
        at, client_seconds = time.perf_counter(), time.process_time()
        characters = self.figures.characters + sum(connection.partial_characters for connection in self._asking)
        return Snapshot(at, characters, client_seconds, self.server.processor_seconds())

    async def _watch_memory(self, begin: float) -> None:
        while True:
            self.figures.memory.append((time.perf_counter() - begin, self.server.memory()))
            await asyncio.sleep(MEMORY_SECONDS)

    async def _run_client(self, delay: float) -> None:
        await asyncio.sleep(delay)
        connection = None
        while time.perf_counter() < self._ends_at:
            roll = self.rng.randrange(100) if self.misbehaves else 99
            text = draw_text(self.rng, self.lengths)
            try:
                if roll < SLOW:
                    await self._write("slow", text, await self._open(Behaviour(pause=PAUSE)))
                elif roll < SLOW + VANISHING:
                    pieces = 2 + self.rng.randrange(MAX_PIECES)
                    await self._write("vanishing", text, await self._open(Behaviour(vanish_after=pieces)))
                else:
                    if connection is None or not connection.is_open:
                        connection = await self._open(Behaviour())
                    kind = "whole" if roll < SLOW + VANISHING + WHOLE else "reading"
                    await self._write(kind, text, connection)
            except (ServerError, OSError) as error:
                self.figures.lost.append(f"{text}: {error}")
                connection = None
        if connection is not None:
            connection.close()

    async def _open(self, behaviour: Behaviour) -> Connection:
        reads = not behaviour.pause
        return await Connection.open(self.server.address, self.figures.gaps if reads else self._ignored, behaviour)

    async def _write(self, kind: str, text: Text, connection: Connection) -> None:
        """Ask for a text, and record it; the connection of a slow or vanishing client is closed."""
        is_whole = kind == "whole"
        texts = [dataclasses.replace(text, stream=stream) for stream in range(WHOLE_COUNT if is_whole else 1)]
        others: dict[str, Any] = {"n": len(texts)} if is_whole else {"stream": True}
        self._asking.add(connection)
        try:
            answer = await connection.ask("/v1/completions", text.request(**others))
        finally:
            self._asking.discard(connection)
        self.figures.kinds[kind] += 1
        if answer.status != 200:
            raise ServerError(f"{answer.status}: {error_message(answer)}")
        if answer.first_seconds is not None and not is_whole:
            self.figures.first.append(answer.first_seconds)
        if kind in ("slow", "vanishing"):
            connection.close()
        if answer.has_vanished:
            self.figures.characters += answer.characters
            return
        if not is_whole and not answer.is_complete():
            raise ServerError("the stream has no end")
        self.figures.add_choices(texts, answer.choices)


def percentile(seconds: Sequence[float], percent: float) -> float:
    """Return a percentile in milliseconds; not a number where there are none."""
    return float(np.percentile(np.asarray(seconds), percent)) * 1e3 if len(seconds) else float("nan")


async def measure_first(server: Server, count: int, seconds: float, seed: int) -> Figures:
    """Return the figures of so many clients that read short texts; a first run warms the server up."""
    for turn in range(2):
        clients = Clients(server, count, seed + turn, LENGTHS[:2])
        clients.misbehaves = False
        figures = await clients.run(seconds if turn else min(2.0, seconds))
    return figures


async def run_load(
    server: Server, path: Path, streams: int, seconds: float, seed: int, say: Callable[[str], None]
) -> list[tuple[str, str, str, str]]:
    """Return the rows of the table for so many streams at a time."""
    bare_before = measure_bare(path, [streams], 2.0)[streams]
    say(f"the bare generator writes {bare_before.rate:,.0f} characters a second in {streams} texts")
    first = {count: await measure_first(server, count, 10.0, seed + count) for count in (1, 64)}
    before = server.metrics()
    clients = Clients(server, streams, seed)
    figures = await clients.run(seconds)
    after = server.metrics()
    bare_after = measure_bare(path, [streams], 2.0)[streams]
    say(f"afterwards it writes {bare_after.rate:,.0f}")
    describe_figures(figures, say)
    processor_seconds = figures.client_seconds + sum(figures.server_seconds.values())
    if processor_seconds > figures.client_seconds:
        bare_processor_rate = (bare_before.processor_rate + bare_after.processor_rate) / 2
        share = figures.delivered / processor_seconds / bare_processor_rate
        say(f"characters in a second of all processor time, against the bare generator: {share:.3f}")
    differing = compare_texts(path, figures.finished)
    for line in [*figures.lost[:10], *differing[:10]]:
        say(line)
    bare = (bare_before.rate + bare_after.rate) / 2
    first_p99 = [percentile(measured.first, 99) for measured in (first[1], first[64], figures)]
    gaps = [percentile(figures.gaps, percent) for percent in (50, 99)]
    return [
        (
            f"{streams:,} streams for {seconds / 60:.3g} minutes: {len(figures.finished):,} finished texts",
            f"{len(figures.lost)} lost, {len(differing)} different",
            "0 lost, 0 different",
            "",
        ),
        ("symbols a second against the bare generator", f"{figures.rate / bare:.3f}", "0.6", "0.8"),
        ("between chunks p50, p99", f"{gaps[0]:.0f} ms, {gaps[1]:.0f} ms", "1 s, 2 s", "0.5 s, 1 s"),
        (
            f"first symbol p99 at 1, 64, {streams:,} streams",
            ", ".join(f"{milliseconds:.0f} ms" for milliseconds in first_p99),
            "30 ms, 300 ms, 2 s",
            "10 ms, 100 ms, 1 s",
        ),
        ("lag of the event loop p99", lag(after, before), "50 ms", "10 ms"),
    ]


def lag(after: Metrics, before: Metrics) -> str:
    """Return the 99th percentile of the event loop's lag, as the upper end of its bucket."""
    quantile = after.quantile(LAG_METRIC, 0.99, before)
    return "not in /metrics" if quantile is None else f"at most {quantile * 1e3:g} ms"


def describe_figures(figures: Figures, say: Callable[[str], None]) -> None:
    """Tell what happened, and what it took."""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in figures.kinds.most_common())
    say(f"{figures.delivered:,} characters in {figures.seconds:.1f} s, {figures.rate:,.0f} a second; requests: {kinds}")
    server = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in figures.server_seconds.items())
    say(f"processor time: client {figures.client_seconds:.1f} s, {server}")
    first = ", ".join(f"p{percent} {percentile(figures.first, percent):.0f} ms" for percent in (50, 99))
    say(f"first symbol {first}; {len(figures.gaps):,} gaps between pieces; {len(SETTINGS)} settings")
    step = max(1, len(figures.memory) // 6)
    say("memory: " + ", ".join(f"{at:.0f} s {memory:.0f} MB" for at, memory in figures.memory[::step]))
