"""The link top_n_sigma: keep the symbols whose logit is within some standard deviations of the largest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gentext.plugins.strategies.distribution import distances_to_largest
from gentext.strategy import Array, Arrays, Param, Strategy


class TopNSigma(Strategy):
    """Keep the logits that are at least the largest minus n standard deviations; n <= 0 keeps all.

    The deviation is that of the population of the symbols that are not masked. A temperature before this link does not
    change which symbols stay. Tang et al., "Top-n-sigma: not all logits are you need", arXiv 2411.07641, and
    llama.cpp, whose n = 0 also keeps all (the paper's would keep only the largest).
    """

    params: Mapping[str, Param] = {
        "top_n_sigma": Param(
            -1.0, "keep logits within N standard deviations of the largest; 0 or less: all", low=-1, high=1e6
        ),
    }

    def apply(
        self, xp: Any, logits: Array, params: Arrays, state: Arrays, noise: Array | None, tables: Arrays
    ) -> tuple[Array, Arrays]:
        n = params["top_n_sigma"]
        distances = distances_to_largest(xp, logits)
        is_unmasked = logits > -xp.inf
        count = xp.maximum(xp.sum(xp.astype(is_unmasked, xp.float64), axis=1, keepdims=True), 1.0)
        mean = xp.sum(xp.where(is_unmasked, distances, 0.0), axis=1, keepdims=True) / count
        deviations = xp.where(is_unmasked, distances - mean, 0.0)
        sigma = xp.sqrt(xp.sum(deviations * deviations, axis=1, keepdims=True) / count)
        return xp.where((distances >= -n * sigma) | (n <= 0.0), logits, -xp.inf), state
