"""A ``gen serve`` that a benchmark starts: its processes, their memory and processor time, and its metrics."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

#: Seconds until a server must be ready.
START_SECONDS = 60


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Server:
    """A server on a port of its own, with what it writes to stderr in ``log``."""

    def __init__(self, files: Sequence[Path | str], log: Path, *options: str, port: int | None = None) -> None:
        self.files, self.log, self.options = files, log, options
        self.address = ("127.0.0.1", port or free_port())
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}
        """Variables besides those of this process."""

    @property
    def url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}"

    def start(self, *, waits: bool = True, launcher: Sequence[str] = ()) -> Server:
        """Start it; ``launcher`` stands in front of the command. Raises RuntimeError where it does not become ready."""
        words = [*launcher, sys.executable, "-m", "gentext", "serve", *map(str, self.files)]
        words += ["--port", str(self.address[1]), *self.options]
        with self.log.open("ab") as log:
            environment = {**os.environ, **self.environment}
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        if waits:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Wait until ``/ready`` answers 200."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process is not None and self.process.poll() is not None:
                raise RuntimeError(f"gen serve has ended: {self.last_lines()}")
            with contextlib.suppress(OSError, urllib.error.HTTPError), self.get("/ready"):
                return
            time.sleep(0.1)
        raise RuntimeError(f"gen serve was not ready after {START_SECONDS} s: {self.last_lines()}")

    def last_lines(self) -> str:
        return " / ".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:])

    def get(self, path: str):  # type: ignore[no-untyped-def]
        return urllib.request.urlopen(self.url + path, timeout=10)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and wait for the end; returns the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)

    def kill(self) -> list[int]:
        """Kill it with SIGKILL, and return its workers that are still there five seconds later."""
        workers = self.process_ids()[1:]
        self.stop(signal.SIGKILL)
        end = time.monotonic() + 5
        while (left := [worker for worker in workers if is_running(worker)]) and time.monotonic() < end:
            time.sleep(0.05)
        return left

    def process_ids(self) -> list[int]:
        """Return the ids of its processes, of the HTTP process first."""
        if self.process is None:  # somebody else's server
            return []
        ids = [self.process.pid]
        for parent in ids:  # grows while it is read
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split()
                ids += [int(child) for child in children]
        return ids

    def memory(self) -> float:
        """Return the memory of all its processes in MB, without files: their pages are shared with other programs."""
        total = 0
        for number in self.process_ids():
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{number}/smaps_rollup").read_text(encoding="ascii")
                total += int(re.search(r"^Anonymous: +(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]
        return total / 1e3

    def processor_seconds(self) -> dict[str, float]:
        """Return the processor time of the HTTP process, and of its workers together."""
        seconds = {"HTTP process": 0.0, "workers": 0.0}
        for place, number in enumerate(self.process_ids()):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                ticks = int(fields[11]) + int(fields[12])
                seconds["workers" if place else "HTTP process"] += ticks / os.sysconf("SC_CLK_TCK")
        return seconds

    def metrics(self) -> Metrics:
        """Return its metrics; those of a server without ``/metrics`` are empty."""
        try:
            with self.get("/metrics") as answer:
                return Metrics(answer.read().decode())
        except urllib.error.HTTPError:
            return Metrics("")


def is_running(number: int) -> bool:
    """Return whether a process exists and has not ended."""
    try:
        state = Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


class Metrics:
    """The numbers of ``/metrics`` at one time."""

    def __init__(self, text: str) -> None:
        self.text = text

    def total(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        found = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", self.text, re.MULTILINE)
        return sum(map(float, found))

    def buckets(self, name: str) -> dict[float, float]:
        """Return the counts of a histogram by the upper ends of its buckets, summed over its labels."""
        counts: dict[float, float] = {}
        for labels, count in re.findall(rf"^{name}_bucket\{{([^}}]*)\}} (\S+)$", self.text, re.MULTILINE):
            end = float(re.search(r'le="([^"]+)"', labels)[1])  # type: ignore[index]
            counts[end] = counts.get(end, 0.0) + float(count)
        return counts

    def quantile(self, name: str, share: float, before: Metrics | None = None) -> float | None:
        """Return the upper end of the bucket that holds a quantile of a histogram, of what came after ``before``."""
        counts = self.buckets(name)
        earlier = {} if before is None else before.buckets(name)
        counts = {end: count - earlier.get(end, 0.0) for end, count in counts.items()}
        total = counts.get(float("inf"), 0.0)
        if not total:
            return None
        return min(end for end, count in counts.items() if count >= share * total)
