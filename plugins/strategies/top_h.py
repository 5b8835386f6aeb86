"""The link top_h: keep the most probable symbols within a share of the entropy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gentext.plugins.strategies.distribution import entropy, log_probabilities, surprises
from gentext.strategy import Array, Arrays, Param, Strategy, keep_largest


class TopH(Strategy):
    """Keep the most probable symbols while the sum of their -p log p is at most ``top_h`` times the entropy.

    The most probable one always stays. Potraghloo et al., "Top-H decoding", arXiv 2509.02510.

    transformers computes with the 100 most probable symbols alone, which it does to save time; this link uses all, as
    the paper. The two are the same for models of characters with up to 100 symbols.
    """

    params: Mapping[str, Param] = {
        "top_h": Param(
            1.0, "keep the most probable symbols up to this share of the entropy; 1: all", low=0, high=1, decisive=0
        ),
    }

    def apply(
        self, xp: Any, logits: Array, params: Arrays, state: Arrays, noise: Array | None, tables: Arrays
    ) -> tuple[Array, Arrays]:
        h = params["top_h"]
        logprobs = log_probabilities(xp, logits)
        ranked_logprobs = -xp.sort(-logprobs, axis=1)
        running_sums = xp.cumulative_sum(surprises(xp, ranked_logprobs), axis=1)
        is_within = running_sums <= h * entropy(xp, logprobs)
        count = xp.maximum(xp.sum(xp.astype(is_within, xp.int64), axis=1, keepdims=True), 1)
        return xp.where(keep_largest(xp, logits, count) | (h == 1.0), logits, -xp.inf), state
