"""The link top_p: keep the smallest set of symbols whose probabilities add up to p."""

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
        ranked_logits = xp.take_along_axis(logits, order, axis=1)
        ranked_weights = xp.exp(ranked_logits - ranked_logits[:, :1])
        running_sums = xp.cumulative_sum(ranked_weights, axis=1)
        # A symbol stays when those before it have less than p together: so the symbol that crosses p stays, and
        # the first symbol, before which there is none, stays with p = 0 too.
        ranked_mask = ((running_sums - ranked_weights) < p * running_sums[:, -1:]) | (running_sums == ranked_weights)
        mask = xp.take_along_axis(ranked_mask, xp.argsort(order, axis=1, stable=True), axis=1)
        return xp.where(mask | (p == 1.0), logits, -xp.inf), state
