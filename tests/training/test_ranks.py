"""Several processes that train together: they learn what one learns, lose nothing, and speak with one voice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers import configured, one_line

from gentext.errors import PluginError, UsageError
from gentext.interfaces import World
from gentext.plugins.batchers.stream import StreamBatcher, StreamConfig
from gentext.plugins.trainers.bptt import BPTTTrainer
from gentext.runs.lock import RunLock
from gentext.token_corpus import TokenCorpus
from gentext.training.planning import create_batcher

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here"),
    pytest.mark.usefixtures("warm_processes"),
]

RANKS = Path(__file__).parents[1] / "ranks.py"
OPTIONS = (
    *("--set", "model.hidden=8", "--set", "model.embedding=4", "--set", "batcher.batch=6", "--set", "batcher.length=8"),
    # A row that is read once has a gradient of almost 0, of which Adam enlarges what was rounded.
    *("--set", "model.ngram_rows=16", "--set", "model.ngram_embedding=2"),
    *("--set", "trainer.eval_every=6", "--set", "run.threads=1", "--precision", "fp32", "--no-export"),
)
BUDGET = ("--steps", "18", "--set", "trainer.warmup=2", "--set", "trainer.average=tail")
#: Rows that read real text beside written ones, some in each process, and both parts of a student's loss.
STUDENT = ("--soft", "0.7", "--temperature", "2", "--real", "0.5", "--set", "batcher.windows=3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def results(folder: Path, tiny_text: Path, tiny_run: Path) -> dict[str, tuple[list[int], str]]:
    """What became of each job, by its name; runs have the name of their first job."""

    def train(run: str, *options: str) -> list[str]:
        return ["train", str(tiny_text), "--run", str(folder / run), *OPTIONS, *BUDGET, *options]

    def distill(run: str, *options: str) -> list[str]:
        return ["distill", str(tiny_run), "--run", str(folder / run), *OPTIONS, *BUDGET, *STUDENT, *options]

    def resume(run: str, command: str = "train") -> list[str]:
        return [command, "--resume", "--run", str(folder / run)]

    drop = ("--set", "model.dropout=0.3", "--set", "model.weight_dropout=0.2", "--set", "model.input_noise=0.1")
    records = ("--records", "lines")
    jobs: dict[str, tuple[list[str], int, int | None, int]] = {
        "one": (train("one"), 1, None, 0),
        "two": (train("two"), 2, None, 0),
        "grows": (train("grows"), 1, 0, 10),
        "grows, resumed": (resume("grows"), 3, None, 0),
        "shrinks": (train("shrinks"), 3, 1, 15),
        "shrinks, resumed": (resume("shrinks"), 1, None, 0),
        "whole": (train("whole", *drop), 3, None, 0),
        "cut": (train("cut", *drop), 3, 2, 10),
        "cut, resumed": (resume("cut"), 3, None, 0),
        "headless": (train("headless"), 2, 0, 7),
        "uneven": (train("uneven", "--set", "batcher.batch=5"), 2, None, 0),
        "taken": (train("one"), 2, None, 0),
        "records": (train("records", *records), 1, None, 0),
        "records of two": (train("records of two", *records), 2, None, 0),
        "records of three": (train("records of three", *records, *drop), 3, None, 0),
        "records cut": (train("records cut", *records, *drop), 3, 1, 10),
        "records cut, resumed": (resume("records cut"), 3, None, 0),
        "student": (distill("student"), 1, None, 0),
        "student of two": (distill("student of two"), 2, None, 0),
        "student of three": (distill("student of three", *drop), 3, None, 0),
        "student cut": (distill("student cut", *drop), 3, 1, 10),
        "student cut, resumed": (resume("student cut", "distill"), 3, None, 0),
    }
    done = subprocess.run([sys.executable, RANKS], input=json.dumps([*jobs.values()]), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name: (codes, err) for name, (codes, err) in zip(jobs, json.loads(done.stdout), strict=True)}


def newest(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(max(run.glob("checkpoints/last-*")))


def val_losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["val_loss"] for row in rows if "val_loss" in row]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two", "grows", "shrinks", "student of two"])
def test_several_learn_what_one_learns(name: str, results: dict[str, Any], folder: Path) -> None:
    last = results.get(f"{name}, resumed", results[name])
    assert set(last[0]) == {0}, last[1]
    one = folder / ("student" if "student" in name else "one")
    assert val_losses(folder / name) == pytest.approx(val_losses(one), abs=1e-5)
    tensors, expected = newest(folder / name), newest(one)
    assert {key for key in tensors if not key.startswith("random")} == {key for key in expected if key != "random.cpu"}
    for key, tensor in expected.items():  # the streams' states too, in the order of the text
        torch.testing.assert_close(tensors[key], tensor, atol=2e-5, rtol=1e-4)
    processes = {"grows": ["was 1, now 3"], "shrinks": ["was 3, now 1"]}.get(name, [])
    assert [
        line.partition("processes ")[2][:12] for line in last[1].splitlines() if "processes was" in line
    ] == processes


@pytest.mark.slow
def test_several_learn_what_one_learns_of_records(results: dict[str, Any], folder: Path) -> None:
    assert (results["records"][0], results["records of two"][0]) == ([0], [0, 0]), results["records of two"][1]
    assert val_losses(folder / "records of two") == pytest.approx(val_losses(folder / "records"), abs=1e-5)
    tensors, expected = newest(folder / "records of two"), newest(folder / "records")
    for key in expected.keys() & tensors.keys():
        if not key.startswith(("random", "carried")):  # what is carried behind the end of a record means nothing
            torch.testing.assert_close(tensors[key], expected[key], atol=2e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("whole", "cut"), [("whole", "cut"), ("records of three", "records cut"), ("student of three", "student cut")]
)
def test_a_resume_is_exact(results: dict[str, Any], folder: Path, whole: str, cut: str) -> None:
    assert [results[name][0] for name in (whole, f"{cut}, resumed")] == [[0] * 3] * 2
    assert "not bit for bit" not in results[f"{cut}, resumed"][1]
    tensors, expected = newest(folder / cut), newest(folder / whole)
    assert tensors.keys() == expected.keys() >= {"random.cpu", "random.cpu.1", "random.cpu.2"}
    assert all(torch.equal(tensors[key], tensor) for key, tensor in expected.items())
    assert not torch.equal(tensors["random.cpu"], tensors["random.cpu.1"])
    assert (folder / cut / "samples.txt").read_bytes() == (folder / whole / "samples.txt").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dead"), [("shrinks", 1), ("cut", 2), ("headless", 0)])
def test_one_that_dies_ends_all_with_one_line(name: str, dead: int, results: dict[str, Any], folder: Path) -> None:
    codes, err = results[name]
    assert codes == [-signal.SIGKILL if rank == dead else 1 for rank in range(len(codes))]
    one_line(err, f"one of the {len(codes)} processes ended", f"go on with: gen train --resume --run {folder / name}")


@pytest.mark.slow
def test_an_error_of_all_is_told_once(results: dict[str, Any], folder: Path) -> None:
    assert results["uneven"][0] == [1, 1]
    one_line(results["uneven"][1], "batcher.batch = 5", "2 processes cannot share 5 rows evenly; take 4 or 6,")
    assert not (folder / "uneven").exists()
    one_line(results["taken"][1], "is not empty; resume its run")


@pytest.mark.slow
def test_run_that_others_train_is_refused_once(results: dict[str, Any], folder: Path) -> None:
    assert results["two"][0] == [0, 0]
    job = ["train", "--resume", "--run", str(folder / "two")], 2, None, 0
    with RunLock() as run_lock:
        run_lock.acquire(folder / "two")
        done = subprocess.run([sys.executable, RANKS], input=json.dumps([job]), capture_output=True, text=True)
    [[codes, err]] = json.loads(done.stdout)
    assert codes == [1, 1]
    one_line(err, f"{folder / 'two'}: another process trains this run")


@pytest.mark.slow
def test_only_one_tells_the_story(results: dict[str, Any]) -> None:
    err = results["two"][1]
    assert "device: CPU, 1 thread, fp32, 2 processes" in err
    assert [line.split()[1] for line in err.splitlines() if line.startswith("step ")] == ["6/18", "12/18", "18/18"]


@pytest.mark.slow
def test_torchrun_saves_when_it_is_told_to_end(tmp_path: Path, tiny_text: Path, gen: Callable[..., Any]) -> None:
    run = tmp_path / "run"
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "gentext.cli"]
    words = [
        "train",
        str(tiny_text),
        "--run",
        str(run),
        *OPTIONS,
        "--steps",
        "1000000",
        "--set",
        "trainer.eval_every=0",
    ]
    process = subprocess.Popen([*launch, *words], stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not list(run.glob("checkpoints/last-*")):  # written just before the signals are listened for
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    code, _, resume_err = gen("train", "--resume", "--run", run)
    assert code == 1
    one_line(resume_err, f"{run}: another process trains this run")  # rank 0 holds its lock
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    err = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    [line] = [line for line in err.splitlines() if line.startswith("gen: error: ")]
    assert "everything is saved; go on with: gen train --resume --run" in line
    step = int(line.partition("stopped at step ")[2].split()[0])
    assert f"step{step:06d}" in max(run.glob("checkpoints/last-*")).name
    assert step > 0


# -- what knows nothing of ranks ----------------------------------------------------------------


class Alone:
    """A trainer of the time before there could be several processes."""


class UndividedBatcher:
    """A batcher that gives everybody everything."""

    def __init__(self, config: StreamConfig, corpus: TokenCorpus, world: World) -> None:
        self.undivided = StreamBatcher(config, corpus)
        self.rows, self.length = self.undivided.rows, self.undivided.length
        self.steps_per_epoch = self.undivided.steps_per_epoch
        self.symbols_per_epoch = self.undivided.symbols_per_epoch

    def batch(self, *arguments: Any) -> Any:
        return self.undivided.batch(*arguments[:-1])


def test_plugins_that_know_nothing_of_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = configured("trainer", "sgd", Alone, None)
    ready = configured("trainer", "bptt", BPTTTrainer, None)
    undivided = configured("batcher", "whole", UndividedBatcher, StreamConfig())
    stream = configured("batcher", "stream", StreamBatcher, StreamConfig())
    tokens = TokenCorpus(np.zeros(5000, np.uint8))
    for batcher, trainer in ((stream, alone), (undivided, ready)):
        assert create_batcher(batcher, trainer, tokens, 0).rows == 16
    for name, value in {"MASTER_ADDR": "here", "MASTER_PORT": "1", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PluginError, match="the trainer 'sgd' works alone, but there are 2 processes"):
        create_batcher(stream, alone, tokens, 0)
    with pytest.raises(PluginError, match="the batcher 'whole' gave each of 2 processes 16 of 16 rows"):
        create_batcher(undivided, ready, tokens, 0)


def test_a_launcher_that_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MASTER_ADDR": "here", "MASTER_PORT": "1", "RANK": "3", "WORLD_SIZE": "4"}.items():
        assert World.of_process() == World()
        monkeypatch.setenv(name, value)
    assert World.of_process() == World(3, 4)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UsageError, match="RANK=3, WORLD_SIZE=3"):
        World.of_process()
