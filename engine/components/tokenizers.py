"""Checks what a tokenizer hands over: symbols, state and ids."""

from __future__ import annotations

import json

import numpy as np

from gentext.errors import PluginError, reason
from gentext.files.reading import check_data
from gentext.values import Ids, Tokenizer


def read_symbols(name: str, tokenizer: Tokenizer) -> list[bytes]:
    """Return the bytes of each symbol of a tokenizer, in the order of the ids."""
    if not isinstance(tokenizer, Tokenizer):
        raise PluginError(
            f"the tokenizer {name!r} made {type(tokenizer).__name__}, which lacks methods of a tokenizer "
            f"(docs/hooks.md lists them)"
        )
    vocab_size: object = tokenizer.vocab_size
    if isinstance(vocab_size, bool) or not isinstance(vocab_size, int | np.integer) or vocab_size < 1:
        raise PluginError(f"the tokenizer {name!r} has vocab_size {vocab_size!r}; expected a whole number from 1")
    symbols = []
    for token in range(int(vocab_size)):
        symbol: object = tokenizer.token_bytes(token)
        if not isinstance(symbol, bytes):
            raise PluginError(
                f"the tokenizer {name!r}: token_bytes({token}) returned {type(symbol).__name__}, expected bytes"
            )
        symbols.append(symbol)
    return symbols


def check_tokenizer(name: str, tokenizer: Tokenizer) -> None:
    """Check what a run stores of a tokenizer: its symbols, its unknown token, and its state."""
    symbol_count = len(read_symbols(name, tokenizer))
    unknown: object = tokenizer.unknown
    if unknown is not None and not (isinstance(unknown, int | np.integer) and 0 <= unknown < symbol_count):
        raise PluginError(f"the tokenizer {name!r} has the unknown token {unknown!r}; expected an id, or None")
    state: object = tokenizer.state()
    if not isinstance(state, dict):
        raise PluginError(f"the tokenizer {name!r}: state() returned {type(state).__name__}, expected a dict")
    try:
        check_data(state)
        json.dumps(state, ensure_ascii=False, allow_nan=False).encode()
        problem = None if _has_text_keys(state) else "a key of a dict is no text"
    except (TypeError, ValueError, RecursionError) as error:
        problem = reason(error)
    if problem:
        raise PluginError(
            f"the tokenizer {name!r}: state() is not standard JSON ({problem}); it could not be read back"
        )


def _has_text_keys(json_value: object) -> bool:
    """Return whether all keys within JSON data are texts: JSON would turn others into texts."""
    if isinstance(json_value, dict):
        return all(isinstance(key, str) for key in json_value) and all(map(_has_text_keys, json_value.values()))
    return not isinstance(json_value, list | tuple) or all(map(_has_text_keys, json_value))


def check_ids(name: str, ids: object, vocab_size: int) -> Ids:
    """Return the ids into which a tokenizer encoded a text."""
    array = np.asarray(ids)
    is_row_of_integers = array.ndim == 1 and (array.dtype.kind in "iu" or not array.size)
    if not is_row_of_integers or (array.size and not 0 <= array.min() <= array.max() < vocab_size):
        raise PluginError(
            f"the tokenizer {name!r} must encode a text as whole numbers from 0 to {vocab_size - 1} in one row, "
            f"and does not"
        )
    return array
