"""Lets the disk fill while commands write, and shows what each of them says and leaves.

    python benchmarks/disks.py [COMMAND ...]

Root mounts a small disk in memory. Before each command a file fills it but for some kilobytes, so that the command
fails at another moment each time: at its first file, in the middle of a large one, between two. What was on the disk
before must be there afterwards, unchanged; a file that the command began is complete, or ends behind a whole record;
the command ends with one line and status 1, without a traceback, and leaves no temporary file. Then room is made, and
the same command, or the one that the line advises, must come to its end. Prints a table in Markdown, in some minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TINY = (
    *("--set", "model.hidden=32", "--set", "model.embedding=8", "--set", "model.ngram_length=0"),
    *("--set", "batcher.batch=4", "--set", "batcher.length=20", "--set", "run.threads=1"),
    *("--set", "run.measurements=2"),
)
#: Size of the disk, which has room for the files of before and what a command writes beside them.
DISK_KILOBYTES = 20_000


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of a shell that writes into the current folder, which is on the disk."""

    line: str
    """``{work}`` stands for the folder of the models."""
    kilobytes: tuple[int, ...]
    """What is free in turn before it begins."""
    before: tuple[str, ...] = ()
    """Files and folders of the models' folder that are on the disk before it begins."""
    logs: tuple[str, ...] = ()
    """What it goes on with: files that may grow, as a log does."""
    resumed_line: str = ""
    """What goes on once ``resumed_file`` is there; else the same line is given again."""
    resumed_file: str = ""


def training(line: str, kilobytes: tuple[int, ...]) -> Command:
    """Return a command that trains, which goes on from its first checkpoint."""
    return Command(
        f"{line} --run run {{tiny}}",
        kilobytes,
        resumed_line="gen train --resume --run run",
        resumed_file="run/checkpoints/*.safetensors",
    )


SCORE = "gen score {work}/records {work}/names.txt --records lines"
COMMANDS = {
    "train": training("gen train {work}/text.txt --steps 40 --no-export", (0, 24, 100, 160)),
    "train, TensorBoard": training("gen train {work}/text.txt --steps 40 --no-export --tensorboard", (116,)),
    "train, records": training("gen train {work}/names.txt --records lines --steps 40 --no-export", (16, 40)),
    "train, its export": training("gen train {work}/text.txt --steps 40", (420,)),
    "distill": training("gen distill {work}/text --steps 20 --no-export", (24,)),
    "sweep": Command(
        "gen sweep {work}/text.txt --sweep sweep --space {work}/space.toml {tiny} --trials 2 --steps 20 --no-export",
        (40, 160, 260),
        resumed_line="gen sweep --resume --sweep sweep --no-export",
        resumed_file="sweep/study.db",
    ),
    "export": Command("gen export text --precision fp32", (40, 200), ("text",)),
    "export, temporary files": Command("TMPDIR=. gen export text -o {work}/new --precision fp32", (40,), ("text",)),
    "score -o": Command(f"{SCORE} -o scores", (8,), ("scores",)),
    "score -o, CSV": Command(f"{SCORE} --format csv -o scores", (100,), ("scores",)),
    "score -o, Parquet": Command(f"{SCORE} --format parquet -o scores", (8,), ("scores",)),
    "score >": Command(f"{SCORE} > rows", (8,)),
    "sample >": Command("gen sample {work}/text --length 100000 --seed 1 > text.txt", (8,)),
    "sample --json >": Command("gen sample {work}/text --count 200 --length 500 --json > text.jsonl", (8,)),
    "sample -o, records": Command(
        "gen sample {work}/records --count 20000 --seed 1 -o names.txt",
        (0, 40),
        resumed_line="gen sample --resume -o names.txt",
        resumed_file="names.txt.json",
    ),
    "sample --resume": Command(
        "gen sample --resume -o begun.txt", (8,), ("begun.txt", "begun.txt.json"), logs=("begun.txt",)
    ),
    "inspect -o": Command("gen inspect {work}/text {work}/short.txt -o page.html", (40,), ("page.html",)),
    "inspect --png": Command("gen inspect {work}/text {work}/short.txt --png p.png", (8,), ("p.png",)),
    "info >": Command("gen info {work}/text > info.txt", (0,)),
    "bench --picture": Command("gen bench {work}/text/generator.onnx --picture p.png > /dev/null", (8,), ("p.png",)),
    "plugins new": Command("gen plugins new fade --kind strategy", (4,)),
}


