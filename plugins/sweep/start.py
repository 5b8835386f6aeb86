"""Begins or resumes a sweep: checks the options, and makes or opens the folder."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from pathlib import Path

from gentext import run as runs
from gentext.config import ConfigTable, build_config
from gentext.corpus.text import corpus_fingerprint
from gentext.data.corpus import is_read_once
from gentext.errors import RunError, UsageError
from gentext.files.temporary import TEMPORARY_FOLDER, remove_abandoned
from gentext.plugins.sweep.space import SettingValue, check_space, read_space, space_table
from gentext.plugins.sweep.study import TENTHS, Study
from gentext.plugins.sweep.sweep import BASE_FILE, SPACE_FILE, STUDY_FILE, Sweep, SweepSettings
from gentext.runs.resolve import DEFAULT_PRESET, TrainOptions, configured_component, resolve_config, with_defaults
from gentext.settings import Settings, check_extras
from gentext.training.pipeline import DEFAULT_CORPUS, read_split_corpus

DEFAULT_TRIALS = 20
#: Characters of the held-out text that every trial measures at its end, and symbols of it at each tenth.
HELD_OUT, MEASURED_SYMBOLS = 50_000, 10_000


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """The options of ``gen sweep``."""

    train: TrainOptions
    """What all trials share; its ``run`` and ``resume`` are not used."""
    folder: Path | None = None
    """The sweep's folder; None: a new one, or with ``resume`` the newest one."""
    space: Path | None = None
    """The TOML file of the space; None: the built-in one."""
    trials: int | None = None
    """None: `DEFAULT_TRIALS`, or with ``resume`` as many as before."""
    prune: bool = True
    resume: bool = False


def sweeps_folder() -> Path:
    """Return the folder of all sweeps, beside that of the runs."""
    return runs.runs_folder().parent / "sweeps"


def start_sweep(options: SweepOptions) -> Sweep:
    """Begin a sweep, or resume one. Raises a GenError for any mistake in the options."""
    if options.resume:
        return _resume_sweep(options)
    train = dataclasses.replace(
        options.train, corpus=options.train.corpus or DEFAULT_CORPUS, preset=options.train.preset or DEFAULT_PRESET
    )
    for name, text in (("CORPUS", train.corpus), ("--val", train.val)):
        if text is not None and is_read_once(text):
            raise UsageError(f"{name} {text}: every trial reads the text anew; put it into a file")
    folder = options.folder or sweeps_folder() / time.strftime("%Y%m%d-%H%M%S")
    if (folder / STUDY_FILE).exists():
        raise RunError(f"{folder} is a sweep already; go on with --resume, or name another folder with --sweep")
    remove_abandoned(folder, TEMPORARY_FOLDER)  # of a process that was killed while it began this sweep
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is not an empty folder; name another one with --sweep")
    settings, first_values = _check_options(train, options)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made ({error.strerror}); name another folder with --sweep") from None
    try:
        return Sweep(folder, Study.create(folder / STUDY_FILE, dataclasses.asdict(settings), first_values))
    except RunError:
        _remove_new_sweep(folder)
        raise


def _remove_new_sweep(folder: Path) -> None:
    """Remove the files with which a sweep begins, and its folder, unless something else is in it."""
    journal = f"{STUDY_FILE}-journal"  # SQLite's, of a transaction
    for path in [folder / name for name in (STUDY_FILE, journal, BASE_FILE, SPACE_FILE)]:
        with contextlib.suppress(OSError):
            path.unlink()
    for empty_folder in (folder / "locks", folder / "logs", folder):
        with contextlib.suppress(OSError):
            empty_folder.rmdir()


def _check_options(train: TrainOptions, options: SweepOptions) -> tuple[SweepSettings, dict[str, SettingValue]]:
    """Check the options; return the sweep's settings, and the values that the first trial tries, see `check_space`."""
    space = read_space(options.space, of_records=train.records is not None)
    base_config = resolve_config(train)
    with_defaults(base_config)  # checks the components
    settings = build_config(Settings, base_config.get("run", {}), "run")
    check_extras(settings)
    first_values = check_space(space, train)
    # Trials are compared: they measure the same text, at tenths of their budgets.
    for key, number in {"held_out": HELD_OUT, "measurements": TENTHS, "measured_symbols": MEASURED_SYMBOLS}.items():
        base_config["run"].setdefault(key, number)
    if not settings.val_frac and train.val is None:
        raise UsageError(
            "--val-frac 0: trials are compared by their held-out loss; hold out a share, or a file with --val FILE"
        )
    assert train.corpus is not None and train.preset is not None
    corpus = read_split_corpus(
        train.corpus, train.records, train.val, configured_component(base_config, "tokenizer"), settings.val_frac
    )
    held_out = corpus.cut_held_out(base_config["run"]["held_out"]).val
    sweep_settings = SweepSettings(
        corpus=_absolute_path(train.corpus),
        sha256=corpus.table["sha256"],
        preset=train.preset,
        trials=DEFAULT_TRIALS if options.trials is None else options.trials,
        prune=options.prune,
        seed=settings.seed,
        base=base_config,
        space=space_table(space),
        records=train.records,
        val=None if train.val is None else _absolute_path(train.val),
        val_sha256=None if train.val is None else corpus_fingerprint(train.val, of_records=train.records is not None),
        symbols_per_record=held_out.symbols_per_record if held_out.is_records else None,
    )
    return sweep_settings, first_values


def _absolute_path(corpus: str) -> str:
    """Return the absolute path of a text, or its name in the catalogue."""
    return os.path.abspath(corpus) if os.path.exists(corpus) else corpus


def _resume_sweep(options: SweepOptions) -> Sweep:
    train = options.train
    shared = (train.preset, train.config, train.settings, train.flags, train.records, train.val, options.space)
    if any(shared) or not options.prune:
        raise UsageError(
            "--resume goes on with the settings of the sweep; leave out everything but CORPUS, --sweep and --trials"
        )
    folder = options.folder or _newest_folder()
    if not folder.is_dir():
        raise RunError(f"{folder}: no such sweep")
    sweep = Sweep(folder, Study(folder / STUDY_FILE))
    changed_settings: ConfigTable = {} if options.trials is None else {"trials": options.trials}
    if train.corpus is not None:
        changed_settings["corpus"] = _absolute_path(train.corpus)
    if changed_settings:
        sweep.change_settings(dataclasses.replace(sweep.settings, **changed_settings))
    settings = sweep.settings
    for text, sha256 in ((settings.corpus, settings.sha256), (settings.val, settings.val_sha256)):
        if text is not None and corpus_fingerprint(text, of_records=settings.records is not None) != sha256:
            raise RunError(f"{folder} was begun with another text than {text} is now; begin a new sweep")
    return sweep


def _newest_folder() -> Path:
    folders = [path.parent for path in sweeps_folder().glob(f"*/{STUDY_FILE}")]
    if not folders:
        raise RunError(f"nothing to resume: no sweep in {sweeps_folder()}/; name one with --sweep")
    return max(folders, key=lambda folder: (folder / STUDY_FILE).stat().st_mtime_ns)
