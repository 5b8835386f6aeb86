"""Slots: every text is the one that it is alone, whatever else begins, runs and ends beside it."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from conftest import ExportTiny
from helpers import examples
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

import gentext
from gentext import TextModel
from gentext.errors import UsageError
from gentext.generation import stacking
from gentext.generation.rows import RowRequest, Slot, row_requests
from gentext.generation.slots import MIN_POSITIONS, Schedule, Slots
from gentext.generation.texts import all_texts
from gentext.plugins.samplers.onnx import OnnxGenerator
from gentext.requests.options import writing_options

LINKS = "match,penalties,dry,top_k,mirostat,xtc,temperature"
STOPS = [(), ("a",), ("ba", "c.\n"), (" ", "\n"), ("no such text",)]
EXPRESSIONS = [None, None, "[a-f ]{3,40}", "(ab|cd)+", "x?[b-d]*."]
PARAMETERS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.3},
    {"top_k": 3, "repeat_penalty": 1.3},
    {"mirostat": 2, "mirostat_tau": 2.0},
    {"dry_multiplier": 1.0, "xtc_probability": 0.7},
]


@pytest.fixture(scope="module")
def model(export_tiny: ExportTiny) -> TextModel:
    """A file whose chain has links with states, noise, tables and a first state that depends on a parameter."""
    return gentext.load(export_tiny(LINKS) / "generator.onnx")


def make_slots(model: TextModel, count: int, **options: Any) -> Slots:
    sampler = model._sampler
    assert isinstance(sampler, OnnxGenerator) and sampler.model is not None
    return Slots(sampler.model, model.bundle, count, **options)


def make_request(model: TextModel, arguments: dict[str, Any], *, keeps_state: bool = False) -> RowRequest:
    """Return the request for the text that ``model.write(**arguments)`` returns."""
    fields = {
        "top_logprobs": "top_logprobs",
        "echo": "echo",
        "length": "length",
        "seed": "seed",
        "stream": "stream",
        "stop": "stop",
        "match": "match",
    }
    options = {fields[name]: argument for name, argument in arguments.items() if name in fields}
    parameters = {name: argument for name, argument in arguments.items() if name not in (*fields, "prime")}
    writing = model.prepare_writing([arguments["prime"]], writing_options(**options, parameters=parameters))
    [request] = row_requests(writing, keeps_state=keeps_state)
    return request


@st.composite
def texts(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the arguments of `TextModel.write`."""
    arguments: dict[str, Any] = {
        "prime": draw(st.sampled_from(["", "", "a", "ab. ", "bacon" * 9])).translate({ord("o"): "a"}),
        "length": draw(st.sampled_from([1, 2, 17, 60])),
        "seed": draw(st.sampled_from([0, 5, 2**64 - 1])),
        "stream": draw(st.integers(0, 9)),
        "top_logprobs": draw(st.sampled_from([0, 0, 1, 10])),
        "echo": draw(st.booleans()),
        **draw(st.sampled_from(PARAMETERS)),
    }
    if arguments["echo"] and draw(st.integers(0, 4)) == 0:
        return arguments | {"length": 0}
    match, stop = draw(st.sampled_from(EXPRESSIONS)), draw(st.sampled_from(STOPS))
    if match is not None and arguments["length"] > 2:
        return arguments | {"match": match}
    return arguments | {"stop": stop}


