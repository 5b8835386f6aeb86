"""The link no_repeat_ngram: never write the same n symbols twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gentext.config import Positive
from gentext.plugins.strategies.repeats import advance_matches, longest_matches, repeat_states
from gentext.strategy import Array, Arrays, Param, Strategy


@dataclasses.dataclass(frozen=True)
class NoRepeatNgramConfig:
    """Options of the link ``no_repeat_ngram``."""

    window: Positive = 512
    """Number of recent symbols whose n-grams are not repeated, those of the prime included."""


class NoRepeatNgram(Strategy):
    """Mask every symbol that would complete an n-gram, a run of n symbols, which the window already contains.

    Where that would mask all symbols that are left, it masks none.

    Paulus, Xiong, Socher, "A deep reinforced model for abstractive summarization", arXiv 1705.04304;
    ``NoRepeatNGramLogitsProcessor`` of huggingface/transformers, which looks at the entire text and may mask all. Sizes
    that are usual for words, such as 3, would forbid ordinary spelling: 10 or more suit characters.
    """

    Config = NoRepeatNgramConfig
    params: Mapping[str, Param] = {
        "no_repeat_ngram_size": Param(
            0, "never repeat this many symbols in a row; for characters 10 or more; 0: off", dtype="int64", low=0
        ),
    }
    switch = "no_repeat_ngram_size"
    place = "penalty"

    def __init__(self, config: NoRepeatNgramConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.state = repeat_states(config.window)
        # No longer n-gram is within the window.
        size = dataclasses.replace(self.params["no_repeat_ngram_size"], high=config.window)
        self.params = {"no_repeat_ngram_size": size}

    def apply(
        self, xp: Any, logits: Array, params: Arrays, state: Arrays, noise: Array | None, tables: Arrays
    ) -> tuple[Array, Arrays]:
        size = xp.astype(params["no_repeat_ngram_size"], xp.float32)
        completes_ngram = (longest_matches(xp, state, self.vocab_size) >= size - 1.0) & (size > 0.0)
        is_allowed = ~completes_ngram & (logits > -xp.inf)
        is_masked = completes_ngram & xp.any(is_allowed, axis=1, keepdims=True)
        return xp.where(is_masked, -xp.inf, logits), state

    def accept(
        self, xp: Any, token: Array, logits: Array, params: Arrays, state: Arrays, tables: Arrays, new: Array
    ) -> Arrays:
        return advance_matches(xp, state, token)
