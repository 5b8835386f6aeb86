"""The options of training, each with its type, default and help: for the library, and for commands that train."""

# The annotations are read when a command starts, so they are not turned into texts.
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypedDict

from gentext.arguments import Flag, Option, with_defaults
from gentext.runs.completion import complete_presets, complete_runs
from gentext.runs.record_options import LAYOUTS
from gentext.runs.resolve import DEFAULT_PRESET, preset_names

PathLike = str | os.PathLike[str]


class FolderArguments(TypedDict, total=False):
    """Where a run is."""

    run: Annotated[
        PathLike | None,
        Option("folder of the run. Default: a new one in runs/"),
        Flag(type=Path | None, complete=complete_runs),
    ]


class ConfigArguments(TypedDict, total=False):
    """The config of a run, and its budget. A new option of all that trains is a line here."""

    preset: Annotated[
        str | None,
        Option(f"{', '.join(f'``{name}``' for name in preset_names())}. Default: {DEFAULT_PRESET}"),
        Flag(complete=complete_presets),
    ]
    config: Annotated[
        PathLike | None, Option("a TOML file whose settings override the preset's"), Flag(type=Path | None)
    ]
    settings: Annotated[
        Mapping[str, Any] | None,
        Option("settings by their keys, as ``{'model.hidden': 256}``; commands have their own ``--set``"),
    ]
    epochs: Annotated[
        float | None,
        Option("budget: passes over the training text. For a student, one pass is as long as its teacher's text"),
    ]
    steps: Annotated[int | None, Option("budget: optimizer steps")]
    minutes: Annotated[float | None, Option("budget: minutes of training")]


class CorpusArguments(TypedDict, total=False):
    """How a text is divided into records, and which part is held out."""

    records: Annotated[
        str | Iterable[str] | None,
        Option(
            f"the layout of the records in a file or a text: {', '.join(LAYOUTS)}; or records, as an iterable of texts"
        ),
        Flag(type=str | None, help=f"learn records: {', '.join(LAYOUTS)}. Default: one text", metavar="LAYOUT"),
    ]
    val: Annotated[
        PathLike | None,
        Option("hold out this file, and learn from all of CORPUS"),
        Flag(type=str | None, metavar="FILE"),
    ]
    val_frac: Annotated[float | None, Option("share to hold out: the end of the text, or records chosen by their hash")]
    dedup: Annotated[bool, Option("learn equal records only once", False)]
    weight: Annotated[str | None, Option("how many times each record counts (jsonl, csv)"), Flag(metavar="COLUMN")]
    skip_bad: Annotated[bool, Option("skip broken records, and count them", False)]


class MachineArguments(TypedDict, total=False):
    """What computes a run."""

    device: Annotated[str | None, Option("``auto``, ``cpu`` or ``cuda``")]
    precision: Annotated[str | None, Option("``auto``, ``fp32``, ``bf16`` or ``fp16``")]
    seed: Annotated[int | None, Option("seed of all random numbers")]


class EndsArguments(TypedDict, total=False):
    """What a run starts from, and what it writes."""

    resume: Annotated[bool, Option("continue a run that was stopped or killed", False)]
    init_from: Annotated[
        PathLike | None,
        Option("start from the weights of this run"),
        Flag(type=Path | None, complete=complete_runs),
    ]
    export: Annotated[
        bool, Option("whether to export the model at the end", True), Flag(help="do not export the model at the end")
    ]
    export_precision: Annotated[
        str | None,
        Option("arithmetic of generator.onnx: ``auto`` (int8 unless its loss is too high), ``fp32`` or ``int8``"),
    ]
    tensorboard: Annotated[bool, Option("write event files into RUN/tensorboard", False)]
    verbose: Annotated[
        bool, Option("also print why settings were adapted to the text, and what the export checked", False)
    ]


class StudentArguments(TypedDict, total=False):
    """What a student has settings of its own for."""

    hidden: Annotated[int | None, Option("units of each layer: ``model.hidden``")]
    soft: Annotated[
        float | None,
        Option("share of the loss that compares with the teacher's probabilities, not with the text: ``trainer.soft``"),
    ]
    temperature: Annotated[float | None, Option("temperature of these probabilities: ``trainer.temperature``")]
    real: Annotated[float | None, Option("share of batch rows that read the teacher's own text: ``batcher.real``")]


class TrainArguments(FolderArguments, ConfigArguments, CorpusArguments, MachineArguments, EndsArguments, total=False):
    """What `gentext.train` and ``gen train`` take besides the corpus."""


class RunArguments(FolderArguments, ConfigArguments, MachineArguments, EndsArguments, total=False):
    """What each run can be asked for, whatever it learns from."""


class DistillArguments(StudentArguments, RunArguments, total=False):
    """What `gentext.distill` and ``gen distill`` take besides the teacher."""


class SweepArguments(ConfigArguments, CorpusArguments, MachineArguments, total=False):
    """What all trials of ``gen sweep`` share besides the corpus."""


#: For what has a part of them.
TRAIN_DEFAULTS: TrainArguments = with_defaults(TrainArguments(), TrainArguments)
