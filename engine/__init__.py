"""gentext: train small text models, export them to ONNX, write text anywhere onnxruntime runs.

This package is the engine. What authors of plugins import lies in it, and everything else is in rooms: packages whose
docstrings say what lives there, what others use of it, and which other rooms it may import. Subpackages beside the
engine are `gentext.data`, `gentext.plugins`, `gentext.export`, `gentext.testing` (the test kit for authors of plugins)
and `gentext.cli`. Importing the package imports no machine-learning library.

Modules
    errors  every error that is shown to the user as one line
    console  lines and progress bars on stderr for the user, and what a terminal may be shown
    interrupts  Ctrl-C, which stops training once everything is saved, and ends a text without end and any long call
    arguments  arguments that are declared once: keyword arguments of functions, and flags of commands
    config  options of a component: a dataclass filled from presets, TOML and the command line
    settings  the settings of a run that belong to no component
    strategy  the base class of a link of the sampling chain
    token_corpus  a text, or records, as tokens
    values  ids, states, losses and chunks of tokens; tokenizers and models
    interfaces  what each kind of component must offer, as Protocols
    capabilities  what models and trainers may offer beyond that
    adjustments  what the hook `adjust_settings` gets and returns
    hookspecs  the hooks that plugins may implement
    registry  components by kind and name
    events  the progress of a run, and how its hooks are called
    manager  loads plugins
    run  a run folder
    measuring  when the losses are measured, and on how much text
    noise  the uniform random numbers from which tokens are drawn
    stop  stop strings as an automaton
    stepping  generation one position at a time: the reference
    describe  the tokenizer of a run, and of an exported file
    arrow  iterators of results that can become a table
    notebooks  what scores, texts and models show in a notebook

Rooms, each of which imports only rooms above it
    files  files and folders: complete or not there, of bounded size, temporary, and of any name
    exported  what an exported file says about itself: its metadata, and the inputs and outputs of its graph
    components  creates the components of plugins, and checks what they hand over
    sampling  from the logits of a position to a token, and from tokens to text
    requests  what a request may ask for: options, parameters of the chain, primes
    matching  what texts must match: regular expressions and JSON schemas, as automata over the symbols of a model
    generation  texts: requests, and the rows of a compiled generator that write them side by side
    search  the most probable texts of a model
    runs  runs: their config and components, their lock, and which run or file a user means
    corpus  what a run learns from and holds out: a text or records, as tokens
    scoring  how probable given texts are to a model: losses and log-probabilities
    inspection  how a model reads a text: the surprise of each symbol, and its hidden units
    records  whole records: which are written, how they are drawn side by side, and where they go
    library  an opened model in a Python program
    sessions  texts that go on after a request: sessions, and a text that a user and a model write in turns
    training  a training run from its options to the exported files, and what its losses mean
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gentext.config import NoConfig, per_run
from gentext.errors import GenError
from gentext.hookspecs import hookimpl
from gentext.strategy import Param, State, Strategy, Table, keep_largest, largest_per_symbol

if TYPE_CHECKING:
    from gentext.inspection.inspected_text import InspectedText
    from gentext.library.loading import TextModel, TextStream, WrittenText, load
    from gentext.scoring.record_scores import TextScore
    from gentext.scoring.score import Score
    from gentext.search.prefixes import BestText
    from gentext.search.searching import BestTexts
    from gentext.training.train import distill, train

__all__ = [
    "BestText",
    "BestTexts",
    "GenError",
    "InspectedText",
    "NoConfig",
    "Param",
    "Score",
    "State",
    "Strategy",
    "Table",
    "TextModel",
    "TextScore",
    "TextStream",
    "WrittenText",
    "distill",
    "hookimpl",
    "keep_largest",
    "largest_per_symbol",
    "load",
    "per_run",
    "train",
]

#: Names that are imported when they are first used, so that a plugin's `import gentext` stays fast, and their modules.
_MODULE_BY_NAME = dict.fromkeys(("TextModel", "TextStream", "WrittenText", "load"), "gentext.library.loading")
_MODULE_BY_NAME |= {"InspectedText": "gentext.inspection.inspected_text"}
_MODULE_BY_NAME |= {"BestText": "gentext.search.prefixes", "BestTexts": "gentext.search.searching"}
_MODULE_BY_NAME |= {"Score": "gentext.scoring.score", "TextScore": "gentext.scoring.record_scores"}
_MODULE_BY_NAME |= dict.fromkeys(("distill", "train"), "gentext.training.train")


def __getattr__(name: str) -> Any:
    if name not in _MODULE_BY_NAME:
        raise AttributeError(f"module 'gentext' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_BY_NAME[name]), name)


def __dir__() -> list[str]:
    return __all__
