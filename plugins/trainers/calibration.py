"""Finds how sharp a model's probabilities should be, on training text that the model does not learn from. (torch)

A model that has read its text often is surer than it should be: its loss on new text falls where all logits are
multiplied by a factor below 1. C. Guo and others, "On calibration of modern neural networks", 2017, divide them by a
temperature, its reciprocal. One number is found from a few thousand symbols, too few to learn anything else from.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional

from gentext.capabilities import SupportsLogitScale
from gentext.errors import ConfigError
from gentext.interfaces import Model
from gentext.plugins.pytorch.distributed import ProcessGroup
from gentext.plugins.pytorch.evaluate import NO_TARGET, read_logits
from gentext.token_corpus import TokenCorpus

#: The factors that are tried, evenly spaced in their logarithms: from a quarter to twice.
MIN_EXPONENT, MAX_EXPONENT, SCALE_COUNT = -2.0, 1.0, 25


def split_calibration(train: TokenCorpus, symbols: int) -> tuple[TokenCorpus, TokenCorpus | None]:
    """Return the part of a training text to learn from, and the part of about so many symbols; None for 0 of them.

    Raises ConfigError for more than half of the text.
    """
    if symbols == 0:
        return train, None
    if symbols > train.symbols // 2:
        raise ConfigError(
            f"trainer.calibration={symbols}: more than half of the {train.symbols:,} symbols of the training text; "
            f"expected a few thousand, or 0"
        )
    to_learn, calibration = train.set_aside(symbols)
    if not to_learn.symbols:
        raise ConfigError(
            f"trainer.calibration={symbols}: there is only one record, and none would be left to learn from"
        )
    return to_learn, calibration


def check_logit_scale(model: Model) -> None:
    """Raise ConfigError for a model whose logits cannot be scaled."""
    if not isinstance(model, SupportsLogitScale):
        raise ConfigError(
            "trainer.calibration: the logits of this model cannot be scaled (it has no scale_logits); leave "
            "trainer.calibration out"
        )


def choose_logit_scale(model: Model, corpus: TokenCorpus | None, process_group: ProcessGroup) -> float:
    """Return the factor of the logits that suits a corpus best, the same in all processes; 1.0 where there is none."""
    if corpus is None:
        return 1.0
    [scale] = process_group.broadcast_numbers(find_logit_scale(model, corpus))
    return scale


def find_logit_scale(model: Model, corpus: TokenCorpus) -> float:
    """Return the factor of the logits by which the loss on a corpus is lowest; 1.0 where it has nothing to predict."""
    exponents = np.linspace(MIN_EXPONENT, MAX_EXPONENT, SCALE_COUNT)
    losses = _sum_losses(model, corpus, 2.0**exponents)
    if not losses.any() or not np.isfinite(losses).all():
        return 1.0
    best = int(losses.argmin())
    exponent = float(exponents[best])
    if 0 < best < SCALE_COUNT - 1:  # the loss is convex there: the lowest point of a parabola through three points
        before, lowest, after = (float(loss) for loss in losses[best - 1 : best + 2])
        step = float(exponents[1] - exponents[0])
        exponent += step * (before - after) / (2 * (before - 2 * lowest + after))
    return math.pow(2.0, exponent)


@contextlib.contextmanager
def scaled_logits(model: Model, scale: float) -> Iterator[None]:
    """Let a model predict with its logits multiplied by ``scale``, and give it the very same weights back then."""
    if scale == 1:
        yield
        return
    assert isinstance(model, SupportsLogitScale)  # else `check_logit_scale` has raised, before the first step
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.scale_logits(scale)
    try:
        yield
    finally:
        model.load_state_dict(weights)


def _sum_losses(model: Model, corpus: TokenCorpus, scales: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the loss on a corpus, in nats, for each of the factors."""
    total_losses = np.zeros(len(scales))
    for logits, targets in read_logits(model, corpus):
        for index, scale in enumerate(scales):
            losses = functional.cross_entropy(logits * float(scale), targets, ignore_index=NO_TARGET, reduction="sum")
            total_losses[index] += losses.item()
    return total_losses
