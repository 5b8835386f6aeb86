"""Kills commands at random moments, lets them go on, and compares their end with that of an undisturbed command.

    python benchmarks/kills.py [text|records|distill|sweep|sample|score|export ...] [--kills N] [--seed N]

Every process is killed with SIGKILL, at a random moment of the time that an undisturbed one takes. The next one goes on
with what it left, with --resume where the command has that, until one comes to its end. Then all must be equal to the
last bit, but for times: weights, optimizer, random states, samples, metrics, tables, records. An export is also killed
before each rename; whatever it leaves must write the text of the run, or be refused in one line. Takes some minutes a
command.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

#: Options of a training of some seconds. All that a checkpoint must bring back is in it. What is measured is given:
#: else it would follow from the speed, and a training that begins again before its first checkpoint could measure more.
TRAINING = (
    *("--set", "model.hidden=32", "--set", "model.embedding=8", "--set", "model.dropout=0.3", "--set", "run.threads=1"),
    *("--set", "batcher.batch=4", "--set", "batcher.length=20", "--set", "trainer.eval_every=50"),
    *("--set", "run.held_out=20000", "--set", "run.measured_symbols=2000"),
)
#: Fields of metrics.jsonl and sweep.json that a clock measured.
CLOCK_FIELDS = ("seconds", "symbols_per_second")
GEN = (sys.executable, "-m", "gentext")
#: Runs gen, and kills it in place of the rename whose number is the first argument.
GEN_KILLED_AT_RENAME = """
import itertools, os, signal, sys
numbers, replace, number = itertools.count(), os.replace, int(sys.argv.pop(1))
def rename(source, target):
    if next(numbers) == number:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = rename
from gentext.cli.app import main
raise SystemExit(main())
"""


@dataclasses.dataclass(frozen=True)
class Command:
    """A command to kill, which makes a file or a folder."""

    words: Callable[[Path], list[str]]
    """Returns the words that make it at a path."""
    contents: Callable[[Path], dict[str, Any]]
    """Returns what must be equal in the end, by name."""
    resumed_words: Callable[[Path], list[str]] | None = None
    """Returns the words that go on with it; None: those of the beginning."""
    first_file: str = ""
    """Pattern of the file without which there is nothing to resume, from the folder in which the path is."""


@dataclasses.dataclass
class Outcome:
    """What became of a command that was killed many times."""

    kills: int = 0
    ends: int = 0
    """Times that it came to its end."""
    unequal: set[str] = dataclasses.field(default_factory=set)
    leftovers: set[str] = dataclasses.field(default_factory=set)
    errors: set[str] = dataclasses.field(default_factory=set)
    """Lines of errors that a process ended with."""
    tracebacks: int = 0

    def note(self, err: bytes) -> None:
        """Look for tracebacks and errors in what a process printed."""
        text = err.decode()
        self.tracebacks += text.count("Traceback (most recent call last)")
        self.errors |= {line for line in text.splitlines() if line.startswith("gen: error: ")}


# -- what is compared ----------------------------------------------------------------------------


def run_contents(run: Path) -> dict[str, Any]:
    """Return the contents of a run's files by their names, without times and rates; a verdict names times."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    names = {path.name for path in run.iterdir() if path.suffix in (".txt", ".hashes") or path.name == "tokenizer.json"}
    files: dict[str, Any] = {name: (run / name).read_bytes() for name in names - {"verdict.txt"}}
    files["metrics.jsonl"] = [without_times(row) for row in rows]
    for path in (run / "checkpoints").iterdir():
        tensors = safetensors.torch.load_file(path)
        files[path.name] = {
            name: (str(tensor.dtype), tensor.flatten().view(torch.uint8).numpy().tobytes())
            for name, tensor in tensors.items()
        }
    return files


def sweep_contents(folder: Path) -> dict[str, Any]:
    """Return the trials of a sweep, and the contents of its best run."""
    trials = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))["trials"]
    return {"trials": [without_times(trial) for trial in trials]} | run_contents(folder / "best")