@examples(50, suppress_health_check=[HealthCheck.too_slow])
@given(
    arrivals=st.lists(st.lists(texts(), max_size=4), min_size=1, max_size=6),
    leaving=st.sets(st.integers(0, 8)),
    count=st.integers(1, 6),
    max_table=st.sampled_from([2**24, 0]),
    sizes=st.lists(st.sampled_from([1, 2, 3, 7, 40]), min_size=1),
)
def test_every_text_is_the_one_that_it_is_alone(
    model: TextModel,
    arrivals: list[list[dict[str, Any]]],
    leaving: set[int],
    count: int,
    max_table: int,
    sizes: list[int],
) -> None:
    """``max_table`` 0: no two automata are stacked, and texts of different ones run in calls of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stacking, "MAX_TABLE", max_table)
        running = make_slots(model, count)
        patch.setattr(running.schedule, "choose_positions", lambda *_: sizes[running.busy % len(sizes)])
        waiting: list[dict[str, Any]] = []
        arguments_by_slot: dict[Slot, dict[str, Any]] = {}
        pieces: dict[Slot, list[str]] = {}
        coming = iter(arrivals)
        while True:
            arriving = next(coming, None)
            waiting += arriving or []
            while waiting and running.free:
                slot = running.join(make_request(model, waiting[0]))
                arguments_by_slot[slot] = waiting.pop(0)
                pieces[slot] = []
                if len(arguments_by_slot) - 1 in leaving:
                    running.leave(slot)
            for piece in running.advance():
                pieces[piece.slot].append(piece.text)
            if arriving is None and not waiting and not running.busy:
                break
    for number, (slot, arguments) in enumerate(arguments_by_slot.items()):
        if number in leaving:
            continue
        [alone] = model.write_many([arguments["prime"]], **{k: v for k, v in arguments.items() if k != "prime"})
        assert "".join(pieces[slot]) == slot.text.text == alone.text
        assert (slot.text.finish, slot.text.tokens) == (alone.finish, [*alone.tokens])
        np.testing.assert_array_equal(slot.text.logprobs, alone.logprobs)
        assert slot.text.prime_tokens == [*alone.prime_tokens]
        np.testing.assert_array_equal(slot.text.prime_logprobs, alone.prime_logprobs)
        top_symbols = slot.text.find_top_symbols() or (None, None)
        for block, expected in zip(top_symbols, (alone.prime_top_symbols, alone.top_symbols), strict=True):
            assert (block is None or not block.tokens.size) == (expected is None or not expected.tokens.size)
            if block is not None and expected is not None:
                np.testing.assert_array_equal(block.tokens, expected.tokens)
                np.testing.assert_array_equal(block.logprobs, expected.logprobs)


@examples(40)
@given(arguments=texts(), first_length=st.integers(1, 59), neighbour=texts(), size=st.sampled_from([1, 4, 16, 64]))
def test_a_state_goes_on_elsewhere_as_if_nothing_had_been(
    model: TextModel, arguments: dict[str, Any], first_length: int, neighbour: dict[str, Any], size: int
) -> None:
    """A text is cut by its length, within a call or at its end, and its state is put into a slot of other Slots."""
    arguments["length"] = 60
    request = make_request(model, arguments, keeps_state=True)
    cut = dataclasses.replace(request, length=first_length, full_finish="length")
    first_slots, second_slots = make_slots(model, 2), make_slots(model, 3)
    with pytest.MonkeyPatch.context() as patch:
        for running in (first_slots, second_slots):
            patch.setattr(running.schedule, "choose_positions", lambda *_: size)
        first = first_slots.join(cut)
        first_slots.join(make_request(model, neighbour))
        finish(first_slots)
        state = first_slots.state(first)
        assert state is not None
        whole = model.write_many([arguments["prime"]], **{k: v for k, v in arguments.items() if k != "prime"})[0]
        if len(first.text.text) < first_length or first.text.text == whole.text:  # it has ended by itself
            assert first.text.text == whole.text
            return
        rest = dataclasses.replace(request, prime=np.empty(0, np.int64), length=60 - len(first.text.text))
        second_slots.join(make_request(model, neighbour))
        forks = [second_slots.join(rest, state), second_slots.join(rest, state)]
        finish(second_slots)
    for fork in forks:
        if "stop" not in arguments or not arguments["stop"]:
            assert first.text.text + fork.text.text == whole.text
        assert first.text.tokens + fork.text.tokens == [*whole.tokens]


def test_a_running_text_is_copied_and_ends(model: TextModel) -> None:
    arguments = {"prime": "a", "length": 200, "seed": 5, "stream": 0, "stop": ("ba", "ca")}
    request = make_request(model, arguments)
    running = make_slots(model, 1)
    slot = running.join(request)
    while not slot.text.tokens:
        running.advance()
    state = running.state(slot)
    assert state is not None
    begun = slot.text.text
    with pytest.raises(UsageError, match="all 1 slots write a text"):
        running.join(request)
    for _ in range(2):
        running.leave(slot)
        assert running.free == 1, "a slot is free once"
    rest = dataclasses.replace(request, prime=np.empty(0, np.int64), length=200 - len(begun))
    goes_on = running.join(rest, state)
    finish(running)
    forked = running.join(dataclasses.replace(rest, seed=4), state)
    finish(running)
    assert begun + goes_on.text.text == model.write(**arguments)
    assert forked.text.text not in ("", goes_on.text.text)


def test_all_texts_of_a_request_in_few_slots(model: TextModel) -> None:
    options = writing_options(count=7, length=40, seed=1, stop=("ab",))
    writing = model.prepare_writing(["a", "", "bac"], options)
    running = make_slots(model, 4)
    written: dict[int, str] = {}
    waiting = row_requests(writing)
    while len(written) < 21 or running.busy:
        for request in itertools.islice(waiting, running.free):
            running.join(request)
        for piece in running.advance():
            written[piece.slot.request.stream] = written.get(piece.slot.request.stream, "") + piece.text
    assert [written[stream] for stream in range(21)] == [text.text for text in all_texts(writing)]
    assert running.busy == 0 and running.advance() == []


def test_a_chain_that_is_not_compiled_is_refused(model: TextModel) -> None:
    writing = model.prepare_writing([""], writing_options(chain=["top_p"]))
    with pytest.raises(UsageError, match=r"the chain top_p is not compiled into .*gen export RUN --chain top_p"):
        next(row_requests(writing))


def test_a_text_that_cannot_go_on_ends_alone(model: TextModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model may write symbols without bytes for ever."""
    running = make_slots(model, 2)
    arguments = {"prime": "", "length": 50, "seed": 1, "stream": 0}
    lost, other = running.join(make_request(model, arguments)), running.join(make_request(model, arguments))
    monkeypatch.setattr(lost.decoder, "_empty_count", 10**6)
    monkeypatch.setattr(lost.decoder, "_symbols", [b""] * model.vocab_size)
    monkeypatch.setattr(lost.decoder, "_characters_by_token", None)
    errors = [piece.slot for piece in running.advance() if piece.error is not None]
    assert errors == [lost]
    running.leave(lost)
    assert running.free == 1
    finish(running)
    assert other.text.text == model.write(length=50, seed=1)


