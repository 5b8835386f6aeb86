"""The link eta: keep the symbols whose probability is large enough for the entropy of the position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gentext.plugins.strategies.distribution import entropy, log_probabilities
from gentext.strategy import Array, Arrays, Param, Strategy


class Eta(Strategy):
    """Keep the symbols with p >= min(e, sqrt(e) * exp(-H)), and always the most probable ones; e is ``eta_cutoff``.

    Hewitt, Manning, Liang, "Truncation sampling as language model desmoothing", arXiv 2210.15191, with the paper's
    alpha = sqrt(e). The description in transformers has sqrt(e * exp(-H)), its code and the paper have this formula.
    """

    params: Mapping[str, Param] = {
        "eta_cutoff": Param(
            0.0, "keep symbols of this probability, or of less where many are possible; 0: all", low=0, high=1
        ),
    }

    def apply(
        self, xp: Any, logits: Array, params: Arrays, state: Arrays, noise: Array | None, tables: Arrays
    ) -> tuple[Array, Arrays]:
        cutoff = params["eta_cutoff"]
        logprobs = log_probabilities(xp, logits)
        threshold = xp.minimum(cutoff, xp.sqrt(cutoff) * xp.exp(-entropy(xp, logprobs)))
        is_best = logits == xp.max(logits, axis=1, keepdims=True)
        return xp.where((xp.exp(logprobs) >= threshold) | is_best | (cutoff == 0.0), logits, -xp.inf), state
