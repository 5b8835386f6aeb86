"""The link adaptive_p: prefer symbols whose probability is near a target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gentext.plugins.strategies.distribution import log_probabilities
from gentext.strategy import Array, Arrays, Param, State, Strategy

#: The distance from the target that counts as 1.
DISTRIBUTION_WIDTH = 0.3
#: The logit of a symbol whose probability is exactly the target.
PEAK_LOGIT = 5.0
#: How steeply logits fall with the distance.
SHARPNESS = 10.0


class AdaptiveP(Strategy):
    """Prefer symbols whose probability p is near a target, which moves against what was chosen before.

    d = abs(p - t) / 0.3, and the new logit is 5 - 10 d**2 / (1 + d), for all symbols that are not masked. Here
    t = 2 target - mean, within 0 to 1, and the mean is that of the probabilities p of the chosen symbols, in which
    each earlier one counts ``decay`` times as much as the next. It begins at the target.

    ``llama_sampler_adaptive_p`` in src/llama-sampler.cpp of ggml-org/llama.cpp, pull request 17927. The decay of
    llama.cpp, 0.9, remembers ten symbols, which are ten words or so there. Here it is 0.98, for 50 characters. Symbols
    far below the target become more probable than they were, so a link such as min_p belongs before this one.
    """

    params: Mapping[str, Param] = {
        "adaptive_target": Param(-1.0, "prefer symbols near this probability; below 0: off", low=-1, high=1),
        "adaptive_decay": Param(0.98, "what it remembers: 1 / (1 - decay) symbols, here 50", low=0, high=0.99),
    }
    switch = "adaptive_target"
    place = "last"

    def __init__(self, config: Any, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        # `accept` gets the logits after this link, and needs the probabilities before it.
        self.state = {"probabilities": State((vocab_size,)), "weighted_sum": State((1,)), "total_weight": State((1,))}

    def start(self, xp: Any, params: Arrays) -> dict[str, Array]:
        total_weight = 1.0 / (1.0 - params["adaptive_decay"])
        return {"weighted_sum": params["adaptive_target"] * total_weight, "total_weight": total_weight}

    def apply(
        self, xp: Any, logits: Array, params: Arrays, state: Arrays, noise: Array | None, tables: Arrays
    ) -> tuple[Array, Arrays]:
        target = params["adaptive_target"]
        probabilities = xp.exp(log_probabilities(xp, logits))
        mean = state["weighted_sum"] / state["total_weight"]
        adapted_target = xp.astype(xp.clip(2.0 * target - mean, 0.0, 1.0), xp.float64)
        distance = xp.abs(probabilities - adapted_target) / DISTRIBUTION_WIDTH
        new_logits = xp.astype(PEAK_LOGIT - SHARPNESS * distance * distance / (1.0 + distance), xp.float32)
        is_changed = (logits > -xp.inf) & (target >= 0.0)
        new_state = {**state, "probabilities": xp.astype(probabilities, xp.float32)}
        return xp.where(is_changed, new_logits, logits), new_state

    def accept(
        self, xp: Any, token: Array, logits: Array, params: Arrays, state: Arrays, tables: Arrays, new: Array
    ) -> Arrays:
        decay = params["adaptive_decay"]
        probability = xp.take_along_axis(state["probabilities"], token[:, None], axis=1)
        weighted_sum = probability + decay * state["weighted_sum"]
        total_weight = 1.0 + decay * state["total_weight"]
        return {
            "probabilities": state["probabilities"],
            "weighted_sum": xp.where(new, weighted_sum, state["weighted_sum"]),
            "total_weight": xp.where(new, total_weight, state["total_weight"]),
        }
