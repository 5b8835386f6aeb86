"""The link dry: make symbols less probable that would continue a long repetition."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gentext.config import Positive, per_run
from gentext.errors import ConfigError
from gentext.files.escapes import decode_escapes
from gentext.plugins.strategies.repeats import advance_matches, longest_matches, repeat_states
from gentext.strategy import Array, Arrays, Param, Strategy, Table

#: The logarithm of the largest penalty. A larger one would overflow float32, and could mask every symbol.
LARGEST_LOG_PENALTY = 87.0


@dataclasses.dataclass(frozen=True)
class DryConfig:
    """Options of the link ``dry``."""

    window: Positive = 512
    """Number of recent symbols in which repetitions are found, those of the prime included."""
    dry_sequence_breakers: str = per_run('\n:"*')
    """Characters that end every repetition, one after another; an empty text: none."""


class Dry(Strategy):
    """Don't repeat yourself: a penalty that grows with the length of the repetition that a symbol would continue.

    A symbol s that stands in the window behind a text of n symbols which also ends the text so far (the longest such
    text counts) loses multiplier * base**(n - allowed_length) from its logit, if n >= allowed_length. No repetition
    reaches over a sequence breaker, and breakers themselves are not penalised. The penalty is at most e**87, so that
    it stays finite.

    p-e-w, pull request 5677 of oobabooga/text-generation-webui; pi6am, pull request 982 of LostRuins/koboldcpp;
    ``llama_sampler_dry`` in src/llama-sampler.cpp of ggml-org/llama.cpp, with which the results agree. A breaker is one
    character here. The defaults for words, base 1.75 and length 2, would penalise ordinary spelling, so these are
    larger. Only llama.cpp's largest exponent differs: it is 88.7 / log(base), without the multiplier.
    """

    Config = DryConfig
    params: Mapping[str, Param] = {
        "dry_multiplier": Param(0.0, "penalty of a repetition of dry_allowed_length symbols; 0: off", low=0, high=100),
        "dry_base": Param(1.2, "how much each further symbol multiplies the penalty", low=1, high=100),
        "dry_allowed_length": Param(
            16, "repetitions shorter than this are free; for characters 12 or more", dtype="int64", low=1
        ),
    }
    switch = "dry_multiplier"
    place = "penalty"

    def __init__(self, config: DryConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.state = repeat_states(config.window)
        self.tables = {"breakers": Table((vocab_size,), "bool", False)}

    def make_tables(self, tokenizer: Any, options: DryConfig) -> dict[str, Array]:
        symbols = [tokenizer.token_bytes(token) for token in range(self.vocab_size)]
        breakers = [False] * self.vocab_size
        for character in decode_escapes(options.dry_sequence_breakers):
            contains_character = [character.encode() in symbol for symbol in symbols]
            # A character that the model does not know never occurs. One of several symbols would be overlooked.
            if not any(contains_character) and not tokenizer.unknown_at(character):
                raise ConfigError(
                    f"dry_sequence_breakers has {character!r}, which the tokenizer writes as several symbols; "
                    f"expected characters that are within one symbol"
                )
            breakers = [a or b for a, b in zip(breakers, contains_character, strict=True)]
        return {"breakers": breakers}

    def apply(
        self, xp: Any, logits: Array, params: Arrays, state: Arrays, noise: Array | None, tables: Arrays
    ) -> tuple[Array, Arrays]:
        lengths = longest_matches(xp, state, self.vocab_size)
        allowed_length = xp.astype(params["dry_allowed_length"], xp.float32)
        # The logarithm of a multiplier of 0 is -inf, which gives a penalty of 0.
        log_penalty = xp.log(params["dry_multiplier"]) + (lengths - allowed_length) * xp.log(params["dry_base"])
        penalty = xp.exp(xp.minimum(log_penalty, LARGEST_LOG_PENALTY))
        is_penalised = (lengths >= allowed_length) & ~tables["breakers"][None, :]
        return xp.where(is_penalised, logits - penalty, logits), state

    def accept(
        self, xp: Any, token: Array, logits: Array, params: Arrays, state: Arrays, tables: Arrays, new: Array
    ) -> Arrays:
        return advance_matches(xp, state, token, breaks=xp.take(tables["breakers"], token, axis=0))
