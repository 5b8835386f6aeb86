"""The check for tokenizers: texts become ids, and ids the same texts again."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from gentext.components import tokenizers
from gentext.config import config_class
from gentext.errors import PrimeError
from gentext.interfaces import Ids, Tokenizer, TokenizerClass
from gentext.testing.rules import name_of, report_broken_rules, require

#: What a tokenizer learns from, in the pieces in which a long text comes.
PIECES = [
    "The cat sat on the mat, the dog on the log.\n",
    "“Naïve!” cried the façade; it was 1877\t(or 1878).\n",
    "a aa aaa aaaa the the the\n",
]
#: What it is asked to encode besides: texts that it has not learned from, of all lengths.
UNSEEN_TEXTS = [
    " ",
    "cat",
    "the mat",
    "zebra \N{GRINNING FACE}",
    "\x00\x7f",
    "Ångström, 東京",
    "e\N{COMBINING ACUTE ACCENT}",
]


def check_tokenizer(cls: TokenizerClass, config: Any = None, pieces: list[str] | None = None) -> None:
    """Check the rules for tokenizers; AssertionError names the first that is broken.

    ``config`` defaults to ``cls.Config()``. ``pieces`` is the text to learn from, by default a few lines.
    """
    name = name_of(cls)
    config = config_class(cls)() if config is None else config
    pieces = PIECES if pieces is None else pieces
    tokenizer = cls.build(pieces, config)
    require(tokenizer is not None, f"{name}: build returned None, expected a tokenizer")
    with report_broken_rules():
        tokenizers.check_tokenizer(name, tokenizer)
    texts = ["", *pieces, "".join(pieces), *UNSEEN_TEXTS]
    _check_training_text(name, tokenizer, pieces)
    _check_texts(name, tokenizer, texts)
    _check_repeated(name, tokenizer, texts)
    _check_saved(name, cls, tokenizer, texts)
    _check_built_again(name, cls, tokenizer, config, pieces)


def _encode(name: str, tokenizer: Tokenizer, text: str) -> Ids | None:
    """Return the ids of a text, checked; None where the tokenizer refuses a text with unknown characters."""
    try:
        ids = tokenizer.encode(text)
    except PrimeError:
        return None
    with report_broken_rules():
        return tokenizers.check_ids(name, ids, tokenizer.vocab_size)


def _decode(tokenizer: Tokenizer, ids: Ids) -> bytes:
    return b"".join(tokenizer.token_bytes(int(token)) for token in ids)


def _check_training_text(name: str, tokenizer: Tokenizer, pieces: list[str]) -> None:
    """The text that a tokenizer has learned from must not fail to be encoded: the run would end there."""
    for piece in pieces:
        ids = _encode(name, tokenizer, piece)
        require(ids is not None, f"{name}: encode refuses the text that it was built from, {piece!r:.60}")
        require(ids is not None and len(ids) > 0, f"{name}: encode gives no ids for {piece!r:.60}")


def _check_texts(name: str, tokenizer: Tokenizer, texts: list[str]) -> None:
    """Check round trips, and what becomes of unknown characters."""
    for text in texts:
        positions = tokenizer.unknown_at(text)
        are_positions = list(positions) == sorted({position for position in positions if 0 <= position < len(text)})
        require(
            are_positions,
            f"{name}: unknown_at({text!r:.60}) is {list(positions)}; expected rising positions in the text",
        )
        ids = _encode(name, tokenizer, text)
        if ids is None:
            require(positions, f"{name}: encode refuses {text!r:.60}, in which unknown_at finds nothing unknown")
            require(tokenizer.unknown is None, f"{name}: encode refuses {text!r:.60}, but there is an unknown token")
            known_text = "".join(text[index] for index in range(len(text)) if index not in set(positions))
            ids, positions, text = _encode(name, tokenizer, known_text), [], known_text
            require(ids is not None, f"{name}: encode refuses {text!r:.60}, without the characters at unknown_at")
        assert ids is not None
        if not positions:
            _check_round_trip(name, tokenizer, text, ids)
        else:
            require(
                tokenizer.unknown is not None,
                f"{name}: encode accepts {text!r:.60}, in which unknown_at finds {len(positions)} unknown characters; "
                f"without an unknown token it must raise PrimeError",
            )
            require(
                int(np.count_nonzero(ids == tokenizer.unknown)) > 0,
                f"{name}: {text!r:.60} has unknown characters, but its ids have no unknown token",
            )


def _check_round_trip(name: str, tokenizer: Tokenizer, text: str, ids: Ids) -> None:
    if tokenizer.unknown is not None:
        is_unknown = bool((ids == tokenizer.unknown).any())
        require(not is_unknown, f"{name}: unknown_at finds nothing in {text!r:.60}, but its ids have the unknown token")
    decoded = _decode(tokenizer, ids).decode("utf-8", "replace")
    require(decoded == text, f"{name}: the bytes of the ids join to {decoded!r:.60}, expected the text {text!r:.60}")


def _check_repeated(name: str, tokenizer: Tokenizer, texts: list[str]) -> None:
    """Encoding must not depend on what was encoded before, and must not change the state."""
    state = json.dumps(tokenizer.state())
    first_ids = [_encode(name, tokenizer, text) for text in texts]
    second_ids = [_encode(name, tokenizer, text) for text in reversed(texts)][::-1]
    for text, first, second in zip(texts, first_ids, second_ids, strict=True):
        require(_same_ids(first, second), f"{name}: encode gives other ids for {text!r:.60} when it is called again")
    require(json.dumps(tokenizer.state()) == state, f"{name}: encode changes the state")


def _same_ids(first: Ids | None, second: Ids | None) -> bool:
    return first is second if first is None or second is None else np.array_equal(first, second)


def _check_saved(name: str, cls: TokenizerClass, tokenizer: Tokenizer, texts: list[str]) -> None:
    """A tokenizer that is built from its stored state must be the same."""
    state = json.loads(json.dumps(tokenizer.state(), ensure_ascii=False))
    restored = cls.from_state(state)
    with report_broken_rules():
        symbols, restored_symbols = (tokenizers.read_symbols(name, each) for each in (tokenizer, restored))
    require(
        len(symbols) == len(restored_symbols),
        f"{name}: from_state(state()) has {len(restored_symbols)} symbols, expected {len(symbols)}",
    )
    require(symbols == restored_symbols, f"{name}: from_state(state()) has other bytes for its symbols")
    require(
        restored.unknown == tokenizer.unknown,
        f"{name}: from_state(state()) has the unknown token {restored.unknown}, expected {tokenizer.unknown}",
    )
    require(restored.state() == state, f"{name}: from_state(state()) has another state")
    for text in texts:
        ids, restored_ids = _encode(name, tokenizer, text), _encode(name, restored, text)
        require(_same_ids(ids, restored_ids), f"{name}: from_state(state()) gives other ids for {text!r:.60}")


def _check_built_again(name: str, cls: TokenizerClass, tokenizer: Tokenizer, config: Any, pieces: list[str]) -> None:
    """The same text must give the same tokenizer, also where its pieces can be read but once at a time."""
    state = json.dumps(cls.build(_Pieces(pieces), config).state())
    require(
        state == json.dumps(tokenizer.state()),
        f"{name}: build gives another state when it reads the same text again; expected it to depend on the text alone",
    )


class _Pieces:
    """A text that is read anew each time that it is iterated over, as a file is; it is no list."""

    def __init__(self, pieces: list[str]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Any:
        return iter(self._pieces)
