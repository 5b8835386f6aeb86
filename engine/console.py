"""Lines and progress bars for the user, on stderr, and what a terminal may be shown.

Commands print only their results on stdout: a model's text, tables, JSON.
"""

from __future__ import annotations

import contextlib
import html
import io
import os
import re
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, TextIO, cast

#: Control characters other than newline and tab, those of C1 among them, and characters that turn the direction of
#: writing. On a terminal they could erase what stands there, change its title or its keys, or disguise a file's name.
_CONTROL_CHARACTER = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\N{ARABIC LETTER MARK}\N{LEFT-TO-RIGHT MARK}\N{RIGHT-TO-LEFT MARK}"
    "\u202a-\u202e\u2066-\u2069]"
)
_LINE_BREAKS = re.compile(r"[\t\n\v\f\r]+")
#: A command of gen at the end of a line, behind a colon.
_LAST_COMMAND = re.compile(r"(?<=: )(\S*/)?gen [a-z].*$")
#: Characters of an error or a warning at most, and how many of them come from its end, where the advice is.
LINE_LENGTH, LINE_END_LENGTH = 500, 200
#: Seconds of work that show no bar.
SILENT_SECONDS = 2.0
#: Seconds between two updates of a bar.
UPDATE_SECONDS = 0.1

#: The list that gets the lines instead of stderr, or None. Each thread has its own.
_collected_lines: ContextVar[list[str] | None] = ContextVar("collected", default=None)
#: Whether `detail` prints. Each thread has its own.
_shows_details: ContextVar[bool] = ContextVar("details", default=False)


def show_controls(text: str) -> str:
    r"""Return a text with control characters as escapes: ``\x1b`` for one byte, else ``\u202e``."""
    return _CONTROL_CHARACTER.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


class EscapingStream:
    """A stream to a terminal that writes control characters as escapes: see `show_controls`."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream
        """The terminal itself. By this name, rich finds where to write the escape sequences of its own."""

    def write(self, text: str) -> int:
        return self.rich_proxied_file.write(show_controls(text))

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def escape_on_terminal(stream: TextIO) -> TextIO:
    """Return a stream that escapes control characters if the given one is a terminal, else the given one."""
    if isinstance(stream, EscapingStream) or not stream.isatty():
        return stream
    return cast(TextIO, EscapingStream(stream))


def raw_stdout() -> TextIO:
    """Return stdout without the escaping of a terminal."""
    return sys.stdout.rich_proxied_file if isinstance(sys.stdout, EscapingStream) else sys.stdout


def write_wholly(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """Return a stream that writes all of a text, or raises OSError.

    Without buffers, as ``PYTHONUNBUFFERED`` sets it, Python drops what did not fit on a full disk, without an error.
    """
    if not isinstance(stream.buffer, io.RawIOBase):
        return stream
    file = open(stream.fileno(), "wb", closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(file, stream.encoding, stream.errors, line_buffering=True)


@contextlib.contextmanager
def quiet() -> Iterator[list[str]]:
    """Collect the lines of this thread in the list that the context returns, instead of printing them."""
    lines: list[str] = []
    reset_handle = _collected_lines.set(lines)
    try:
        yield lines
    finally:
        _collected_lines.reset(reset_handle)


def is_quiet() -> bool:
    """Return whether lines of this thread are collected instead of printed."""
    return _collected_lines.get() is not None


def mute(is_muted: bool) -> None:
    """Stop printing lines in this thread, or start again. Of several processes that train together, one prints."""
    _collected_lines.set([] if is_muted else None)


def say(line: str) -> None:
    """Print one line on stderr; when stderr is closed, the line is lost and the program goes on."""
    lines = _collected_lines.get()
    if lines is not None:
        lines.append(line)
        return
    if sys.stderr is None:  # it was closed before the program began
        return
    with contextlib.suppress(OSError, ValueError):
        # Escaped here too: in a program of the user's own, stderr is not an `EscapingStream`.
        print(_wrap(show_controls(line)) if sys.stderr.isatty() else line, file=sys.stderr, flush=True)


def _wrap(line: str) -> str:
    """Return a line broken between words at the terminal's width. A command at its end stays whole: users copy it."""
    width = shutil.get_terminal_size().columns
    if len(line) <= width:
        return line
    line = _LAST_COMMAND.sub(lambda match: match[0].replace(" ", "\0"), line)
    broken = textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False, replace_whitespace=False)
    return broken.replace("\0", " ")


