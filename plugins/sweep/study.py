"""The memory of a sweep: an Optuna study in an SQLite file. (optuna)

The file holds numbers and JSON, nothing pickled. A trial is known by its number. What is drawn for
it depends on the seed, its number and the results so far: a sweep that was killed draws the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import OptunaError
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from gentext.config import ConfigTable
from gentext.errors import RunError, reason
from gentext.plugins.sweep.space import Range, Space, Value

NAME = "gentext sweep"
#: Trials that are drawn at random before the results lead.
RANDOM = 6
#: Measurements come at about the same tenths of every trial's budget; in these trials are compared.
TENTHS = 10
#: When a trial may be pruned: finished trials, tenths of its budget, and others measured there.
FINISHED, BEGUN, OTHERS = 4, 3, 3


@dataclasses.dataclass(frozen=True)
class Row:
    """A trial and what came of it."""

    number: int
    state: str
    """running, finished, pruned or failed."""
    values: dict[str, Value]
    val_loss: float | None
    """Of a finished trial the best; of another one the last."""
    curve: dict[int, float]
    """The losses by tenth of the budget."""
    facts: ConfigTable
    """What `Study.finish` was told: seconds, reason and so on."""


STATES = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


class Study:
    """The trials of a sweep; several processes may use one file at once."""

    def __init__(self, path: Path, facts: Mapping[str, Any] | None = None) -> None:
        """Open a file; with ``facts``, JSON data about the sweep, make a new one."""
        self.path = path
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with self._told():
            if facts is None:
                _check_file(path)
            # The wait is for other processes of the sweep, each of which holds the file for milliseconds.
            options = {"connect_args": {"timeout": 60}, "poolclass": NullPool}
            self._storage = optuna.storages.RDBStorage(f"sqlite:///{path.absolute()}", engine_kwargs=options)
            if facts is not None:
                optuna.create_study(storage=self._storage, study_name=NAME).set_user_attr("sweep", dict(facts))
            elif NAME not in optuna.get_all_study_names(self._storage):
                raise RunError(f"{path}: a study, but none of gen sweep; name the folder of a sweep with --sweep")
            self._study = optuna.load_study(
                storage=self._storage,
                study_name=NAME,
                pruner=optuna.pruners.MedianPruner(FINISHED, BEGUN, n_min_trials=OTHERS),
            )
            self.facts: Any = self._study.user_attrs.get("sweep")

    @classmethod
    def create(cls, path: Path, facts: Mapping[str, Any], first: Mapping[str, Value]) -> Study:
        """Make a new file, whole or not at all. Of the first trial some values are given, the others drawn."""
        temporary = path.with_name(f".{path.name}.tmp")
        study = cls(temporary, facts)
        with study._told():
            study._study.enqueue_trial(dict(first))
            os.replace(temporary, path)
        return cls(path)

    def set_facts(self, facts: Mapping[str, Any]) -> None:
        """Replace the facts about the sweep."""
        with self._told():
            self._study.set_user_attr("sweep", dict(facts))
            self.facts = dict(facts)

    def rows(self) -> list[Row]:
        """Return all trials that were begun, in their order."""
        with self._told():
            trials = self._study.get_trials(deepcopy=False, states=tuple(STATES))
        return [
            Row(
                one.number,
                STATES[one.state],
                dict(one.params),
                one.value if one.state == TrialState.COMPLETE else _last(one.intermediate_values),
                dict(one.intermediate_values),
                dict(one.user_attrs),
            )
            for one in trials
        ]

    def begin(self) -> int:
        """Begin a trial and return its number."""
        with self._told():
            return self._study.ask().number

    def values(self, number: int, space: Space, seed: int) -> dict[str, Value]:
        """Return what a trial is to try; those of a trial that was begun before stay."""
        with self._told():
            state = np.random.SeedSequence([seed, number]).generate_state(1)
            self._study.sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM, seed=int(state[0]))
            trial = self._trial(number)
            return {name: _draw(trial, name, entry) for name, entry in space.items()}

    def report(self, number: int, share: float, val_loss: float) -> bool:
        """Note a measurement at a share of the budget; return whether the trial has no prospects."""
        tenth = round(share * TENTHS)
        with self._told():
            trial = self._trial(number)
            if tenth in self._frozen(number).intermediate_values:  # trials are compared once a tenth
                return False
            trial.report(val_loss, tenth)
            return trial.should_prune()

    def finish(self, number: int, state: str, val_loss: float | None = None, **facts: Any) -> None:
        """Say what came of a trial: finished, pruned or failed."""
        with self._told():
            trial = self._trial(number)
            for name, one in facts.items():
                trial.set_user_attr(name, one)
            result = next(one for one, name in STATES.items() if name == state)
            self._study.tell(number, val_loss, state=result, skip_if_finished=True)

    def _trial(self, number: int) -> optuna.Trial:
        return optuna.Trial(self._study, self._frozen(number)._trial_id)

    def _frozen(self, number: int) -> optuna.trial.FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Tell in one line what is wrong with the file, or with the disk below it."""
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, OptunaError, RuntimeError, OSError, ValueError, KeyError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, SQLAlchemyError) else error
            problem = str(getattr(cause, "orig", None) or reason(cause))
            raise RunError(f"{self.path}: cannot be used ({problem})") from error


def _check_file(path: Path) -> None:
    """Raise sqlite3.Error for a file that is damaged, RunError where there is none. A kill's half work is undone."""
    if not path.is_file():
        raise RunError(f"{path.parent} is no sweep: it has no {path.name}")
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as connection:
        [[first], *_] = connection.execute("PRAGMA quick_check").fetchall()
        if first != "ok":
            raise sqlite3.DatabaseError(first)


def _draw(trial: optuna.Trial, name: str, entry: Any) -> Value:
    if not isinstance(entry, Range):
        choice: Value = trial.suggest_categorical(name, entry.choices)
        return choice
    suggest: Callable[..., Value] = trial.suggest_int if entry.whole else trial.suggest_float
    step = entry.step or (1 if entry.whole else None)
    return suggest(name, entry.low, entry.high, log=entry.log, step=step)


def _last(curve: Mapping[int, float]) -> float | None:
    return curve[max(curve)] if curve else None
