"""Files that gentext removes have exactly the names that it gives; all others stay."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import start

from gentext import run as runs
from gentext.files.folders import temporary_folder
from gentext.plugins.pytorch.checkpoint import find_checkpoints, link_as_best, tidy_checkpoints
from gentext.run import Run, atomic_write
from gentext.runs.removal import discard_run, temporary_file_target

#: Files that somebody has put into a run, by path.
FOREIGN_NAMES = (
    *("notes.txt", ".notes.tmp", ".notes.txt.a_b2c3d4.tmp", "config.toml.bak", ".config.toml.tmp", "my-model.onnx"),
    *(".config.toml.longer123.tmp", "config.toml.a_b2c3d4.tmp", ".metrics.jsonl.A_B2C3D4.tmp", "events/notes.txt"),
    *("checkpoints/.mine.tmp", "checkpoints/mine.safetensors", "checkpoints/last-step9.safetensors"),
    *("checkpoints/last-step000009-val1.2.safetensors", "checkpoints/best-step000009.safetensors.bak"),
    *(".config.toml.folder_1.tmp/notes.txt", "samples.txt.d/notes.txt"),
    *("checkpoints/config.toml", "tensorboard/events.tfevents.notes", "tensorboard/events.out.tfevents.123"),
)
#: Temporary files of a process that was killed.
TEMPORARY_NAMES = (
    *(".config.toml.a_b2c3d4.tmp", ".metrics.jsonl.________.tmp", ".generator-unrolled.onnx.01234567.tmp"),
    "checkpoints/.last-step000009.safetensors.a_b2c3d4.tmp",
    "checkpoints/.last-step1000000-val1.2345.safetensors.a_b2c3d4.tmp",
)


@pytest.fixture
def copy(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("a year of work")


def names_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["config.toml", "a.b.tmp", ".x", "a\nb"])
def test_temporary_files_are_recognized(name: str, tmp_path: Path) -> None:
    with atomic_write(tmp_path / name):
        [path] = tmp_path.iterdir()
        assert temporary_file_target(path.name) == name
    assert temporary_file_target(name) is None


def test_resumed_run_is_tidied(copy: Path) -> None:
    names_before = names_below(copy)
    write(copy, *FOREIGN_NAMES, *TEMPORARY_NAMES)
    run = Run(copy)
    tidy_checkpoints(run, find_checkpoints(run, "last")[0], best=False)
    assert names_below(copy) == names_before | set(FOREIGN_NAMES)


def test_kill_while_the_best_is_linked(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(copy)
    last = find_checkpoints(run, "last")[0]
    for path in find_checkpoints(run, "best"):
        path.unlink()
    names_before = names_below(copy)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            link_as_best(run, last)
    assert len(names_below(copy) - names_before) == 1
    tidy_checkpoints(run, last, best=False)
    assert names_below(copy) == names_before


def test_discarded_run(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(copy, *TEMPORARY_NAMES, *runs.RUN_FILES, "tensorboard/events.tfevents.0000000000")
    discard_run(copy, "kept")
    assert list(copy.parent.iterdir()) == []
    discard_run(copy, "kept")  # it need not exist
    assert capsys.readouterr().err == ""


def test_discarded_run_with_files_of_others(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy.parent / "kept").mkdir()
    write(copy, *FOREIGN_NAMES, *TEMPORARY_NAMES)
    discard_run(copy, "kept")
    kept_folder = copy.parent / "kept-1"
    assert {path.name for path in copy.parent.iterdir()} == {"kept", "kept-1"}
    assert names_below(kept_folder) == set(FOREIGN_NAMES)
    assert capsys.readouterr().err.startswith(f"{kept_folder}: kept")


def test_discarded_run_with_checkpoints_elsewhere(copy: Path) -> None:
    checkpoints = Path(shutil.move(copy / "checkpoints", copy.parent / "elsewhere"))
    names_before = names_below(checkpoints)
    (copy / "checkpoints").symlink_to(checkpoints)
    discard_run(copy, "kept")
    assert names_below(checkpoints) == names_before
    assert (copy.parent / "kept" / "checkpoints").is_symlink() and not copy.exists()


# -- what processes leave that are killed ---------------------------------------------------------


def wait_for(folder: Path, pattern: str, count: int) -> set[Path]:
    """Wait until so many paths of a folder match a pattern, and return them."""
    end = time.monotonic() + 60
    while len(paths := set(folder.glob(pattern))) < count:
        assert time.monotonic() < end, paths
        time.sleep(0.01)
    return paths


@pytest.mark.skipif(os.name != "posix", reason="locks of files as POSIX has them")
def test_next_write_removes_what_a_killed_process_left_and_nothing_else(
    tiny_run: Path, tiny_text: Path, tmp_path: Path
) -> None:
    scores, foreign = tmp_path / "scores.jsonl", tmp_path / ".scores.jsonl.0123abcd.tmp"
    scores.write_text("those of before")
    foreign.write_text("a year of work")
    command = ("score", tiny_run, "-", "-o", scores)
    killed = start(*command, stdin=subprocess.PIPE)
    left = wait_for(tmp_path, ".*.gentext.tmp", 1)
    killed.kill()
    killed.communicate()
    assert set(tmp_path.iterdir()) == {scores, foreign} | left
    assert scores.read_text() == "those of before"
    writers = [start(*command, stdin=subprocess.PIPE) for _ in range(2)]
    while left & wait_for(tmp_path, ".*.gentext.tmp", 2):
        time.sleep(0.01)
    characters = tiny_text.read_text(encoding="utf-8")
    for writer, text in zip(writers, (characters[:20], characters[:30]), strict=True):
        _, err = writer.communicate(text.encode(), timeout=60)
        assert writer.returncode == 0, err
        assert json.loads(scores.read_text())["symbols"] == len(text)
    assert set(tmp_path.iterdir()) == {scores, foreign}


@pytest.mark.skipif(os.name != "posix", reason="locks of folders as POSIX has them")
def test_temporary_folders_of_killed_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    script = "from gentext.files.folders import temporary_folder\nwith temporary_folder() as folder:\n"
    script += "    (folder / 'model.onnx').touch()\n    print(folder, flush=True)\n    input()"
    processes = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    folders = [Path(process.stdout.readline().strip()) for process in processes if process.stdout]
    processes[0].kill()
    processes[0].communicate()
    with temporary_folder() as folder:
        assert set(tmp_path.iterdir()) == {folders[1], folder}
    processes[1].communicate("\n")
    assert processes[1].returncode == 0
    assert list(tmp_path.iterdir()) == []
