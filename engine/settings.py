"""The settings of a run that belong to no single component: budget, split, device, seed."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import numbers
import os
from typing import Annotated, Literal, get_args

import msgspec

from gentext.errors import ConfigError, MissingExtra, UsageError
from gentext.files.cpu_quota import read_cpu_quota

__all__ = ["Settings", "budget_steps"]

#: The largest budget in steps, and in passes over a text: years of training even for the smallest model.
MAX_STEPS = 10**9
#: The largest budget in minutes: two years.
MAX_MINUTES = 1e6
#: The largest number of measurements that may be set.
MAX_MEASUREMENTS = 1000
#: Characters of the held-out text that are measured at most.
HELD_OUT_LIMIT = 1_000_000
#: The largest number of threads that may be set.
MAX_THREADS = 1024
#: The units of a budget, which are fields of `Settings`; at most one of them is set.
BUDGET_UNITS = ("epochs", "steps", "minutes")
#: Fields of `Settings` that are planned for one budget, and mean nothing for another.
PLANNED_FIELDS = ("measured_at", "measured_symbols")

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
ExportPrecision = Literal["auto", "fp32", "int8"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """The table ``[run]`` of a config file."""

    epochs: Annotated[float, msgspec.Meta(gt=0, le=MAX_STEPS)] | None = None
    """Budget: passes over the training text."""
    steps: Annotated[int, msgspec.Meta(ge=1, le=MAX_STEPS)] | None = None
    """Budget: optimizer steps."""
    minutes: Annotated[float, msgspec.Meta(gt=0, le=MAX_MINUTES)] | None = None
    """Budget: minutes of training; turned into steps once, by measuring, before the first step."""
    val_frac: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.1
    """Share of the corpus that is held out to measure the loss: the end of a text, or records by their hash."""
    held_out: Annotated[int, msgspec.Meta(ge=0, le=HELD_OUT_LIMIT)] = 0
    """Characters of the held-out text that are measured; 0: as many as a share of the budget reads."""
    measurements: Annotated[int, msgspec.Meta(ge=0, le=MAX_MEASUREMENTS)] = 0
    """How often the losses are measured, at even distances; 0: by the budget, early ones closer together."""
    measured_at: tuple[Annotated[int, msgspec.Meta(ge=1, le=MAX_STEPS)], ...] = ()
    """Steps after which the losses are measured; empty: planned before the first step."""
    measured_symbols: Annotated[int, msgspec.Meta(ge=0, le=HELD_OUT_LIMIT)] = 0
    """Symbols that each of these measurements reads of either text; 0: planned in the same way."""
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    """Seed of everything random in training."""
    device: Device = "auto"
    """Where to train."""
    precision: Precision = "auto"
    """Arithmetic of the matrix products; weights stay in fp32."""
    threads: Annotated[int, msgspec.Meta(ge=0, le=MAX_THREADS)] = 0
    """Threads of the matrix products; 0: chosen before the first step, by the cores, and for minutes by measuring."""
    export: bool = True
    """Whether to write model.onnx at the end."""
    export_precision: ExportPrecision = "auto"
    """Arithmetic of generator.onnx; auto: on a CPU int8 unless its loss is too high, else fp32."""
    tensorboard: bool = False
    """Whether to write event files for TensorBoard."""

    def __post_init__(self) -> None:
        budgets = {"epochs": self.epochs, "steps": self.steps, "minutes": self.minutes}
        typed_budgets = [f"{name} = {amount:g}" for name, amount in budgets.items() if amount is not None]
        if len(typed_budgets) > 1:
            raise ValueError(f"{' and '.join(typed_budgets)}: expected one of epochs, steps and minutes")


def check_extras(settings: Settings) -> None:
    """Raise MissingExtra where the settings need packages that are not installed."""
    if settings.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise MissingExtra("run.tensorboard", "tensorboard")


def check_device(name: str) -> None:
    """Raise UsageError for a name that is no device."""
    if name not in get_args(Device):
        raise UsageError(f"device = {name!r}: expected auto, cpu or cuda")


def check_threads(count: object, name: str = "threads") -> None:
    """Raise UsageError for an impossible number of threads; ``name`` is that of the option."""
    if not isinstance(count, numbers.Integral) or not 0 <= int(count) <= MAX_THREADS:
        raise UsageError(f"{name} = {count!r}: expected 1 to {MAX_THREADS}, or 0 for the fastest")


def cores() -> int:
    """Return how many cores this process may use: those of its affinity, or fewer by the quota of its container.

    A quota is rounded down, to at least 1: a thread beyond it would stop all others whenever the quota is used up.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = read_cpu_quota()
    return count if quota is None else max(1, min(count, math.floor(quota)))


def budget_steps(settings: Settings, steps_per_epoch: int, seconds_per_step: float) -> int:
    """Turn the budget into a number of steps, at least one; raises ConfigError when they are too many."""
    if settings.steps is not None:
        return settings.steps
    if settings.minutes is not None:
        if not seconds_per_step > 0:
            raise ConfigError("run.minutes needs a measured rate")
        budget_text, steps = f"run.minutes = {settings.minutes:g}", settings.minutes * 60 / seconds_per_step
    else:
        epochs = 1.0 if settings.epochs is None else settings.epochs
        budget_text, steps = f"run.epochs = {epochs:g}", epochs * steps_per_epoch
    if steps > MAX_STEPS:
        raise ConfigError(
            f"{budget_text}: that would be {steps:.3g} steps, and {MAX_STEPS:,} are the most; ask for less"
        )
    return max(1, round(steps))