@pytest.mark.parametrize("count", [0, 10**9])
def test_more_slots_than_fit_into_memory(model: TextModel, count: int) -> None:
    with pytest.raises(UsageError, match=rf"{count} slots: expected 1 to \d+ for a model of this size"):
        make_slots(model, count)


def test_few_positions_while_a_text_waits() -> None:
    schedule = Schedule(chunk_seconds=0.1, first_seconds=0.02)
    assert schedule.choose_positions(1000, False, 1) == 1
    schedule.record_call(64, 10, 0.01)
    assert schedule.choose_positions(64, False, 1) == 100
    assert schedule.choose_positions(64, True, 1) == 20
    assert schedule.choose_positions(64, False, 4) == 25, "four batches take turns"
    assert schedule.choose_positions(256, False, 1) == 25, "four times the rows may take four times as long"
    assert schedule.choose_positions(1, False, 1) == 100, "one row may take as long as many"
    assert schedule.choose_positions(2**20, True, 1) == MIN_POSITIONS


def finish(running: Slots) -> None:
    while running.busy:
        running.advance()


def test_many_rows_draw_apart_by_their_links(model: TextModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond some rows, a new one shares the calls of those with the same links, and every text is what it is alone."""
    monkeypatch.setattr("gentext.generation.slots.MIN_ROWS_APART", 2)
    monkeypatch.setattr("gentext.generation.slots.MAX_BATCHES", 3)
    requests = [
        {"prime": "ab", "length": 30, "seed": number, "stream": 0, **PARAMETERS[number % len(PARAMETERS)]}
        for number in range(12)
    ]
    running = make_slots(model, len(requests))
    slots = [running.join(make_request(model, arguments)) for arguments in requests]
    running.advance()
    batches = [{slot.request.active_links for slot in batch.slots} for batch in running._turns if not batch.reads]
    assert sorted(len(links) for links in batches) == [1, 1, 2], "the third one has what is left"
    finish(running)
    for slot, arguments in zip(slots, requests, strict=True):
        assert slot.text.text == model.write(**arguments)
