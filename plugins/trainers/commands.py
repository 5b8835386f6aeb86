"""What commands that train share: ``--set``, the end of `gen train` and `gen distill`, and the command to try next."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
from typing import Annotated

import typer

from gentext.console import say
from gentext.errors import MissingExtra
from gentext.interfaces import World
from gentext.runs.resolve import TrainOptions
from gentext.training.pipeline import run_training
from gentext.training.train import describe_result

#: Settings as a command receives them. They take the place of those of `ConfigArguments`, which are no texts.
SettingTexts = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, such as model.hidden=256.")
]


def train_and_report(options: TrainOptions) -> None:
    """Train a run, and print what the user should know about it and do next."""
    world = World.of_process()
    with _connect_processes(world):
        run, result = run_training(options)
    if world.rank:  # rank 0 alone writes to the terminal
        return
    next_command = "sample" if run.model.is_file() else "export"
    say(f"next: {command_line(next_command, run.path)}")
    for line in describe_result(run, result):
        say(line)


def command_line(*words: object) -> str:
    """Return a command of ``gen`` as a shell takes it: by the path of ``gen`` where PATH does not lead to it."""
    script = sys.argv[0]
    is_hidden = os.path.basename(script) == "gen" and shutil.which("gen") is None
    return shlex.join([script if is_hidden else "gen", *map(str, words)])


def _connect_processes(world: World) -> contextlib.AbstractContextManager[None]:
    """Return a context that connects this process with those that torchrun started beside it, if it did."""
    if world.size == 1:
        return contextlib.nullcontext()
    try:
        from gentext.plugins.pytorch.distributed import connect_processes
    except ModuleNotFoundError:
        raise MissingExtra("training", "train") from None
    return connect_processes(world)
