"""The trials of a sweep and their results: an Optuna study in an SQLite file. (optuna)

The file holds numbers and JSON, nothing pickled. A trial is identified by its number. The values that are
drawn for it depend on the seed, its number and the results so far: a sweep that was killed draws the same ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
from optuna.exceptions import OptunaError
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from gentext.config import ConfigTable
from gentext.errors import RunError, reason
from gentext.files.atomic import advise_room
from gentext.files.temporary import locked_folder
from gentext.plugins.sweep.space import Choices, Range, SettingValue, Space

STUDY_NAME = "gentext sweep"
#: Number of the first trials, whose values are drawn at random. Those of later ones follow the results.
RANDOM_TRIALS = 6
#: Trials are compared at tenths of their budgets: each is measured at about the same ones.
TENTHS = 10
#: A trial may be pruned when at least this number of trials are finished,
PRUNE_MIN_TRIALS = 4
#: when this number of tenths of its budget are spent,
PRUNE_MIN_TENTHS = 3
#: and when this number of other trials were measured at the same tenth.
PRUNE_MIN_RIVALS = 3


@dataclasses.dataclass(frozen=True)
class TrialRow:
    """A trial and its results so far."""

    number: int
    state: str
    """running, finished, pruned or failed."""
    values: dict[str, SettingValue]
    val_loss: float | None
    """The best held-out loss of a finished trial; the last one of any other trial."""
    details: ConfigTable
    """The details that `Study.finish_trial` stored: seconds, reason and so on."""


#: Optuna's states, and their names here.
STATE_NAMES = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


class Study:
    """The trials of a sweep; several processes may use one file at once. Its methods raise RunError."""

    def __init__(
        self, path: Path, new_settings: Mapping[str, Any] | None = None, final_path: Path | None = None
    ) -> None:
        """Open a file, or make a new one for a sweep with ``new_settings``, which are JSON data.

        ``final_path`` is that of the file in messages, where it is made elsewhere and moved.
        """
        self.path, self._final_path = path, final_path or path
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        # A pool logs the traceback of what interrupts the closing of a connection, such as Ctrl-C, and raises it again.
        logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
        with self._as_run_error():
            if new_settings is None:
                _check_file(path)
            # Not by a URL: a path may have characters that mean something else there, such as ? and {.
            engine_options = {"creator": self._connect, "poolclass": NullPool}
            self._storage = optuna.storages.RDBStorage("sqlite://", engine_kwargs=engine_options)
            if new_settings is not None:
                study = optuna.create_study(storage=self._storage, study_name=STUDY_NAME)
                study.set_user_attr("sweep", dict(new_settings))
            elif STUDY_NAME not in optuna.get_all_study_names(self._storage):
                raise RunError(f"{path}: a study, but none of gen sweep; name the folder of a sweep with --sweep")
            self._study = optuna.load_study(
                storage=self._storage,
                study_name=STUDY_NAME,
                pruner=optuna.pruners.MedianPruner(PRUNE_MIN_TRIALS, PRUNE_MIN_TENTHS, n_min_trials=PRUNE_MIN_RIVALS),
            )
            self.settings: Any = self._study.user_attrs.get("sweep")
            """The sweep's settings as the file has them: JSON data of any form."""

    @classmethod
    def create(cls, path: Path, settings: Mapping[str, Any], first_values: Mapping[str, SettingValue]) -> Study:
        """Make a new file, whole or not at all. The first trial gets ``first_values``; the others are drawn."""
        try:
            with locked_folder(path.parent) as folder:
                study = cls(folder / path.name, settings, path)
                with study._as_run_error():
                    study._study.enqueue_trial(dict(first_values))
                os.replace(study.path, path)
        except OSError as error:
            raise RunError(f"{path}: cannot be written ({error.strerror}){advise_room(error, path.parent)}") from error
        return cls(path)

    def _connect(self) -> sqlite3.Connection:
        # The seconds to wait for the file: other processes of the sweep lock it for milliseconds.
        return sqlite3.connect(self.path, timeout=60)

    def set_settings(self, settings: Mapping[str, Any]) -> None:
        """Replace the sweep's settings."""
        with self._as_run_error():
            self._study.set_user_attr("sweep", dict(settings))
            self.settings = dict(settings)

    def rows(self) -> list[TrialRow]:
        """Return all trials that were begun, in their order."""
        with self._as_run_error():
            trials = self._study.get_trials(deepcopy=False, states=tuple(STATE_NAMES))
        return [_trial_row(trial) for trial in trials]

    def begin_trial(self) -> int:
        """Begin a trial and return its number."""
        with self._as_run_error():
            return self._study.ask().number

    def suggest_values(self, number: int, space: Space, seed: int) -> dict[str, SettingValue]:
        """Return the values that a trial tries; a trial that is resumed keeps its values."""
        with self._as_run_error():
            state = np.random.SeedSequence([seed, number]).generate_state(1)
            self._study.sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=int(state[0]))
            trial = self._load_trial(number)
            return {name: _suggest_value(trial, name, distribution) for name, distribution in space.items()}

    def report_loss(self, number: int, share: float, val_loss: float) -> bool:
        """Store a measurement at a share of the budget; return whether the trial should be pruned."""
        tenth = round(share * TENTHS)
        with self._as_run_error():
            trial = self._load_trial(number)
            if tenth in self._frozen_trial(number).intermediate_values:  # a trial is compared once in each tenth
                return False
            trial.report(val_loss, tenth)
            return trial.should_prune()

    def finish_trial(self, number: int, state: str, val_loss: float | None = None, **details: Any) -> None:
        """Store the end of a trial: that it is finished, pruned or failed, its loss and other details."""
        with self._as_run_error():
            trial = self._load_trial(number)
            for state_name, detail in details.items():
                trial.set_user_attr(state_name, detail)
            optuna_state = next(trial_state for trial_state, state_name in STATE_NAMES.items() if state_name == state)
            self._study.tell(number, val_loss, state=optuna_state, skip_if_finished=True)

    def _load_trial(self, number: int) -> optuna.Trial:
        return optuna.Trial(self._study, self._frozen_trial(number)._trial_id)

    def _frozen_trial(self, number: int) -> optuna.trial.FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]

    @contextlib.contextmanager
    def _as_run_error(self) -> Iterator[None]:
        """Raise errors of the file, and of the disk it is on, as RunError."""
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, OptunaError, RuntimeError, OSError, ValueError, KeyError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, SQLAlchemyError) else error
            problem = str(getattr(cause, "orig", None) or reason(cause))
            is_full = getattr(getattr(cause, "orig", cause), "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            advice = advise_room(OSError(errno.ENOSPC, problem), self._final_path.parent) if is_full else ""
            raise RunError(f"{self._final_path}: cannot be used ({problem}){advice}") from error


def _check_file(path: Path) -> None:
    """Raise sqlite3.Error for a file that is damaged, RunError where there is none.

    Opening it also rolls back a transaction that a killed process has left unfinished.
    """
    if not path.is_file():
        raise RunError(f"{path.parent} is no sweep: it has no {path.name}")
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as connection:
        [[problem], *_] = connection.execute("PRAGMA quick_check").fetchall()
        if problem != "ok":
            raise sqlite3.DatabaseError(problem)


def _trial_row(trial: optuna.trial.FrozenTrial) -> TrialRow:
    loss_by_tenth = trial.intermediate_values
    last_loss = loss_by_tenth[max(loss_by_tenth)] if loss_by_tenth else None
    return TrialRow(
        number=trial.number,
        state=STATE_NAMES[trial.state],
        values=dict(trial.params),
        val_loss=trial.value if trial.state == TrialState.COMPLETE else last_loss,
        details=dict(trial.user_attrs),
    )


def _suggest_value(trial: optuna.Trial, name: str, distribution: Choices | Range) -> SettingValue:
    if isinstance(distribution, Choices):
        return cast(SettingValue, trial.suggest_categorical(name, distribution.choices))
    suggest_number: Callable[..., SettingValue] = trial.suggest_int if distribution.is_integer else trial.suggest_float
    step = distribution.step or (1 if distribution.is_integer else None)
    return suggest_number(name, distribution.low, distribution.high, log=distribution.log, step=step)
