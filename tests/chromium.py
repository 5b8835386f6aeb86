"""Headless Chromium for tests and benchmarks: pages are opened, and JavaScript runs in them.

Chromium is driven by the DevTools protocol over two pipes (https://chromedevtools.github.io/devtools-protocol/), which
needs no package: each message is JSON, and ends with a zero byte.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

#: The program, or None where it is not installed.
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
#: Seconds that a page has for an answer.
MAX_SECONDS = 120


class Page:
    """A tab."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self.browser, self.session = browser, session

    def send(self, method: str, **parameters: Any) -> Any:
        """Return the result of a command of the protocol."""
        return self.browser.send(method, self.session, **parameters)

    def open(self, url: str) -> None:
        """Open an address, and wait until its modules have run."""
        self.send("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """Return what a script returns, or what its promise is fulfilled with. Raises AssertionError if it throws."""
        result = self.send(
            "Runtime.evaluate", expression=f"(async () => {{ {script} }})()", awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, json.dumps(result["exceptionDetails"], indent=1)
        return result["result"].get("value")

    def wait(self, condition: str, seconds: float = MAX_SECONDS) -> None:
        """Wait until an expression is true."""
        ending_at = time.monotonic() + seconds
        while not self.run(f"return Boolean({condition})"):
            assert time.monotonic() < ending_at, condition
            time.sleep(0.05)

    def screenshot(self, path: Path) -> None:
        """Write what the page shows, as PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))


class Chromium:
    """A browser with a profile of its own."""

    def __init__(self, options: Sequence[str] = ()) -> None:
        assert CHROMIUM is not None
        self._profile = tempfile.mkdtemp(prefix="chromium")
        child_reads, self._writes = os.pipe()
        self._reads, child_writes = os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
        # The protocol's pipes are the descriptors 3 and 4 of the program; a shell puts them there.
        redirect = f'exec 3<&{child_reads} 4>&{child_writes}; exec "$@"'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", redirect, "chromium", CHROMIUM, *flags, f"--user-data-dir={self._profile}", *options],
            pass_fds=(child_reads, child_writes),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(child_reads)
        os.close(child_writes)
        self._buffer, self._last_id = b"", 0

    def send(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        """Return the result of a command of the protocol. Raises AssertionError where it fails."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": parameters}
        os.write(self._writes, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._last_id:
                assert "error" not in answer, f"{method}: {answer.get('error')}"
                return answer["result"]

    def new_page(self) -> Page:
        """Open a tab."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        return Page(self, self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])

    def close(self) -> None:
        """End the browser, and remove its profile."""
        with contextlib.suppress(OSError):
            os.close(self._writes)
        self._process.terminate()
        self._process.wait()
        os.close(self._reads)
        shutil.rmtree(self._profile, ignore_errors=True)

    def _receive(self) -> Any:
        while b"\0" not in self._buffer:
            block = os.read(self._reads, 2**16)
            assert block, "Chromium has ended"
            self._buffer += block
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves the files of a folder, without a line for each."""

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextlib.contextmanager
def open_chromium(*options: str) -> Iterator[Chromium]:
    """Start a browser, and end it."""
    browser = Chromium(options)
    try:
        yield browser
    finally:
        browser.close()


@contextlib.contextmanager
def serve_folder(folder: Path, handler: type[QuietHandler] = QuietHandler) -> Iterator[str]:
    """Serve a folder at an address on this machine, which is yielded."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
