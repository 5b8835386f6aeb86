"""The link match: the text of a row matches an expression, whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gentext.config import NoConfig
from gentext.matching.match_tables import DONE_STATE, FREE_STATE
from gentext.strategy import Array, Arrays, Param, State, Strategy, Table


class Match(Strategy):
    """Mask every symbol after which the text could not become one that matches within the characters that are left.

    The tables hold the automata of all expressions of a request, see `gentext.matching.match_tables.link_tables`. A row
    stands in a state of them: in ``FREE_STATE`` it follows no expression, or has ended. Where a text may end, symbols
    that would not continue it are not masked, so that they are drawn as often as without this link, and then end the
    row. ``DONE_STATE`` is where nothing can follow: the next draw ends the row, whatever it is.

    Willard and Louf, "Efficient guided generation for large language models", arXiv 2307.09702, for the automaton.
    """

    Config = NoConfig
    params: Mapping[str, Param] = {
        "first_state": Param(FREE_STATE, "the state to begin in", dtype="int64", low=0, is_option=False),
        "budget": Param(0, "characters that the text may have", dtype="int64", low=0, is_option=False),
    }
    switch = "first_state"
    state: Mapping[str, State] = {
        "state": State((), "int64"),
        "left": State((), "int64"),
        "ended": State((), "bool"),
    }
    place = "first"
    ends = "ended"

    def __init__(self, config: NoConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.tables = {
            "next_state": Table((None, vocab_size), "int64"),
            "need": Table((None, vocab_size)),
            "least_need": Table((None,)),
            "characters": Table((vocab_size,), "int64"),
            "states": Table((1,), "int64", neutral=1),
        }

    def start(self, xp: Any, params: Arrays) -> dict[str, Array]:
        return {"state": xp.reshape(params["first_state"], (-1,)), "left": xp.reshape(params["budget"], (-1,))}

    def apply(
        self, xp: Any, logits: Array, params: Arrays, state: Arrays, noise: Array | None, tables: Arrays
    ) -> tuple[Array, Arrays]:
        # A state that the tables lack, which only a foreign caller gives, follows no expression.
        row_state = xp.where(state["state"] < tables["states"], state["state"], FREE_STATE)
        left = xp.astype(state["left"], xp.float32)
        is_forbidden = xp.take(tables["need"], row_state, axis=0) > left[:, None]
        return xp.where(is_forbidden, -xp.inf, logits), {**state, "state": row_state}

    def accept(
        self, xp: Any, token: Array, logits: Array, params: Arrays, state: Arrays, tables: Arrays, new: Array
    ) -> Arrays:
        is_new = new[:, 0]
        next_states = xp.take(tables["next_state"], state["state"], axis=0)
        next_state = xp.take_along_axis(next_states, token[:, None], axis=1)[:, 0]
        left = state["left"] - xp.take(tables["characters"], token, axis=0)
        left = xp.where(left > 0, left, 0)
        is_done = xp.astype(left, xp.float32) < xp.take(tables["least_need"], next_state, axis=0)
        next_state = xp.where(is_done, DONE_STATE, next_state)
        has_ended = (state["state"] != FREE_STATE) & (next_state == FREE_STATE)
        return {
            "state": xp.where(is_new, next_state, state["state"]),
            "left": xp.where(is_new, left, state["left"]),
            "ended": state["ended"] | (has_ended & is_new),
        }
