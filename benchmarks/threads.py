"""Measures training with one thread, with all, and with those that gen chooses: alone, in company, and on one core.

    python benchmarks/threads.py [anna] [--presets tiny,small,base] [--minutes 0.3] [--busy 6] [--timeout 300]
    python benchmarks/threads.py --gen ../other/.venv/bin/gen

Each cell trains for a budget of minutes in a process of its own: by itself, beside ``--busy`` processes that compute
without end, and under ``taskset -c 0``. The table has the symbols a second of the training steps, the steps, the
threads, and the seconds of the whole command. ``--gen`` names the gen of another checkout, to compare with. A training
that takes longer than ``--timeout`` seconds is ended, and its row says so. ``--json`` prints JSON instead of a table.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
import trainings

from gentext.run import Run

#: What a busy process runs, until the benchmark ends it or has died itself.
BUSY_LOOP = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
CONDITIONS = ("alone", "busy", "taskset -c 0")
#: Values of run.threads by their title; "all" is replaced by the number of cores.
CHOSEN, ALL = 0, -1
THREADS = {"1": 1, "all": ALL, "chosen": CHOSEN}


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keep processes busy while the context lasts."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY_LOOP]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(options: argparse.Namespace, preset: str, condition: str, title: str, run: Path) -> dict[str, Any]:
    """Train once; return a row of the table."""
    # Under taskset, too, "all" are those of the whole machine: what a program takes that does not ask for its affinity.
    count = common.describe_machine()["cores"] if THREADS[title] == ALL else THREADS[title]
    command = [options.gen, "train", options.text, "--preset", preset, "--minutes", str(options.minutes)]
    command += ["--set", f"run.threads={count}", "--device", "cpu", "--no-export", "--run", str(run)]
    if condition.startswith("taskset"):
        command = [*condition.split(), *command]
    row: dict[str, Any] = {"preset": preset, "machine": condition, "run.threads": title}
    began_at = time.monotonic()
    try:
        with busy_processes(options.busy if condition == "busy" else 0):
            done = subprocess.run(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=options.timeout
            )
    except subprocess.TimeoutExpired:
        return row | {"threads": "-", "steps": "-", "symbols/s": f"none in {options.timeout} s", "seconds": "-"}
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1:]}")
    measured = trainings.measurements(run)
    # Versions before the choice was stored have 0 there, and name the threads in the line of the device.
    threads = Run(run).config["run"]["threads"] or next(line for line in done.stderr.splitlines() if "device: " in line)
    return row | {
        "threads": threads,
        "steps": measured["steps"],
        "symbols/s": measured["characters_per_second"],
        "seconds": time.monotonic() - began_at,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", default="anna")
    parser.add_argument("--presets", default="tiny,small,base")
    parser.add_argument("--minutes", type=float, default=0.3)
    parser.add_argument("--busy", type=int, default=6, help="processes that compute beside training")
    parser.add_argument("--timeout", type=int, default=300, help="seconds after which a training is ended")
    parser.add_argument("--gen", default=str(Path(sys.executable).with_name("gen")), help="the gen to measure")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    conditions = [name for name in CONDITIONS if not name.startswith("taskset") or shutil.which("taskset")]
    rows = []
    for preset in options.presets.split(","):
        for condition in conditions:
            for title in THREADS:
                with tempfile.TemporaryDirectory() as folder:
                    rows.append(measure(options, preset, condition, title, Path(folder) / "run"))
                print(rows[-1], file=sys.stderr)
    common.print_table(f"threads of training, {options.minutes:g} minutes, {options.busy} busy", rows, options.json)


if __name__ == "__main__":
    main()
