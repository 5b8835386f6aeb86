"""The options of the trainer bptt, and what follows from them for each step."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from gentext.config import Fraction, NonNegative, NonNegativeFloat, PositiveFloat


@dataclasses.dataclass(frozen=True)
class BPTTConfig:
    """Options of the trainer ``bptt``. The defaults are the notebook's."""

    optimizer: Literal["adam", "adamw", "muon"] = "adam"
    """Adam, Adam with decoupled weight decay, or Muon for the matrices between hidden units and AdamW for the rest."""
    rate: PositiveFloat = 1e-3
    """Peak learning rate."""
    muon_scale: PositiveFloat = 2.0
    """Size of Muon's updates, as a multiple of AdamW's."""
    beta2: Fraction = 0.999
    """How slowly Adam's second moment forgets."""
    weight_decay: NonNegativeFloat = 0.0
    """Decay of the weight matrices (adamw, muon); biases and norms have none."""
    decay_schedule: Literal["constant", "falling", "rising"] = "constant"
    """Whether it stays over the budget, falls to 0 along a cosine, or rises from 0 along it."""
    clip: NonNegativeFloat = 5.0
    """Largest norm of the gradient; 0: no limit."""
    schedule: Literal["constant", "cosine"] = "constant"
    """How the rate falls over the budget."""
    warmup: NonNegative = 0
    """Steps in which the rate rises to its peak."""
    final: Fraction = 0.02
    """Share of the peak rate at the end of the cosine."""
    average: Literal["none", "ema", "tail"] = "none"
    """Which weights are measured and exported: the last, their moving average, or their mean over the last part."""
    average_decay: PositiveFloat = 0.999
    """Share of a moving average that each step leaves; from 1 on: over how many steps it reaches back."""
    average_begin: Fraction = 0.5
    """Share of the budget before the last part, whose mean is taken."""
    calibration: NonNegative = 0
    """Symbols of the training text that are not learned, and by which the logits are scaled; 0: none."""
    eval_every: NonNegative = 0
    """Steps between two measurements of the held-out loss; 0: about a tenth of the time."""
    patience: NonNegative = 0
    """Stop after so many measurements without a better loss; 0: never."""


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """What may differ from step to step."""

    rate: float
    weight_decay: float
    is_averaged: bool
    """Whether the weights after the step are added to the average."""


def choose_step_options(config: BPTTConfig, step: int, steps: int) -> StepOptions:
    """Return the options of a step (from 0) of a budget of ``steps``."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))  # falls from 1 to 0
    rate = config.rate * min(1.0, (step + 1) / config.warmup if config.warmup else 1.0)
    if config.schedule == "cosine":
        rate *= config.final + (1 - config.final) * cosine
    decay_factor = {"constant": 1.0, "falling": cosine, "rising": 1 - cosine}[config.decay_schedule]
    is_averaged = config.average == "ema" or (config.average == "tail" and step >= config.average_begin * steps)
    return StepOptions(rate, config.weight_decay * decay_factor, is_averaged)
