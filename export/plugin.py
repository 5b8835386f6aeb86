"""The export as a plugin: when a run has finished, its best checkpoint becomes model.onnx and generator.onnx."""

from __future__ import annotations

from gentext.console import say, warn
from gentext.errors import ExportError, PluginError
from gentext.hookspecs import hookimpl
from gentext.run import Run
from gentext.settings import Settings


@hookimpl
def run_finished(run: Run, settings: Settings) -> None:
    if settings.export:
        from gentext.export.exporter import export_run

        lines = export_run(run, run.path)
        say(next(lines))
        try:
            for line in lines:
                say(line)
        except (ExportError, PluginError) as error:  # a run without a generator is still a run
            warn(f"no generator.onnx: {error}; gen sample takes model.onnx, which is slower")
