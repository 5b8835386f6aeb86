"""Reads which symbols a user means, for the links that have something for each symbol."""

from __future__ import annotations

from pathlib import Path

from gentext.errors import ConfigError
from gentext.files.reading import read_file
from gentext.interfaces import Tokenizer

#: Bytes of a file with symbols, at most.
MAX_FILE_BYTES = 2**20


def find_symbol(tokenizer: Tokenizer, text: str, option: str) -> int:
    """Return the token whose symbol is a text; raise ConfigError when the model has none."""
    symbol_bytes = text.encode()
    for token in range(tokenizer.vocab_size):
        if token != tokenizer.unknown and tokenizer.token_bytes(token) == symbol_bytes:
            return token
    raise ConfigError(f"{option}: the model has no symbol {text!r}")


def find_symbols_with(tokenizer: Tokenizer, character: str, option: str) -> list[int]:
    """Return the tokens whose symbols contain a character; raise ConfigError when none does."""
    tokens = [
        token
        for token in range(tokenizer.vocab_size)
        if token != tokenizer.unknown and character.encode() in tokenizer.token_bytes(token)
    ]
    if not tokens:
        raise ConfigError(f"{option}: the model has no symbol with the character {character!r}")
    return tokens


def read_text(path: str, option: str, expected: str) -> str:
    """Return the content of a file that an option names, or raise ConfigError that says what was expected."""
    try:
        return read_file(Path(path), MAX_FILE_BYTES).decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{option} {path}: cannot be read ({error.strerror}); expected {expected}") from None
    except ValueError:  # not UTF-8, or a path with a zero byte
        raise ConfigError(f"{option} {path!r}: no UTF-8 text; expected {expected}") from None
