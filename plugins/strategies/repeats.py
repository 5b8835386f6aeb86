"""What the links that look for repetitions share: recent symbols, and how far each place agrees with the text's end.

At each position of the window stands a symbol of the text, and its match length: how many symbols directly before it
equal the last symbols of the text, in order. In "the cat and the c", the first ``a`` has the match length 5, for
"the c" stands before it and ends the text. Should ``a`` follow, it would continue a repetition of 5 symbols.
"""

from __future__ import annotations

from typing import Any

from gentext.strategy import Array, Arrays, State, largest_per_symbol

#: The longest match before a symbol that does not occur in the window.
ABSENT = -1.0


def repeat_states(window: int) -> dict[str, State]:
    """Return the states that a link declares: the last ``window`` symbols, and their match lengths."""
    return {"window": State((window,), "int64", -1), "match_lengths": State((window,))}


def longest_matches(xp: Any, state: Arrays, vocab_size: int) -> Array:
    """Return the longest match length of each symbol, or ABSENT where it is not in the window: float32 [N, V]."""
    return largest_per_symbol(xp, state["match_lengths"], state["window"], vocab_size, ABSENT)


def advance_matches(xp: Any, state: Arrays, token: Array, breaks: Array | None = None) -> dict[str, Array]:
    """Return the states after ``token`` (int64 [N]); where ``breaks`` (bool [N]) is true, every match begins anew.

    The work at a position is proportional to the window, however long the matches are.
    """
    window, column = state["window"], token[:, None]
    # A match grows by the symbol at its end, and ends with one that differs. The window moves on by one symbol, so
    # the length at a position now belongs to the next symbol of the text, and a match reaches at most back to the
    # first position.
    positions = xp.arange(window.shape[1], dtype=xp.float32)[None, :]
    no_symbol = -2  # an empty place of the window is -1
    matched = column if breaks is None else xp.where(breaks[:, None], no_symbol, column)
    lengths = xp.where(window == matched, xp.minimum(state["match_lengths"] + 1.0, positions), 0.0)
    return {"window": xp.concat([window[:, 1:], column], axis=1), "match_lengths": lengths}
