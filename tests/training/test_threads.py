"""Threads follow from a comparison that no disturbed moment decides, and a run keeps them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, Gen
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st

from gentext.errors import TrainingStopped
from gentext.plugins.pytorch import device
from gentext.plugins.pytorch.evaluate import ReadingTime
from gentext.plugins.trainers import bptt, probe
from gentext.plugins.trainers.bptt import BPTTTrainer
from gentext.plugins.trainers.learner import Learner
from gentext.plugins.trainers.options import StepOptions
from gentext.run import Run

blocks = st.lists(st.floats(0.9, 1.1), min_size=probe.MIN_BLOCKS, max_size=probe.MAX_BLOCKS)


@examples(300)
@given(blocks, blocks, st.sampled_from([0.5, 0.8, 1.2, 3.0]), st.data())
def test_one_disturbed_block_decides_nothing(
    single: list[float], threaded: list[float], ratio: float, data: st.DataObject
) -> None:
    """Where the undisturbed blocks agree, any block of either may be of any length."""
    threaded = [seconds * ratio for seconds in threaded]
    is_faster = max(threaded) * probe.CLEARLY_FASTER <= min(single)
    if not is_faster and min(threaded) * probe.CLEARLY_FASTER <= max(single):
        return  # the blocks disagree by themselves
    assert probe.are_clearly_faster(threaded, single) == is_faster
    disturbed = data.draw(st.sampled_from([single, threaded]))
    disturbed[data.draw(st.integers(0, len(disturbed) - 1))] = data.draw(st.floats(1e-6, 1e6))
    assert probe.are_clearly_faster(threaded, single) == is_faster


def test_a_comparison_ends_and_one_thread_wins_where_all_hang() -> None:
    assert probe.needs_another_pair([], [], 0)
    assert not probe.needs_another_pair([1.0] * probe.MAX_BLOCKS, [1.0] * probe.MAX_BLOCKS, 1)
    assert probe.needs_another_pair([1.0], [1.0], 60), "a large model has slow steps, and three blocks"
    assert not probe.needs_another_pair([1.0] * probe.MIN_BLOCKS, [1.0] * probe.MIN_BLOCKS, 60)
    assert not probe.needs_another_pair([400.0], [1.0], 60), "all threads wait for each other"
    assert not probe.are_clearly_faster([400.0], [1.0])
    assert not probe.are_clearly_faster([0.1], [1.0]), "a single block proves nothing"


def test_one_disturbed_step_does_not_set_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of the few steps of a slow model it is."""
    for disturbed in range(3):
        durations = [900.0 if step == disturbed else 5.0 for step in range(3)]
        monkeypatch.setattr(probe, "_time_step", lambda _, step, durations=durations: (durations[step], 10))
        group = bptt.ProcessGroup(bptt.World())
        assert probe.time_steps(None, group) == 0.5  # type: ignore[arg-type]  # the learner is not used


