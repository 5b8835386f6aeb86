"""A sweep: many runs with other settings, of which the one with the lowest held-out loss is kept.

`SWEEP/study.db` knows what was tried. Each trial is an ordinary run in `SWEEP/trial-NNN`, trained by a
child process. Whoever holds a trial's lock trains it, until its end is noted: a trial that is begun
and not locked was cut short, and goes on from its checkpoint. The child has a lock of its own, since
it may live a moment longer than a parent that was killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import tomli_w
from filelock import FileLock, Timeout

from gentext import run as runs
from gentext.config import ConfigTable, read_toml
from gentext.console import say
from gentext.errors import GenError, RunError, TrainingStopped
from gentext.interrupts import Interrupts
from gentext.plugins.sweep.report import shown, write_tables
from gentext.plugins.sweep.space import parse_space, setting
from gentext.plugins.sweep.study import Row, Study
from gentext.plugins.sweep.trial import Job, Trial
from gentext.run import Run

STUDY, BASE, SPACE, BEST = "study.db", "base.toml", "space.toml", "best"
#: So many failures without a success are no bad luck.
GIVE_UP = 5
#: Seconds for which one process may keep the others out: an export takes the longest.
ANSWER = 600


@dataclasses.dataclass(frozen=True)
class SweepSettings:
    """What a sweep's file knows about it besides its trials."""

    corpus: str
    sha256: str
    preset: str
    trials: int
    prune: bool
    seed: int
    base: ConfigTable
    """The config that all trials share."""
    space: ConfigTable


