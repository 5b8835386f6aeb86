"""The link ban: some characters are never written."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from gentext.config import per_run
from gentext.errors import ConfigError
from gentext.files.escapes import decode_escapes
from gentext.plugins.strategies.symbols import find_symbols_with, read_text
from gentext.strategy import Array, Arrays, Strategy, Table


@dataclasses.dataclass(frozen=True)
class BanConfig:
    """Options of the link ``ban``."""

    ban: str = per_run("")
    """Characters that are never written, without separators."""
    ban_file: str = per_run("")
    """A text file whose characters are banned too. Its line ends are not banned; a ``\\n`` in it bans them."""


class Ban(Strategy):
    """Mask every symbol that contains one of the banned characters: logit = -inf.

    As a logit bias of -inf in llama.cpp, and ``suppress_tokens`` of transformers. A position at which only banned
    symbols are left stays as it is, so that the text can go on. The prime may contain banned characters.
    """

    Config = BanConfig
    place = "penalty"

    def __init__(self, config: BanConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.tables = {"banned": Table((vocab_size,), "bool")}

    def make_tables(self, tokenizer: Any, options: BanConfig) -> dict[str, Array]:
        if not (options.ban or options.ban_file):
            return {}
        banned = np.zeros(self.vocab_size, np.bool_)
        characters = dict.fromkeys(decode_escapes(options.ban), f"ban {options.ban}")
        if options.ban_file:
            option = f"ban_file {options.ban_file}"
            lines = read_text(options.ban_file, "ban_file", "a text with the characters to ban").splitlines()
            characters |= {character: option for line in lines for character in decode_escapes(line)}
        for character, option in characters.items():
            banned[find_symbols_with(tokenizer, character, option)] = True
        tokens = [token for token in range(self.vocab_size) if token != tokenizer.unknown]
        writable = [token for token in tokens if tokenizer.token_bytes(token)]  # not the end of a record
        if banned[writable].all():
            raise ConfigError("ban: every symbol of the model is banned; leave at least one")
        return {"banned": banned}

    def apply(
        self, xp: Any, logits: Array, params: Arrays, state: Arrays, noise: Array | None, tables: Arrays
    ) -> tuple[Array, Arrays]:
        allowed_logits = xp.where(tables["banned"][None, :], -xp.inf, logits)
        is_choice = xp.max(allowed_logits, axis=1, keepdims=True) > -xp.inf
        return xp.where(is_choice, allowed_logits, logits), state
