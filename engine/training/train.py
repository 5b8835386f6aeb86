"""`gentext.train` and `gentext.distill`: train a model, and open it. Their commands share what is behind them."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import ParamSpec, TypeVar, Unpack

from gentext import console
from gentext.arguments import keyword_signature, with_defaults
from gentext.errors import UsageError, nearest
from gentext.interfaces import FitResult, World
from gentext.library.loading import TextModel, open_text_model
from gentext.run import Run
from gentext.runs.resolve import TrainOptions
from gentext.runs.source import CHECKPOINT_SAMPLER, FILE_SAMPLER
from gentext.training.declaration import DistillArguments, PathLike, TrainArguments
from gentext.training.options import format_settings, student_options, train_options
from gentext.training.pipeline import run_training

__all__ = ["distill", "train"]

#: Held while a run trains: training sets PyTorch's seed, threads and more for the whole process.
_training_lock = threading.Lock()


P = ParamSpec("P")
R = TypeVar("R")


def _check_names_of_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function whose signature shows all declared arguments.

    It raises UsageError for an argument that it does not have, with the nearest name.
    """
    signature = keyword_signature(function)

    @functools.wraps(function)
    def checked(*arguments: P.args, **options: P.kwargs) -> R:
        for name in options:
            if name not in signature.parameters:
                raise UsageError(
                    f"gentext.{function.__name__} has no argument {name}.{nearest(name, signature.parameters)}"
                )
        return function(*arguments, **options)

    checked.__signature__ = signature  # type: ignore[attr-defined]
    return checked


@_check_names_of_arguments
def train(
    corpus: PathLike | Iterable[str] | None = None,
    *,
    text: str | None = None,
    progress: bool = False,
    **arguments: Unpack[TrainArguments],
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
    chosen = with_defaults(arguments, TrainArguments)
    options = train_options(chosen, format_settings(chosen["settings"]), corpus=corpus, text=text)
    return _train_and_open(options, "train", progress)


@_check_names_of_arguments
def distill(
    teacher: PathLike | None = None, *, progress: bool = False, **arguments: Unpack[DistillArguments]
) -> TextModel:
    """Train a small model on a trained one, its teacher, export it, and open it. Needs the ``train`` extra.

    The arguments are the options of ``gen distill``: ``teacher`` is the folder of a trained and exported run, which
    only a resumed run may leave out. ``hidden`` is the units of each layer. ``soft``, from 0 to 1, is the share of the
    loss against the teacher's probabilities of ``temperature``; ``real``, from 0 to 1, the share of the rows that read
    the teacher's own text. The other arguments, and the errors, are those of `train`. Raises RunError for a teacher
    that is damaged, or not exported.
    """
    chosen = with_defaults(arguments, DistillArguments)
    if teacher is None and not chosen["resume"]:
        raise UsageError('expected the folder of a trained run to learn from: gentext.distill("RUN")')
    options = student_options(chosen, format_settings(chosen["settings"]), teacher)
    return _train_and_open(options, "distill", progress)


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


def describe_result(run: Run, result: FitResult) -> list[str]:
    """Return what the user should know about a run that is finished: its speed, and last the verdict."""
    return [f"{result.symbols_per_second:,.0f} symbols/s; everything is in {run.path}", *run.read_verdict()]


@contextlib.contextmanager
def _train_alone() -> Iterator[None]:
    """Refuse a second run in this process while the first one trains."""
    if not _training_lock.acquire(blocking=False):
        raise UsageError("another run trains in this process; wait for its end, or train in a process of its own")
    try:
        yield
    finally:
        _training_lock.release()
