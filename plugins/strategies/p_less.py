"""The link p_less: keep the symbols that are at least as probable as a coincidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gentext.plugins.strategies.distribution import log_probabilities
from gentext.strategy import Array, Arrays, Param, Strategy

#: Is taken off the threshold, so that rounding masks no symbol of a uniform distribution.
ROUNDING = 1e-5


class PLess(Strategy):
    """Keep the symbols with p >= sum of p squared, minus 1e-5: the probability that two draws give the same symbol.

    It has no parameter but its switch. Tan et al., "p-less sampling", arXiv 2509.23234. The paper does not subtract
    1e-5; llama.cpp's open pull request 26035 does, because of rounding, and so does this link.
    """

    params: Mapping[str, Param] = {
        "p_less": Param(0, "1: keep the symbols of at least the sum of squared probabilities", "int64", low=0, high=1),
    }

    def apply(
        self, xp: Any, logits: Array, params: Arrays, state: Arrays, noise: Array | None, tables: Arrays
    ) -> tuple[Array, Arrays]:
        probabilities = xp.exp(log_probabilities(xp, logits))
        threshold = xp.sum(probabilities * probabilities, axis=1, keepdims=True) - ROUNDING
        return xp.where((probabilities >= threshold) | (params["p_less"] == 0), logits, -xp.inf), state
