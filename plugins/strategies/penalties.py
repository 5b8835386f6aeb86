"""penalties: make symbols less probable that stand in the last part of the text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gentext.config import Positive
from gentext.strategy import Array, Arrays, Param, State, Strategy


@dataclasses.dataclass(frozen=True)
class PenaltiesConfig:
    """Options of the link ``penalties``."""

    window: Positive = 64
    """How many of the last symbols count, the prime's among them."""


class Penalties(Strategy):
    """Repeat, frequency and presence penalties over a window of the last symbols.

    repeat: divide positive and multiply negative logits (Keskar et al., "CTRL", arXiv 1909.05858);
    frequency: subtract it for each occurrence; presence: subtract it once. Values that suit words
    are too strong for characters: 1.02 is already felt, since every text repeats its letters.
    """

    Config = PenaltiesConfig
    params: Mapping[str, Param] = {
        "repeat_penalty": Param(1.0, "divide the logits of recent symbols by this", low=0.01, high=100),
        "frequency_penalty": Param(0.0, "subtract this for each recent occurrence", low=-100, high=100),
        "presence_penalty": Param(0.0, "subtract this from every recent symbol", low=-100, high=100),
    }
    place = "penalty"

    def __init__(self, config: PenaltiesConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        # Counts are carried along, so a position costs the same whatever the window's length.
        self.state = {
            "window": State((config.window,), "int64", -1),
            "counts": State((vocab_size,), "float32"),
        }

    def apply(
        self, xp: Any, logits: Array, params: Arrays, state: Arrays, noise: Array | None, tables: Arrays
    ) -> tuple[Array, Arrays]:
        counts = state["counts"]
        repeat = params["repeat_penalty"]
        scaled = xp.where(logits > 0.0, logits / repeat, logits * repeat)
        penalised = scaled - counts * params["frequency_penalty"] - params["presence_penalty"]
        return xp.where((counts > 0.0) & (logits > -xp.inf), penalised, logits), state

    def accept(
        self,
        xp: Any,
        token: Array,
        logits: Array,
        params: Arrays,
        state: Arrays,
        tables: Arrays,
        new: Array,
    ) -> Arrays:
        symbols = xp.arange(self.vocab_size, dtype=xp.int64)[None, :]
        window = state["window"]
        came = xp.astype(symbols == token[:, None], xp.float32)
        went = xp.astype(symbols == window[:, :1], xp.float32)
        return {
            "window": xp.concat([window[:, 1:], token[:, None]], axis=1),
            "counts": state["counts"] + came - went,
        }
