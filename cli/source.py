"""Which run or file a command means when it is given a path, or none."""

from __future__ import annotations

from pathlib import Path

from gentext.console import say
from gentext.errors import FileFormatError, RunError
from gentext.run import MODEL, Run, newest, open_run, runs_folder


def find_source(path: Path | None, *, exported: bool = True, any_file: bool = False) -> Path:
    """Return a run folder or an .onnx file (or ``any_file``); without a path, the newest run that was exported."""
    if path is not None:
        if path.is_dir():
            if not open_run(path).model.is_file() and exported:
                raise RunError(f"{path} was not exported yet: it has no {MODEL}. Make one with: gen export {path}")
        elif not path.exists():
            raise RunError(f"{path}: no such run or file; expected a run folder or an .onnx file")
        elif path.suffix != ".onnx" and not any_file:
            raise FileFormatError(f"{path}: expected a run folder or an .onnx file")
        return path
    run, newer = newest(exported)
    if run is None:
        hint = f"; {newer.path} is unfinished, go on with: gen train --resume --run {newer.path}" if newer else ""
        raise RunError(f"no run in {runs_folder()}/{hint or '; make one with: gen train'}")
    say(f"run: {run.path}" + (f" ({newer.path} is newer, but unfinished)" if newer else ""))
    return run.path


def run_of(path: Path) -> Run | None:
    """Return the run that a source belongs to, if it is a run."""
    return Run(path) if path.is_dir() else None