def file_contents(path: Path) -> dict[str, Any]:
    return {"file": path.read_bytes()}


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {key: number for key, number in row.items() if key not in CLOCK_FIELDS}


def names_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


# -- the commands --------------------------------------------------------------------------------


def training(name: str, *words: str) -> Command:
    """Return ``gen train`` or ``gen distill``."""
    options = [*TRAINING, "--no-export"]
    return Command(
        lambda run: [name, *words, "--run", str(run), *options],
        run_contents,
        lambda run: [name, "--resume", "--run", str(run)],
        "*/checkpoints/last-*",
    )


def sweep(*words: str) -> Command:
    return Command(
        lambda folder: ["sweep", *words, "--sweep", str(folder), *TRAINING, "--no-export"],
        sweep_contents,
        lambda folder: ["sweep", "--resume", "--sweep", str(folder), "--no-export"],
        "*/study.db",
    )


def commands(place: Path) -> dict[str, Command]:
    """Return the commands by name. They read what `prepare` makes."""
    names, many = str(place / "names.txt"), str(place / "many.txt")
    records = str(place / "records")
    return {
        "text": training("train", many, "--steps", "400"),
        "records": training("train", names, "--records", "lines", "--steps", "400"),
        "distill": training("distill", str(place / "text"), "--steps", "300"),
        "sweep": sweep(names, "--space", str(place / "space.toml"), "--trials", "3", "--steps", "200"),
        "sample": Command(
            lambda file: ["sample", records, "--count", "100000", "--seed", "1", "-o", str(file)],
            file_contents,
            lambda file: ["sample", "--resume", "-o", str(file)],
            "*.json",
        ),
        "score": Command(lambda file: ["score", records, many, "--records", "lines", "-o", str(file)], file_contents),
    }


