"""A sweep: many runs with other settings, of which the one with the lowest held-out loss is kept.

`SWEEP/study.db` holds the trials and their results. Each trial is an ordinary run in `SWEEP/trial-NNN`, trained by
a child process. The process that holds a trial's lock trains it, and keeps the lock until the end of the trial is
stored. A trial that is recorded as running, but is not locked, was interrupted: the next process resumes it from its
checkpoint. The child has another lock, since it may live a moment longer than a parent that was killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
import tomli_w
from filelock import FileLock, Timeout

from gentext import run as runs
from gentext.config import ConfigTable, build_config, read_toml
from gentext.console import say
from gentext.corpus.held_out import held_out_path
from gentext.errors import GenError, RunError, TrainingStopped, UsageError
from gentext.interrupts import Interrupts
from gentext.manager import host
from gentext.plugins.sweep.report import format_setting_value, write_report
from gentext.plugins.sweep.space import format_setting, parse_space
from gentext.plugins.sweep.study import Study, TrialRow
from gentext.plugins.sweep.trial import Job, Trial
from gentext.run import Run
from gentext.runs.record_options import RecordOptions
from gentext.runs.removal import CHECKPOINT_NAME, discard_run, find_gentext_files
from gentext.settings import Settings

#: Names in the sweep's folder.
STUDY_FILE, BASE_FILE, SPACE_FILE, BEST_FOLDER, KEPT_FOLDER = "study.db", "base.toml", "space.toml", "best", "best-kept"
#: The sweep ends when its first trials, this number of them, have all failed.
MAX_FAILURES = 5
#: Seconds to wait for another process that holds the lock of the folder; an export holds it for the longest time.
LOCK_TIMEOUT = 600
#: Files of the best trial that its copy in SWEEP/best does not need.
FILES_NOT_COPIED = ("last-*", "*.onnx", runs.LOCK_FILE)
#: The states of a trial, the best first.
STATE_ORDER = ("finished", "pruned", "running", "failed")


@dataclasses.dataclass(frozen=True)
class SweepSettings:
    """The settings of a sweep, as its file stores them."""

    corpus: str
    """Absolute path of the text, or its name in the catalogue."""
    sha256: str
    """Hash of the text."""
    preset: str
    trials: int
    prune: bool
    seed: int
    base: ConfigTable
    """The config that all trials share."""
    space: ConfigTable
    records: RecordOptions | None = None
    """How the corpus is cut into records; None: it is one text."""
    val: str | None = None
    """What is held out instead of a part of the corpus: an absolute path, or a name in the catalogue."""
    val_sha256: str | None = None
    """Hash of that."""
    symbols_per_record: float | None = None
    """Of the held-out records that are measured, with their ends; None for one text."""


class Sweep:
    """A sweep's folder and its study: trains the trials, and keeps the best."""

    def __init__(self, folder: Path, study: Study) -> None:
        self.folder, self.study = folder, study
        try:
            self.settings = msgspec.convert(study.settings, SweepSettings)
        except (msgspec.ValidationError, UsageError) as error:
            raise RunError(f"{study.path}: damaged, or not made by gen sweep ({error})") from None
        self.space = parse_space(self.settings.space, str(study.path))
        for name, table in ((BASE_FILE, self.settings.base), (SPACE_FILE, self.settings.space)):
            path = folder / name
            if not path.is_file():
                runs.write_text(path, tomli_w.dumps(table))
            elif read_toml(path) != table:
                raise RunError(f"{study.path} belongs to another sweep than {path}; put back what was there")
        for name in ("locks", "logs"):
            (folder / name).mkdir(exist_ok=True)
        self._trial: Trial | None = None
        """The trial that this process trains at the moment."""
        self._trial_lock: FileLock
        """The lock of that trial, which `_claim_trial` takes."""
        self._interrupts = Interrupts(self._stop_trial)
        self._trained_elsewhere: set[int] = set()
        """Numbers of trials whose child process still lives although its parent was killed."""
        for row in study.rows():  # a process that was killed may have left files
            self._delete_unneeded_files(row)

    @property
    def resume_hint(self) -> str:
        """What to do after the sweep was cut short."""
        return f"go on with: gen sweep --resume --sweep {self.folder}"

    def change_settings(self, settings: SweepSettings) -> None:
        """Replace the settings, in the file too."""
        self.settings = settings
        self.study.set_settings(dataclasses.asdict(settings))

    def run_trials(self) -> None:
        """Train trials until none is left to begin; other processes of the sweep may still train some.

        Raises TrainingStopped when interrupted.
        """
        say(f"sweep: {self.settings.trials} trials of {self.settings.corpus} in {self.folder}")
        try:
            with self._interrupts:
                while not self._interrupts.requested and (started_trial := self._start_trial()):
                    self._follow_trial(*started_trial)
                    self.write_report()
        except RunError as error:
            raise RunError(f"{error}. When that is put right, {self.resume_hint}") from error
        if self._interrupts.requested:
            done_count = sum(row.state != "running" for row in self.study.rows())
            raise TrainingStopped(
                f"stopped after {done_count} of {self.settings.trials} trials, everything is saved; {self.resume_hint}"
            )

    def write_report(self) -> list[TrialRow]:
        """Write table and picture, and return the trials: the best first."""
        with self._folder_lock():
            rows = sorted(self.study.rows(), key=_ranking_key)
            write_report(self.folder, self.settings.corpus, self.space, rows, self.settings.symbols_per_record)
        return rows

    # -- the best trial -----------------------------------------------------------------------

    def keep_best(self, row: TrialRow, *, export: bool) -> Run:
        """Copy a trial to SWEEP/best, without the files that only training needs. Replaces an earlier best.

        :param export: call the hook that exports a run.
        """
        with self._folder_lock():
            self._copy_best_run(row)
            best_run = Run(self.folder / BEST_FOLDER)
            if export:
                host().hooks.export_run(best_run, build_config(Settings, best_run.config.get("run", {}), "run"))
        return best_run

    def _copy_best_run(self, row: TrialRow) -> None:
        best_folder, new_copy, previous_best = (
            self.folder / name for name in (BEST_FOLDER, f".{BEST_FOLDER}.new", f".{BEST_FOLDER}.old")
        )
        shutil.rmtree(new_copy, ignore_errors=True)  # left by a process that was killed; all in it are copies
        try:
            discard_run(previous_best, KEPT_FOLDER)
            shutil.copytree(self.trial_folder(row.number), new_copy, ignore=shutil.ignore_patterns(*FILES_NOT_COPIED))
            if best_folder.exists():
                best_folder.rename(previous_best)
            new_copy.rename(best_folder)
        except (OSError, shutil.Error) as error:
            trial_folder = self.trial_folder(row.number)
            raise RunError(f"{best_folder}: cannot be written ({error}); the trial itself is {trial_folder}") from None
        with contextlib.suppress(OSError):
            discard_run(previous_best, KEPT_FOLDER)

    # -- claiming a trial -----------------------------------------------------------------------

    def _start_trial(self) -> tuple[int, Iterator[ConfigTable]] | None:
        """Start the child process of a new trial, or of one that was interrupted.

        Returns the number of the trial and the child's events; None when no trial is left.
        """
        with self._folder_lock():
            while (number := self._claim_next()) is not None:
                settings = self.study.suggest_values(number, self.space, self.settings.seed)
                say(
                    f"trial {number}: "
                    + " ".join(f"{name}={format_setting_value(setting)}" for name, setting in settings.items())
                )
                events = self._spawn_child(
                    number, [format_setting(name, setting) for name, setting in settings.items()]
                )
                first_event = next(events)
                if first_event["event"] != "busy":
                    return number, itertools.chain([first_event], events)
                self._trial_lock.release()
                self._trained_elsewhere.add(number)
        return None

    def _claim_next(self) -> int | None:
        """Lock a trial that was interrupted, else a new one, and return its number; None when no trial is left."""
        rows = self.study.rows()
        for row in rows:
            if row.state == "running" and row.number not in self._trained_elsewhere and self._claim_trial(row.number):
                if self.study.rows()[row.number].state == "running":
                    return row.number
                self._trial_lock.release()  # its process finished it before it could be locked here
        failed_rows = [row for row in rows if row.state == "failed"]
        if len(failed_rows) >= MAX_FAILURES and len(failed_rows) == len(rows):
            last_reason = failed_rows[-1].details.get("reason")
            raise GenError(f"the first {len(failed_rows)} trials failed, the last one so: {last_reason}")
        if len(rows) >= self.settings.trials:
            return None
        number = self.study.begin_trial()
        return number if self._claim_trial(number) else None

    def _claim_trial(self, number: int) -> bool:
        """Take a trial's lock, to be held until its end is stored. Returns False when another process has it."""
        self._trial_lock = FileLock(self._lock_path(number, "parent"))
        try:
            self._trial_lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def _spawn_child(self, number: int, settings: list[str]) -> Iterator[ConfigTable]:
        """Start a trial's child process and return its events."""
        job = Job(
            corpus=self.settings.corpus,
            run=str(self.trial_folder(number)),
            preset=self.settings.preset,
            config=str(self.folder / BASE_FILE),
            settings=settings,
            lock=str(self._lock_path(number, "child")),
            records=None if self.settings.records is None else dataclasses.asdict(self.settings.records),
            val=self.settings.val,
        )
        self._trial = Trial(job, self.folder / "logs" / f"trial-{number:03d}.txt")
        if self._interrupts.requested:  # the signal came when there was no trial to stop
            self._trial.stop()
        return self._trial.events()

    # -- following a trial ----------------------------------------------------------------------

    def _follow_trial(self, number: int, events: Iterator[ConfigTable]) -> None:
        """Answer the events of a child process until it ends, and store the end of the trial."""
        assert self._trial is not None
        try:
            for event in events:
                if event["event"] == "measured":
                    is_hopeless = self.study.report_loss(number, event["share"], event["val_loss"])
                    say(f"trial {number}: {event['share']:4.0%}  held out {event['val_loss']:.4f}")
                    self._trial.answer(prune=is_hopeless and self.settings.prune and not self._interrupts.requested)
                elif event["event"] in ("finished", "pruned", "failed"):
                    self._store_result(number, event)
        finally:
            self._trial.kill()
            self._trial = None
            self._trial_lock.release()

    def _stop_trial(self) -> None:
        if self._trial is not None:
            self._trial.stop()

    def _store_result(self, number: int, event: ConfigTable) -> None:
        state, val_loss = event["event"], None
        details: ConfigTable = {"seconds": _training_seconds(Run(self.trial_folder(number)))}
        if state == "finished":
            result = dict(event["result"])
            val_loss = result.pop("val_loss")
            details |= result
            say(f"trial {number}: finished, held out {val_loss:.4f}, {details['seconds']:.0f} s of steps")
        elif state == "failed":
            if event["disk"]:
                raise RunError(event["reason"])
            details["reason"] = event["reason"]
            say(f"trial {number}: failed: {event['reason']}")
        else:
            say(f"trial {number}: pruned")
        self.study.finish_trial(number, state, val_loss, **details)
        self._delete_unneeded_files(self.study.rows()[number])

    # -- files --------------------------------------------------------------------------------

    def _delete_unneeded_files(self, row: TrialRow) -> None:
        """Delete the optimizer's last state of a finished trial, and all weights of a pruned or failed one."""
        if row.state == "running":
            return
        run = Run(self.trial_folder(row.number))
        for path in find_gentext_files(run.checkpoints, CHECKPOINT_NAME):
            if row.state != "finished" or path.name.startswith("last-"):
                path.unlink(missing_ok=True)
        if row.state != "finished":
            held_out_path(run.path).unlink(missing_ok=True)

    def trial_folder(self, number: int) -> Path:
        """Return the folder of a trial's run."""
        return self.folder / f"trial-{number:03d}"

    def _lock_path(self, number: int, holder: Literal["parent", "child"]) -> Path:
        return self.folder / "locks" / f"trial-{number:03d}.{holder}"

    @contextlib.contextmanager
    def _folder_lock(self) -> Iterator[None]:
        """Hold the lock with which only one process of the sweep starts trials and writes files."""
        try:
            with FileLock(self.folder / "locks" / "study.lock", timeout=LOCK_TIMEOUT):
                yield
        except Timeout:
            raise RunError(f"{self.folder}: another process of this sweep does not answer; end it") from None


def _ranking_key(row: TrialRow) -> tuple[int, float]:
    return STATE_ORDER.index(row.state), float("inf") if row.val_loss is None else row.val_loss


def _training_seconds(run: Run) -> float:
    """Return the seconds that a run spent in training steps, according to its log."""
    return max((row["seconds"] for row in run.read_metrics() if row.get("seconds") is not None), default=0.0)