#: A small run of 12 steps on a machine of two cores, which chooses its threads itself; see `compared`.
OPEN = (*TINY, "--set", "run.threads=0", "--set", "model.dropout=0.2", "--device", "cpu", "--no-export")
MINUTES = ("--minutes", 0.01)


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Two cores, fixed times, and comparisons that choose one thread; each adds the number that it is asked about.

    Nothing is computed with two threads: where other tests run, these would wait for each other.
    """
    asked: list[int] = []

    def choose_one(_: Learner, threads: int) -> int:
        asked.append(threads)
        device.torch.set_num_threads(1)
        return 1

    monkeypatch.setattr(device, "cores", lambda: 2)
    monkeypatch.setattr(bptt, "choose_threads", choose_one)
    monkeypatch.setattr(bptt, "time_steps", lambda *_: 0.01 * 60 * 0.9 / (12 * 2 * 8))
    monkeypatch.setattr(bptt, "time_reading", lambda *_: ReadingTime(1e-5, 1e-5, 1e-5))
    return asked


def plan_run(gen: Gen, text: Path, run: Path, *words: object) -> Any:
    """Prepare a run up to its first step; return the number of threads that its config stores."""

    def stop(*_: object) -> None:
        raise TrainingStopped("the test stops before the first step")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BPTTTrainer, "fit", stop)
        assert "the test stops" in gen("train", text, "--run", run, *words)[2]
    return Run(run).config["run"]["threads"]


def tensors(run: Path) -> dict[str, bytes]:
    """Return the last checkpoint of a run to the bit."""
    checkpoint = bptt.load_last_checkpoint(Run(run))
    assert checkpoint.meta["step"] == 12
    return {name: tensor.numpy().tobytes() for name, tensor in checkpoint.tensors.items()}


def test_a_resumed_run_keeps_its_threads(
    gen: Gen, tiny_text: Path, tmp_path: Path, compared: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends bit for bit as it would have, even where a comparison would choose others now."""
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"

    def stop_at_step_5(learner: Learner, step: int, options: StepOptions) -> float:
        if step == 4:
            signal.raise_signal(signal.SIGINT)
        return take_step(learner, step, options)

    take_step = Learner.step
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "step", stop_at_step_5)
        code, _, err = gen("train", tiny_text, "--run", stopped, *OPEN, *MINUTES)
    assert code == 1 and "stopped at step 5 of 12" in err, err
    assert "device: CPU, 1 thread," in err
    assert compared == [2]

    monkeypatch.setattr(bptt, "choose_threads", lambda _, threads: threads)
    code, _, err = gen("train", "--resume", "--run", stopped)
    assert code == 0 and "device: CPU, 1 thread," in err and "threads was" not in err, err
    code, _, err = gen("train", tiny_text, "--run", whole, *OPEN, "--set", "run.threads=1", "--steps", 12)
    assert code == 0, err
    assert tensors(stopped) == tensors(whole)


@pytest.mark.parametrize(
    ("words", "threads"),
    [(("--steps", 2), 2), (("--set", "run.threads=2", *MINUTES), 2), (("--set", "run.threads=3", *MINUTES), 3)],
    ids=["a budget in steps", "all by the user", "more by the user"],
)
def test_nothing_is_compared(
    words: tuple[object, ...], threads: int, gen: Gen, tiny_text: Path, tmp_path: Path, compared: list[int]
) -> None:
    """Two runs with one seed and as many steps are equal, so the clock must not choose their threads."""
    assert plan_run(gen, tiny_text, tmp_path / "run", *OPEN, *words) == threads
    assert not compared


def test_threads_are_chosen_again_only_for_another_size(
    gen: Gen, tiny_text: Path, tmp_path: Path, compared: list[int]
) -> None:
    """A budget in minutes prepares training up to three times, since rules adapt the preset to the measured speed."""
    words = ("--preset", "tiny", "--precision", "fp32", "--device", "cpu", "--no-export", *MINUTES)
    prepared: list[object] = []
    start = BPTTTrainer.start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BPTTTrainer, "start", lambda trainer: (prepared.append(trainer), start(trainer))[1])
        assert plan_run(gen, tiny_text, tmp_path / "run", *words) == 1
    assert (len(prepared), compared) == (3, [2, 2])


def test_blocks_are_taken_in_turn(gen: Gen, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is the test's: two threads are as fast as one, but the first block of one is disturbed."""
    counts: list[int] = []

    def time_step(learner: Learner, step: int) -> tuple[float, int]:
        counts.append(device.torch.get_num_threads())
        return 50.0 if len(counts) == 2 else 1.0, 16

    monkeypatch.setattr(device, "cores", lambda: 2)
    monkeypatch.setattr(probe, "_time_step", time_step)
    assert plan_run(gen, tiny_text, tmp_path / "run", *OPEN, "--minutes", 1) == 1
    pairs = counts[1 : 1 + 2 * probe.MAX_BLOCKS]
    assert pairs == [1, 2] * probe.MAX_BLOCKS
    assert {*counts[1 + 2 * probe.MAX_BLOCKS :]} == {1}
