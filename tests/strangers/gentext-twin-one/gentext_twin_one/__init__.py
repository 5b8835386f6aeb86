"""Alone it is fine; with its twin, nobody knows which of them is meant."""

from gentext import Strategy, hookimpl


class Twin(Strategy):
    """Changes nothing."""

    def apply(self, xp, logits, params, state, noise, tables):
        return logits, state


@hookimpl
def register_strategies(register):
    register("twin", Twin, summary="the twin from gentext-twin-one")
