"""fewer and running: the mistake of one shows in a function of gentext, that of the other in a helper of its own."""

from gentext import Strategy, keep_largest
from gentext_shrink.helpers import running_sum


class Fewer(Strategy):
    """keep_largest wants a count for each row, not one number."""

    def apply(self, xp, logits, params, state, noise, tables):
        keep = keep_largest(xp, logits, 5)
        return xp.where(keep, logits, -xp.inf), state


class Running(Strategy):
    """The mistake is in a module that this one calls."""

    def apply(self, xp, logits, params, state, noise, tables):
        return logits + 0.0 * running_sum(xp, xp.zeros_like(logits)), state
