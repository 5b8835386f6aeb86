"""What a terminal is shown: control characters as escapes, one short line for an error, and bars for long work."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SHALLOW
from helpers import run_on_terminal, start
from hypothesis import given
from hypothesis import strategies as st

from gentext import console
from gentext.console import LINE_LENGTH, progress, report_error, show_controls, warn

pytest.importorskip("pty")

Gen = Callable[..., tuple[int, str, str]]

#: One character of each kind that a terminal must not get, and a few that it may.
HOSTILE = "\x1b\x07\x08\x7f\x9b\u202e\u2066\u200f\u061c"
HARMLESS = "\n\té中🙂\u200d"


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory, gen: Gen, tiny_options: tuple[str, ...]) -> Path:
    """A run whose model has learned control characters, and whose text has them in its name."""
    folder = tmp_path_factory.mktemp("hostile")
    text = folder / "name\x1b[31m\u202e.txt"
    text.write_text((HOSTILE + HARMLESS) * 300, encoding="utf-8")
    options = (*tiny_options, *SHALLOW, "--steps", 2)
    code, _, err = gen("train", text, "--run", folder / "run\x1b[32m", *options)
    assert code == 0, err
    return folder / "run\x1b[32m"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_controls_are_shown_and_nothing_else_changes(text: str) -> None:
    shown = show_controls(text)
    assert not set(shown) & {chr(code) for code in [*range(9), *range(11, 32), *range(0x7F, 0xA0)]} and not (
        set(shown) & set(HOSTILE)
    )
    assert show_controls(shown) == shown
    kept = [character for character in text if show_controls(character) == character]
    if len(kept) == len(text):
        assert shown == text


def test_a_text_on_a_terminal_has_no_control_characters(hostile_run: Path) -> None:
    command = ("sample", hostile_run, "--length", 300, "--seed", 1, "--top-k", 0)
    for options in ((), ("--count", 2), ("--json",)):
        code, output = run_on_terminal(*command, *options)
        assert code == 0, output
        assert not set(output) & set(HOSTILE), options
        assert (r"\u001b" if options == ("--json",) else r"\x1b") in output and r"\u202e" in output, options
        assert "中" in output and "🙂" in output
    code, output = run_on_terminal(*command, "--raw")
    assert set(HOSTILE) <= set(output) and r"\x1b" not in output.replace(r"run\x1b[32m", "")


def test_files_and_pipes_get_the_bytes(hostile_run: Path, gen: Gen) -> None:
    command = ("sample", hostile_run, "--length", 300, "--seed", 1, "--top-k", 0)
    code, out, _ = gen(*command)
    assert code == 0 and set(HOSTILE) <= set(out) and "\\" not in out
    process = start(*command)
    assert process.communicate()[0].decode() == out
    # each stream by its own: the text goes to a pipe, the lines about it to the terminal
    code, output = run_on_terminal("sample", "--length", 5, hostile_run.parent / "no\x1bne", streams=["stderr"])
    assert code == 1 and r"no\x1bne: no such run or file" in output


@pytest.mark.slow
def test_names_on_a_terminal_have_no_control_characters(hostile_run: Path, tmp_path: Path) -> None:
    for command in (
        ("info", hostile_run),
        ("info", hostile_run, "--json"),
        ("eval", hostile_run),
        ("eval", hostile_run, tmp_path / "no\x9bne"),
        ("train", hostile_run.parent / "no\x1b[2Jne"),
        ("export", hostile_run, "--chain", "top\x1b_k"),
        ("plugins", "a\x1b"),
        ("sample", hostile_run, "--stop", "\x1bq"),
        ("bench", "--threads", "\x1b"),
    ):
        _, output = run_on_terminal(*command)
        assert not set(output) & set(HOSTILE), command
        assert "Traceback" not in output
        assert "\\" in output, command


def test_help_on_a_terminal_keeps_its_colours() -> None:
    code, output = run_on_terminal("--help")
    assert code == 0 and "\x1b[" in output


def test_a_long_error_is_cut_in_its_middle(gen: Gen, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report_error("what " + "x" * 5000 + "\n of \t lines; do this")
    line = capsys.readouterr().err
    assert len(line) == LINE_LENGTH + 1 and line.count("\n") == 1
    assert line.startswith("gen: error: what xxx") and line.endswith("of   lines; do this\n") and "x…x" in line
    warn("y" * 400)
    assert capsys.readouterr().err == f"gen: warning: {'y' * 400}\n"
    for command in (("sample", "x" * 5000), ("train", "--set", "model." + "y" * 3000), ("plugins", "z" * 9999)):
        code, _, err = gen(*command)
        assert code and len(err.rstrip("\n").splitlines()[-1]) <= LINE_LENGTH


# -- bars -------------------------------------------------------------------------------------


def work(steps: int, seconds: float) -> None:
    with progress("baking\x1b", steps, "loaves") as bar:
        for _ in range(steps):
            time.sleep(seconds / steps)
            bar.advance()


def test_a_file_gets_a_line_for_each_tenth(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    work(100, 0)
    assert capsys.readouterr().err == ""  # short work is silent
    monkeypatch.setattr(console, "SILENT_SECONDS", 0)
    work(100, 0)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("%")[0] for line in lines] == [rf"baking\x1b: {tenth}0" for tenth in range(1, 11)]
    assert all("loaves/s, 0:0" in line for line in lines)
    with console.quiet():
        work(100, 0)
    assert capsys.readouterr().err == ""


BAKING = """
import sys, time
from gentext import console
from gentext.console import escape_on_terminal, progress, say
sys.stdout, sys.stderr = escape_on_terminal(sys.stdout), escape_on_terminal(sys.stderr)
console.SILENT_SECONDS = float(sys.argv[1])
before = sys.stdout, sys.stderr
with progress("baking", 4, "loaves") as outer, progress("kneading", 10) as inner:
    for _ in range(10):
        time.sleep(0.05)
        inner.advance()
    outer.advance()
    say("a line \\x1b[31m of gen")
    print("a line \\x9b of a plugin", file=sys.stderr)
    print("a result")
assert (sys.stdout, sys.stderr) == before
print("rich" in sys.modules)
"""


def test_a_terminal_gets_bars_and_lines_above_them() -> None:
    import helpers

    def bake(silent_seconds: float, **streams: object) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(helpers, "GEN", BAKING)
            return run_on_terminal(silent_seconds, **streams)[1]  # type: ignore[arg-type]

    output = bake(0.1)
    assert "kneading" in output and "25%, " in output and "loaves/s" in output
    assert r"a line \x1b[31m of gen" in output and r"a line \x9b of a plugin" in output
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h") == 1  # the cursor is hidden, and comes back
    assert output.endswith("True\n") and "━" not in output.rpartition("\x1b[2K")[2]
    output = bake(60)
    assert output == "a line \\x1b[31m of gen\na line \\x9b of a plugin\na result\nFalse\n"
    # what goes to a pipe stays out of the terminal
    assert "a result" not in bake(0.1, streams=["stderr"])
