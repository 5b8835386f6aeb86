"""exclude: some characters are never written, whatever the model wants."""

import dataclasses

from gentext import Strategy, Table, per_run


@dataclasses.dataclass(frozen=True)
class ExcludeConfig:
    """Options of the link ``exclude``."""

    characters: str = per_run("")
    """The characters that must not be written."""


class Exclude(Strategy):
    """The table of symbols with an excluded character is made once a request, in Python."""

    Config = ExcludeConfig
    place = "mask"

    def __init__(self, config, vocab_size):
        super().__init__(config, vocab_size)
        self.tables = {"excluded": Table((vocab_size,), "bool", False)}

    def make_tables(self, tokenizer, options):
        excluded = [character.encode() for character in options.characters]
        symbols = [tokenizer.token_bytes(token) for token in range(self.vocab_size)]
        return {"excluded": [any(character in symbol for character in excluded) for symbol in symbols]}

    def apply(self, xp, logits, params, state, noise, tables):
        return xp.where(tables["excluded"][None, :], xp.full_like(logits, -xp.inf), logits), state