def prepare(place: Path) -> None:
    """Train and export a model of text and one of records, for the commands that need them."""
    rng = random.Random(0)
    names = ["".join(rng.choices("abcdeilmnorst", k=rng.randint(3, 9))) for _ in range(60_000)]
    (place / "names.txt").write_text("\n".join(names[:4000]) + "\n", encoding="utf-8")
    (place / "many.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    (place / "space.toml").write_text("[trainer.rate]\nlow = 0.001\nhigh = 0.02\nlog = true\n", encoding="utf-8")
    options = [*TRAINING, "--steps", "200", "--export-precision", "fp32"]
    finish("train", str(place / "many.txt"), "--run", str(place / "text"), *options)
    finish("train", str(place / "names.txt"), "--records", "lines", "--run", str(place / "records"), *options)


def start(*words: str, program: tuple[str, ...] = GEN) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(*words: str) -> str:
    """Run a command, which must succeed, and return what it printed."""
    process = start(*words)
    out, err = process.communicate()
    if process.returncode:
        raise SystemExit(f"gen {' '.join(words)}: {err.decode()}")
    return out.decode()


# -- killing -------------------------------------------------------------------------------------


def run_until(process: subprocess.Popen[bytes], seconds: float | None, outcome: Outcome) -> bool:
    """Kill a process after so many seconds, with None never; return whether it had ended before."""
    try:
        _, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        _, err = process.communicate()
    outcome.note(err)
    outcome.kills += process.returncode < 0
    return process.returncode >= 0


def kill_until_it_ends(
    command: Command, path: Path, kills: int, longest: float, rng: random.Random, outcome: Outcome
) -> None:
    """Begin a command, kill it, and let it go on until it comes to its end; after enough kills it is left alone."""
    while True:
        path.parent.mkdir(exist_ok=True)
        can_resume = command.resumed_words is not None and any(path.parent.glob(command.first_file))
        words = command.resumed_words(path) if can_resume and command.resumed_words else command.words(path)
        seconds = rng.uniform(0, longest) if outcome.kills < kills else None
        if run_until(start(*words), seconds, outcome):
            return


def kill_often(command: Command, place: Path, kills: int, rng: random.Random) -> Outcome:
    """Kill a command so often, and compare each of its ends with that of an undisturbed one."""
    whole = place / "whole" / "result"
    whole.parent.mkdir()
    began_at = time.monotonic()
    finish(*command.words(whole))
    longest = time.monotonic() - began_at
    expected = command.contents(whole)
    outcome = Outcome()
    while outcome.kills < kills:
        path = place / "killed" / "result"
        kill_until_it_ends(command, path, kills, longest, rng, outcome)
        outcome.ends += 1
        actual = command.contents(path)
        outcome.unequal |= {name for name in actual.keys() | expected.keys() if actual.get(name) != expected.get(name)}
        outcome.leftovers |= names_below(path.parent) - names_below(whole.parent)
        shutil.rmtree(path.parent)
    shutil.rmtree(whole.parent)
    return outcome


def kill_export(place: Path, kills: int, rng: random.Random) -> Outcome:
    """Kill an export of a run at random moments, and before each rename. An end is a pair of files that writes."""
    run = Path(shutil.copytree(place / "text", place / "exported"))
    sample = ("sample", str(run), "--length", "200", "--seed", "1")
    expected = finish(*sample)
    export = ("export", str(run), "--precision", "fp32")
    began_at = time.monotonic()
    finish(*export)
    longest = time.monotonic() - began_at
    names = names_below(run)
    outcome = Outcome()
    at_renames = [(sys.executable, "-c", GEN_KILLED_AT_RENAME, str(number)) for number in (0, 1)]
    for program in [GEN] * kills + at_renames:
        seconds = rng.uniform(0, longest) if program == GEN else None
        run_until(start(*export, program=program), seconds, outcome)
        reader = start(*sample)
        out, err = reader.communicate()
        outcome.note(err)
        if reader.returncode == 0:
            outcome.ends += 1
            outcome.unequal |= {"text"} if out.decode() != expected else set()
    finish(*export)
    outcome.unequal |= {"text"} if finish(*sample) != expected else set()
    outcome.leftovers |= names_below(run) - names
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = ("text", "records", "distill", "sweep", "sample", "score", "export")
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=", ".join(names))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    options = parser.parse_args()
    if unknown := set(options.commands) - set(names):
        parser.error(f"{', '.join(sorted(unknown))}: expected {', '.join(names)}")
    with tempfile.TemporaryDirectory() as folder:
        place, temporary = Path(folder), Path(folder) / "temporary"
        temporary.mkdir()
        os.environ |= {"TMPDIR": str(temporary), "GEN_CACHE_DIR": str(place / "cache")}
        prepare(place)
        files_of_libraries = {path.name for path in temporary.iterdir()}
        print(f"{'command':<10}{'kills':>6}{'ends':>6}  {'equal':<7}{'tracebacks':>10}  leftovers; errors", flush=True)
        has_failed = False
        for name in options.commands or names:
            rng = random.Random(f"{options.seed} {name}")
            outcome = (
                kill_export(place, options.kills, rng)
                if name == "export"
                else kill_often(commands(place)[name], place, options.kills, rng)
            )
            outcome.leftovers |= {path.name for path in temporary.iterdir()} - files_of_libraries
            outcome.leftovers |= {path.name for path in place.glob("cache/*/.*")}
            has_failed |= bool(outcome.unequal or outcome.leftovers or outcome.tracebacks)
            print(
                f"{name:<10}{outcome.kills:>6}{outcome.ends:>6}  {'no' if outcome.unequal else 'yes':<7}"
                f"{outcome.tracebacks:>10}  "
                + "; ".join(
                    [*sorted(outcome.unequal), *sorted(outcome.leftovers), *sorted(outcome.errors)] or ["none"]
                ),
                flush=True,
            )
        raise SystemExit(has_failed)


if __name__ == "__main__":
    main()
