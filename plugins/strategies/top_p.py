"""top_p: keep the smallest set of symbols that holds a share p of the probability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gentext.strategy import Array, Arrays, Param, Strategy


class TopP(Strategy):
    """Nucleus sampling: the most probable symbols until their probabilities add up to p.

    At least one symbol stays. Holtzman et al., "The curious case of neural text degeneration",
    ICLR 2020.
    """

    params: Mapping[str, Param] = {
        "top_p": Param(
            1.0, "keep the most probable symbols that hold this share of probability", low=0, high=1, decisive=0
        ),
    }

    def apply(
        self, xp: Any, logits: Array, params: Arrays, state: Arrays, noise: Array | None, tables: Arrays
    ) -> tuple[Array, Arrays]:
        p = params["top_p"]
        order = xp.argsort(-logits, axis=1, stable=True)
        ranked = xp.take_along_axis(logits, order, axis=1)
        weights = xp.exp(ranked - ranked[:, :1])
        running = xp.cumulative_sum(weights, axis=1)
        # What stands before a symbol decides: the one that crosses p is still in, and so is the first.
        keep = ((running - weights) < p * running[:, -1:]) | (running == weights)
        kept = xp.take_along_axis(keep, xp.argsort(order, axis=1, stable=True), axis=1)
        return xp.where(kept | (p == 1.0), logits, -xp.inf), state
