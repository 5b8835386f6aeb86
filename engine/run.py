"""A run's folder: where it is, what is in it, and atomic writes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from gentext.config import ConfigTable, read_toml
from gentext.errors import RunError

__all__ = ["Run", "append_line", "atomic_write", "open_run", "runs_folder", "write_bytes", "write_text"]

CONFIG_FILE, TOKENIZER_FILE, METRICS_FILE = "config.toml", "tokenizer.json", "metrics.jsonl"
SAMPLES_FILE, HELD_OUT_FILE, CURVES_FILE, EVENTS_FOLDER = "samples.txt", "held_out.txt", "curves.png", "tensorboard"
MODEL_FILE, GENERATOR_FILE, UNROLLED_FILE = "model.onnx", "generator.onnx", "generator-unrolled.onnx"
CHECKPOINTS_FOLDER = "checkpoints"
#: The files that lie in the run's folder itself.
RUN_FILES = (
    *(CONFIG_FILE, TOKENIZER_FILE, METRICS_FILE, SAMPLES_FILE, HELD_OUT_FILE, CURVES_FILE),
    *(MODEL_FILE, GENERATOR_FILE, UNROLLED_FILE),
)


def runs_folder() -> Path:
    """Return the folder of all runs: ``GEN_RUNS``, else ``runs`` in the current folder."""
    return Path(os.environ.get("GEN_RUNS") or "runs")


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that is complete, or not there at all: temporary file, fsync, rename.

    Raises RunError when the disk is full or the folder cannot be written.
    """
    temporary_path: Path | None = None
    try:
        descriptor, temporary_name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary_path = Path(temporary_name)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary_path, 0o666 & ~_read_umask())
        os.replace(temporary_path, path)
        sync_folder(path.parent)
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror or error}); what was there before is kept"
        ) from error
    finally:
        if temporary_path is not None:
            with contextlib.suppress(OSError):
                temporary_path.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file's content atomically."""
    with atomic_write(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Replace a file's content atomically, as UTF-8 without translating line ends."""
    write_bytes(path, text.encode("utf-8"))


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power cut, where the system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@dataclasses.dataclass(frozen=True)
class Run:
    """A run directory. Use `create_run`, `open_run` or `newest_run` to get a Run."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS_FOLDER

    @property
    def model(self) -> Path:
        return self.path / MODEL_FILE

    @property
    def config(self) -> ConfigTable:
        """The resolved config: tables by section. Raises ConfigError or RunError when it is damaged."""
        table = read_toml(self.path / CONFIG_FILE)
        for section, section_table in table.items():
            if not isinstance(section_table, dict):
                raise RunError(f"{self.path / CONFIG_FILE}: damaged, {section} is no table; train the run again")
        return table

    def read_tokenizer(self) -> tuple[str, dict[str, Any]]:
        """Return the tokenizer's name and its state, or raise RunError."""
        path = self.path / TOKENIZER_FILE
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            name, state = data["name"], data["state"]
            if not (isinstance(name, str) and isinstance(state, dict)):
                raise TypeError
        except FileNotFoundError:
            raise RunError(f"{path}: missing; the run is incomplete, train it again") from None
        except (ValueError, KeyError, TypeError, RecursionError, OSError):
            raise RunError(f"{path}: damaged; expected JSON with a name and a state. Train the run again") from None
        return name, state

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl; those that are damaged or unfinished are left out."""
        path = self.path / METRICS_FILE
        if not path.is_file():
            return []
        rows: list[dict[str, Any]] = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                row = json.loads(line)
                if _is_measurement(row):
                    rows.append(row)
        return rows


def _is_measurement(row: Any) -> bool:
    """Return whether a line is one that the metrics plugin writes: a step and other numbers, by name."""
    return (
        isinstance(row, dict)
        and isinstance(row.get("step"), int)
        and all(figure is None or isinstance(figure, int | float) for figure in row.values())
    )


def append_line(path: Path, line: str) -> None:
    """Append one line to a log, or raise RunError."""
    try:
        with path.open("ab") as file:
            file.write(line.encode("utf-8") + b"\n")
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror}); the last checkpoint is kept") from error


def create_run(path: Path | None, corpus: str) -> Run:
    """Make a new run directory; without a path, one named after the corpus and the time.

    Raises RunError when the folder holds something already, or cannot be made.
    """
    if path is None:
        safe_name = "".join(character if character.isalnum() or character in "-_." else "-" for character in corpus)
        stem = safe_name.strip("-.") or "text"
        base = runs_folder() / f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
        names = [base.name, *(f"{base.name}-{number}" for number in range(1, 10_000))]
        path = next(path for path in map(base.with_name, names) if not path.exists())
    check_free(path)
    run = Run(path)
    try:
        run.checkpoints.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"{path}: cannot be made ({error.strerror}); name a folder that can be written, with --run"
        ) from error
    return run


def check_free(path: Path | None) -> None:
    """Raise RunError when a new run cannot be created at a path. It is cheap, so that it can be checked early."""
    if path is not None and path.exists():
        if not path.is_dir():
            raise RunError(f"{path} is a file; expected a folder for the run")
        if any(path.iterdir()):
            can_resume = (path / CONFIG_FILE).exists() and any(Run(path).checkpoints.glob("*.safetensors"))
            advice = "go on with --resume, or name" if can_resume else "name"
            raise RunError(f"{path} is not empty; {advice} another folder with --run")
    folder = runs_folder() if path is None else path
    ancestor = folder.absolute()  # becomes the nearest that exists
    while not ancestor.exists() and ancestor != ancestor.parent:
        ancestor = ancestor.parent
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK | os.X_OK):
        problem = "cannot be written" if ancestor.is_dir() else "is a file"
        raise RunError(f"{folder}: cannot be made ({ancestor} {problem}); name another folder with --run")


def open_run(path: Path) -> Run:
    """Return an existing run, or raise RunError where there is none at the path."""
    if not path.exists():
        raise RunError(f"{path}: no such run; see {runs_folder()}/ for those that are there")
    if not path.is_dir():
        raise RunError(f"{path} is a file; expected a run folder")
    if not (path / CONFIG_FILE).is_file():
        raise RunError(f"{path} is no run: it has no {CONFIG_FILE}")
    return Run(path)


def newest_run(exported: bool) -> tuple[Run | None, Run | None]:
    """Return the newest run (the newest exported one, if asked), and a newer unfinished one.

    Runs are looked for in `runs_folder`; age is that of the exported file, or of the config.
    """
    folder = runs_folder()
    paths = list(folder.iterdir()) if folder.is_dir() else []
    runs = [Run(path) for path in paths if (path / CONFIG_FILE).is_file()]
    if not runs:
        return None, None
    began_at = {run.path: (run.path / CONFIG_FILE).stat().st_mtime_ns for run in runs}
    runs.sort(key=lambda run: began_at[run.path])
    if not exported:
        return runs[-1], None
    exported_runs = [run for run in runs if run.model.is_file()]
    if not exported_runs:
        return None, runs[-1]
    newest_exported = max(exported_runs, key=lambda run: run.model.stat().st_mtime_ns)
    unfinished = [run for run in runs if not run.model.is_file()]
    newer_runs = [run for run in unfinished if began_at[run.path] > began_at[newest_exported.path]]
    return newest_exported, (newer_runs[-1] if newer_runs else None)
