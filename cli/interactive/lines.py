"""A text in turns without a screen: for terminals that print lines only, and for pipes."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from gentext.cli.interactive.commands import FINISH_REMARKS, Commands
from gentext.console import report_error, say
from gentext.errors import GenError, text_of
from gentext.files.escapes import decode_escapes

HELP = """\
TEXT           add this to the text, and let the model go on; \\n is a line end
(empty line)   let the model go on
:again         write the last piece again, with another seed
:cut N         keep the first N characters; a negative N removes so many at the end
:undo, :redo   take back the last change; bring it back
:next, :previous   the other branches at the last place that has some
:show          print the whole text
:NAME VALUE    a setting, such as :temperature 0.7; :settings lists them
:save FILE     save the text
:quit          end, as Ctrl-D does; Ctrl-C stops the model
::TEXT         a text that begins with a colon"""


def run_lines(commands: Commands, prime: str) -> None:
    """Read lines from stdin until it ends. Texts go to stdout, everything else to stderr."""
    lines = LineMode(commands, prime)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # bytes that are no UTF-8 become a character that most models lack
    is_terminal = sys.stdin is not None and sys.stdin.isatty()
    if is_terminal:
        say("type a beginning and press Enter; :help lists the commands")
    while True:
        try:
            if is_terminal:
                sys.stdout.write("> ")
                sys.stdout.flush()
            line = sys.stdin.readline() if sys.stdin is not None else ""
        except KeyboardInterrupt:  # it stops the model, not the program
            sys.stdout.write("\n")
            continue
        if not line or line.strip() == ":quit":
            if is_terminal and not line:
                sys.stdout.write("\n")
            return
        try:
            lines.take(line.removesuffix("\n"))
        except GenError as error:
            report_error(text_of(error))


class LineMode:
    """A text, and the versions of it that can be brought back."""

    def __init__(self, commands: Commands, prime: str) -> None:
        self._commands, self.text = commands, prime
        self._earlier: list[str] = []
        self._undone: list[str] = []

    def take(self, line: str) -> None:
        """Do what a line says. Raises a GenError where that is not possible."""
        tree = self._commands.tree
        name, _, argument = line.removeprefix(":").strip().partition(" ")
        if not line.startswith(":") or line.startswith("::"):
            self._write(self.text + decode_escapes(line.removeprefix(":")))
        elif name == "help":
            say(HELP)
        elif name == "show":
            print(self.text)
        elif name == "settings":
            for setting in self._commands.settings():
                say(f"{setting.name} {setting.text or 'none'}: {setting.meaning}")
        elif name == "again":
            self._write(self.text[: tree.last_begin(self.text)])
        elif name == "cut" and argument.strip().removeprefix("-").isdecimal():
            self._change(self.text[: int(argument)])
        elif name in ("undo", "redo"):
            source, target = (self._earlier, self._undone) if name == "undo" else (self._undone, self._earlier)
            if source:
                target.append(self.text)
                self.text = source.pop()
            self._show_end()
        elif name in ("next", "previous"):
            self._change(tree.branch(self.text, len(self.text), 1 if name == "next" else -1))
        else:
            say(self._commands.run(line.removeprefix(":"), self.text))

    def _change(self, text: str) -> None:
        self._replace(text)
        self._show_end()

    def _replace(self, text: str) -> None:
        if text != self.text:
            self._earlier.append(self.text)
            self._undone.clear()
            self.text = text

    def _show_end(self) -> None:
        tree = self._commands.tree
        branch = tree.describe_branch(self.text, len(self.text))
        remark = "" if branch is None else f", branch {branch[0]} of {branch[1]} at {branch[2]:,}"
        say(f"{len(self.text):,} characters{remark}: ...{self.text[-60:]!r}")

    def _write(self, text: str) -> None:
        tree, before = self._commands.tree, self.text
        pieces = tree.write(text)
        with _count_interrupts() as interrupts, contextlib.closing(pieces):
            for piece in pieces:
                text += piece
                sys.stdout.write(piece)
                sys.stdout.flush()
                if interrupts:
                    break
        print()
        self.text = before
        self._replace(text)
        remark = FINISH_REMARKS.get(tree.finish)
        say(f"seed {tree.seed}" + (f": {remark}" if remark else ""))


@contextlib.contextmanager
def _count_interrupts() -> Iterator[list[int]]:
    """Collect the signals of Ctrl-C in a list, instead of raising KeyboardInterrupt in the middle of a call."""
    interrupts: list[int] = []

    def handle(signal_number: int, frame: FrameType | None) -> None:
        interrupts.append(signal_number)

    previous_handler = signal.signal(signal.SIGINT, handle)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, previous_handler)
