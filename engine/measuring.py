"""When the losses of a run are measured, and on how much text.

The plan is made before the first step, from speeds that the trainer has measured, and is stored in the run's config: so
a resumed run measures what it would have measured, whatever the machine. Measuring takes about a tenth of the time.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from gentext.interfaces import Batcher, Speed, TrainingPlan
from gentext.settings import Settings, budget_steps

__all__ = ["count_symbols"]

#: Share of the whole time that measuring takes, and the part of it for the last measurement, which reads one stream.
MEASURING_SHARE, LAST_SHARE = 0.1, 0.4
#: Measurements of a budget of one minute. Twice the time has `MORE_MEASUREMENTS` of them in addition.
MEASUREMENTS_OF_MINUTE, MORE_MEASUREMENTS = 8, 2
MIN_MEASUREMENTS, MAX_MEASUREMENTS = 3, 24
#: Measurement number i of n comes after the share (i / n) ** SPACING of the steps: early ones lie closer together,
#: since the loss falls fastest at first.
SPACING = 1.5
#: Passes above which the measurements are at equal ratios instead: a text that is so short is learned in the first of
#: them, however many follow.
MANY_PASSES = 50
#: Symbols that a measurement reads at least, of either text: fewer would give a loss that is mostly noise.
MIN_SYMBOLS = 5_000
#: Characters of the held-out text that the last measurement reads at least.
MIN_HELD_OUT = 20_000


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The size of the held-out text."""

    characters: int
    symbols: int


def plan_training(
    settings: Settings, speed: Speed, batcher: Batcher, held_out: HeldOut, keep_held_out: bool = False
) -> TrainingPlan:
    """Turn the budget into steps, and say when the losses are measured and on how much text.

    What the settings say of measuring is kept. ``keep_held_out``: the text is not cut, because a run has it already.
    Raises ConfigError where the budget has too many steps.
    """
    symbol_seconds = speed.symbol or speed.step * batcher.steps_per_epoch / batcher.symbols_per_epoch
    stream_seconds = speed.stream_symbol or symbol_seconds
    if settings.minutes is None:
        steps = budget_steps(settings, batcher.steps_per_epoch, speed.step)
        seconds = steps * speed.step / (1 - MEASURING_SHARE)
    else:
        seconds = settings.minutes * 60
        training = dataclasses.replace(settings, minutes=settings.minutes * (1 - MEASURING_SHARE))
        steps = budget_steps(training, batcher.steps_per_epoch, speed.step)
    share = seconds * MEASURING_SHARE

    # The last measurement reads the held-out text as one stream, and training text of the same length.
    symbols_per_character = held_out.symbols / max(1, held_out.characters)
    affordable = share * LAST_SHARE / (stream_seconds + symbol_seconds) / (symbols_per_character or 1)
    characters = settings.held_out or round(max(MIN_HELD_OUT, affordable))
    characters = held_out.characters if keep_held_out else min(characters, held_out.characters)
    held_out_symbols = math.ceil(characters * symbols_per_character)

    planned_at = measurement_steps(steps, seconds, settings.measurements)
    if not settings.measurements:
        planned_at = measure_passes(planned_at, batcher.steps_per_epoch)
    measured_at: Sequence[int] = settings.measured_at or planned_at
    if speed.measured_every:
        measured_at = range(speed.measured_every, steps + 1, speed.measured_every)
    per_measurement = share * (1 - LAST_SHARE) / len(planned_at) - speed.measurement
    symbols = max(MIN_SYMBOLS, int(per_measurement / symbol_seconds / 2))
    # Where nothing is held out, only the training text is measured.
    symbols = settings.measured_symbols or min(symbols, held_out_symbols or symbols)

    last_seconds = held_out_symbols * (stream_seconds + symbol_seconds)
    measuring_seconds = last_seconds + len(measured_at) * (2 * symbols * symbol_seconds + speed.measurement)
    return TrainingPlan(steps, measured_at, symbols, characters, steps * speed.step + measuring_seconds, speed.step)


def count_symbols(batcher: Batcher, steps: int) -> int:
    """Return how many symbols with a target so many steps read, over all ranks; exact at the end of an epoch."""
    return round(steps * batcher.symbols_per_epoch / batcher.steps_per_epoch)


def measure_passes(measured_at: tuple[int, ...], steps_of_pass: int) -> tuple[int, ...]:
    """Return the steps with one of them at the end of the first pass, if the run goes on after it.

    Nothing was read twice by then, so a gap between the two losses is the text's: the verdict compares with it. With
    more than `MANY_PASSES`, as many steps follow at equal ratios.
    """
    *earlier, last = measured_at
    if not earlier or steps_of_pass >= last:
        return measured_at
    if last > MANY_PASSES * steps_of_pass:
        ratio = (last / steps_of_pass) ** (1 / len(earlier))
        later = {round(steps_of_pass * ratio**number) for number in range(1, len(earlier))}
        return tuple(sorted(later | {steps_of_pass, last}))
    nearest = min(earlier, key=lambda step: abs(step - steps_of_pass))
    return tuple(sorted({*measured_at} - {nearest} | {steps_of_pass}))


def measurement_steps(steps: int, seconds: float, even_count: int = 0) -> tuple[int, ...]:
    """Return the steps after which the losses are measured, in a run of so many steps and seconds.

    ``even_count`` is a number of measurements at even distances; 0: it follows from the time.
    """
    if even_count:
        return tuple(sorted({math.ceil(steps * number / even_count) for number in range(1, even_count + 1)}))
    doublings = math.log2(max(seconds, 1e-3) / 60)
    count = round(MEASUREMENTS_OF_MINUTE + MORE_MEASUREMENTS * doublings)
    count = min(steps, max(MIN_MEASUREMENTS, min(MAX_MEASUREMENTS, count)))
    return tuple(sorted({math.ceil(steps * (number / count) ** SPACING) for number in range(1, count + 1)}))
