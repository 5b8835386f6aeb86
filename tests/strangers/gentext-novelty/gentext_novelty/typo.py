"""typo: now and then a row forgets what it wanted to write, and hits any key that is left."""

from typing import ClassVar

from gentext import Param, Strategy


class Typo(Strategy):
    """Asks for a uniform number of its own, so that the draw's stay what they were."""

    params: ClassVar = {"typo": Param(0.0, "how often any key will do, from 0 to 1", low=0, high=1)}
    uniforms = 1
    place = "shape"

    def apply(self, xp, logits, params, state, noise, tables):
        flat = xp.where(logits > -xp.inf, xp.zeros_like(logits), logits)
        return xp.where(noise < params["typo"], flat, logits), state