@contextlib.contextmanager
def details(are_shown: bool) -> Iterator[None]:
    """Let `detail` print in this thread, or not."""
    reset_handle = _shows_details.set(are_shown)
    try:
        yield
    finally:
        _shows_details.reset(reset_handle)


def shows_details() -> bool:
    """Return whether `detail` prints."""
    return _shows_details.get()


def detail(line: str) -> None:
    """Print one line on stderr where the user asked for more with ``--verbose``."""
    if shows_details():
        say(line)


def warn(message: str) -> None:
    """Print a line that the user may want to act on."""
    say(_fit_line(f"gen: warning: {message}"))


def report_error(message: str) -> None:
    """Print the line of an error."""
    say(_fit_line(f"gen: error: {message}"))


def _fit_line(text: str) -> str:
    """Return a text as one line without control characters. A long one, which quotes something, loses its middle."""
    line = show_controls(_LINE_BREAKS.sub(" ", text))
    if len(line) <= LINE_LENGTH:
        return line
    return f"{line[: LINE_LENGTH - LINE_END_LENGTH - 1]}…{line[-LINE_END_LENGTH:]}"


class Bar:
    """How far some work is: a count of its steps, of which a subclass shows something."""

    def __init__(self, title: str, total: float | None, unit: str, done: float = 0) -> None:
        self.title, self.total, self.unit = show_controls(title), total, unit
        self.done, self.note = done, ""
        self._done_before, self._started_at = done, time.monotonic()
        self._advance_seconds = 0.0

    def advance(self, steps: float = 1, note: str = "") -> None:
        """Count steps that were done. ``note`` is shown behind the rate, such as the loss; the last one stays."""
        self.done += steps
        self._advance_seconds = self.seconds
        self.note = show_controls(note) or self.note
        self.update()

    def update(self) -> None:
        """Show the new count; called after each change of it."""

    def close(self) -> None:
        """Remove what is on the terminal; the work is done, or was given up."""

    @property
    def seconds(self) -> float:
        """Seconds since the work began."""
        return time.monotonic() - self._started_at

    def __str__(self) -> str:
        """Return percentage, rate and time left, as far as they are known."""
        rate = (self.done - self._done_before) / max(self._advance_seconds, 1e-9)
        parts = [] if not self.total else [f"{min(self.done / self.total, 1):.0%}"]
        if self.unit and rate:
            parts.append(f"{rate:,.0f} {self.unit}/s" if rate >= 10 else f"{rate:.2g} {self.unit}/s")
        if self.total and rate:
            seconds_left = (self.total - self.done) / rate - (self.seconds - self._advance_seconds)
            parts.append(f"{_format_seconds(max(seconds_left, 0))} left")
        return ", ".join(parts + ([self.note] if self.note else []))


def _format_seconds(seconds: float) -> str:
    minutes, seconds_left = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours}:{minutes_left:02}:{seconds_left:02}" if hours else f"{minutes}:{seconds_left:02}"


class _Lines(Bar):
    """A line for each tenth of the work, for a stderr that is a file or a pipe."""

    _tenths = 0

    def update(self) -> None:
        tenths = int(10 * self.done / self.total) if self.total else 0
        if tenths > self._tenths:
            self._tenths = tenths
            if self.seconds >= SILENT_SECONDS:
                say(f"{self.title}: {self}")


