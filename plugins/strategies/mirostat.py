"""The link mirostat: keep the surprise of the text near a target."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gentext.strategy import Array, Arrays, Param, State, Strategy, keep_largest

#: Most probable symbols from which version 1 estimates how fast probabilities fall.
MAX_RANKS = 100
#: The exponent s of version 1 is kept within these bounds, so that no division by it overflows.
EXPONENT_BOUNDS = (1e-6, 1e6)
#: A smaller x is taken for this one: a smaller 1 - exp(-x) would lose digits.
SMALLEST_X = 1e-6
LOG_2 = math.log(2.0)


class Mirostat(Strategy):
    """Keep the surprise of the text near ``mirostat_tau`` bits a symbol; the most probable symbol always stays.

    Surprise is -log2 of a symbol's probability. After each drawn symbol, mu falls by ``mirostat_eta`` times the excess
    of its surprise, among the symbols that were kept, over tau. It begins at 2 tau.

    Version 2 keeps the symbols whose surprise is at most mu. Version 1 supposes that the probability of the symbol of
    rank r is proportional to r**-s, as in Zipf's law, and keeps the k most probable ones, with::

        t_i = log((i + 1) / i), b_i = log(p_i / p_(i+1)), s = sum(t_i b_i) / sum(t_i**2), e = s - 1
        k = (e 2**mu / (1 - V**-e)) ** (1 / s), rounded down, within 1 to V

    where i counts the ranks from 1 and below m = 100, or the number of unmasked symbols if there are fewer.

    Basu, Ramachandran, Keskar, Varshney, "Mirostat: a neural text decoding algorithm that directly controls
    perplexity", ICLR 2021, arXiv 2007.14966. As in ``llama_sampler_mirostat`` and ``llama_sampler_mirostat_v2`` of
    ggml-org/llama.cpp, src/llama-sampler.cpp, the surprise is that among the kept symbols; the paper takes it before.
    Their tau of 5 bits is nearly that of a draw among all characters, log2(83) = 6.4; the models here are near 2 bits.
    """

    params: Mapping[str, Param] = {
        "mirostat": Param(0, "version 1 or 2 of Mirostat; 0: off", dtype="int64", low=0, high=2),
        "mirostat_tau": Param(2.0, "surprise to aim at, in bits a symbol; for characters about 2", low=0, high=20),
        "mirostat_eta": Param(0.1, "how fast Mirostat adapts", low=0, high=1),
    }
    state: Mapping[str, State] = {"mu": State((1,))}
    switch = "mirostat"
    place = "last"

    def start(self, xp: Any, params: Arrays) -> dict[str, Array]:
        return {"mu": 2.0 * params["mirostat_tau"]}

    def apply(
        self, xp: Any, logits: Array, params: Arrays, state: Arrays, noise: Array | None, tables: Arrays
    ) -> tuple[Array, Arrays]:
        version, mu = params["mirostat"], xp.astype(state["mu"], xp.float64)
        fixed_count = xp.where(version == 0, self.vocab_size, xp.ones_like(version))
        count = xp.where(version == 1, self._count_kept(xp, logits, mu), fixed_count)
        is_unsurprising = (self._surprise(xp, logits) <= mu) & (version == 2)
        return xp.where(keep_largest(xp, logits, count) | is_unsurprising, logits, -xp.inf), state

    def accept(
        self, xp: Any, token: Array, logits: Array, params: Arrays, state: Arrays, tables: Arrays, new: Array
    ) -> Arrays:
        surprise = xp.take_along_axis(self._surprise(xp, logits), token[:, None], axis=1)
        # It is not finite for a forced symbol that was masked, and where all symbols are.
        excess = xp.where(new & (surprise < xp.inf), xp.astype(surprise, xp.float32) - params["mirostat_tau"], 0.0)
        return {"mu": state["mu"] - params["mirostat_eta"] * excess}

    def _surprise(self, xp: Any, logits: Array) -> Array:
        """Return the surprise of each symbol in bits, float64 [N, V]: inf where it is masked, NaN where all are."""
        logits = xp.astype(logits, xp.float64)
        distances = logits - xp.max(logits, axis=1, keepdims=True)
        return (xp.log(xp.sum(xp.exp(distances), axis=1, keepdims=True)) - distances) / LOG_2

    def _count_kept(self, xp: Any, logits: Array, mu: Array) -> Array:
        """Return how many of the most probable symbols version 1 keeps, int64 [N, 1]; it may exceed V."""
        ranks, log_size = min(MAX_RANKS, self.vocab_size), math.log(max(self.vocab_size, 2))
        ranked = xp.astype(xp.sort(-logits, axis=1), xp.float64)  # the most probable first
        is_pair = ranked[:, 1:ranks] < xp.inf
        # The logarithm of the ratio of two probabilities is the difference of their logits.
        log_ratios = xp.where(is_pair, ranked[:, 1:ranks] - ranked[:, : ranks - 1], 0.0)
        log_ranks = xp.asarray([math.log((i + 1) / i) for i in range(1, ranks)], dtype=xp.float64)[None, :]
        ratio_sum = xp.sum(log_ranks * log_ratios, axis=1, keepdims=True)
        square_sum = xp.sum(xp.where(is_pair, log_ranks * log_ranks, 0.0), axis=1, keepdims=True)
        # The first pair alone gives log(2)**2 = 0.48; the bound prevents 0 / 0 where there is none.
        exponent = xp.clip(ratio_sum / xp.maximum(square_sum, 0.1), *EXPONENT_BOUNDS)
        # With x = e log(V), e / (1 - V**-e) is x / (1 - exp(-x)) / log(V). At x = 0, where it is 0 / 0, it has no jump.
        x = (exponent - 1.0) * log_size
        x = xp.where(xp.abs(x) < SMALLEST_X, SMALLEST_X, x)
        log_count = (xp.log(x / (1.0 - xp.exp(-x))) - math.log(log_size) + mu * LOG_2) / exponent
        # `keep_largest` keeps all symbols for any count from V on, so the upper bound only prevents an overflow.
        return xp.astype(xp.floor(xp.exp(xp.clip(log_count, 0.0, log_size + 1.0))), xp.int64)
