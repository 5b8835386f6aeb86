"""The link penalties: make symbols less probable that occurred recently in the text."""

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
    """Number of recent symbols that count, those of the prime included."""


class Penalties(Strategy):
    """Repeat, frequency and presence penalties over a window of recent symbols.

    repeat: divides positive logits and multiplies negative ones (Keskar et al., "CTRL", arXiv
    1909.05858). frequency: is subtracted once for each occurrence. presence: is subtracted once.
    Values that are usual for words are too strong for characters: since every text repeats its
    letters, a repeat penalty of 1.02 already has an effect.
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
        # The counts are updated at each position, so that its cost does not depend on the length of the window.
        self.state = {
            "window": State((config.window,), "int64", -1),
            "counts": State((vocab_size,), "float32"),
        }

    def apply(
        self, xp: Any, logits: Array, params: Arrays, state: Arrays, noise: Array | None, tables: Arrays
    ) -> tuple[Array, Arrays]:
        counts = state["counts"]
        repeat_penalty = params["repeat_penalty"]
        repeat_penalised = xp.where(logits > 0.0, logits / repeat_penalty, logits * repeat_penalty)
        penalised = repeat_penalised - counts * params["frequency_penalty"] - params["presence_penalty"]
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
        entering_counts = xp.astype(symbols == token[:, None], xp.float32)
        leaving_counts = xp.astype(symbols == window[:, :1], xp.float32)
        return {
            "window": xp.concat([window[:, 1:], token[:, None]], axis=1),
            "counts": state["counts"] + entering_counts - leaving_counts,
        }