class _TerminalBar(Bar):
    """A bar on the terminal. Bars that overlap in time stand below each other in one display of rich's."""

    _lock = threading.RLock()
    _display: Any = None
    """rich's display of all bars; None while there is none."""

    def __init__(self, title: str, total: float | None, unit: str, done: float = 0) -> None:
        super().__init__(title, total, unit, done)
        self._task: Any = None
        self._updated_at = 0.0
        self._timer = threading.Timer(SILENT_SECONDS, self._open)
        self._timer.daemon = True
        self._timer.start()

    def update(self) -> None:
        time_of_update = time.monotonic()
        if self._task is None or time_of_update < self._updated_at + UPDATE_SECONDS:
            return
        self._updated_at = time_of_update
        with self._lock:
            if self._display is not None:
                self._display.update(self._task, total=self.total, completed=self.done)

    def _open(self) -> None:
        """Begin to show the bar; called by the timer."""
        with self._lock:
            if self._timer.finished.is_set():  # the work has ended in the meantime
                return
            if self._display is None:
                _TerminalBar._display = _start_display()
            self._task = self._display.add_task(self.title, total=self.total, completed=self.done, bar=self)

    def close(self) -> None:
        self._timer.cancel()
        with self._lock:
            if self._task is None:
                return
            if len(self._display.tasks) > 1:
                self._display.remove_task(self._task)
            else:
                self._display.stop()
                _TerminalBar._display = None
            self._task = None


class _NotebookBar(Bar):
    """A bar in the output of a notebook's cell. It is replaced in place, and disappears at the end."""

    def __init__(self, title: str, total: float | None, unit: str, done: float = 0) -> None:
        super().__init__(title, total, unit, done)
        self._handle: Any = None
        """IPython's handle of the bar; None while it is not shown."""
        self._updated_at = 0.0

    def __repr__(self) -> str:
        return f"{self.title}: {self}"

    def _repr_html_(self) -> str:
        share = f' value="{min(self.done / self.total, 1):.3f}"' if self.total else ""
        return f"{html.escape(self.title)} <progress{share}></progress> {html.escape(str(self))}"

    def update(self) -> None:
        from IPython.display import display

        time_of_update = time.monotonic()
        if self.seconds < SILENT_SECONDS or time_of_update < self._updated_at + UPDATE_SECONDS:
            return
        self._updated_at = time_of_update
        if self._handle is None:
            self._handle = display(self, display_id=True)
        else:
            self._handle.update(self)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.update({"text/plain": ""}, raw=True)


def _is_notebook() -> bool:
    """Return whether this program is the kernel of a notebook, which has imported IPython already."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def _start_display() -> Any:
    """Start a display of rich's, which has no bar yet. Importing rich takes a tenth of a second."""
    from rich import progress as rich
    from rich.console import Console

    terminal = sys.stderr.rich_proxied_file if isinstance(sys.stderr, EscapingStream) else sys.stderr
    display = rich.Progress(
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(20),
        rich.TextColumn("{task.fields[bar]}", markup=False),
        console=Console(file=terminal),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # else what is printed to a file would go to the terminal
    )
    display.start()
    # From now on rich places lines above the bars, and would let a part of their control characters through.
    sys.stdout, sys.stderr = escape_on_terminal(sys.stdout), escape_on_terminal(sys.stderr)
    return display


@contextlib.contextmanager
def progress(title: str, total: float | None = None, unit: str = "", done: float = 0) -> Iterator[Bar]:
    """Show how far some work is, once it has taken two seconds: a bar in a terminal or a notebook, else a line a tenth.

    :param title: what is done, as in "measuring the loss".
    :param total: how many steps the work has; None where nobody knows.
    :param unit: the steps' name, for the rate; without it no rate is shown.
    :param done: steps that were done before, of a run that is resumed.
    """
    bar_class: type[Bar] = Bar
    if not is_quiet() and sys.stderr is not None:
        if _is_notebook():
            bar_class = _NotebookBar
        elif sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown"):
            bar_class = _TerminalBar
        else:
            bar_class = _Lines
    bar = bar_class(title, total, unit, done)
    try:
        yield bar
    finally:
        bar.close()
