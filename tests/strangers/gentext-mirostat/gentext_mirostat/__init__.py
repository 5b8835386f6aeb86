"""mirostat: keep the text as surprising as was asked for, whatever the model feels like.

Basu et al., "Mirostat: a neural text decoding algorithm that directly controls perplexity", ICLR 2021.
"""

from typing import ClassVar

from gentext import Param, State, Strategy, hookimpl

LOG2 = 0.6931471805599453


class Mirostat(Strategy):
    """Version 2: cut off what is more surprising than mu, and move mu by how surprising the draw was."""

    params: ClassVar = {
        "tau": Param(0.0, "bits of surprise a character to aim at, 1.5 to 2.5 for most texts; 0: off", low=0, high=20),
        "eta": Param(0.1, "how fast mu follows", low=0, high=1),
    }
    state: ClassVar = {"mu": State((1,))}
    place = "mask"

    def start(self, xp, params):
        return {"mu": 2.0 * params["tau"]}

    def apply(self, xp, logits, params, state, noise, tables):
        best = xp.max(logits, axis=1, keepdims=True)
        keep = (self._surprise(xp, logits) <= state["mu"]) | (logits == best) | (params["tau"] == 0.0)
        return xp.where(keep, logits, -xp.inf), state

    def accept(self, xp, token, logits, params, state, tables, new):
        surprise = xp.take_along_axis(self._surprise(xp, logits), token[:, None], axis=1)
        moved = state["mu"] - params["eta"] * (surprise - params["tau"])
        return {"mu": xp.where(new & (surprise < xp.inf), moved, state["mu"])}

    def _surprise(self, xp, logits):
        """Return bits [N, V]: infinite where a symbol is masked."""
        best = xp.max(logits, axis=1, keepdims=True)
        total = xp.sum(xp.exp(logits - best), axis=1, keepdims=True)
        return (xp.log(total) + best - logits) / LOG2


@hookimpl
def register_strategies(register):
    register("mirostat", "gentext_mirostat:Mirostat", summary="keep the text as surprising as was asked for")
