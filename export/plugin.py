"""The export as a plugin: writes model.onnx and generator.onnx from the best checkpoint of a run."""

from __future__ import annotations

from gentext.console import say
from gentext.hookspecs import hookimpl
from gentext.run import Run
from gentext.settings import Settings


@hookimpl
def export_run(run: Run, settings: Settings) -> None:
    from gentext.export import exporter
    from gentext.plugins.pytorch.device import choose_device

    unroll = exporter.UNROLLED_POSITIONS if choose_device(settings.device).type == "cuda" else 0
    options = exporter.ExportOptions(generator_required=False, unroll=unroll)
    for line in exporter.export_run(run, run.path, options):
        say(line)
