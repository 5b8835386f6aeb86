"""The export as a plugin: when a run has finished, its best checkpoint becomes model.onnx and generator.onnx."""

from __future__ import annotations

from gentext.console import say
from gentext.hookspecs import hookimpl
from gentext.run import Run
from gentext.settings import Settings


@hookimpl
def run_finished(run: Run, settings: Settings) -> None:
    if settings.export:
        from gentext.export.exporter import UNROLL, ExportOptions, export_run
        from gentext.plugins.pytorch.device import choose_device

        unroll = UNROLL if choose_device(settings.device).type == "cuda" else 0
        for line in export_run(run, run.path, ExportOptions(generator_required=False, unroll=unroll)):
            say(line)
