"""gentext: train small text models, export them to ONNX, write text anywhere onnxruntime runs.

This package is the engine; `gentext.data`, `gentext.plugins`, `gentext.export` and `gentext.cli` are its rooms. Each
module imports from its own group below and from those above it: contracts <- files <- data <- sampling <- training
<- library <- plugins <- export <- cli. Importing the package imports no machine-learning library.

Contracts
    versions  the versions of installed distributions
    errors  every error that a user is meant to read
    console  the one way to say something to a person
    interrupts  notes a Ctrl-C until everything can be saved
    config  options of a component: a dataclass filled from presets, TOML and the command line
    settings  the settings of a run that belong to no component
    strategy  one link of the sampling chain
    interfaces  what each kind of plugin must offer
    capabilities  what models and trainers may offer beyond that
    adjustments  what plugins may know and change before training
    hookspecs  the hooks
    registry  components by kind and name
    events  the life of a run, and how its hooks are called
    manager  loads plugins
    noise  the uniform numbers behind every draw
    stop  stop strings as an automaton
    chain  links in order, in NumPy
    draw  how a token is chosen from logits

Files
    run  a run directory, and writes that are whole or not there at all
    bundle  the description that an exported file carries
    signature  inputs and outputs of a compiled generator

Sampling
    source  the run or file that a path, or none, stands for
    describe  from a run to a bundle, and from a bundle to its tokenizer and chain
    opening  opens an exported file with the built-in sampler
    stored  the chain that is compiled into a file
    stepping  generation one position at a time: the reference
    compiled  generation many positions a call, inside the graph
    generate  tokens to text
    parameters  parameters of the chain's links, set by flags or by keyword arguments
    writing  a request for texts, checked and started
    score  the loss of a model on a text
    bench  how fast a file writes
    testing  the test kit for strategies

Training
    resolve  presets, files and options to one config
    text  a corpus as symbols, cut into what is learned and what is held out
    advice  what the notebook tells its readers to watch
    planning  settings adjusted to the text and the budget, and the budget as a number of steps
    pipeline  the story of a training run

Library
    library  opens a trained model, and writes with it
    training  trains a model, and opens it
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gentext.config import NoConfig, per_run
from gentext.errors import GenError
from gentext.hookspecs import hookimpl
from gentext.strategy import Param, State, Strategy, Table, keep_largest

if TYPE_CHECKING:
    from gentext.library import TextModel, TextStream, WrittenText, load
    from gentext.score import Score
    from gentext.training import train

__all__ = [
    "GenError",
    "NoConfig",
    "Param",
    "Score",
    "State",
    "Strategy",
    "Table",
    "TextModel",
    "TextStream",
    "WrittenText",
    "hookimpl",
    "keep_largest",
    "load",
    "per_run",
    "train",
]

#: Names that are imported when they are first used, so that a plugin's `import gentext` stays fast, and their modules.
_MODULE_BY_NAME = dict.fromkeys(("TextModel", "TextStream", "WrittenText", "load"), "gentext.library")
_MODULE_BY_NAME |= {"Score": "gentext.score", "train": "gentext.training"}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_BY_NAME:
        raise AttributeError(f"module 'gentext' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_BY_NAME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
