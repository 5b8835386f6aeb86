"""What the measurements of a run show: whether its loss still falls, and whether held-out and training loss part.

Losses are in nats a symbol. A difference that chance may have made is no difference here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from gentext.interfaces import Measurement

Trend = Literal["falling", "flat", "rising", "unknown"]

#: Passes up to which a measurement tells the gap of the first pass.
FIRST_PASS = 1.05
#: Gap in the first pass, in nats, from which it is said that the held-out text differs from the other.
TEXT_GAP = 0.05
#: A difference in nats that is clear: where chance may be larger, no curve is called flat and no fit is judged.
CLEAR = 0.10
#: Fall of the held-out loss over the last doubling of the steps, in nats, above which it still falls; and the rise
#: above its lowest value from which it rises.
FALLING, RISING = 0.05, 0.02
#: Symbols after the last measurement and after the first, as a ratio, from which the two show a slope.
MIN_SPAN = 1.25
#: A difference counts from so many standard errors on.
ERRORS = 2.0
#: Standard error of the change of a loss between two measurements of one run, as a share of the loss's own: both read
#: the same text, and what is hard for one of two related models is hard for the other.
PAIRED_SHARE = 0.3


def find_trend(curve: Sequence[Measurement]) -> Trend:
    """Return whether the held-out loss falls, is flat or rises at the end of a curve.

    It falls where reading the last half of all symbols has lowered it by more than `FALLING`, and it rises where it
    ends more than `RISING` above its lowest value. It is unknown where there are too few measurements, or where chance
    may have changed them as much as learning.
    """
    last_fall = fall_over_doubling(curve)
    if last_fall is None:
        return "unknown"
    noise = _change_noise(curve)
    lowest_loss = min(point.val_loss for point in curve)
    if curve[-1].val_loss - lowest_loss > max(RISING, noise):
        return "rising"
    if last_fall > max(FALLING, noise):
        return "falling"
    return "flat" if noise < CLEAR else "unknown"


def fall_over_doubling(curve: Sequence[Measurement]) -> float | None:
    """Return by how much the held-out loss fell while the symbols read doubled for the last time; None if unknown.

    Where the first measurement came later, the slope since then, over the logarithm of the symbols, counts.
    """
    if not curve or curve[0].symbols * MIN_SPAN > curve[-1].symbols:
        return None
    begin = max(curve[0].symbols, curve[-1].symbols / 2)
    doublings = math.log2(curve[-1].symbols / begin)
    return (_loss_at(curve, begin) - curve[-1].val_loss) / doublings


def _loss_at(curve: Sequence[Measurement], symbols: float) -> float:
    """Return the held-out loss after so many symbols, on the straight line over the logarithm of the symbols."""
    positions = [math.log(point.symbols) for point in curve]
    return float(np.interp(math.log(symbols), positions, [point.val_loss for point in curve]))


def _change_noise(curve: Sequence[Measurement]) -> float:
    """Return the change between two held-out losses of a curve, in nats, that may be chance.

    Chance is in the text, which is finite, and in the steps: the latter is how far each loss of the second half of the
    curve lies from the line between its neighbours.
    """
    half = curve[len(curve) // 2 - 1 :] if len(curve) > 3 else curve
    residuals = [
        point.val_loss - _loss_at((before, after), point.symbols)
        for before, point, after in zip(half, half[1:], half[2:], strict=False)
    ]
    # The variance of a point and of the mean of two neighbours add up to one and a half variances.
    scatter = math.sqrt(sum(residual**2 for residual in residuals) / len(residuals) / 1.5) if residuals else 0.0
    text_noise = PAIRED_SHARE * _zero_if_unknown(curve[-1].val_error)
    return ERRORS * math.hypot(math.sqrt(2) * scatter, text_noise)


def _zero_if_unknown(error: float) -> float:
    """Return a standard error, or zero for one that is not known."""
    return 0.0 if math.isnan(error) else error


@dataclasses.dataclass(frozen=True)
class Growth:
    """By how much the gap between held-out and training loss has grown, in nats.

    A gap that stands before the first pass is over is a difference between the two texts: the model has not yet seen
    twice what it could learn by heart. Only what is added later is over-fitting.
    """

    smallest: float
    """Growth since the first pass, or since the first measurement where that came later."""
    largest: float
    """The same, or the whole gap where there was no measurement in the first pass."""
    noise: float
    """Growth that may be chance."""
    since: str
    """The time since when, in words."""
    text_gap: float | None
    """The gap at the end of the first pass; None where nobody measured it, or where it may be chance."""


def find_growth(curve: Sequence[Measurement], train_symbols: int) -> Growth | None:
    """Return how much the gap has grown; None where the curve has fewer than two measurements of both losses."""
    points = [point for point in curve if math.isfinite(point.train_loss)]
    if len(points) < 2:
        return None
    gaps = [point.val_loss - point.train_loss for point in points]
    in_first_pass = [index for index, point in enumerate(points) if point.symbols <= FIRST_PASS * train_symbols]
    first = in_first_pass[-1] if in_first_pass else 0
    error = math.hypot(_zero_if_unknown(points[-1].val_error), _zero_if_unknown(points[-1].train_error))
    smallest = gaps[-1] - gaps[first]
    has_text_gap = bool(in_first_pass) and abs(gaps[first]) > max(TEXT_GAP, ERRORS * error)
    return Growth(
        smallest=smallest,
        largest=smallest if in_first_pass else gaps[-1],
        noise=ERRORS * PAIRED_SHARE * error,
        since="since the first pass" if in_first_pass else f"since step {points[0].step:,}",
        text_gap=gaps[first] if has_text_gap else None,
    )
