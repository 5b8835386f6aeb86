"""A headless Chromium, driven over a pipe by the DevTools protocol, which needs no package."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Seconds within which what a test waits for must come.
WAIT_SECONDS = 60
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
#: The codes of keys that `Browser.press` knows besides letters.
KEY_CODES = {"Tab": 9, "Enter": 13, "Escape": 27, "Space": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39}
KEY_CODES |= {"ArrowDown": 40, "Backspace": 8, "Home": 36, "End": 35, "F1": 112}
MODIFIERS = {"Alt": 1, "Control": 2, "Shift": 8}


class Browser:
    """One page of a browser."""

    def __init__(self, write_to: int, read_from: int) -> None:
        self._write_to, self._read_from = write_to, read_from
        self._numbers = itertools.count(1)
        self._buffer = b""
        self._session: str | None = None
        self.errors: list[str] = []
        """Exceptions of the page, and what it logs as an error."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol, and return its result."""
        number = next(self._numbers)
        session = {} if self._session is None else {"sessionId": self._session}
        os.write(
            self._write_to, json.dumps({"id": number, "method": method, "params": params, **session}).encode() + b"\0"
        )
        while True:
            message = self._receive()
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                result: dict[str, Any] = message["result"]
                return result
            self._note_error(message)

    def open(
        self,
        url: str,
        width: int = 1280,
        height: int = 800,
        *,
        scale: float = 1,
        dark: bool = False,
        has_motion: bool = False,
    ) -> None:
        """Open a page in a window of this size in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "no-preference" if has_motion else "reduce"},
        ]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.visit(url)
        self.wait("document.querySelector('#write')?.disabled === false")

    def visit(self, url: str) -> None:
        """Open an address, whatever is there, and wait until it is loaded."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run_body(self, body: str) -> Any:
        """Return what the body of an asynchronous function returns."""
        return self.run(f"(async () => {{ {body} }})()")

    def run(self, expression: str) -> Any:
        """Return the result of an expression of JavaScript, awaited."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, (expression, result["exceptionDetails"])
        return result["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true."""
        ending_at = time.monotonic() + WAIT_SECONDS
        while not self.run(f"Boolean({expression})"):
            assert time.monotonic() < ending_at, (expression, self.status, self.errors[-3:])
            time.sleep(0.03)

    def press(self, key: str) -> None:
        """Press a key, such as ``Tab`` or ``Control+Shift+z``."""
        *modifiers, name = key.split("+")
        mask = sum(MODIFIERS[modifier] for modifier in modifiers)
        code = KEY_CODES.get(name, ord(name.upper()[0]))
        sent_name = " " if name == "Space" else name.upper() if "Shift" in modifiers and len(name) == 1 else name
        fields = {"key": sent_name, "code": name, "windowsVirtualKeyCode": code, "modifiers": mask}
        if name == "Enter" and not modifiers:
            fields["text"] = "\r"
        self.call("Input.dispatchKeyEvent", type="keyDown" if "text" in fields else "rawKeyDown", **fields)
        self.call("Input.dispatchKeyEvent", type="keyUp", **fields)

    def type(self, text: str) -> None:
        """Type a text where the focus is."""
        self.call("Input.insertText", text=text)

    def click(self, expression: str) -> None:
        """Click the middle of an element that an expression of JavaScript returns."""
        self.run(f"({expression}).scrollIntoView({{block: 'nearest', behavior: 'instant'}})")
        place = f"(box => [box.x + box.width / 2, box.y + box.height / 2])(({expression}).getBoundingClientRect())"
        x, y = self.run(place)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path) -> None:
        """Write what the window shows to a file, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    @property
    def text(self) -> str:
        """The text of the page."""
        return str(self.run("document.querySelector('#text').value"))

    @property
    def status(self) -> str:
        """The line of news of the page."""
        return str(self.run("document.querySelector('#status')?.textContent"))

    def wait_until_written(self) -> None:
        """Wait until the page has begun and ended to write."""
        self.wait("!document.body.classList.contains('writing') && !document.querySelector('#text').readOnly")

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read_from], [], [], WAIT_SECONDS)
            part = os.read(self._read_from, 2**16) if ready else b""
            assert part, "the browser does not answer"
            self._buffer += part
        content, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(content)
        return message

    def _note_error(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"]))
        elif message.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])


@contextlib.contextmanager
def running_browser(profile: Path, *flags: str) -> Iterator[Browser]:
    """Start a browser with an empty profile, and end it."""
    assert CHROMIUM is not None
    browser_reads, we_write = os.pipe()
    we_read, browser_writes = os.pipe()
    # The browser reads descriptor 3 and writes descriptor 4; a shell moves ours there, whatever their numbers are.
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
    command += ["--hide-scrollbars", "--disable-dev-shm-usage", f"--user-data-dir={profile}", *flags]
    moving = f'exec "$@" 3<&{browser_reads} 4>&{browser_writes}'
    process = subprocess.Popen(
        ["bash", "-c", moving, "bash", *command],
        pass_fds=(browser_reads, browser_writes),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(browser_reads)
    os.close(browser_writes)
    try:
        browser = Browser(we_write, we_read)
        yield browser
        browser._session = None
        browser.call("Browser.close")
    finally:
        os.close(we_write)
        os.close(we_read)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
