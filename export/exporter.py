"""Exports a run: model.onnx, from tokens to logits, and generator.onnx, which writes text by itself. (torch, onnx)"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from gentext.console import progress, warn
from gentext.errors import ExportError, PluginError
from gentext.export.building import build_generator
from gentext.export.job import ExportJob, ExportOptions
from gentext.export.network.model import export_model
from gentext.exported.metadata import METADATA_PREFIX
from gentext.exported.onnx_file import read_metadata
from gentext.files.atomic import atomic_write_all
from gentext.run import GENERATOR_FILE, MODEL_FILE, UNROLLED_FILE, Run

#: Those of a run that is exported in the precision that its losses decide.
DEFAULT_OPTIONS = ExportOptions()


class ExportReport(NamedTuple):
    """What an export has written, and checked, in words."""

    lines: list[str]
    """For each file, and for each loss that was measured: the checks and their results."""
    summary: str
    """The names, sizes and precisions of the files, in one line."""


def export_run(run: Run, folder: Path, options: ExportOptions = DEFAULT_OPTIONS) -> ExportReport:
    """Export a run's best checkpoint to ``folder``: model.onnx, and the files of its generator, each checked.

    Returns what to show to the user. Raises ExportError or PluginError where a file cannot be made or does
    not agree with PyTorch, RunError where the files cannot be written, and then leaves the files in the folder as they
    were. An export that is killed between two renames leaves files with different ids, which
    `gentext.exported.onnx_file.check_same_export` notices.
    """
    job = ExportJob.load(run, options)
    with torch.no_grad(), progress("exporting", 2) as bar:
        bar.advance(0, MODEL_FILE)
        model_bytes, difference, method = export_model(job.model, job.bundle)
        lines = [f"exported {folder / MODEL_FILE} ({len(model_bytes) / 1e6:.1f} MB, {method}): {difference}"]
        bar.advance(1, GENERATOR_FILE)
        try:
            generator, table_lines = build_generator(job)
        except (ExportError, PluginError) as error:
            if options.generator_required:
                raise
            warn(f"no {GENERATOR_FILE}: {error}; gen sample takes {MODEL_FILE}, which is slower")
            generator, table_lines = None, []
    lines += table_lines
    files = [f"{MODEL_FILE} ({len(model_bytes) / 1e6:.1f} MB)"]
    contents: dict[Path, bytes | None] = {folder / MODEL_FILE: model_bytes}
    for name in (GENERATOR_FILE, UNROLLED_FILE):
        exported_file = generator.files.get(name) if generator else None
        if generator is None or exported_file is None:
            if _is_older_export(folder / name):
                contents[folder / name] = None  # a newer model must not stand beside it
            continue
        contents[folder / name] = exported_file.file_bytes
        size = f"{len(exported_file.file_bytes) / 1e6:.1f} MB"
        lines.append(f"exported {folder / name} ({size}): {'; '.join(exported_file.facts)}")
        files.append(f"{name} ({size}, {generator.precision})")
    atomic_write_all(contents)
    return ExportReport(lines, f"exported and checked: {', '.join(files)}")


def _is_older_export(path: Path) -> bool:
    """Return whether there is a file of an earlier export. Of a file that gentext did not make, warn that it stays."""
    if not path.is_file():
        return False
    try:
        is_own_file = any(key.startswith(METADATA_PREFIX) for key in read_metadata(path))
    except (OSError, ValueError):
        is_own_file = False
    if not is_own_file:
        warn(f"{path} stays, and does not belong to the new {MODEL_FILE}: gentext did not make it, or it is damaged")
    return is_own_file
