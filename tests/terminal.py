"""A terminal for programs that draw on it: what they print becomes a screen, as pyte understands it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import termios
import time
from collections.abc import Iterator
from typing import Any

import pyte
from helpers import start

TAB, SHIFT_TAB, ENTER, ESCAPE = "\t", "\x1b[Z", "\r", "\x1b"
UP, LEFT, HOME = "\x1b[A", "\x1b[D", "\x1b[H"


def control(letter: str) -> str:
    """Return what a terminal sends for Ctrl and a letter."""
    return chr(ord(letter.upper()) - 64)


class Terminal:
    """A running ``gen`` on a terminal of some size."""

    def __init__(self, process: Any, master: int, columns: int, lines: int) -> None:
        self.process, self._master = process, master
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.output = b""

    @property
    def text(self) -> str:
        """What the screen shows, without spaces at the ends of lines."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    def send(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read(self, seconds: float) -> bool:
        """Take over what the program prints within a time; return whether it printed anything."""
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        with contextlib.suppress(OSError):  # on Linux, when the other end is closed
            block = os.read(self._master, 65536)
            self.output += block
            self._stream.feed(block)
            if b"\x1b[6n" in block:  # the program asks where the cursor is
                self.send(f"\x1b[{self.screen.cursor.y + 1};{self.screen.cursor.x + 1}R")
            return bool(block)
        return False

    def wait_for(self, *fragments: str, seconds: float = 60) -> str:
        """Wait until the screen shows all of these; return what it shows."""
        end = time.monotonic() + seconds
        while not all(fragment in self.text for fragment in fragments):
            assert time.monotonic() < end, self.text
            self.read(0.1)
        return self.text

    def wait_until_gone(self, fragment: str, seconds: float = 60) -> None:
        """Wait until the screen does not show this any longer."""
        end = time.monotonic() + seconds
        while fragment in self.text:
            assert time.monotonic() < end, self.text
            self.read(0.1)

    def end(self) -> int:
        """Wait for the end of the program, and return its exit status."""
        while self.process.poll() is None:
            self.read(0.05)
        while self.read(0):
            pass
        return int(self.process.returncode)


@contextlib.contextmanager
def running_terminal(*arguments: object, columns: int = 100, lines: int = 24, **environment: str) -> Iterator[Terminal]:
    """Run ``gen`` on a terminal; at the end of the context it is killed if it still runs."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    variables = {key: setting for key, setting in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "LINES")}
    variables |= {"TERM": "xterm-256color"} | environment
    process = start(
        *arguments,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=variables,
        preexec_fn=_take_terminal,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(process, master, columns, lines)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(master)


def _take_terminal() -> None:
    """Make stdin the terminal that controls the new process, so that its Ctrl-C and its size reach it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
