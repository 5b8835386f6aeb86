"""What a newcomer meets first: completion after Tab, no run yet, figures with digits that say something."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import fails

from gentext.cli.app import main
from gentext.plugins.trainers.commands import command_line

Gen = Callable[..., tuple[int, str, str]]


@pytest.fixture
def runs(tmp_path: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of runs with one that was not exported, ``demo``."""
    monkeypatch.setenv("GEN_RUNS", str(tmp_path / "runs"))
    shutil.copytree(tiny_run, tmp_path / "runs" / "demo", ignore=shutil.ignore_patterns("*.onnx"))
    (tmp_path / "runs" / "no run").mkdir()
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("train", "--preset", ""), ["base", "notebook", "small", "tiny"]),
        (("train", "tiny"), ["tinyshakespeare"]),
        (("sweep", "text"), ["text8"]),
        *(
            ((command, "{runs}/d"), ["{runs}/demo"])
            for command in ("sample", "best", "eval", "inspect", "info", "export", "bench")
        ),
        (("train", "--resume", "--run", "{runs}/"), ["{runs}/demo"]),
        (("sample", "shak"), ["shakespeare"]),
        (("sample", "{runs}/x"), []),  # the shell completes files
    ],
)
def test_a_shell_completes_names(
    words: tuple[str, ...],
    expected: list[str],
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = tuple(word.format(runs=runs) for word in words)
    monkeypatch.setenv("_GEN_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", " ".join(("gen", *words)))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    with pytest.raises(SystemExit):
        main([])
    captured = capsys.readouterr().out
    assert captured.split() == [name.format(runs=runs) for name in expected]


def test_no_exported_run_says_what_there_is(runs: Path, gen: Gen) -> None:
    line = fails(1, gen("sample"), "was exported yet", f"gen export {runs / 'demo'}", f"--resume --run {runs / 'demo'}")
    assert "no run in" in line and "; runs" not in line
    shutil.rmtree(runs / "demo")
    fails(1, gen("sample"), f"no run in {runs}/", "make one with: gen train")


def test_info_shows_no_none_and_few_digits(runs: Path, tiny_run: Path, gen: Gen) -> None:
    (runs / "demo" / "metrics.jsonl").write_text("")
    code, out, err = gen("info", runs / "demo")
    assert code == 0 and "None" not in out and "val_loss" not in out, err
    code, out, _ = gen("info", tiny_run)
    assert code == 0 and "None" not in out
    [shown] = [line.split()[-1] for line in out.splitlines() if line.startswith("val_loss:")]
    exact = json.loads(gen("info", tiny_run, "--json")[1])["val_loss"]
    assert shown == f"{exact:.5g}" and len(str(exact)) > len(shown)


def test_bench_refuses_at_once(tiny_run: Path, gen: Gen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gentext
    from gentext.library import bench

    def measure(*_: object) -> None:
        raise AssertionError("it measured before it checked")

    monkeypatch.setattr(bench, "prepare_measurement", measure)
    monkeypatch.setattr(gentext, "__file__", str(tmp_path / "site-packages" / "gentext" / "__init__.py"))
    fails(2, gen("bench", tiny_run, "--baseline"), "--baseline needs benchmarks/notebook.py", "checkout")
    fails(2, gen("bench", tiny_run, "--picture", tmp_path / "none" / "rates.png"), "--picture", "folder that exists")


@pytest.mark.parametrize("is_on_path", [True, False])
def test_the_command_to_try_next_can_be_typed(
    is_on_path: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "gen"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    monkeypatch.setattr("sys.argv", [str(program), "train"])
    monkeypatch.setenv("PATH", str(tmp_path if is_on_path else tmp_path / "bin"))
    expected = ["gen" if is_on_path else str(program), "sample", "my runs/demo"]
    assert shlex.split(command_line("sample", "my runs/demo")) == expected


def test_info_begins_with_what_the_model_is(tiny_run: Path, gen: Gen) -> None:
    code, out, err = gen("info", tiny_run)
    assert code == 0, err
    first, *groups = out.split("\n\n")
    assert [line.split(":")[0] for line in first.splitlines()][:3] == ["run", "file", "corpus"]
    assert "verdict:" in first and "states:" not in first
    assert [group.splitlines()[0] for group in groups][:4] == ["training", "files", "text", "interface"]


def test_training_says_its_settings_in_two_lines_and_more_when_asked(
    tiny_text: Path, tiny_options: tuple[str, ...], gen: Gen, tmp_path: Path
) -> None:
    lines = []
    for name, options in (("short", ()), ("long", ("--verbose",))):
        code, _, err = gen("train", tiny_text, "--run", tmp_path / name, *tiny_options, "--steps", 2, *options)
        assert code == 0, err
        lines.append([line for line in err.splitlines() if not line.startswith(("gen: warning: ", "    "))])
    short, long = lines
    first_step = next(at for at, line in enumerate(short) if line.startswith("step "))
    assert [line.split(":")[0] for line in short[:first_step]] == ["text", "model"]
    verdict = (tmp_path / "short" / "verdict.txt").read_text().splitlines()
    assert short[-len(verdict) :] == verdict
    assert sum(line.startswith("exported") for line in short) == 1
    assert sum(line.startswith("exported") for line in long) == 2 and any("measurements on the way" in x for x in long)
