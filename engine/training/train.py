"""`gentext.train` and `gentext.distill`: train a model, and open it. Their commands share what is behind them."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import json
import operator
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from gentext import console
from gentext.data.in_memory import RECORDS_LAYOUT, InMemoryCorpus, records_in_memory, text_in_memory
from gentext.errors import ConfigError, MissingExtra, UsageError, nearest
from gentext.interfaces import FitResult, World
from gentext.library.loading import TextModel, open_text_model
from gentext.run import CORPUS_RECORDS_FILE, Run
from gentext.runs.record_options import collect_options
from gentext.runs.resolve import InitialWeightsLoader, TrainOptions, collect_flags
from gentext.runs.source import CHECKPOINT_SAMPLER, FILE_SAMPLER
from gentext.training.pipeline import run_training

__all__ = ["distill", "train"]

#: The module of ``init_from``, as a dotted name: like all built-in plugins it is not imported by the engine itself.
INITIAL_WEIGHTS_MODULE = "gentext.plugins.trainers.initial_weights"
PathLike = str | os.PathLike[str]
#: Held while a run trains: training sets PyTorch's seed, threads and more for the whole process.
_training_lock = threading.Lock()


P = ParamSpec("P")
R = TypeVar("R")


def _suggest_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that raises UsageError for an argument that it does not have, with the nearest name."""
    names = inspect.signature(function).parameters

    @functools.wraps(function)
    def checked(*arguments: P.args, **options: P.kwargs) -> R:
        for name in options:
            if name not in names:
                raise UsageError(f"gentext.{function.__name__} has no argument {name}.{nearest(name, names)}")
        return function(*arguments, **options)

    return checked


@_suggest_arguments
def train(
    corpus: PathLike | Iterable[str] | None = None,
    *,
    text: str | None = None,
    preset: str | None = None,
    config: PathLike | None = None,
    settings: Mapping[str, Any] | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    run: PathLike | None = None,
    records: str | Iterable[str] | None = None,
    val: PathLike | None = None,
    val_frac: float | None = None,
    dedup: bool = False,
    weight: str | None = None,
    skip_bad: bool = False,
    seed: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    export: bool = True,
    export_precision: str | None = None,
    tensorboard: bool = False,
    resume: bool = False,
    init_from: PathLike | None = None,
    progress: bool = False,
) -> TextModel:
    """Train a model on a text, export it, and open it. Needs the ``train`` extra.

    ``corpus`` is the path of a file or a folder, or a name of the catalogue. What is in memory is given as ``text``, or
    as ``records``, a list or another iterable of texts, which may also be the first argument; the run keeps it, so that
    it can be resumed. For a file or a ``text``, ``records`` is the layout of its records, such as ``"lines"``.

    The other arguments are the options of ``gen train``: ``settings`` replaces ``--set``: ``{"model.hidden": 256}``.
    The budget is one of ``epochs``, ``steps`` and ``minutes``. ``export=False`` writes no model.onnx; then the model
    runs with PyTorch. With ``progress`` the run prints on stderr what ``gen train`` prints; otherwise these lines are
    in the model's ``messages``.

    In the main thread, Ctrl-C saves the run and raises TrainingStopped. Raises MissingExtra without the extra,
    UsageError when another run trains in this process, and other subclasses of `gentext.GenError` as the command
    has errors.
    """
    path, in_memory, layout = _choose_corpus(corpus, text, records)
    if in_memory and in_memory.filename == CORPUS_RECORDS_FILE and (weight is not None or skip_bad):
        raise UsageError("weight and skip_bad are for records in a file or a text; a list of records has neither")
    flags = collect_flags(
        epochs=epochs,
        steps=steps,
        minutes=minutes,
        val_frac=val_frac,
        device=device,
        precision=precision,
        seed=seed,
        export=None if export else False,
        export_precision=export_precision,
        tensorboard=tensorboard or None,
    )
    train_options = TrainOptions(
        corpus=path,
        in_memory=in_memory,
        run=_optional_path("run", run),
        preset=preset,
        config=_optional_path("config", config),
        settings=_format_settings(settings),
        flags=flags,
        records=collect_options(layout, dedup=dedup, weight=weight, skip_bad=skip_bad),
        val=_optional_text_path("val", val),
        resume=resume,
        initial_weights=initial_weights_loader(_optional_path("init_from", init_from)),
    )
    return _train_and_open(train_options, "train", progress)


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


