"""typo: now and then a row draws any symbol that is not masked, all with equal probability."""

from typing import ClassVar

from gentext import Param, Strategy


class Typo(Strategy):
    """Uses a uniform number of its own, so that the link does not change the numbers of the draw."""

    params: ClassVar = {"typo": Param(0.0, "how often any key will do, from 0 to 1", low=0, high=1)}
    uniforms = 1
    place = "shape"

    def apply(self, xp, logits, params, state, noise, tables):
        flat = xp.where(logits > -xp.inf, xp.zeros_like(logits), logits)
        return xp.where(noise < params["typo"], flat, logits), state
