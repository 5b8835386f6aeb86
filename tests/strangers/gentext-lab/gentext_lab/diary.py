"""A diary beside every run, and ``gen diary`` to read it."""

import os
import signal
from pathlib import Path

from gentext import hookimpl
from gentext.run import append_line, open_run

DIARY = "diary.txt"


@hookimpl
def run_started(run, settings, progress):
    append_line(run.path / DIARY, f"began at step {progress.step} of {progress.total_steps}, seed {settings.seed}")


@hookimpl
def step_done(progress):
    """A hook may end training as Ctrl-C does: everything is saved, and --resume goes on."""
    if progress.step == int(os.environ.get("LAB_STOP_AT", "0")) > progress.first_step:
        signal.raise_signal(signal.SIGINT)


@hookimpl
def evaluated(run, progress):
    append_line(run.path / DIARY, f"measured at step {progress.step}: wrote {progress.sample(20)!r}")


@hookimpl
def checkpoint_saved(run, path):
    append_line(run.path / DIARY, f"saved {path.name.partition('-val')[0]}")


@hookimpl
def run_finished(run, result):
    append_line(run.path / DIARY, f"finished after {result.steps} steps")


@hookimpl
def run_closed(run):
    append_line(run.path / DIARY, "closed")


@hookimpl
def register_commands(cli):
    @cli.command()
    def diary(run: Path):
        """Show the diary of a run."""
        print((open_run(run).path / DIARY).read_text(encoding="utf-8"), end="")