class Sweep:
    """A sweep's folder and its file."""

    def __init__(self, folder: Path, study: Study) -> None:
        self.folder, self.study = folder, study
        try:
            self.facts = msgspec.convert(study.facts, SweepSettings)
        except msgspec.ValidationError as error:
            raise RunError(f"{study.path}: damaged, or not made by gen sweep ({error})") from None
        self.space = parse_space(self.facts.space, str(study.path))
        for name, table in ((BASE, self.facts.base), (SPACE, self.facts.space)):
            path = folder / name
            if not path.is_file():
                runs.write_text(path, tomli_w.dumps(table))
            elif read_toml(path) != table:
                raise RunError(f"{study.path} belongs to another sweep than {path}; put back what was there")
        for name in ("locks", "logs"):
            (folder / name).mkdir(exist_ok=True)
        self._trial: Trial | None = None
        self._interrupts = Interrupts(self._pass_on)
        self._busy: set[int] = set()
        for row in study.rows():  # a kill may have come before it was done
            self._tidy(row)

    @property
    def go_on(self) -> str:
        """What to do after the sweep was cut short."""
        return f"go on with: gen sweep --resume --sweep {self.folder}"

    def work(self) -> None:
        """Train until all trials are done, or given away. Raises TrainingStopped when interrupted."""
        say(f"sweep: {self.facts.trials} trials of {self.facts.corpus} in {self.folder}")
        try:
            with self._interrupts:
                while not self._interrupts.asked and (begun := self._begin()):
                    self._follow(*begun)
                    self.write()
        except RunError as error:
            raise RunError(f"{error}. When that is put right, {self.go_on}") from error
        if self._interrupts.asked:
            done = sum(row.state != "running" for row in self.study.rows())
            raise TrainingStopped(
                f"stopped after {done} of {self.facts.trials} trials, everything is saved; {self.go_on}"
            )

    def write(self) -> list[Row]:
        """Write table and picture, and return the trials: the best first."""
        with self._alone():
            rows = sorted(self.study.rows(), key=_rank)
            write_tables(self.folder, self.facts.corpus, self.space, rows)
        return rows

    def keep_best(self, row: Row, export: Callable[[Run], None]) -> Run:
        """Copy a trial to SWEEP/best, without what only training needs, and export it. Replaces an earlier one."""
        with self._alone():
            self._copy_best(row)
            best = Run(self.folder / BEST)
            export(best)
        return best

    def _copy_best(self, row: Row) -> None:
        best, new, old = (self.folder / name for name in (BEST, f".{BEST}.new", f".{BEST}.old"))
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)
        try:
            shutil.copytree(self.path(row.number), new, ignore=shutil.ignore_patterns("last-*", "*.onnx"))
            if best.exists():
                best.rename(old)
            new.rename(best)
        except (OSError, shutil.Error) as error:
            raise RunError(
                f"{best}: cannot be written ({error}); the trial itself is {self.path(row.number)}"
            ) from None
        shutil.rmtree(old, ignore_errors=True)

    def path(self, number: int) -> Path:
        """Return the folder of a trial's run."""
        return self.folder / f"trial-{number:03d}"

    def _pass_on(self) -> None:
        if self._trial is not None:
            self._trial.stop()

    def _begin(self) -> tuple[int, Iterator[ConfigTable]] | None:
        """Begin a trial, or one that was cut short, in a child that holds its lock; None: there is none left."""
        with self._alone():
            while (number := self._next()) is not None:
                values = self.study.values(number, self.space, self.facts.seed)
                say(f"trial {number}: " + " ".join(f"{key}={shown(one)}" for key, one in values.items()))
                events = self._spawn(number, [setting(key, one) for key, one in values.items()])
                first = next(events)
                if first["event"] != "busy":
                    return number, itertools.chain([first], events)
                self._claimed.release()
                self._busy.add(number)
        return None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep the sweep's other processes out for a moment."""
        try:
            with FileLock(self.folder / "locks" / "study.lock", timeout=ANSWER):
                yield
        except Timeout:
            raise RunError(f"{self.folder}: another process of this sweep does not answer; end it") from None

    def _next(self) -> int | None:
        """Return a trial that is now ours, begun by a process that has died or new; None: there is none left."""
        rows = self.study.rows()
        for row in rows:
            if row.state == "running" and row.number not in self._busy and self._claim(row.number):
                if self.study.rows()[row.number].state == "running":
                    return row.number
                self._claimed.release()  # its process has finished it in between
        lost = [row for row in rows if row.state == "failed"]
        if len(lost) >= GIVE_UP and len(lost) == len(rows):
            raise GenError(f"the first {len(lost)} trials failed, the last one so: {lost[-1].facts.get('reason')}")
        if len(rows) >= self.facts.trials:
            return None
        number = self.study.begin()
        return number if self._claim(number) else None

    def _claim(self, number: int) -> bool:
        """Take a trial's lock, or return false when another process has it; it is held until the end is noted."""
        self._claimed = FileLock(self._lock(number))
        try:
            self._claimed.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def _spawn(self, number: int, settings: list[str]) -> Iterator[ConfigTable]:
        facts = self.facts
        base = str(self.folder / BASE)
        job = Job(facts.corpus, str(self.path(number)), facts.preset, base, settings, str(self._lock(number, "child")))
        self._trial = Trial(job, self.folder / "logs" / f"trial-{number:03d}.txt")
        if self._interrupts.asked:  # while there was nobody to pass it on to
            self._trial.stop()
        return self._trial.events()

    def _follow(self, number: int, events: Iterator[ConfigTable]) -> None:
        """Answer a child until it ends, and note what came of the trial."""
        assert self._trial is not None
        try:
            for event in events:
                if event["event"] == "measured":
                    bad = self.study.report(number, event["share"], event["val_loss"])
                    say(f"trial {number}: {event['share']:4.0%}  held out {event['val_loss']:.4f}")
                    self._trial.answer(bad and self.facts.prune and not self._interrupts.asked)
                elif event["event"] in ("finished", "pruned", "failed"):
                    self._note(number, event)
        finally:
            self._trial.kill()
            self._trial = None
            self._claimed.release()

    def _note(self, number: int, event: ConfigTable) -> None:
        state, loss = event["event"], None
        facts: ConfigTable = {"seconds": _seconds(Run(self.path(number)))}
        if state == "finished":
            loss = event["result"]["val_loss"]
            facts |= {key: one for key, one in event["result"].items() if key != "val_loss"}
            say(f"trial {number}: finished, held out {loss:.4f}, {facts['seconds']:.0f} s of steps")
        elif state == "failed":
            if event["disk"]:
                raise RunError(event["reason"])
            facts["reason"] = event["reason"]
            say(f"trial {number}: failed: {event['reason']}")
        else:
            say(f"trial {number}: pruned")
        self.study.finish(number, state, loss, **facts)
        self._tidy(self.study.rows()[number])

    def _tidy(self, row: Row) -> None:
        """Drop what nobody needs any more: the state of the optimizer's end, and the weights of what was given up."""
        if row.state == "running":
            return
        run = Run(self.path(row.number))
        for path in run.checkpoints.glob("last-*" if row.state == "finished" else "*"):
            path.unlink(missing_ok=True)
        if row.state != "finished":
            (run.path / runs.HELD_OUT).unlink(missing_ok=True)

    def _lock(self, number: int, whose: str = "parent") -> Path:
        return self.folder / "locks" / f"trial-{number:03d}.{whose}"


def _rank(row: Row) -> tuple[int, float]:
    states = ("finished", "pruned", "running", "failed")
    return states.index(row.state), float("inf") if row.val_loss is None else row.val_loss


def _seconds(run: Run) -> float:
    """Return how long a run was trained, as its log has it."""
    return max((row["seconds"] for row in run.read_metrics() if row.get("seconds") is not None), default=0.0)
