"""novelty: a symbol that was just written is less likely to come again."""

import dataclasses
from typing import ClassVar

from gentext import Param, State, Strategy
from gentext.config import Fraction


@dataclasses.dataclass(frozen=True)
class NoveltyConfig:
    """Options of the link ``novelty``."""

    decay: Fraction = 0.75
    """How much of a symbol's heat is left one position later."""


class Novelty(Strategy):
    """Every symbol has a heat: 1 more each time it is written, fading from then on."""

    Config = NoveltyConfig
    params: ClassVar = {"novelty": Param(0.0, "subtract this times a symbol's heat from its logit", low=0, high=100)}
    place = "penalty"

    def __init__(self, config, vocab_size):
        super().__init__(config, vocab_size)
        self.state = {"heat": State((vocab_size,))}

    def apply(self, xp, logits, params, state, noise, tables):
        return logits - params["novelty"] * state["heat"], state

    def accept(self, xp, token, logits, params, state, tables, new):
        symbols = xp.arange(self.vocab_size, dtype=xp.int64)[None, :]
        written = xp.astype(symbols == token[:, None], xp.float32)
        return {"heat": state["heat"] * self.config.decay + written}
