"""A real `gen serve` in a process of its own, for tests."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

#: Seconds within which a server opens its files.
START_SECONDS = 60


class ServerProcess:
    """A running server. ``lines`` has what it has printed on stderr before it was ready."""

    def __init__(self, arguments: list[str | Path]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gentext", "serve", "--port", "0", *map(str, arguments)],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if address := re.search(r"serving .* at (http://\S+)", line):
                self.url = address[1]
                return
        raise AssertionError(f"the server has ended with status {self.process.wait()}: {''.join(self.lines)}")

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
        """End the server with SIGTERM; return its status and what it has printed since it was ready."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        _, printed = self.process.communicate(timeout=START_SECONDS)
        return self.process.returncode, printed


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
