"""How a sweep begins, or begins again: the options are checked, and the folder is made."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from pathlib import Path

from gentext import run as runs
from gentext.config import ConfigTable, build_config
from gentext.errors import RunError, UsageError
from gentext.pipeline import DEFAULT_CORPUS
from gentext.plugins.sweep.space import Value, check_space, read_space, space_table
from gentext.plugins.sweep.study import Study
from gentext.plugins.sweep.sweep import STUDY, Sweep, SweepSettings
from gentext.resolve import DEFAULT_PRESET, SECTIONS, TrainOptions, component, resolve
from gentext.settings import Settings, check_extras
from gentext.text import fingerprint

DEFAULT_TRIALS = 20


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """What the command line says about a sweep."""

    train: TrainOptions
    """What all trials share; its ``run`` and ``resume`` have no meaning here."""
    folder: Path | None = None
    space: Path | None = None
    trials: int | None = None
    prune: bool = True
    resume: bool = False


def sweeps_folder() -> Path:
    """Return the folder of all sweeps, beside that of the runs."""
    return runs.runs_folder().parent / "sweeps"


def start(options: SweepOptions) -> Sweep:
    """Begin a sweep, or go on with one. Everything that can be wrong with the options is told here."""
    if options.resume:
        return _resume(options)
    train = dataclasses.replace(
        options.train, corpus=options.train.corpus or DEFAULT_CORPUS, preset=options.train.preset or DEFAULT_PRESET
    )
    if train.corpus == "-":
        raise UsageError("CORPUS -: every trial reads the text anew; put it into a file")
    folder = options.folder or sweeps_folder() / time.strftime("%Y%m%d-%H%M%S")
    if (folder / STUDY).exists():
        raise RunError(f"{folder} is a sweep already; go on with --resume, or name another folder with --sweep")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is not an empty folder; name another one with --sweep")
    facts, first = _facts(train, options)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made ({error.strerror}); name another folder with --sweep") from None
    try:
        return Sweep(folder, Study.create(folder / STUDY, dataclasses.asdict(facts), first))
    except RunError:
        shutil.rmtree(folder, ignore_errors=True)  # it was empty, and is of no use
        raise


def _facts(train: TrainOptions, options: SweepOptions) -> tuple[SweepSettings, dict[str, Value]]:
    """Check what the trials share and what they try; return it, and what holds without a sweep."""
    space = read_space(options.space)
    base = resolve(train)
    for kind in SECTIONS:
        component(resolve(train), kind)
    settings = build_config(Settings, base.get("run", {}), "run")
    check_extras(settings)
    first = check_space(space, train)
    assert train.corpus is not None and train.preset is not None
    corpus, sha256 = _lasting(train.corpus), fingerprint(train.corpus)
    trials = DEFAULT_TRIALS if options.trials is None else options.trials
    table = space_table(space)
    return SweepSettings(corpus, sha256, train.preset, trials, options.prune, settings.seed, base, table), first


def _lasting(corpus: str) -> str:
    """Return a text's path as it is right from every folder, or its name in the catalogue."""
    return os.path.abspath(corpus) if os.path.exists(corpus) else corpus


def _resume(options: SweepOptions) -> Sweep:
    train = options.train
    if train.preset or train.config or train.settings or train.flags or options.space or not options.prune:
        raise UsageError(
            "--resume goes on with the settings of the sweep; leave out everything but CORPUS, --sweep and --trials"
        )
    folder = options.folder or _newest()
    if not folder.is_dir():
        raise RunError(f"{folder}: no such sweep")
    sweep = Sweep(folder, Study(folder / STUDY))
    changed: ConfigTable = {} if options.trials is None else {"trials": options.trials}
    if train.corpus is not None:
        changed["corpus"] = _lasting(train.corpus)
    if changed:
        sweep.facts = dataclasses.replace(sweep.facts, **changed)
        sweep.study.set_facts(dataclasses.asdict(sweep.facts))
    if fingerprint(sweep.facts.corpus) != sweep.facts.sha256:
        raise RunError(f"{folder} was begun with another text than {sweep.facts.corpus} is now; begin a new sweep")
    return sweep


def _newest() -> Path:
    found = [one.parent for one in sweeps_folder().glob(f"*/{STUDY}")]
    if not found:
        raise RunError(f"nothing to resume: no sweep in {sweeps_folder()}/; name one with --sweep")
    return max(found, key=lambda folder: (folder / STUDY).stat().st_mtime_ns)
