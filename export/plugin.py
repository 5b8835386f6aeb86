"""The export as a plugin: writes model.onnx and generator.onnx from the best checkpoint of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from gentext.console import detail, say, shows_details
from gentext.hookspecs import hookimpl
from gentext.run import GENERATOR_FILE, MODEL_FILE, Run
from gentext.settings import Settings


@hookimpl
def export_run(run: Run, settings: Settings) -> None:
    from gentext.export import exporter, job
    from gentext.plugins.pytorch.device import choose_device

    is_for_cuda = choose_device(settings.device).type == "cuda" and settings.export_precision != "int8"
    options = job.options_of_run(settings, job.UNROLLED_POSITIONS if is_for_cuda else 0)
    for line in exporter.export_run(run, run.path, dataclasses.replace(options, generator_required=False)):
        detail(line)
    if not shows_details():
        say(f"exported and checked: {', '.join(_describe_files(run))}")


def _describe_files(run: Run) -> Iterator[str]:
    """Yield the name and the size of each exported file, and the precision of the generator."""
    from gentext.exported.metadata import Bundle
    from gentext.exported.onnx_file import read_metadata

    for path in (run.path / MODEL_FILE, run.path / GENERATOR_FILE):
        if path.is_file():
            card = Bundle.from_metadata(read_metadata(path), path).card
            precision = f", {card['precision']}" if "precision" in card else ""
            yield f"{path.name} ({path.stat().st_size / 1e6:.1f} MB{precision})"
