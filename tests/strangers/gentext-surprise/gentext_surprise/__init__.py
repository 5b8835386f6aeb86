"""surprise: keep the surprise of the text near a target, however sure the model is.

Basu et al., "Mirostat: a neural text decoding algorithm that directly controls perplexity", ICLR 2021.
"""

from typing import ClassVar

from gentext import Param, State, Strategy, hookimpl

LOG2 = 0.6931471805599453


class Surprise(Strategy):
    """Mirostat 2: mask the symbols with more surprise than mu, and move mu by the surprise of the drawn symbol."""

    params: ClassVar = {
        "tau": Param(0.0, "bits of surprise a character to aim at, 1.5 to 2.5 for most texts; 0: off", low=0, high=20),
        "eta": Param(0.1, "how fast mu follows", low=0, high=1),
    }
    state: ClassVar = {"mu": State((1,))}
    place = "mask"

    def start(self, xp, params):
        return {"mu": 2.0 * params["tau"]}

    def apply(self, xp, logits, params, state, noise, tables):
        largest = xp.max(logits, axis=1, keepdims=True)
        mask = (self._surprise(xp, logits) <= state["mu"]) | (logits == largest) | (params["tau"] == 0.0)
        return xp.where(mask, logits, -xp.inf), state

    def accept(self, xp, token, logits, params, state, tables, new):
        surprise = xp.take_along_axis(self._surprise(xp, logits), token[:, None], axis=1)
        moved = state["mu"] - params["eta"] * (surprise - params["tau"])
        return {"mu": xp.where(new & (surprise < xp.inf), moved, state["mu"])}

    def _surprise(self, xp, logits):
        """Return the surprise -log2 p of each symbol in bits [N, V]: infinite where it is masked."""
        largest = xp.max(logits, axis=1, keepdims=True)
        total = xp.sum(xp.exp(logits - largest), axis=1, keepdims=True)
        return (xp.log(total) + largest - logits) / LOG2


@hookimpl
def register_strategies(register):
    register("surprise", "gentext_surprise:Surprise", summary="keep the text as surprising as was asked for")
