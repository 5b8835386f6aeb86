"""A run directory: where it is, what is in it, and writes that are whole or not there at all."""

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

CONFIG, TOKENIZER, METRICS = "config.toml", "tokenizer.json", "metrics.jsonl"
SAMPLES, HELD_OUT, CURVES, EVENTS = "samples.txt", "held_out.txt", "curves.png", "tensorboard"
MODEL, GENERATOR, UNROLLED = "model.onnx", "generator.onnx", "generator-unrolled.onnx"


def runs_folder() -> Path:
    """Return the folder of all runs: ``GEN_RUNS``, else ``runs`` in the current folder."""
    return Path(os.environ.get("GEN_RUNS") or "runs")


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that appears complete, or not at all: temporary file, fsync, rename.

    Raises RunError when the disk is full or the folder cannot be written.
    """
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror or error}); what was there before is kept"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file's content atomically."""
    with atomic_write(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Replace a file's content atomically, as UTF-8 without translating line ends."""
    write_bytes(path, text.encode("utf-8"))


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power cut, where the system can do that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@dataclasses.dataclass(frozen=True)
class Run:
    """A run directory. Use `create`, `open_run` or `newest` to get one."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / MODEL

    @property
    def config(self) -> ConfigTable:
        """The resolved config: tables by section. Raises ConfigError or RunError when it is damaged."""
        table = read_toml(self.path / CONFIG)
        for section, value in table.items():
            if not isinstance(value, dict):
                raise RunError(f"{self.path / CONFIG}: damaged, {section} is no table; train the run again")
        return table

    def read_tokenizer(self) -> tuple[str, dict[str, Any]]:
        """Return the tokenizer's name and its state, or raise RunError."""
        path = self.path / TOKENIZER
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
        path = self.path / METRICS
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
    """Tell whether a line is what the metrics plugin writes: a step, and numbers under names."""
    return (
        isinstance(row, dict)
        and isinstance(row.get("step"), int)
        and all(value is None or isinstance(value, int | float) for value in row.values())
    )


def append_line(path: Path, line: str) -> None:
    """Append one line to a log, or raise RunError."""
    try:
        with path.open("ab") as file:
            file.write(line.encode("utf-8") + b"\n")
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror}); the last checkpoint is kept") from error


def create(path: Path | None, corpus: str) -> Run:
    """Make a new run directory; without a path, one named after the corpus and the time.

    Raises RunError when the folder holds something already, or cannot be made.
    """
    if path is None:
        stem = "".join(c if c.isalnum() or c in "-_." else "-" for c in corpus).strip("-.") or "text"
        base = runs_folder() / f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
        path = next(
            one for n in range(10_000) if not (one := base.with_name(base.name + (f"-{n}" if n else ""))).exists()
        )
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
    """Raise RunError when a new run cannot go where it was asked to; cheap, so it is asked early too."""
    if path is not None and path.exists():
        if not path.is_dir():
            raise RunError(f"{path} is a file; expected a folder for the run")
        if any(path.iterdir()):
            begun = (path / CONFIG).exists() and any(Run(path).checkpoints.glob("*.safetensors"))
            done = "go on with --resume, or name" if begun else "name"
            raise RunError(f"{path} is not empty; {done} another folder with --run")
    wanted = runs_folder() if path is None else path
    above = wanted.absolute()
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        why = "cannot be written" if above.is_dir() else "is a file"
        raise RunError(f"{wanted}: cannot be made ({above} {why}); name another folder with --run")


def open_run(path: Path) -> Run:
    """Return an existing run, or raise RunError saying what is not right with the path."""
    if not path.exists():
        raise RunError(f"{path}: no such run; see {runs_folder()}/ for those that are there")
    if not path.is_dir():
        raise RunError(f"{path} is a file; expected a run folder")
    if not (path / CONFIG).is_file():
        raise RunError(f"{path} is no run: it has no {CONFIG}")
    return Run(path)


def newest(exported: bool) -> tuple[Run | None, Run | None]:
    """Return the newest run (the newest exported one, if asked), and a newer unfinished one.

    Runs are looked for in `runs_folder`; age is that of the exported file, or of the config.
    """
    folder = runs_folder()
    runs = [Run(one) for one in folder.iterdir() if (one / CONFIG).is_file()] if folder.is_dir() else []
    ages = {run.path: (run.path / CONFIG).stat().st_mtime_ns for run in runs}
    runs.sort(key=lambda run: ages[run.path])
    if not exported:
        return (runs[-1] if runs else None), None
    done = [run for run in runs if run.model.is_file()]
    if not done:
        return None, (runs[-1] if runs else None)
    best = max(done, key=lambda run: run.model.stat().st_mtime_ns)
    newer = [run for run in runs if not run.model.is_file() and ages[run.path] > ages[best.path]]
    return best, (newer[-1] if newer else None)
