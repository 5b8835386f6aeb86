"""Kills one small training run at random moments, twenty times, and compares its end with that of an undisturbed run.

    python benchmarks/kills.py [--seed N] [--kills N]

Every process gets up to a second of training before SIGKILL falls, wherever it is. Weights, optimizer, random
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
    return subprocess.Popen([sys.executable, "-m", "gentext", "train", *words], stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    err = process.communicate()[1]
    assert process.returncode == 0, err


def state(run: Path) -> dict[str, Any]:
    """All that a run leaves behind, but for what a clock says."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    files: dict[str, Any] = {"samples.txt": (run / "samples.txt").read_bytes()}
    files["metrics.jsonl"] = [
        {k: v for k, v in row.items() if k not in ("seconds", "symbols_per_second")} for row in rows
    ]
    for path in (run / "checkpoints").iterdir():
        tensors = safetensors.torch.load_file(path)
        files[path.name] = {
            k: (str(one.dtype), one.flatten().view(torch.uint8).numpy().tobytes()) for k, one in tensors.items()
        }
    return files


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--steps", type=int, default=4000)
    given = options.parse_args()
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, cut = Path(folder) / "whole", Path(folder) / "cut"
        budget = ("--steps", str(given.steps))
        finish(start("python-docs", "--run", str(whole), *OPTIONS, *budget))
        steps, begun = [], ("python-docs", "--run", str(cut), *OPTIONS, *budget)
        for _ in range(given.kills):
            saved = any(cut.glob("checkpoints/last-*"))
            process = start("--resume", "--run", str(cut)) if saved else start(*begun)
            assert process.stderr is not None
            while (line := process.stderr.readline()) and not line.startswith("budget: "):
                pass
            time.sleep(rng.random())
            process.kill()
            process.communicate()
            last = max(cut.glob("checkpoints/last-*"), default=None)
            steps.append(int(last.name[9:15]) if last else 0)
            if last is None:  # killed before anything was saved: begin again
                shutil.rmtree(cut, ignore_errors=True)
        finish(start("--resume", "--run", str(cut)))
        print(f"{len(steps)} kills; saved steps at each: {', '.join(map(str, steps))}")
        mine, other = state(cut), state(whole)
        differing = sorted(name for name in mine.keys() | other.keys() if mine.get(name) != other.get(name))
        print(f"differing: {', '.join(differing)}" if differing else "equal to the last bit")
        raise SystemExit(bool(differing))


if __name__ == "__main__":
    main()
