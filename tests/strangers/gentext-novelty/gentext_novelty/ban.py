"""ban: some characters are never written, whatever the model wants."""

import dataclasses

from gentext import Strategy, Table, per_run


@dataclasses.dataclass(frozen=True)
class BanConfig:
    """Options of the link ``ban``."""

    characters: str = per_run("")
    """The characters that must not be written."""


class Ban(Strategy):
    """The table of symbols with a banned character is made once a request, in Python."""

    Config = BanConfig
    place = "mask"

    def __init__(self, config, vocab_size):
        super().__init__(config, vocab_size)
        self.tables = {"banned": Table((vocab_size,), "bool", False)}

    def make_tables(self, tokenizer, options):
        banned = [character.encode() for character in options.characters]
        symbols = [tokenizer.token_bytes(token) for token in range(self.vocab_size)]
        return {"banned": [any(character in symbol for character in banned) for symbol in symbols]}

    def apply(self, xp, logits, params, state, noise, tables):
        return xp.where(tables["banned"][None, :], xp.full_like(logits, -xp.inf), logits), state
