"""The options of training are declared once."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import gentext
from gentext.training.declaration import TRAIN_DEFAULTS, TrainArguments
from gentext.training.options import train_options

#: Adds a line to the declaration before anything reads it, and prints where the new option is.
ADD_OPTION = """
import importlib.util, inspect, json, sys

name = "gentext.training.declaration"
spec = importlib.util.find_spec(name)
source = spec.loader.get_source(name)
line = '    seed: Annotated['
new_line = '    threads: Annotated[int | None, Option("threads of a run")]\\n'
assert source.count(line) == 1
sys.modules[name] = module = importlib.util.module_from_spec(spec)
exec(compile(source.replace(line, new_line + line), spec.origin, "exec"), vars(module))

import typer, gentext
from gentext.cli.app import build
from gentext.training.options import train_options

commands = typer.main.get_group(build("none")).commands
flags = {
    command: [option.opts for option in commands[command].params if option.help == "Threads of a run."]
    for command in ("train", "distill", "sweep")
}
keywords = [str(inspect.signature(call).parameters["threads"]) for call in (gentext.train, gentext.distill)]
set_fields = train_options({**module.TRAIN_DEFAULTS, "threads": 3}, []).flags
print(json.dumps([flags, keywords, set_fields]))
"""


def test_a_new_option_is_one_line_of_the_declaration() -> None:
    process = subprocess.run([sys.executable, "-c", ADD_OPTION], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    flags, keywords, set_fields = json.loads(process.stdout)
    assert flags == {command: [["--threads"]] for command in ("train", "distill", "sweep")}
    assert keywords == ["threads: int | None = None"] * 2
    assert set_fields == {"threads": 3}


def test_functions_show_all_their_arguments() -> None:
    parameters = inspect.signature(gentext.train).parameters
    assert [*parameters] == ["corpus", "text", "progress", *TrainArguments.__annotations__]
    assert parameters["export"].default is True and parameters["minutes"].default is None
    parameters = inspect.signature(gentext.distill).parameters
    assert {"teacher", "hidden", "real", "run", "seed"} <= {*parameters} and "val" not in parameters


def test_only_what_differs_from_the_defaults_is_set() -> None:
    assert train_options(TRAIN_DEFAULTS, []).flags == {}
    chosen: TrainArguments = {**TRAIN_DEFAULTS, "steps": 0, "seed": 0, "export": False, "tensorboard": True}
    assert train_options(chosen, []).flags == {"steps": 0, "seed": 0, "export": False, "tensorboard": True}
