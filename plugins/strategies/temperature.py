"""The link temperature: bolder or more careful text, where wanted depending on how sure the model is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gentext.plugins.strategies.distribution import entropy, log_probabilities
from gentext.strategy import Array, Arrays, Param, Strategy

#: The lowest float32 above -inf.
LOWEST_LOGIT = -3.4028234663852886e38


class Temperature(Strategy):
    """Divide the logits by a temperature; 0 keeps the first of the most probable symbols.

    Ackley, Hinton, Sejnowski, "A learning algorithm for Boltzmann machines", 1985.

    With a ``dynatemp_range`` r > 0 the temperature of a position lies between max(0, t - r) and t + r:
    low + (high - low) * (H / log n) ** dynatemp_exponent, where H is the entropy and n counts the symbols that are not
    masked. A row with one such symbol stays as it is. Zhu et al., arXiv 2309.02772; the formula is that of llama.cpp's
    ``temp_ext``. It counts symbols whose logit some links set to -inf; here they never count.
    """

    params: Mapping[str, Param] = {
        "temperature": Param(
            1.0,
            "below 1 more careful, above 1 bolder; 0: always the most probable",
            low=0,
            high=1e6,
            default=0.8,
            decisive=0,
        ),
        "dynatemp_range": Param(
            0.0, "how far the temperature moves: lower where the model is sure, higher where not", low=0, high=1e6
        ),
        "dynatemp_exponent": Param(
            1.0, "above 1: the temperature rises only where the model is very unsure", low=0, high=100
        ),
    }
    place = "shape"

    def apply(
        self, xp: Any, logits: Array, params: Arrays, state: Arrays, noise: Array | None, tables: Arrays
    ) -> tuple[Array, Arrays]:
        t, spread = params["temperature"], params["dynatemp_range"]
        dynamic = dynamic_temperature(xp, logits, t, spread, params["dynatemp_exponent"])
        return scale_logits(xp, logits, xp.where(spread > 0.0, dynamic, t)), state


def dynamic_temperature(xp: Any, logits: Array, t: Array, spread: Array, exponent: Array) -> Array:
    """Return the temperature of each row [N, 1] by the entropy of its logits [N, V]; 1 where one symbol is left."""
    unmasked = xp.astype(logits > -xp.inf, xp.float64)
    log_count = xp.log(xp.maximum(xp.sum(unmasked, axis=1, keepdims=True), 1.0))
    is_choice = log_count > 0.0
    relative_entropy = entropy(xp, log_probabilities(xp, logits)) / xp.where(is_choice, log_count, 1.0)
    # A power by exp and log, whose results are the same for each row of a batch; 0 ** 0 is 1.
    is_positive = relative_entropy > 0.0
    power = xp.exp(exponent * xp.log(xp.where(is_positive, relative_entropy, 1.0)))
    power = xp.where(is_positive | (exponent == 0.0), power, 0.0)
    low = xp.maximum(t - spread, 0.0)
    return xp.astype(xp.where(is_choice, low + (t + spread - low) * power, 1.0), xp.float32)


def scale_logits(xp: Any, logits: Array, t: Array) -> Array:
    """Return logits [N, V] divided by temperatures [N, 1]: unchanged at 1, the first of the largest alone at 0."""
    # Where all symbols are masked the largest logit is -inf, whose distance to itself would be no number.
    top_logit = xp.maximum(xp.max(logits, axis=1, keepdims=True), LOWEST_LOGIT)
    # Dividing the distance to the largest logit gives 0 or a negative number, so that a tiny temperature
    # leads to -inf and never to infinity minus infinity.
    scaled_logits = (logits - top_logit) / xp.where(t == 0.0, 1.0, t)
    best_symbol = xp.argmax(logits, axis=1, keepdims=True)
    symbols = xp.arange(logits.shape[1], dtype=xp.int64)[None, :]
    greedy_logits = xp.where(symbols == best_symbol, logits, -xp.inf)
    return xp.where(t == 0.0, greedy_logits, xp.where(t == 1.0, logits, scaled_logits))
