"""The export as a plugin: writes model.onnx and generator.onnx from the best checkpoint of a run."""

from __future__ import annotations

import dataclasses

from gentext.console import say, shows_details
from gentext.hookspecs import hookimpl
from gentext.run import Run
from gentext.settings import Settings


@hookimpl
def export_run(run: Run, settings: Settings) -> None:
    from gentext.export import exporter, job
    from gentext.plugins.pytorch.device import choose_device

    is_for_cuda = choose_device(settings.device).type == "cuda" and settings.export_precision != "int8"
    options = job.options_of_run(settings, job.UNROLLED_POSITIONS if is_for_cuda else 0)
    report = exporter.export_run(run, run.path, dataclasses.replace(options, generator_required=False))
    for line in report.lines if shows_details() else [report.summary]:
        say(line)
