"""From the arguments of `gentext.train`, or the flags of a command that trains, to the options of a run."""

from __future__ import annotations

import dataclasses
import importlib
import json
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gentext.arguments import declared
from gentext.data.in_memory import RECORDS_LAYOUT, InMemoryCorpus, records_in_memory, text_in_memory
from gentext.errors import ConfigError, MissingExtra, UsageError
from gentext.run import CORPUS_RECORDS_FILE
from gentext.runs.record_options import collect_options
from gentext.runs.resolve import InitialWeightsLoader, TrainOptions
from gentext.settings import Settings
from gentext.training.declaration import (
    TRAIN_DEFAULTS,
    DistillArguments,
    RunArguments,
    StudentArguments,
    TrainArguments,
)

#: The module of ``init_from``, as a dotted name: like all built-in plugins it is not imported by the engine itself.
INITIAL_WEIGHTS_MODULE = "gentext.plugins.trainers.initial_weights"


def train_options(
    arguments: TrainArguments,
    settings: Sequence[str],
    *,
    corpus: object = None,
    text: object = None,
    teacher: object = None,
) -> TrainOptions:
    """Return the options of a run from all the arguments; ``settings`` are ``section.key=value`` texts.

    Raises UsageError for arguments that do not go together, and for a path that is none.
    """
    path, in_memory, layout = _choose_corpus(corpus, text, arguments["records"])
    dedup, weight, skip_bad = arguments["dedup"], arguments["weight"], arguments["skip_bad"]
    if in_memory and in_memory.filename == CORPUS_RECORDS_FILE and (weight is not None or skip_bad):
        raise UsageError("weight and skip_bad are for records in a file or a text; a list of records has neither")
    return TrainOptions(
        corpus=path,
        in_memory=in_memory,
        run=_optional_path("run", arguments["run"]),
        preset=arguments["preset"],
        config=_optional_path("config", arguments["config"]),
        settings=settings,
        flags=_settings_that_were_set(arguments),
        records=collect_options(layout, dedup=dedup, weight=weight, skip_bad=skip_bad),
        val=_optional_text_path("val", arguments["val"]),
        resume=arguments["resume"],
        verbose=arguments["verbose"],
        initial_weights=_initial_weights_loader(_optional_path("init_from", arguments["init_from"])),
        teacher=_optional_path("teacher", teacher),
    )


def student_options(arguments: DistillArguments, settings: Sequence[str], teacher: object) -> TrainOptions:
    """Return the options of the run of a student, as `train_options` does."""
    run_arguments: RunArguments = arguments
    return train_options(
        {**TRAIN_DEFAULTS, **run_arguments}, [*settings, *_student_settings(arguments)], teacher=teacher
    )


def _choose_corpus(
    corpus: object, text: object, records: object
) -> tuple[str | None, InMemoryCorpus | None, str | None]:
    """Return the path of a corpus, or what is in memory, and the layout of its records."""
    if corpus is not None and not isinstance(corpus, str | os.PathLike):
        if not isinstance(corpus, Iterable) or isinstance(corpus, bytes | bytearray | Mapping):
            raise UsageError(f"corpus = {corpus!r:.80}: expected a path, or records as a list of texts")
        if records is not None:
            raise UsageError("corpus is no path, so its texts are the records: leave out records, or give a path")
        corpus, records = None, corpus
    layout = records if isinstance(records, str) else None
    sources = {"corpus": corpus, "text": text, "records": None if isinstance(records, str) else records}
    chosen_names = [name for name, source in sources.items() if source is not None]
    if len(chosen_names) > 1:
        raise UsageError(f"{' and '.join(chosen_names)}: expected one of them, as what to learn from")
    if text is not None:
        return None, text_in_memory(text), layout
    if sources["records"] is not None:
        return None, records_in_memory(records), RECORDS_LAYOUT
    return _optional_text_path("corpus", corpus), None, layout


def _optional_path(name: str, path: object) -> Path | None:
    """Return an argument as a path. Raises UsageError for what is none."""
    text = _optional_text_path(name, path)
    return None if text is None else Path(text)


def _optional_text_path(name: str, path: object) -> str | None:
    if path is None:
        return None
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    if not isinstance(text, str):
        raise UsageError(f"{name} = {path!r:.80}: expected a path")
    return text


def _settings_that_were_set(arguments: Mapping[str, object]) -> dict[str, object]:
    """Return the arguments that are fields of `Settings`, without those that are None, and switches as by default."""
    fields = {field.name for field in dataclasses.fields(Settings)}
    settings = {}
    for name, own in declared(TrainArguments).items():
        if name not in fields:
            continue
        setting = arguments[name]
        if own.type is bool:
            setting = (setting or False) if bool(setting) is not own.option.default else None
        if setting is not None:
            settings[name] = setting
    return settings


def _student_settings(arguments: StudentArguments) -> list[str]:
    """Return the settings for which a student has options of their own, as ``section.key=value`` texts."""
    settings = {
        "model.hidden": arguments["hidden"],
        "trainer.soft": arguments["soft"],
        "trainer.temperature": arguments["temperature"],
        "batcher.real": arguments["real"],
    }
    return [_format_setting(key, setting) for key, setting in settings.items() if setting is not None]


def format_settings(settings: object) -> list[str]:
    """Return settings as ``KEY=VALUE`` texts. Raises UsageError for what is no mapping."""
    if settings is not None and not isinstance(settings, Mapping):
        raise UsageError(f"settings = {settings!r:.80}: expected a dict, for example {{'model.hidden': 256}}")
    return [_format_setting(key, setting) for key, setting in (settings or {}).items()]


def _format_setting(key: str, setting: object) -> str:
    """Return ``KEY=VALUE`` with the value in TOML, which takes integers, texts and lists as JSON writes them."""
    if isinstance(setting, float):  # JSON would write NaN, which is a text in TOML
        return f"{key}={float.__repr__(setting)}"
    try:
        return f"{key}={json.dumps(setting, ensure_ascii=False, default=operator.index)}"  # integers of NumPy, too
    except (TypeError, ValueError):
        raise ConfigError(f"{key} = {setting!r}: expected a number, a text, or a list of these") from None


def _initial_weights_loader(run_folder: Path | None) -> InitialWeightsLoader | None:
    """Return the function that gives a new model the weights of another run; None without a run."""
    if run_folder is None:
        return None
    try:
        module = importlib.import_module(INITIAL_WEIGHTS_MODULE)
    except ModuleNotFoundError:
        raise MissingExtra("training", "train") from None
    loader: InitialWeightsLoader = module.InitialWeights(run_folder)
    return loader
