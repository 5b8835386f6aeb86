"""``gen sample --interactive``: on a real terminal, in tmux, and line by line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TINY, Gen, run_gen
from helpers import GEN, fails
from terminal import ENTER, HOME, LEFT, SHIFT_TAB, TAB, Terminal, control, running_terminal

import gentext
from gentext.cli import interactive

STATUS = "characters"


@pytest.fixture(scope="module")
def model(tiny_run: Path) -> gentext.TextModel:
    return gentext.load(tiny_run)


@pytest.fixture(scope="module")
def wide_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose characters are two columns wide."""
    folder = tmp_path_factory.mktemp("wide")
    (folder / "text.txt").write_text("世界和平大家好" * 400, encoding="utf-8")
    code, _, err = run_gen("train", folder / "text.txt", "--run", folder / "run", *TINY, "--steps", 2)
    assert code == 0, err
    return folder / "run"


# -- line by line --------------------------------------------------------------------------------


def test_lines(tiny_run: Path, model: gentext.TextModel, tmp_path: Path, gen: Gen) -> None:
    file = tmp_path / "text.txt"
    lines = [
        *("ab. ", "", ":again", ":show", ":undo", ":show", ":redo", ":show", ":previous", ":show"),
        *(
            ":cut 10",
            ":temperature 0.5",
            ":length=7",
            "",
            ":show",
            f":save {file}",
            ":save",
            ":settings",
            ":help",
        ),
    ]
    options = ("--interactive", "--seed", 3, "--length", 20)
    code, out, err = gen("sample", tiny_run, *options, stdin="\n".join(lines).encode())
    assert code == 0 and "gen: error" not in err, err
    first = model.write("ab. ", length=20, seed=3)
    whole = model.write("ab. ", length=40, seed=3)
    assert out.startswith(f"{first}\n{whole[20:]}\n") and out.count(f"\nab. {whole}\n") == 2
    again = file.read_text(encoding="utf-8")
    assert again.startswith(f"ab. {whole}"[:10]) and len(again) == 17
    assert "temperature 0.5" in err and f"saved 17 characters in {file}" in err and "top-p 1: keep" in err
    assert "branch 1 of 2" in err and ":NAME VALUE" in err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (":temperature -1", "temperature -1: "),
        (":temperature warm", "temperature 'warm': expected a number"),
        (":temperture 1", "Did you mean 'temperature'?"),
        (":temperature", "expected a setting and its value"),
        (":", "expected a setting and its value"),
        (":seed x", "seed x: expected a whole number"),
        (":seed 99999999999999999999", "seed 99999999999999999999: expected a whole number from 0"),
        (":length -4", "length -4: expected a whole number"),
        (":style wild", "style wild: expected careful"),
        (":typical-p 0.5", "is not compiled into the file"),
        (":save", "expected the name of a file"),
        (":save /", "exists already"),
        (":save no/such/folder", "cannot be written"),
        ("世", "'世'"),
        ("\udcff", "'\ufffd'"),
    ],
)
def test_a_wrong_line_changes_nothing(
    line: str, message: str, tiny_run: Path, model: gentext.TextModel, gen: Gen
) -> None:
    code, out, err = gen(
        "sample",
        tiny_run,
        "--interactive",
        "--seed",
        3,
        "--length",
        9,
        stdin=f"{line}\n\n".encode("utf-8", "surrogateescape"),
    )
    [error] = [error for error in err.splitlines() if error.startswith("gen: error: ")]
    assert code == 0 and message in error and "--" not in error.replace("--chain", "")
    assert out == model.write(length=9, seed=3) + "\n"


@pytest.mark.parametrize(
    "option",
    ["--count 2", "--json", "--no-stream", "--raw", "--separator x", "--match a+", "--json-schema x", "--output x"],
)
def test_options_of_other_modes_are_refused(option: str, tiny_run: Path, gen: Gen) -> None:
    name = option.split()[0]
    fails(
        2, gen("sample", tiny_run, "--interactive", *option.split()), f"--interactive and {name}: expected one of them"
    )


def test_a_compiled_generator_is_needed(tiny_run: Path, gen: Gen) -> None:
    fails(2, gen("sample", tiny_run / "model.onnx", "--interactive"), "model.onnx has no compiled generator")
    fails(2, gen("sample", tiny_run, "--interactive", "--typical-p", 0.5), "is not compiled", "gen export")


def test_the_library_may_be_missing(tiny_run: Path, gen: Gen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interactive, "has_screen", lambda: True)
    monkeypatch.delitem(sys.modules, "gentext.cli.interactive.screen", raising=False)
    monkeypatch.setitem(sys.modules, "prompt_toolkit", None)
    fails(1, gen("sample", tiny_run, "--interactive"), "TERM=dumb", "pip install 'gentext[interactive]'")


def test_a_dumb_terminal_gets_lines(tiny_run: Path) -> None:
    with running_terminal("sample", tiny_run, "--interactive", "--length", 0, "--seed", 1, TERM="dumb") as terminal:
        terminal.wait_for("\n>")
        terminal.send("ab\n")
        while len(terminal.output) < 2000:
            terminal.read(0.1)
        terminal.send(control("c"))  # stops the model
        terminal.wait_for("seed 1\n>")
        terminal.send(control("c"))  # stops nothing
        terminal.wait_for("^C\n>")
        terminal.send(":temperature 0\n")
        terminal.wait_for("temperature 0\n>")
        terminal.send(control("d"))
        assert terminal.end() == 0 and b"\x1b" not in terminal.output


