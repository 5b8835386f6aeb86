"""Disks that are full or read-only, and the bar on a terminal."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import helpers
import pytest
from helpers import one_line, run_on_terminal, start

from gentext.plugins.observers import curves
from gentext.run import Run

Gen = Callable[..., tuple[int, str, str]]


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="signals, pipes and terminals as POSIX has them"),
    pytest.mark.usefixtures("warm_processes"),
]


# -- disks ------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small disk, or mounts it again with other options: ``disk("size=64k")``."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def mount(options: str) -> Path:
        nonlocal mounted
        remount = "remount," if mounted else ""
        command = ["mount", "-t", "tmpfs", "-o", remount + options, "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("this user may not mount a disk (root may)")
        mounted = True
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("size", [4, 12, 48, 96, 128])
def test_disk_that_is_full(
    size: int,
    gen: Gen,
    tiny_text: Path,
    tiny_options: tuple[str, ...],
    disk: Callable[[str], Path],
) -> None:
    run = disk(f"size={size}k") / "run"
    train = ("train", tiny_text, "--run", run, *tiny_options, "--steps", 6)
    train = (*train, "--set", "trainer.eval_every=2", "--no-export")
    code, _, err = gen(*train)
    assert not list(run.rglob("*.tmp"))
    if code == 0:
        assert size > 96
        return
    assert code == 1
    one_line(err, "cannot be written (No space left on device)")
    can_resume = any(run.glob("checkpoints/*.safetensors"))
    if can_resume:
        one_line(err, f"go on with: gen train --resume --run {run}")
    disk("size=2m")
    code, _, err = gen("train", "--resume", "--run", run) if can_resume else gen(*train)
    assert code == 0, err
    assert [row["step"] for row in Run(run).read_metrics() if row.get("finished")] == [6]


def test_picture_for_which_there_is_no_room(
    tiny_run: Path, disk: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """It costs a warning, not the training."""
    run = Path(shutil.copytree(tiny_run, disk("size=2m") / "run"))
    picture = (run / "curves.png").read_bytes()
    (run / "ballast").write_bytes(bytes(shutil.disk_usage(run).free))
    curves._draw_chart(Run(run))
    problem = "curves.png: cannot be written (No space left on device); what was there before is kept"
    assert f"{problem}; make room (0 kB are free); training goes on" in capsys.readouterr().err
    assert (run / "curves.png").read_bytes() == picture


def test_disk_that_is_full_between_two_exported_files(
    gen: Gen, tiny_run: Path, tmp_path: Path, disk: Callable[[str], Path]
) -> None:
    """The new model would fit, the generator would not: both stay as they were, and go on to fit each other."""
    exported = Path(shutil.copytree(tiny_run, disk("size=4m") / "run"))
    files = {path: path.read_bytes() for path in exported.rglob("*") if path.is_file()}
    occupied = sum(-(-len(content) // 4096) for content in files.values())
    new_model = -(-(exported / "model.onnx").stat().st_size // 4096)
    disk(f"size={4 * (occupied + new_model + 4)}k")
    code, _, err = gen("export", exported)
    assert code == 1
    one_line(err, f"{exported / 'generator.onnx'}: cannot be written (No space left on device)", "is kept; make room: ")
    assert {path: path.read_bytes() for path in exported.rglob("*") if path.is_file()} == files
    assert gen("sample", exported, "--length", 5)[0] == 0
    disk("size=4m")
    code, _, err = gen("export", exported)
    assert code == 0, err
    assert all((exported / name).read_bytes() != files[exported / name] for name in ("model.onnx", "generator.onnx"))
    assert gen("sample", exported, "--length", 5)[0] == 0


def test_cache_whose_disk_is_full(
    gen: Gen,
    tiny_text: Path,
    tiny_run: Path,
    tiny_options: tuple[str, ...],
    tmp_path: Path,
    disk: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = disk("size=12k")
    monkeypatch.setenv("GEN_CACHE_DIR", str(folder))
    code, _, err = gen("train", tiny_text, "--run", tmp_path / "run", *tiny_options, "--steps", 4, "--no-export")
    assert code == 0, err
    cache = folder / "encoded"
    line = f"{cache}: cannot be written (No space left on device); the encoded text goes into a temporary file"
    assert line in err
    assert list(cache.iterdir()) == []
    names = [next(run.glob("checkpoints/best-*")).name for run in (tmp_path / "run", tiny_run)]
    assert names[0] == names[1]  # with the loss in it


def test_disk_that_cannot_be_written(gen: Gen, tiny_run: Path, tiny_text: Path, disk: Callable[[str], Path]) -> None:
    run = Path(shutil.copytree(tiny_run, disk("size=2m") / "run"))
    disk("ro")
    for command in (["sample", run, "--length", 5], ["info", run], ["eval", run]):
        assert gen(*command)[0] == 0
    for command, problem in (
        (["train", "--resume", "--run", run], "cannot be written (Read-only file system)"),
        (["train", tiny_text, "--run", run.parent / "new"], "cannot be made"),
        (["export", run, "-o", run.parent / "new"], "cannot be made (Read-only file system)"),
    ):
        code, _, err = gen(*command)
        assert code == 1
        one_line(err, problem)


def test_disk_that_is_full_of_events(
    gen: Gen, tiny_text: Path, tiny_options: tuple[str, ...], tmp_path: Path, disk: Callable[[str], Path]
) -> None:
    run = tmp_path / "run"
    options = (*tiny_options, "--steps", 20, "--no-export", "--tensorboard")
    assert gen("train", tiny_text, "--run", run, *options)[0] == 0
    shutil.rmtree(run / "tensorboard")
    (run / "tensorboard").symlink_to(disk("size=4k"))
    config = run / "config.toml"
    config.write_text(config.read_text().replace("steps = 20", "steps = 2000"))
    code, _, err = gen("train", "--resume", "--run", run)
    assert code == 1
    one_line(err, "tensorboard: cannot be written (No space left on device)", f"gen train --resume --run {run}")


def test_disk_that_is_full_of_trials(
    gen: Gen, tiny_text: Path, tiny_options: tuple[str, ...], tmp_path: Path, disk: Callable[[str], Path]
) -> None:
    (tmp_path / "space.toml").write_text("[trainer.rate]\nlow = 0.01\nhigh = 0.02\n")
    folder = disk("size=272k") / "sweep"
    budget = ("--trials", 2, "--steps", 4, "--no-export", "--space", tmp_path / "space.toml")
    code, _, err = gen("sweep", tiny_text, *tiny_options, *budget, "--sweep", folder)
    assert code == 1, err
    one_line(err, "No space left on device", f"go on with: gen sweep --resume --sweep {folder}")
    disk("size=4m")
    code, out, err = gen("sweep", "--resume", "--sweep", folder, "--no-export")
    assert code == 0, err
    assert out.count("finished") == 2


def test_output_on_a_disk_that_is_full(tiny_run: Path, tiny_text: Path, disk: Callable[[str], Path]) -> None:
    """Without buffers, Python itself drops what a disk did not take of the last write, and reports no error."""
    folder = disk("size=64k")
    for unbuffered in ("", "1"):
        with (folder / "rows").open("wb") as file:
            process = start(
                *("score", tiny_run, tiny_text, "--symbols"),
                stdout=file,
                env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            )
            err = process.communicate()[1].decode()
        assert process.returncode == 1
        one_line(err, "the output: No space left on device; what was written before is kept; make room (0 kB are free)")
        assert (folder / "rows").stat().st_size == 65536


def test_texts_for_which_there_is_no_room(gen: Gen, tiny_run: Path, disk: Callable[[str], Path]) -> None:
    path = disk("size=64k") / "texts"
    path.write_text("former")
    code, _, err = gen("sample", tiny_run, "--length", 99_000, "--seed", 1, "-o", path)
    assert code == 1
    one_line(err, f"{path}: cannot be written (No space left on device); what was there before is kept; make room (")
    assert [*path.parent.iterdir()] == [path] and path.read_text() == "former"


def test_temporary_files_of_an_export_on_a_disk_that_is_full(
    gen: Gen,
    tiny_run: Path,
    tmp_path: Path,
    disk: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(disk("size=64k")))
    code, _, err = gen("export", tiny_run, "-o", tmp_path / "new")
    assert code == 1
    one_line(err, "cannot be written (No space left on device); make room (65 kB are free), or let TMPDIR name another")
    assert not [*disk("size=64k").iterdir()] and not [*(tmp_path / "new").iterdir()]


# -- terminals --------------------------------------------------------------------------------


def test_bar_on_a_terminal_leaves_nothing_behind(
    tiny_text: Path, tiny_options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Show the bar at once, since nobody knows how long the training takes.
    monkeypatch.setattr(helpers, "GEN", "from gentext import console\nconsole.SILENT_SECONDS = 0\n" + helpers.GEN)
    arguments = ("train", tiny_text, "--run", tmp_path / "run", *tiny_options, "--steps", 1000, "--no-export")
    code, text = run_on_terminal(*arguments)
    assert code == 0, text
    assert re.search(r"training .*step \d+ of [\d,]+", text) and "nan" not in text
    # The cursor is hidden while there is a bar, and comes back after each.
    assert re.fullmatch("(lh)+", "".join(re.findall(r"\x1b\[\?25([hl])", text)))
    behind_the_bar = text.rpartition("\x1b[2K")[2]  # the last time that the bar was erased
    assert "━" not in behind_the_bar
    assert "everything is in" in behind_the_bar
