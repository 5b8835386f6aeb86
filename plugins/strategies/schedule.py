"""The link schedule: a temperature that changes along the text."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from gentext.config import per_run
from gentext.errors import ConfigError
from gentext.plugins.strategies.temperature import scale_logits
from gentext.strategy import Array, Arrays, State, Strategy, Table

#: Points of a schedule, at most. The table in the graph has a fixed size.
MAX_POINTS = 33
#: Positions up to this are whole numbers in float32.
MAX_POSITION = 2**24
MAX_TEMPERATURE = 1e6


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """Options of the link ``schedule``."""

    schedule: str = per_run("")
    """Points POSITION:TEMPERATURE with commas, such as ``0:1.2,500:0.6``."""


class Schedule(Strategy):
    """Divide the logits by a temperature that is linear between points, and constant before and after them.

    Position 0 is the first character that is written after the prime. temperature(n) = t0 + sum over the segments of
    slope * min(max(n - begin, 0), length). It is applied beside the link ``temperature``: leave that at 1.
    """

    Config = ScheduleConfig
    state = {"position": State((), "int64")}  # noqa: RUF012
    tables = {  # noqa: RUF012
        "first": Table((1,), "float32", 1.0),
        "begin": Table((MAX_POINTS - 1,)),
        "length": Table((MAX_POINTS - 1,)),
        "slope": Table((MAX_POINTS - 1,)),
    }
    place = "shape"

    def make_tables(self, tokenizer: Any, options: ScheduleConfig) -> dict[str, Array]:
        if not options.schedule.strip():
            return {}
        positions, temperatures = np.array(parse_points(options.schedule)).T
        segments = np.zeros((3, MAX_POINTS - 1), np.float32)
        lengths = np.diff(positions)
        segments[:, : len(lengths)] = positions[:-1], lengths, np.diff(temperatures) / lengths
        return {"first": temperatures[:1], "begin": segments[0], "length": segments[1], "slope": segments[2]}

    def apply(
        self, xp: Any, logits: Array, params: Arrays, state: Arrays, noise: Array | None, tables: Arrays
    ) -> tuple[Array, Arrays]:
        position = xp.astype(state["position"], xp.float32)[:, None]
        begin, length, slope = tables["begin"][None, :], tables["length"][None, :], tables["slope"][None, :]
        steps = xp.minimum(xp.maximum(position - begin, 0.0), length)
        t = tables["first"][None, :] + xp.sum(slope * steps, axis=1, keepdims=True)
        return scale_logits(xp, logits, xp.maximum(t, 0.0)), state  # rounding may lead below 0

    def accept(
        self,
        xp: Any,
        token: Array,
        logits: Array,
        params: Arrays,
        state: Arrays,
        tables: Arrays,
        new: Array,
    ) -> Arrays:
        return {"position": state["position"] + xp.astype(new[:, 0], xp.int64)}


def parse_points(text: str) -> list[tuple[float, float]]:
    """Return the points of a schedule, (position, temperature) in order; raise ConfigError naming the wrong one."""
    points: list[tuple[float, float]] = []
    for point in text.split(","):
        position_text, _, temperature_text = point.partition(":")
        try:
            position, temperature = int(position_text), float(temperature_text)
        except ValueError:
            raise ConfigError(
                f"schedule {point.strip()!r}: expected POSITION:TEMPERATURE, as in 0:1.2,500:0.6"
            ) from None
        if not 0 <= position <= MAX_POSITION:
            raise ConfigError(f"schedule {point.strip()!r}: expected a position from 0 to {MAX_POSITION}")
        if not (math.isfinite(temperature) and 0 <= temperature <= MAX_TEMPERATURE):
            raise ConfigError(f"schedule {point.strip()!r}: expected a temperature from 0 to {MAX_TEMPERATURE:g}")
        if points and position <= points[-1][0]:
            raise ConfigError(f"schedule {point.strip()!r}: expected positions that rise from point to point")
        points.append((position, temperature))
    if len(points) > MAX_POINTS:
        raise ConfigError(f"schedule: {len(points)} points; expected at most {MAX_POINTS}")
    return points
