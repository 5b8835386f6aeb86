"""The link temperature: bolder or more careful text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gentext.strategy import Array, Arrays, Param, Strategy


class Temperature(Strategy):
    """Divide the logits by a temperature; 0 keeps the first of the most probable symbols.

    Ackley, Hinton, Sejnowski, "A learning algorithm for Boltzmann machines", 1985.
    """

    params: Mapping[str, Param] = {
        "temperature": Param(
            1.0, "below 1 more careful, above 1 bolder; 0: always the most probable", low=0, high=1e6, decisive=0
        ),
    }
    place = "shape"

    def apply(
        self, xp: Any, logits: Array, params: Arrays, state: Arrays, noise: Array | None, tables: Arrays
    ) -> tuple[Array, Arrays]:
        t = params["temperature"]
        top_logit = xp.max(logits, axis=1, keepdims=True)
        # Dividing the distance to the largest logit gives 0 or a negative number, so that a tiny temperature
        # leads to -inf and never to infinity minus infinity.
        scaled_logits = xp.where(logits == -xp.inf, logits, (logits - top_logit) / xp.where(t == 0.0, 1.0, t))
        best_symbol = xp.argmax(logits, axis=1, keepdims=True)
        symbols = xp.arange(self.vocab_size, dtype=xp.int64)[None, :]
        greedy_logits = xp.where(symbols == best_symbol, logits, -xp.inf)
        return xp.where(t == 0.0, greedy_logits, xp.where(t == 1.0, logits, scaled_logits)), state
