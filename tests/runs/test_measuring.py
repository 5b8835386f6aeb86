"""The plan of measurements: how much is measured and when follows from budget and speed, and then stays as stored."""

from __future__ import annotations

import dataclasses

import numpy as np
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st

from gentext.interfaces import Speed, TrainingPlan
from gentext.measuring import MANY_PASSES, MIN_HELD_OUT, HeldOut, measure_passes, measurement_steps, plan_training
from gentext.plugins.batchers.stream import StreamBatcher, StreamConfig
from gentext.settings import Settings
from gentext.token_corpus import TokenCorpus

BATCHER = StreamBatcher(StreamConfig(), TokenCorpus(np.zeros(1_000_000, np.uint8)))
SPEED = Speed(step=0.08, symbol=2e-5, stream_symbol=1e-4, measurement=0.2)
speeds = st.builds(Speed, st.floats(1e-3, 10), st.floats(1e-7, 1e-3), st.floats(1e-6, 1e-2), st.floats(0, 1))
sizes = st.integers(2, 1_000_000).map(lambda count: HeldOut(count, count))


def test_a_minute_has_eight_measurements_the_first_of_them_early() -> None:
    plan = plan_training(Settings(minutes=1), SPEED, BATCHER, HeldOut(111_540, 111_540))
    assert len(plan.measured_at) == 8
    assert plan.measured_at[0] < 0.05 * plan.steps
    assert plan.measured_at[-1] == plan.steps
    assert 59 < plan.seconds < 61
    assert 0.9 * 60 - 0.1 < plan.steps * SPEED.step < 0.9 * 60 + 0.1


@examples(200)
@given(st.integers(1, 10**6), st.floats(0.01, 10**6))
def test_steps_rise_to_the_last(steps: int, seconds: float) -> None:
    planned = measurement_steps(steps, seconds)
    assert list(planned) == sorted(set(planned))
    assert planned[0] >= 1
    assert planned[-1] == steps
    assert min(3, steps) <= len(planned) <= 24 or steps < 24
    assert measurement_steps(steps, seconds, 10)[-1] == steps


@examples(200)
@given(st.integers(1, 10**6), st.floats(0.01, 10**6), st.integers(1, 10**6))
def test_the_end_of_the_first_pass_is_measured(steps: int, seconds: float, steps_of_pass: int) -> None:
    planned = measurement_steps(steps, seconds)
    moved = measure_passes(planned, steps_of_pass)
    assert moved[-1] == steps and list(moved) == sorted(set(moved))
    if steps <= MANY_PASSES * steps_of_pass:
        assert len(moved) in (len(planned), len(planned) - 1)
    assert (steps_of_pass in moved) == (steps_of_pass in planned or (steps_of_pass < steps and len(planned) > 1))


def test_a_text_that_is_read_very_often_is_measured_early() -> None:
    """2,000 characters in a minute: the lowest held-out loss is in the first 50 passes of 5,000."""
    planned = measure_passes(measurement_steps(20_000, 60), 4)
    assert planned[0] == 4 and planned[-1] == 20_000 and len(planned) == 8
    assert sum(step <= 200 for step in planned) == 4


@examples(200)
@given(speeds, sizes, st.floats(0.5, 600))
def test_measuring_takes_a_tenth_at_most_but_for_the_least_sizes(speed: Speed, size: HeldOut, minutes: float) -> None:
    plan = plan_training(Settings(minutes=minutes), speed, BATCHER, size)
    measuring = plan.seconds - plan.steps * speed.step
    least = len(plan.measured_at) * (10_000 * speed.symbol + speed.measurement) + (MIN_HELD_OUT + 2) * (
        speed.symbol + speed.stream_symbol
    )
    assert measuring <= 6 * minutes * 1.01 + least
    assert min(size.characters, MIN_HELD_OUT) <= plan.held_out <= size.characters
    assert 1 <= plan.measured_symbols <= size.symbols


@examples(100)
@given(speeds, speeds, sizes, st.floats(0.5, 600))
def test_stored_plan_does_not_depend_on_the_machine(speed: Speed, other: Speed, size: HeldOut, minutes: float) -> None:
    def essence(plan: TrainingPlan) -> tuple[object, ...]:
        return plan.steps, tuple(plan.measured_at), plan.measured_symbols, plan.held_out

    plan = plan_training(Settings(minutes=minutes), speed, BATCHER, size)
    stored = Settings(
        steps=plan.steps,
        held_out=plan.held_out,
        measured_at=tuple(plan.measured_at),
        measured_symbols=plan.measured_symbols,
    )
    assert essence(plan_training(stored, other, BATCHER, size)) == essence(plan)


def test_interval_of_the_trainer_holds() -> None:
    speed = dataclasses.replace(SPEED, measured_every=15)
    plan = plan_training(Settings(steps=10**9), speed, BATCHER, HeldOut(1000, 1000))
    assert 15 in plan.measured_at
    assert 10**9 - 10 in plan.measured_at
    assert 16 not in plan.measured_at


def test_text_of_an_older_run_is_kept() -> None:
    size = HeldOut(900_000, 900_000)
    assert plan_training(Settings(steps=10), SPEED, BATCHER, size).held_out == MIN_HELD_OUT
    assert plan_training(Settings(steps=10), SPEED, BATCHER, size, keep_held_out=True).held_out == 900_000


def test_symbols_that_are_no_characters() -> None:
    plan = plan_training(Settings(minutes=10), SPEED, BATCHER, HeldOut(100_000, 300_000))
    full = plan_training(Settings(minutes=10), SPEED, BATCHER, HeldOut(300_000, 300_000))
    assert abs(plan.held_out * 3 - full.held_out) <= 3
