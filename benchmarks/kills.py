"""Kills one small training run at random moments, twenty times, and compares its end with that of an undisturbed run.

    python benchmarks/kills.py [--seed N] [--kills N]

Every process trains for up to a second before it is killed with SIGKILL, wherever it is. Weights, optimizer, random
states, samples and metrics (but for times) must be equal to the last bit. Takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

OPTIONS = (
    *("--set", "model.hidden=32", "--set", "model.embedding=8", "--set", "model.dropout=0.3", "--set", "run.threads=1"),
    *("--set", "batcher.batch=4", "--set", "batcher.length=20", "--set", "trainer.eval_every=50", "--no-export"),
)


def start(*words: str) -> subprocess.Popen[str]:
    """Start ``gen train``."""
    return subprocess.Popen([sys.executable, "-m", "gentext", "train", *words], stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for a process, which must succeed."""
    err = process.communicate()[1]
    assert process.returncode == 0, err


def run_contents(run: Path) -> dict[str, Any]:
    """Return the contents of a run's files by their names, without times and rates."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    files: dict[str, Any] = {"samples.txt": (run / "samples.txt").read_bytes()}
    files["metrics.jsonl"] = [
        {key: value for key, value in row.items() if key not in ("seconds", "symbols_per_second")} for row in rows
    ]
    for path in (run / "checkpoints").iterdir():
        tensors = safetensors.torch.load_file(path)
        files[path.name] = {
            name: (str(tensor.dtype), tensor.flatten().view(torch.uint8).numpy().tobytes())
            for name, tensor in tensors.items()
        }
    return files


def train_and_kill(run: Path, words: tuple[str, ...], kills: int, seed: int) -> list[int]:
    """Train a run, kill it so many times, and let it end. Returns the step of its last checkpoint after each kill."""
    rng, steps = random.Random(seed), []
    for _ in range(kills):
        saved = any(run.glob("checkpoints/last-*"))
        process = start("--resume", "--run", str(run)) if saved else start(*words)
        assert process.stderr is not None
        while (line := process.stderr.readline()) and not line.startswith("budget: "):
            pass
        time.sleep(rng.random())
        process.kill()
        process.communicate()
        checkpoint = max(run.glob("checkpoints/last-*"), default=None)
        steps.append(int(checkpoint.name[9:15]) if checkpoint else 0)
        if checkpoint is None:  # there is nothing to resume, so the run begins anew
            shutil.rmtree(run, ignore_errors=True)
    finish(start("--resume", "--run", str(run)))
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=4000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        undisturbed, killed = Path(folder) / "undisturbed", Path(folder) / "killed"
        budget = (*OPTIONS, "--steps", str(options.steps))
        finish(start("python-docs", "--run", str(undisturbed), *budget))
        steps = train_and_kill(killed, ("python-docs", "--run", str(killed), *budget), options.kills, options.seed)
        print(f"{len(steps)} kills; saved steps at each: {', '.join(map(str, steps))}")
        actual, expected = run_contents(killed), run_contents(undisturbed)
        differing = sorted(name for name in actual.keys() | expected.keys() if actual.get(name) != expected.get(name))
        print(f"differing: {', '.join(differing)}" if differing else "equal to the last bit")
        raise SystemExit(bool(differing))


if __name__ == "__main__":
    main()
