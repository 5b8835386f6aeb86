"""The link typical: keep the symbols that are as surprising as the model expects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gentext.plugins.strategies.distribution import entropy, log_probabilities
from gentext.strategy import Array, Arrays, Param, Strategy


class Typical(Strategy):
    """Locally typical sampling: keep the symbols whose surprise is closest to the entropy.

    Symbols are ordered by abs(-log p - H), then by index, and stay up to the first at which their probabilities add up
    to ``typical_p``. At least one stays, which need not be the most probable one.
    Meister et al., "Locally typical sampling", arXiv 2202.00666.

    llama.cpp stops at the first sum above the share and transformers at the first that reaches it, which differs only
    where a sum equals the share; this link does the latter. transformers also keeps all symbols that tie with the last
    one, llama.cpp and this link only those up to it.
    """

    params: Mapping[str, Param] = {
        "typical_p": Param(
            1.0, "keep symbols of typical surprise that hold this share of probability", low=0, high=1, decisive=0
        ),
    }

    def apply(
        self, xp: Any, logits: Array, params: Arrays, state: Arrays, noise: Array | None, tables: Arrays
    ) -> tuple[Array, Arrays]:
        p = params["typical_p"]
        logprobs = log_probabilities(xp, logits)
        deviations = xp.where(logits > -xp.inf, xp.abs(-logprobs - entropy(xp, logprobs)), xp.inf)
        order = xp.argsort(deviations, axis=1, stable=True)
        running_sums = xp.cumulative_sum(xp.exp(xp.take_along_axis(logprobs, order, axis=1)), axis=1)
        # A symbol stays when those before it do not reach the share; the first, before which there is none, always.
        is_first = xp.arange(self.vocab_size, dtype=xp.int64)[None, :] == 0
        sums_before = xp.concat([running_sums[:, :1], running_sums[:, :-1]], axis=1)
        ranked_mask = is_first | (sums_before < p)
        mask = xp.take_along_axis(ranked_mask, xp.argsort(order, axis=1, stable=True), axis=1)
        return xp.where(mask | (p == 1.0), logits, -xp.inf), state
