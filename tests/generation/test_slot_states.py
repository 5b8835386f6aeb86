"""States of rows: a text that is cut anywhere, in any number of parts, is the uncut one, and states are checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from helpers import examples
from hypothesis import example, given
from hypothesis import strategies as st

from gentext.errors import UsageError
from gentext.exported.metadata import Bundle, StateMeta, TokenizerMeta
from gentext.exported.signature import signature
from gentext.generation.rows import RowRequest, RowState
from gentext.generation.slots import Slots
from gentext.generation.stacking import STOP, stop_tables
from gentext.sampling.decoder import DecoderState
from gentext.stop import StopAutomaton

#: Whole characters, parts of some, several at once, and none.
SYMBOLS = [b"a", b"b", "é".encode(), b"", b"ab", b"\xc3", b"\xa9", b"\xff", b"a\xc3", "b\u20aca".encode()]
LETTERS = [b"a", b"b", "é".encode(), "€".encode()]


class NoiseGenerator:
    """A generator whose tokens depend on the noise and on all that was read, as those of a graph do."""

    positions = None

    def __init__(self, symbols: Sequence[bytes]) -> None:
        state = StateMeta("h", [None], "float32")
        self.bundle = Bundle("generator", TokenizerMeta("fake", {}), [*symbols], [state], 0, [], {})
        self.signature = signature(self.bundle)

    def call(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        vocab_size, forced = self.bundle.vocab_size, feeds["forced"]
        token, h, stop_state, ended = (np.array(feeds[name]) for name in ("token", "h", "stop_state", "ended"))
        table, final = (
            feeds.get("stop_table", np.zeros((1, vocab_size), np.int64)),
            feeds.get("stop_final", np.zeros(1)),
        )
        tokens = np.empty_like(forced)
        for position, noise in enumerate(feeds["noise"][:, :, 0]):
            h = (h * 31 + token + 1) % 1009
            drawn = np.floor(noise * 1e4 + h).astype(np.int64) % vocab_size
            token = np.where(forced[position] < 0, drawn, forced[position])
            tokens[position] = np.where(ended > 0, -1, token)
            stop_state = table[stop_state, token]
            ended = np.where((ended == 0) & (final[stop_state] > 0) & (forced[position] < 0), 1, ended)
        outputs = {"tokens": tokens, "logprobs": -tokens.astype(np.float32), "ended_out": ended}
        return outputs | {"h_out": h.astype(np.float32), "stop_state_out": stop_state}

    def slots(self, size: int) -> Slots:
        slots = Slots(self, self.bundle, 2)
        slots.schedule.choose_positions = lambda *_: size  # type: ignore[method-assign]
        return slots

    def request(self, stops: Sequence[str], length: int, seed: int, prime: Sequence[int] = ()) -> RowRequest:
        stop = StopAutomaton(stops) if stops else None
        automata = {} if stop is None else {STOP.state: stop_tables(stop, self.bundle.token_bytes)}
        ids = np.array(prime, np.int64)
        return RowRequest(ids, seed, 0, length, {}, {}, "", automata, stop=stop, keeps_state=True)


def write(
    slots: Slots, request: RowRequest, state: RowState | None, calls: int
) -> tuple[str, list[int], str, RowState]:
    """Write a text for so many calls at most; return its pieces, its tokens, how it has ended, and its state."""
    slot = slots.join(request, state)
    text, tokens = "", []
    for _ in range(calls):
        for piece in slots.advance():
            text += piece.text
            tokens += piece.tokens
        if slot.is_free:
            break
    last = slots.state(slot)
    slots.leave(slot)
    assert (text, tokens) == (slot.text.text, slot.text.tokens)
    assert last is not None
    return text, tokens, slot.text.finish, last


@examples(400)
@given(
    symbols=st.sampled_from([SYMBOLS, LETTERS]),
    prime=st.lists(st.integers(0, 3), max_size=5),
    stops=st.lists(st.sampled_from(["ab", "éa", "ba€", "a\u20acb", "ééé", "\ufffd"]), max_size=2, unique=True),
    length=st.integers(1, 30),
    seed=st.integers(0, 99),
    parts=st.lists(st.tuples(st.integers(0, 3), st.sampled_from([1, 2, 5]), st.none() | st.integers(1, 9)), max_size=9),
)
@example(symbols=LETTERS, prime=[1], stops=["ba€"], length=2, seed=0, parts=[(0, 1, 1)])
def test_a_text_that_is_cut_is_the_uncut_one(
    symbols: Sequence[bytes],
    prime: list[int],
    stops: list[str],
    length: int,
    seed: int,
    parts: list[tuple[int, int, int | None]],
) -> None:
    """A part ends after some calls, or when it has some characters.

    With those a text shows all of its characters, as any text of that length does. If they are the beginning of a stop
    string, or go on with one that the prime has begun, the next part may complete it, and then shows nothing of it.
    """
    generator = NoiseGenerator(symbols)
    whole, whole_tokens, whole_finish, _ = write(
        generator.slots(7), generator.request(stops, length, seed, prime), None, 999
    )
    joined, tokens, finish, state = "", [], "running", None
    first_characters = ""
    for calls, size, part_length in [*parts, (999, 3, None)]:
        if finish not in ("running", "length") or len(joined) == length:
            break
        left = length - len(joined)
        request = generator.request(stops, min(left, part_length or left), seed, prime if state is None else ())
        text, new_tokens, finish, state = write(generator.slots(size), request, state, 999 if part_length else calls)
        joined += text
        tokens += new_tokens
        if finish == "length" and whole_finish == "stop":
            first_characters = joined[len(whole) :]
    assert (joined, tokens, finish) == (whole + first_characters, whole_tokens, whole_finish)
    assert not first_characters or any(first_characters in stop for stop in stops)


def test_other_stop_strings_count_for_what_was_held_back() -> None:
    generator = NoiseGenerator(LETTERS)
    for seed in range(20):
        whole = write(generator.slots(9), generator.request(["ba"], 40, seed), None, 99)[0]
        text, _, finish, state = write(generator.slots(3), generator.request(["ab", "bba€"], 40, seed), None, 1)
        rest = write(generator.slots(3), generator.request(["ba"], 40 - len(text), seed), state, 99)[0]
        if finish == "running" and whole.startswith(text):
            assert text + rest == whole


def test_what_was_held_back_stands_before_a_prompt() -> None:
    generator = NoiseGenerator(LETTERS)
    slots = generator.slots(1)
    slot = slots.join(generator.request(["ab€"], 9, seed=2))
    while not (state := slots.state(slot)) or not state.decoder.pending:
        slots.advance()
    slots.leave(slot)
    text, tokens, _, _ = write(slots, generator.request(["ab€"], 5, seed=2, prime=[3]), state, 99)
    assert text == state.decoder.pending + b"".join(LETTERS[token] for token in tokens).decode()
    assert len(tokens) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arrays": {}}, r"has the arrays ; expected ended, h, stop_state, token: it is not from this file"),
        ({"h": np.zeros(2, np.float32)}, r"has h as float32 \(2,\); expected float32 \(1,\)"),
        ({"h": np.zeros(1, np.float64)}, r"has h as float64 \(1,\); expected float32 \(1,\)"),
        ({"h": np.array([np.nan], np.float32)}, "has NaN in h; expected numbers"),
        ({"token": np.array([4])}, "has token 4; expected 0 to 3"),
        ({"token": np.array([-1])}, "has token -1; expected 0 to 3"),
        ({"ended": np.array([1])}, "has ended 1; expected 0 to 0"),
        ({"stop_state": np.array([5])}, "has stop_state 5; expected 1 to 3"),
        ({"drawn": -1}, "has drawn -1; expected 0 to"),
        ({"unread": (0, 4)}, "has unread 4; expected 0 to 3"),
        ({"stop_state_of_decoder": 3}, "has decoder.stop_state 3; expected 0 to 2"),
        ({"pending": "ab"}, "has the length of decoder.pending 2; expected 0 to 0"),
        ({"unfinished": b"\xe2\x82\xac\xe2"}, "has the length of decoder.unfinished 4; expected 0 to 3"),
        ({"empty_count": -1}, "has decoder.empty_count -1; expected 0 to 100000"),
        ({"excess": "a" * 2**17}, "has the length of decoder.excess 131072; expected 0 to 65536"),
    ],
)
def test_a_state_that_no_row_has(change: dict[str, Any], message: str) -> None:
    generator = NoiseGenerator(LETTERS)
    request, slots = generator.request(["ab"], 9, seed=1), generator.slots(2)
    state = slots.state(slots.join(request))
    assert state is not None
    if change.keys() <= {"h", "token", "ended", "stop_state"}:
        state = dataclasses.replace(state, arrays=state.arrays | change)
    elif change.keys() <= {"arrays", "drawn", "unread"}:
        state = dataclasses.replace(state, **change)
    else:
        change = {name.removesuffix("_of_decoder"): setting for name, setting in change.items()}
        state = dataclasses.replace(state, decoder=dataclasses.replace(DecoderState(), **change))
    with pytest.raises(UsageError, match=message):
        slots.join(request, state)
    assert slots.free == 1, "the slot stays free"