@_suggest_arguments
def distill(
    teacher: PathLike | None = None,
    *,
    hidden: int | None = None,
    soft: float | None = None,
    temperature: float | None = None,
    real: float | None = None,
    preset: str | None = None,
    config: PathLike | None = None,
    settings: Mapping[str, Any] | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    run: PathLike | None = None,
    seed: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    export: bool = True,
    export_precision: str | None = None,
    tensorboard: bool = False,
    resume: bool = False,
    init_from: PathLike | None = None,
    progress: bool = False,
) -> TextModel:
    """Train a small model on a trained one, its teacher, export it, and open it. Needs the ``train`` extra.

    The arguments are the options of ``gen distill``: ``teacher`` is the folder of a trained and exported run, which
    only a resumed run may leave out. ``hidden`` is the units of each layer. ``soft``, from 0 to 1, is the share of the
    loss against the teacher's probabilities of ``temperature``; ``real``, from 0 to 1, the share of the rows that read
    the teacher's own text. The other arguments, and the errors, are those of `train`. Raises RunError for a teacher
    that is damaged, or not exported.
    """
    if teacher is None and not resume:
        raise UsageError('expected the folder of a trained run to learn from: gentext.distill("RUN")')
    train_options = TrainOptions(
        run=_optional_path("run", run),
        preset=preset,
        config=_optional_path("config", config),
        settings=[
            *_format_settings(settings),
            *student_settings(hidden=hidden, soft=soft, temperature=temperature, real=real),
        ],
        flags=collect_flags(
            epochs=epochs,
            steps=steps,
            minutes=minutes,
            device=device,
            precision=precision,
            seed=seed,
            export=None if export else False,
            export_precision=export_precision,
            tensorboard=tensorboard or None,
        ),
        resume=resume,
        initial_weights=initial_weights_loader(_optional_path("init_from", init_from)),
        teacher=_optional_path("teacher", teacher),
    )
    return _train_and_open(train_options, "distill", progress)


def student_settings(
    *, hidden: int | None, soft: float | None, temperature: float | None, real: float | None
) -> list[str]:
    """Return the settings for which a student has options of their own, as ``section.key=value`` texts."""
    settings = {
        "model.hidden": hidden,
        "trainer.soft": soft,
        "trainer.temperature": temperature,
        "batcher.real": real,
    }
    return [_format_setting(key, setting) for key, setting in settings.items() if setting is not None]


def _train_and_open(options: TrainOptions, command: str, progress: bool) -> TextModel:
    """Train as the options say, and open the run; ``command`` is the name of the command that does the same."""
    if World.of_process().size > 1:
        raise UsageError(f"gentext.{command} trains in one process; with torchrun, start: -m gentext.cli {command}")
    with _train_alone(), contextlib.nullcontext() if progress else console.quiet() as lines:
        trained_run, result = run_training(options)
        for line in describe_result(trained_run, result):
            console.say(line)
        exported = trained_run.model.is_file()
        model = open_text_model(trained_run.path, sampler=FILE_SAMPLER if exported else CHECKPOINT_SAMPLER)
    model.add_messages(lines or [])
    return model


def initial_weights_loader(run_folder: Path | None) -> InitialWeightsLoader | None:
    """Return the function that gives a new model the weights of another run; None without a run."""
    if run_folder is None:
        return None
    try:
        module = importlib.import_module(INITIAL_WEIGHTS_MODULE)
    except ModuleNotFoundError:
        raise MissingExtra("training", "train") from None
    loader: InitialWeightsLoader = module.InitialWeights(run_folder)
    return loader


def describe_result(run: Run, result: FitResult) -> list[str]:
    """Return what the user should know about a run that is finished: the verdict, and its speed."""
    return [*run.read_verdict(), f"{result.symbols_per_second:,.0f} symbols/s; everything is in {run.path}"]


def _format_settings(settings: object) -> list[str]:
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


@contextlib.contextmanager
def _train_alone() -> Iterator[None]:
    """Refuse a second run in this process while the first one trains."""
    if not _training_lock.acquire(blocking=False):
        raise UsageError("another run trains in this process; wait for its end, or train in a process of its own")
    try:
        yield
    finally:
        _training_lock.release()
