"""The link bias: make chosen symbols more or less probable."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np

from gentext.config import per_run
from gentext.errors import ConfigError
from gentext.files.escapes import decode_escapes
from gentext.files.reading import parse_json
from gentext.interfaces import Tokenizer
from gentext.plugins.strategies.symbols import find_symbol, read_text
from gentext.strategy import Array, Arrays, Strategy, Table

#: The largest amount that a logit can be changed by.
MAX_BIAS = 1000.0
FILE_FORM = 'a JSON object of symbols and numbers, such as {"e": -2, "\\n": 1.5}'
#: One ``SYMBOL:NUMBER``; a symbol may be a comma or a colon.
PAIR = re.compile(r"(.*?):([-+0-9.eE]+)(?:,|$)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class BiasConfig:
    """Options of the link ``bias``."""

    logit_bias: str = per_run("")
    """What to add to the logits of symbols: ``SYMBOL:NUMBER`` with commas, such as ``e:-2,\\n:1.5``; ``:-2`` is for the
    end of a record."""
    logit_bias_file: str = per_run("")
    """A JSON file that maps symbols to such numbers; `logit_bias` overrides it."""


class Bias(Strategy):
    """Add a number to the logits of chosen symbols: logit + bias.

    As ``logit_bias`` of llama.cpp and of most interfaces of language models, which take the ids of tokens; here
    symbols are written as text. A masked symbol stays masked.
    """

    Config = BiasConfig
    place = "penalty"

    def __init__(self, config: BiasConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.tables = {"bias": Table((vocab_size,))}

    def make_tables(self, tokenizer: Any, options: BiasConfig) -> dict[str, Array]:
        bias = np.zeros(self.vocab_size, np.float32)
        if options.logit_bias_file:
            add_biases(
                bias, read_biases(options.logit_bias_file), tokenizer, f"logit_bias_file {options.logit_bias_file}"
            )
        if options.logit_bias:
            add_biases(bias, parse_biases(options.logit_bias), tokenizer, f"logit_bias {options.logit_bias}")
        return {"bias": bias}

    def apply(
        self, xp: Any, logits: Array, params: Arrays, state: Arrays, noise: Array | None, tables: Arrays
    ) -> tuple[Array, Arrays]:
        return logits + tables["bias"][None, :], state


def add_biases(bias: Array, biases: dict[str, float], tokenizer: Tokenizer, option: str) -> None:
    """Set the numbers of symbols in ``bias`` [V]; raise ConfigError for an unknown symbol or a number out of range."""
    for symbol, number in biases.items():
        token = find_symbol(tokenizer, symbol, option)
        if not -MAX_BIAS <= number <= MAX_BIAS:
            raise ConfigError(
                f"{option}: {number:g} for {symbol!r}; expected a number from {-MAX_BIAS:g} to {MAX_BIAS:g}"
            )
        bias[token] = number


def parse_biases(text: str) -> dict[str, float]:
    """Return the numbers of ``SYMBOL:NUMBER,...`` by symbol; raise ConfigError for another form."""
    biases: dict[str, float] = {}
    position = 0
    while position < len(text):
        pair = PAIR.match(text, position)
        try:
            if pair is None:
                raise ValueError
            biases[decode_escapes(pair[1])] = float(pair[2])
        except ValueError:
            raise ConfigError(f"logit_bias {text}: expected SYMBOL:NUMBER with commas, as in e:-2,\\n:1.5") from None
        position = pair.end()
    return biases


def read_biases(path: str) -> dict[str, float]:
    """Return the numbers of a JSON file by symbol; raise ConfigError for a file of another form."""
    try:
        biases = parse_json(read_text(path, "logit_bias_file", FILE_FORM))
    except ValueError as error:
        raise ConfigError(f"logit_bias_file {path}: no JSON ({error}); expected {FILE_FORM}") from None
    if not isinstance(biases, dict):
        raise ConfigError(f"logit_bias_file {path}: expected {FILE_FORM}")
    for symbol, number in biases.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ConfigError(f"logit_bias_file {path}: {number!r} for {symbol!r}; expected a number")
    return biases
