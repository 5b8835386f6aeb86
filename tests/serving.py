"""A real `gen serve` in a process of its own, for tests."""

from __future__ import annotations

import contextlib
import queue
import re
import signal
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

#: Seconds within which a server opens its files.
START_SECONDS = 60


class ServerProcess:
    """A running server."""

    def __init__(self, arguments: list[str | Path]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gentext", "serve", "--port", "0", *map(str, arguments)],
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read_lines, daemon=True)
        self._reader.start()
        self.printed = ""
        """All that it has printed on stderr, as far as it was read."""
        while not (address := re.search(r"serving .* at (http://\S+)", self.printed)):
            line = self._lines.get(timeout=START_SECONDS)
            assert line, f"the server has ended with status {self.process.wait()}: {self.printed}"
            self.printed += line
        self.url = address[1]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        url = urllib.parse.urlsplit(self.url)
        assert url.hostname is not None and url.port is not None
        return url.hostname, url.port

    def read_printed(self) -> str:
        """Return all that it has printed on stderr until now."""
        while not self._lines.empty():
            self.printed += self._lines.get()
        return self.printed

    def _read_lines(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line)
        self._lines.put("")

    def post(self, path: str, **fields: Any) -> httpx.Response:
        """Send a request with a body in JSON."""
        return httpx.post(f"{self.url}{path}", json=fields, timeout=START_SECONDS)

    def complete(self, **fields: Any) -> dict[str, Any]:
        """Return the answer to a request for texts."""
        answer = self.post("/v1/completions", **fields)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def end(self) -> tuple[int, str]:
        """End the server with SIGTERM; return its status and what it has printed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(START_SECONDS)
        self._reader.join(START_SECONDS)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return status, self.read_printed()


@contextlib.contextmanager
def running_server(*arguments: str | Path) -> Iterator[ServerProcess]:
    """Start a server, and end it; fail where it has printed a traceback."""
    server = ServerProcess(list(arguments))
    try:
        yield server
    finally:
        status, printed = server.end()
    assert "Traceback" not in printed, printed
    assert status == 0, (status, printed)