# -- on a screen ---------------------------------------------------------------------------------


def started(terminal: Terminal) -> Terminal:
    terminal.wait_for("Tab go on")
    return terminal


def test_screen(tiny_run: Path, model: gentext.TextModel, tmp_path: Path) -> None:
    """Write, branch, undo, walk, change a parameter, save, end."""
    first = model.write("ab. ", length=30, seed=3).split("\n")[0].rstrip()
    other = model.write("ab. ", length=30, seed=4).split("\n")[0].rstrip()
    file = tmp_path / "text.txt"
    with running_terminal("sample", tiny_run, "--interactive", "--length", 30, "--seed", 3) as terminal:
        started(terminal).send(f"ab. {TAB}")
        terminal.wait_for(f"ab. {first}", f"34 {STATUS}")
        assert b"\x1b[0;38;5;" in terminal.output  # colours by surprise
        terminal.send(SHIFT_TAB)
        terminal.wait_for(f"ab. {other}", "seed 4", "branch 2 of 2")
        terminal.send(control("p"))
        terminal.wait_for(f"ab. {first}", "branch 1 of 2")
        terminal.send(control("z"))
        terminal.wait_for(f"ab. {other}")
        terminal.send(control("z") * 2)
        terminal.wait_for(f"4 {STATUS}")
        terminal.send(control("y"))
        terminal.wait_for(f"34 {STATUS}")
        for line, message in (
            ("temperature 9e9", "temperature 9e9: "),
            ("temperature 0.5", "length 30  temperature 0.5"),
        ):
            terminal.send(control("o") + line + ENTER)
            terminal.wait_for(message)
        terminal.send(HOME + "b" + HOME + LEFT + TAB)  # what stood behind the cursor is another branch
        terminal.wait_for(f"30 {STATUS}", "branch 2 of 2")
        terminal.send(f"{control('s')}{file}{ENTER}")
        terminal.wait_for("saved 30 characters")
        terminal.send(control("d"))
        assert terminal.end() == 0
    assert file.read_text() == model.write(length=30, seed=4, temperature=0.5)


def test_what_disturbs_a_screen(tiny_run: Path, model: gentext.TextModel) -> None:
    """Typing, Ctrl-C, a resize and a signal while the model writes a text without end."""
    with running_terminal("sample", tiny_run, "--interactive", "--length", 0, "--seed", 3) as terminal:
        started(terminal).send(TAB)
        terminal.wait_for("writing")
        terminal.resize(80, 12)
        terminal.wait_for("writing", "^O set  ^S save  ^D end")
        terminal.send(control("c"))
        terminal.wait_until_gone("writing")
        terminal.send(TAB)
        terminal.wait_for("writing")
        terminal.send("hhhhhhhhhh")
        terminal.wait_until_gone("writing")
        terminal.wait_for("hhhhhhhhhh")
        terminal.send(TAB)
        terminal.wait_for("writing")
        os.kill(terminal.process.pid, signal.SIGINT)
        terminal.wait_until_gone("writing")
        terminal.send(control("c"))
        terminal.wait_for("^D ends, ")
        terminal.send(control("d"))
        assert terminal.end() == 0


@pytest.mark.slow
def test_wide_characters_and_a_long_text(wide_run: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("世界" * 5_000, encoding="utf-8")  # one line of 250 rows
    options = ("--prime-file", tmp_path / "long.txt", "--length", 10)
    with running_terminal("sample", wide_run, "--interactive", *options, columns=81) as terminal:
        started(terminal).send("和\u202e")
        terminal.wait_for("和\N{REPLACEMENT CHARACTER}")
        terminal.send("\x7f" + TAB)
        terminal.wait_for(f"10,011 {STATUS}")
        terminal.send(control("d"))
        assert terminal.end() == 0


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[list[str]]:
    """The command of a tmux server of our own."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    command = ["tmux", "-S", str(tmp_path / "socket"), "-f", os.devnull]
    yield command
    subprocess.run([*command, "kill-server"], capture_output=True)


@pytest.mark.slow
def test_in_tmux(tmux: list[str], tiny_run: Path, model: gentext.TextModel) -> None:
    words = ["sample", str(tiny_run), "--interactive", "--length", "30", "--seed", "3"]
    subprocess.run([*tmux, "new-session", "-d", "-x", "90", "-y", "20", sys.executable, "-c", GEN, *words], check=True)

    def wait_for(*fragments: str) -> None:
        end, shown = time.monotonic() + 60, ""
        while not all(fragment in shown for fragment in fragments):
            assert time.monotonic() < end, shown
            time.sleep(0.1)
            shown = subprocess.run([*tmux, "capture-pane", "-p"], capture_output=True, text=True).stdout

    wait_for("Tab go on")
    subprocess.run([*tmux, "send-keys", "ab. ", "Tab"], check=True)
    wait_for(model.write("ab. ", length=30, seed=3).split("\n")[0].rstrip(), "34 characters")
    subprocess.run([*tmux, "send-keys", "BTab"], check=True)
    wait_for("branch 2 of 2")
    subprocess.run([*tmux, "send-keys", "C-s"], check=True)
    wait_for(":save")
