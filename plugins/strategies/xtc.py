"""The link xtc: now and then leave out the most probable symbols."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gentext.plugins.strategies.distribution import log_probabilities
from gentext.strategy import Array, Arrays, Param, Strategy


class XTC(Strategy):
    """Exclude top choices: with a probability, leave out all symbols at or above the threshold but the least of them.

    Of equally probable ones the last stays. A threshold above 0.5, which two symbols cannot both reach, turns the link
    off. p-e-w, pull request 6335 of text-generation-webui, which never leaves out the newline and the end of the text;
    llama.cpp and this link protect no symbol.
    """

    params: Mapping[str, Param] = {
        "xtc_probability": Param(0.0, "how often the most probable symbols are left out", low=0, high=1),
        "xtc_threshold": Param(0.1, "which probability counts as a top choice; above 0.5: none", low=0, high=1),
    }
    switch = "xtc_probability"
    uniforms = 1

    def apply(
        self, xp: Any, logits: Array, params: Arrays, state: Arrays, noise: Array | None, tables: Arrays
    ) -> tuple[Array, Arrays]:
        threshold = params["xtc_threshold"]
        is_top = (xp.exp(log_probabilities(xp, logits)) >= threshold) & (logits > -xp.inf)
        least_logit = xp.min(xp.where(is_top, logits, xp.inf), axis=1, keepdims=True)
        symbols = xp.arange(self.vocab_size, dtype=xp.int64)[None, :]
        least_symbol = xp.max(xp.where(is_top & (logits == least_logit), symbols, -1), axis=1, keepdims=True)
        is_applied = (noise < params["xtc_probability"]) & (threshold <= 0.5)
        return xp.where(is_applied & is_top & (symbols != least_symbol), -xp.inf, logits), state
