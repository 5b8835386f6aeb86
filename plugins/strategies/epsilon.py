"""The link epsilon: keep the symbols that have at least a certain probability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gentext.plugins.strategies.distribution import log_probabilities
from gentext.strategy import Array, Arrays, Param, Strategy


class Epsilon(Strategy):
    """Keep the symbols with p >= ``epsilon_cutoff``, and always the most probable ones.

    Hewitt, Manning, Liang, "Truncation sampling as language model desmoothing", arXiv 2210.15191. As in transformers,
    all symbols that tie for the most probable one stay.
    """

    params: Mapping[str, Param] = {
        "epsilon_cutoff": Param(0.0, "keep symbols of at least this probability; 0: all", low=0, high=1),
    }

    def apply(
        self, xp: Any, logits: Array, params: Arrays, state: Arrays, noise: Array | None, tables: Arrays
    ) -> tuple[Array, Arrays]:
        cutoff = params["epsilon_cutoff"]
        is_best = logits == xp.max(logits, axis=1, keepdims=True)
        mask = xp.exp(log_probabilities(xp, logits)) >= cutoff
        return xp.where(mask | is_best | (cutoff == 0.0), logits, -xp.inf), state
