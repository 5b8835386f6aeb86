"""A run's folder: where it is, and what is in it."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gentext.config import CONVERSION_LOCK, ConfigTable, read_toml
from gentext.errors import RunError
from gentext.exported.boundary import RecordsMeta
from gentext.files.atomic import atomic_write, failed_write, write_bytes, write_text
from gentext.files.file_names import is_utf8, readable_name, restore_paths
from gentext.files.folders import environment_folder
from gentext.files.reading import parse_json, read_regular_file
from gentext.files.temporary import temporary_file_target
from gentext.values import Measurement

__all__ = ["Run", "append_line", "atomic_write", "open_run", "runs_folder", "write_bytes", "write_text"]

CONFIG_FILE, TOKENIZER_FILE, METRICS_FILE = "config.toml", "tokenizer.json", "metrics.jsonl"
SAMPLES_FILE, HELD_OUT_FILE, CURVES_FILE, EVENTS_FOLDER = "samples.txt", "held_out.txt", "curves.png", "tensorboard"
VERDICT_FILE = "verdict.txt"
#: What is held out of records, and the hashes of those to learn from, see `gentext.corpus.novelty`.
HELD_OUT_RECORDS_FILE, HASHES_FILE = "held_out.jsonl", "training.hashes"
#: What the model learns from, where a Python program had it in memory: a text, or records.
CORPUS_FILE, CORPUS_RECORDS_FILE = "corpus.txt", "corpus.jsonl"
MODEL_FILE, GENERATOR_FILE, UNROLLED_FILE = "model.onnx", "generator.onnx", "generator-unrolled.onnx"
#: The lock file is empty, and stays there after training: only the lock on it counts, see `gentext.runs.lock`.
LOCK_FILE, CHECKPOINTS_FOLDER = ".lock", "checkpoints"
#: The files that lie in the run's folder itself.
RUN_FILES = (
    *(CONFIG_FILE, TOKENIZER_FILE, METRICS_FILE, SAMPLES_FILE, HELD_OUT_FILE, CURVES_FILE, VERDICT_FILE),
    *(CORPUS_FILE, CORPUS_RECORDS_FILE),
    *(HELD_OUT_RECORDS_FILE, HASHES_FILE, MODEL_FILE, GENERATOR_FILE, UNROLLED_FILE, LOCK_FILE),
)
#: Those of them that are there before the first checkpoint.
FIRST_FILES = (
    *(LOCK_FILE, CONFIG_FILE, TOKENIZER_FILE, METRICS_FILE, SAMPLES_FILE),
    *(HELD_OUT_FILE, HELD_OUT_RECORDS_FILE, HASHES_FILE, CORPUS_FILE, CORPUS_RECORDS_FILE),
)
#: Bytes of tokenizer.json, at most. With a symbol for each character of Unicode it has less than five million.
MAX_TOKENIZER_BYTES = 2**26
#: Bytes of metrics.jsonl, at most, which is read as a whole: the lines of nine million steps.
MAX_METRICS_BYTES = 2**27


def runs_folder() -> Path:
    """Return the folder of all runs: ``GEN_RUNS``, else ``runs`` in the current folder."""
    return environment_folder("GEN_RUNS") or Path("runs")


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
        if "corpus" in table:
            table["corpus"] = restore_paths(table["corpus"])
        return table

    def read_tokenizer(self) -> tuple[str, dict[str, Any]]:
        """Return the tokenizer's name and its state, or raise RunError."""
        table = self._read_tokenizer_table()
        return table["name"], table["state"]

    def read_start(self) -> int:
        """Return the start token, or raise RunError."""
        start = self._read_tokenizer_table().get("start")
        if not isinstance(start, int):
            raise RunError(f"{self.path / TOKENIZER_FILE}: damaged, it names no start symbol; train the run again")
        return start

    def read_records(self) -> RecordsMeta | None:
        """Return what a run of records was trained on, and None for a run of one text. Raises RunError."""
        table = self._read_tokenizer_table().get("records")
        if table is None:
            return None
        try:
            with CONVERSION_LOCK:
                return msgspec.convert(table, RecordsMeta)
        except msgspec.ValidationError as error:
            raise RunError(
                f"{self.path / TOKENIZER_FILE}: damaged, its records are no table as expected ({error}); "
                f"train the run again"
            ) from None

    def _read_tokenizer_table(self) -> dict[str, Any]:
        """Return what tokenizer.json holds, which has a name and a state."""
        path = self.path / TOKENIZER_FILE
        problem = ""
        try:
            table = parse_json(read_regular_file(path, MAX_TOKENIZER_BYTES))
            if isinstance(table, dict) and isinstance(table.get("name"), str) and isinstance(table.get("state"), dict):
                return table
        except FileNotFoundError:
            raise RunError(f"{path}: missing; the run is incomplete, train it again") from None
        except (OSError, ValueError) as error:
            problem = f" ({getattr(error, 'strerror', error)})"
        raise RunError(f"{path}: damaged{problem}; expected JSON with a name and a state. Train the run again")

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl; those that are damaged or unfinished are left out.

        Raises RunError when the file cannot be read.
        """
        path = self.path / METRICS_FILE
        if not path.is_file():
            return []
        try:
            content = read_regular_file(path, MAX_METRICS_BYTES)
        except OSError as error:
            raise RunError(
                f"{path}: cannot be read ({error.strerror}); move it away, and training begins a new one"
            ) from error
        rows: list[dict[str, Any]] = []
        for line in content.splitlines():
            with contextlib.suppress(ValueError):
                row = parse_json(line)
                if _is_metrics_row(row):
                    rows.append(row)
        return rows

    def read_curve(self, last_step: float = math.inf) -> tuple[Measurement, ...]:
        """Return the measurements in metrics.jsonl up to a step, in the order of steps; a null is read as NaN."""
        return tuple(
            _read_measurement(row)
            for row in self.read_metrics()
            if row["step"] <= last_step and row.get("val_loss") is not None and not row.get("finished")
        )

    def read_verdict(self) -> list[str]:
        """Return the lines of the verdict on a finished run; none for an unfinished one."""
        path = self.path / VERDICT_FILE
        return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def _is_metrics_row(row: Any) -> bool:
    """Return whether a line is one that the metrics plugin writes: a step and other numbers, by name."""
    return (
        isinstance(row, dict)
        and isinstance(row.get("step"), int)
        and all(figure is None or isinstance(figure, int | float) for figure in row.values())
    )


def _read_measurement(row: Mapping[str, Any]) -> Measurement:
    """Return the measurement in a row of metrics.jsonl. Older runs have the held-out loss alone."""
    losses = {name: row.get(name) for name in ("val_loss", "train_loss", "val_error", "train_error")}
    numbers = {name: math.nan if loss is None else float(loss) for name, loss in losses.items()}
    return Measurement(row["step"], int(row.get("symbols") or 0), **numbers)


def append_line(path: Path, line: str) -> None:
    """Append one line to a log, or raise RunError."""
    try:
        with path.open("ab") as file:
            file.write(line.encode("utf-8") + b"\n")
    except OSError as error:
        raise failed_write(path, error, kept="the last checkpoint") from error


def create_run(path: Path | None, corpus: str) -> Run:
    """Make a new run directory; without a path, one named after the corpus and the time.

    Raises RunError when the folder holds something already but for what `was_only_begun` allows, or cannot be made. Of
    several processes that create the same run at a time, one succeeds.
    """
    try:
        run = Run(_make_named_folder(corpus) if path is None else path)
        check_free(run.path)
        run.checkpoints.mkdir(parents=True, exist_ok=was_only_begun(run.path))
    except FileExistsError:  # since the check
        raise RunError(f"{path}: another process just began a run in it; name another folder for the run") from None
    except OSError as error:
        raise RunError(
            f"{path or runs_folder()}: cannot be made ({error.strerror}); name a folder for the run that can be written"
        ) from error
    return run


def _make_named_folder(corpus: str) -> Path:
    """Make a new folder for a run, named after the corpus and the time, and with a number where that is taken."""
    safe_name = "".join(character if character.isalnum() or character in "-_." else "-" for character in corpus)
    stem = safe_name.strip("-.") or "text"
    path = base = runs_folder() / f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in itertools.count(1):
        with contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            break
        path = base.with_name(f"{base.name}-{number}")
    return path


def was_only_begun(path: Path) -> bool:
    """Return whether a folder holds nothing but what a training wrote that ended before its first checkpoint."""
    if not path.is_dir():
        return False
    names = {temporary_file_target(entry.name) or entry.name for entry in path.iterdir()}
    is_beginning = LOCK_FILE in names and names <= {*FIRST_FILES, CHECKPOINTS_FOLDER, EVENTS_FOLDER}
    return is_beginning and not any(Run(path).checkpoints.glob("*.safetensors"))


def check_free(path: Path | None) -> None:
    """Raise RunError when a new run cannot be created at a path. It is cheap, so that it can be checked early."""
    folder = runs_folder() if path is None else path
    if not is_utf8(str(folder)):  # the library of checkpoints reads no such file
        raise RunError(f"{readable_name(str(folder))}: not UTF-8; name another folder for the run")
    if path is not None and path.exists():
        if not path.is_dir():
            raise RunError(f"{path} is a file; expected a folder for the run")
        if any(path.iterdir()) and not was_only_begun(path):
            can_resume = (path / CONFIG_FILE).exists() and any(Run(path).checkpoints.glob("*.safetensors"))
            advice = "resume its run, or name" if can_resume else "name"
            raise RunError(f"{path} is not empty; {advice} another folder for the run")
    ancestor = folder.absolute()  # becomes the nearest that exists
    while not ancestor.exists() and ancestor != ancestor.parent:
        ancestor = ancestor.parent
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK | os.X_OK):
        problem = "cannot be written" if ancestor.is_dir() else "is a file"
        raise RunError(f"{folder}: cannot be made ({ancestor} {problem}); name another folder for the run")


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
