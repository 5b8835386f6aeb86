"""gentext: train small text models, export them to ONNX, write text anywhere onnxruntime runs.

This package is the engine. Its subpackages are `gentext.data`, `gentext.plugins`, `gentext.export`, `gentext.testing`
(the test kit for authors of plugins) and `gentext.cli`.
The modules of the engine are listed here by layer, and a module imports only from its own layer and from earlier ones:
contracts, files, data, sampling, training, library, plugins, export, testing, cli. Importing the package imports no
machine-learning library.

Contracts
    versions  the versions of installed distributions
    errors  every error that is shown to the user as one line
    console  lines and progress bars on stderr for the user, and what a terminal may be shown
    reading  reads files and data of bounded size
    escapes  escapes in texts that a user types
    file_names  shows and stores names of files that are not UTF-8
    interrupts  Ctrl-C, which stops training once everything is saved, and ends a text without end and any long call
    config  options of a component: a dataclass filled from presets, TOML and the command line
    cpu_quota  how many processors the quota of a container leaves
    settings  the settings of a run that belong to no component
    record_options  how a text is cut into records
    strategy  the base class of a link of the sampling chain
    token_corpus  a text, or records, as tokens
    interfaces  what each kind of component must offer, as Protocols
    boundary  the symbol between two records, which no text contains
    capabilities  what models and trainers may offer beyond that
    adjustments  what the hook `adjust_settings` gets and returns
    hookspecs  the hooks that plugins may implement
    registry  components by kind and name
    events  the progress of a run, and how its hooks are called
    creation  creates components, and checks that each is what its kind demands
    handover  checks what components hand over: logits, states, chunks of tokens, symbols
    manager  loads plugins
    noise  the uniform random numbers from which tokens are drawn
    stop  stop strings as an automaton
    chain  the links of a sampling chain in order, run with NumPy
    draw  chooses a token from logits and a uniform number

Files
    temporary  locks of temporary files, and the removal of those of killed processes
    atomic  writes files that are complete or not there
    folders  folders that environment variables choose
    run  a run folder
    removal  removes files that gentext made, and no others
    held_out  what a run holds out, in its folder
    novelty  the records that a model has learned from, as hashes
    lock  the lock of a run, which one training at a time holds
    bundle  the metadata of an exported file
    onnx_file  reads the metadata of an .onnx file quickly, without onnxruntime
    signature  inputs and outputs of a compiled generator

Sampling
    source  finds the run or the file to open; without a path, the newest run
    describe  from a run to a bundle, and from a bundle to its tokenizer and chain
    opening  opens an exported file with the built-in sampler
    expression  regular expressions as Python reads them, in the syntax of outlines-core
    expression_child  the program that compiles an expression
    byte_automaton  an expression as an automaton over bytes
    match  the texts that match an expression, as an automaton over symbols
    match_tables  the tables that the link `match` reads
    decimals  decimal numbers between two bounds as expressions
    json_schema  JSON schemas as expressions
    matching  what the texts of a request must match
    stored  the chain that is compiled into a file, from its metadata
    stepping  generation one position at a time: the reference
    compiled  generation with a compiled generator, many positions in a call
    decoder  from the tokens of one row to its text
    generate  texts from a sampler: requests in tokens, and pieces of text
    batch_size  how many texts are written side by side
    stacking  automata of several requests as one table
    row_state  the state of a row of a compiled generator between two calls
    rows  a row of a compiled generator by itself: its request, and how far it is
    row_batch  rows that share the calls of a compiled generator
    schedule  how many positions a call has, where texts begin and end between calls
    slots  many texts over one compiled generator, which begin and end while others go on
    bulk  the texts of one request in slots, in order
    session_keys  the keys that sign sessions, and the tokens in which sessions travel
    session  a text between two requests, as bytes that any process with the same file can go on from
    continuation  ends a request with a session, and begins one with it
    styles  measured settings of the chain, by the name of a style
    effects  remarks on parameters that have no effect, or act against another one
    parameters  parameters of the chain's links, set by flags or by keyword arguments
    writing  checks a request for texts, and prepares them
    record_schedule  which rows share a call in which records are drawn, and how many positions it has
    record_rows  records side by side over one compiled generator
    record_batches  records side by side over any other sampler
    record_plan  which records of a seed are written
    record_writing  whole records in order, new and different where asked for
    record_output  records as text, JSON lines and CSV, and files of them
    record_requests  checks a request for records, and prepares them
    unknown_characters  the characters of a text that a model does not know, where the text is measured
    score  the loss of a model on a text
    inspection  what a model thinks at each symbol of a text: probabilities and hidden units
    text_features  features of the places in a text, such as within quotes
    unit_information  how much hidden units tell about features of a text
    endings  what may follow the beginning of a text, and where a text ends
    prefixes  beginnings of texts, and a model that reads many of them at a time
    record_scores  the log-probabilities of many short texts, each from a fresh state
    scoring  the rows of `gen score`
    score_tables  rows as JSON lines, CSV or Parquet
    best  the most probable texts, by best-first search
    searching  checks a request for the most probable texts, and prepares it
    filters  creates filters, and checks what they answer
    bench  how fast a file writes

Training
    resolve  the config of a run, from presets, files and options
    split_corpus  a corpus as tokens, split into the part to learn from and the held-out part
    text  reads one text as such a corpus
    record_corpus  reads records as such a corpus
    teacher  the run that teaches a model: writes the text that it learns from
    taught_corpus  what such a run has learned from, as a corpus
    completion  what a shell completes after Tab
    advice  warnings before the first step, from the sizes of text, model and budget
    arrangement  notices a text whose lines are sorted or grouped
    learning_curve  whether a loss still falls, and whether held-out and training loss part
    verdict  the verdict at the end of a run, and what to try next
    measuring  when the losses are measured, and on how much text
    planning  creates the components of a run, and turns its budget into steps
    pipeline  a training run from its options to the exported files

Library
    writing_arguments  keyword arguments of calls that write, as the options of a request
    open_model  an opened model: what its file says about it, and the checks of requests to it
    measured_model  such a model that tells how probable texts are
    text_model  such a model that writes texts and records
    library  opens a trained model
    text_pieces  the pieces of a text that a user and a model write in turns
    text_tree  such a text with all its versions, as a tree
    training  trains a model, or a student of another one, and opens it
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gentext.config import NoConfig, per_run
from gentext.errors import GenError
from gentext.hookspecs import hookimpl
from gentext.strategy import Param, State, Strategy, Table, keep_largest, largest_per_symbol

if TYPE_CHECKING:
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
_MODULE_BY_NAME |= {"BestText": "gentext.search.prefixes", "BestTexts": "gentext.search.searching"}
_MODULE_BY_NAME |= {"Score": "gentext.scoring.score", "TextScore": "gentext.scoring.record_scores"}
_MODULE_BY_NAME |= dict.fromkeys(("distill", "train"), "gentext.training.train")


def __getattr__(name: str) -> Any:
    if name not in _MODULE_BY_NAME:
        raise AttributeError(f"module 'gentext' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_BY_NAME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