def prepare(work: Path) -> None:
    """Make the texts, the models and the files of before."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdeilmnorst", k=rng.randint(3, 9))) for _ in range(8000)]
    (work / "text.txt").write_text(" ".join(words), encoding="utf-8")
    (work / "names.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (work / "short.txt").write_text(" ".join(words[:300]), encoding="utf-8")
    (work / "space.toml").write_text("[trainer.rate]\nlow = 0.001\nhigh = 0.02\n", encoding="utf-8")
    for name in ("scores", "page.html", "p.png"):
        (work / name).write_text("what was there before\n" * 100, encoding="utf-8")
    lines = [
        "gen train text.txt --run text {tiny} --steps 20 --export-precision fp32",
        "gen train names.txt --records lines --run records {tiny} --steps 20 --export-precision fp32",
        "gen sample {work}/records --count 20000 --seed 1 -o begun.txt",
    ]
    for line in lines:
        subprocess.run(spell(line, work), shell=True, cwd=work, check=True, capture_output=True)
    with (work / "begun.txt").open("r+b") as file:
        file.truncate(20_000)


def spell(line: str, work: Path) -> str:
    """Return a line for the shell, with this Python's own ``gen``."""
    gen = shlex.join([sys.executable, "-m", "gentext"])
    return line.replace("gen ", f"{gen} ", 1).format(work=work, tiny=shlex.join(TINY))


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command said and left on a full disk."""

    message: str
    """Its error; the warnings where it came to its end."""
    new_files: list[str]
    problems: list[str]
    goes_on: bool
    """Whether it came to its end once there was room."""


def run_on_full_disk(command: Command, kilobytes: int, work: Path, disk: Path) -> Outcome:
    """Run a command on a disk with so much room, and again with more."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_KILOBYTES}k", "tmpfs", disk], check=True)
    try:
        for name in command.before:
            copy = shutil.copytree if (work / name).is_dir() else shutil.copyfile
            copy(work / name, disk / name)
        before = files_below(disk)
        room = shutil.disk_usage(disk).free - 1024 * kilobytes
        (disk / "ballast").write_bytes(bytes(room))
        process = run_line(command.line, work, disk)
        (disk / "ballast").unlink()
        after = files_below(disk)
        can_resume = command.resumed_file and any(disk.glob(command.resumed_file))
        again = run_line(command.resumed_line if can_resume else command.line, work, disk)
        left = sorted(name for name in files_below(disk) if ".tmp" in name)
    finally:
        subprocess.run(["umount", disk], check=True)
    lines = [line for line in process.stderr.splitlines() if line.startswith(("gen: error: ", "gen: warning: "))]
    errors = [line for line in lines if line.startswith("gen: error: ")]
    problems = [f"status {process.returncode}"] if process.returncode != (1 if errors else 0) else []
    problems += ["a traceback"] if "Traceback" in process.stderr + again.stderr else []
    problems += [f"{len(errors)} errors"] if len(errors) > 1 else []
    problems += [f"left {name}" for name in [*after, *left] if ".tmp" in name]
    for name, content in before.items():
        is_whole = after.get(name, b"").startswith(content) if name in command.logs else after.get(name) == content
        problems += [] if is_whole or not errors else [f"lost {name}"]
    message = (errors or [line for line in lines if "No space" in line] or ["no error"])[-1]
    return Outcome(message, sorted(after.keys() - before.keys()), problems, again.returncode == 0)


def run_line(line: str, work: Path, disk: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(spell(line, work), shell=True, cwd=disk, capture_output=True, text=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help="; ".join(COMMANDS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work, disk = Path(folder) / "work", Path(folder) / "disk"
        work.mkdir()
        disk.mkdir()
        os.environ["GEN_CACHE_DIR"] = str(work / "cache")
        prepare(work)
        print("| command | kB free | its line | new files | kept | goes on with room |\n|-|-|-|-|-|-|")
        has_failed = False
        for name in options.commands or COMMANDS:
            for kilobytes in COMMANDS[name].kilobytes:
                outcome = run_on_full_disk(COMMANDS[name], kilobytes, work, disk)
                line = outcome.message.replace(f"{work}/", "").replace(f"{disk}/", "").removeprefix("gen: ")
                line = line.removeprefix("error: ").replace("|", "\\|")
                files, kept = ", ".join(outcome.new_files) or "none", "; ".join(outcome.problems) or "yes"
                goes_on = "yes" if outcome.goes_on else "no"
                print(f"| {name} | {kilobytes} | {line} | {files} | {kept} | {goes_on} |", flush=True)
                has_failed |= bool(outcome.problems) or not outcome.goes_on
        raise SystemExit(has_failed)


if __name__ == "__main__":
    main()
