"""Sessions: a text goes on elsewhere as if nothing had been, and no bytes that come back do harm."""

from __future__ import annotations

import base64
import dataclasses
import os
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from conftest import ExportTiny
from helpers import examples
from hypothesis import HealthCheck, assume, given
from hypothesis import strategies as st

import gentext
from gentext import TextModel, console
from gentext.errors import GenError, SessionConflict, SessionError, UsageError
from gentext.generation.rows import row_requests
from gentext.generation.slots import Slots
from gentext.plugins.samplers.onnx import OnnxGenerator
from gentext.requests.declaration import WritingOptions
from gentext.requests.options import writing_options
from gentext.requests.spelling import KEYWORD_SPELLING
from gentext.sessions.continuation import continue_text, make_session
from gentext.sessions.session import (
    MAX_SESSION_BYTES,
    Session,
    StoredArray,
    check_origin,
    pack,
    unpack,
    unpack_state,
)
from gentext.sessions.session_keys import MAX_TOKEN_LENGTH, SessionKeys
from gentext.sessions.session_settings import SessionSettings, merge_settings, session_settings, with_settings

LINKS = "match,penalties,dry,top_k,mirostat,xtc,temperature"
LENGTH = 60


@pytest.fixture(scope="module")
def model(export_tiny: ExportTiny) -> TextModel:
    """A file whose chain has links with states of each type."""
    return gentext.load(export_tiny(LINKS) / "generator.onnx")


def options_of(chosen: SessionSettings, length: int) -> WritingOptions:
    return with_settings(writing_options(length=length), chosen) | {"unknown": "error"}


def make_slots(model: TextModel) -> Slots:
    sampler = model._sampler
    assert isinstance(sampler, OnnxGenerator) and sampler.model is not None
    return Slots(sampler.model, model.bundle, 1)


def begin(model: TextModel, chosen: SessionSettings, length: int, size: int = 16) -> tuple[str, Session]:
    """Write a text and let it end by itself; return it and its session."""
    [request] = row_requests(
        model.prepare_writing([chosen["prime"]], options_of(chosen, length)),
        keeps_state=True,
    )
    return write(model, chosen, request, None, size)


def go_on(model: TextModel, session: Session, length: int, prompt: str = "", **given: Any) -> tuple[str, Session]:
    chosen = merge_settings(session.settings, given)
    request, state = continue_text(model._sampler, session, prompt, options_of(chosen, length), KEYWORD_SPELLING)
    return write(model, chosen, request, state)


def write(model: TextModel, chosen: SessionSettings, request: Any, state: Any, size: int = 16) -> tuple[str, Session]:
    running = make_slots(model)
    running.schedule.choose_positions = lambda *_: size  # type: ignore[method-assign]
    slot = running.join(request, state)
    while running.busy:
        running.advance()
    last = running.state(slot)
    assert last is not None
    return slot.text.text, unpack(pack(make_session(model.bundle, chosen, last)))


def cut(model: TextModel, chosen: SessionSettings, calls: int, size: int) -> tuple[str, Session] | None:
    """Write a text for some calls, and take its session while it runs; None where it has ended, or not begun."""
    [request] = row_requests(model.prepare_writing([chosen["prime"]], options_of(chosen, LENGTH)))
    running = make_slots(model)
    running.schedule.choose_positions = lambda *_: size  # type: ignore[method-assign]
    slot = running.join(request)
    for _ in range(calls):
        running.advance()
    state = running.state(slot)
    if state is None or slot.text.finish != "running":
        return None
    return slot.text.text, unpack(pack(make_session(model.bundle, chosen, state)))


@st.composite
def all_settings(draw: st.DrawFn) -> SessionSettings:
    chosen = session_settings(
        seed=draw(st.sampled_from([0, 5, 2**64 - 1])),
        stream=draw(st.integers(0, 9)),
        parameters=draw(
            st.sampled_from([{}, {"temperature": 1.3}, {"top_k": 3, "repeat_penalty": 1.3}, {"mirostat": 2}])
        ),
        prime=draw(st.sampled_from(["", "a", "ab. "])),
    )
    constraint = draw(st.sampled_from([{}, {"stop": ["ba", "c.\n"]}, {"match": "[a-f ]{50,59}"}, {"match": "(ab|c)+"}]))
    chosen = chosen | constraint
    if chosen["match"] == "[a-f ]{50,59}" and chosen["prime"] != "ab. ":
        return chosen | {"match_prime": draw(st.booleans())}
    return chosen


@examples(40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(chosen=all_settings(), calls=st.integers(1, 6), size=st.sampled_from([1, 5, 16]))
def test_a_text_that_was_cut_goes_on_to_the_bit(
    model: TextModel, chosen: SessionSettings, calls: int, size: int
) -> None:
    running = cut(model, chosen, calls, size)
    assume(running is not None)
    assert running is not None
    begun, session = running
    whole, last = begin(model, chosen, LENGTH)
    rest, last_of_rest = go_on(model, session, LENGTH - len(begun))
    assert begun + rest == whole
    assert msgspec.structs.replace(last_of_rest, settings=last.settings) == last, "and further on"


def test_undo_and_forks(model: TextModel) -> None:
    chosen = session_settings(seed=3, parameters={"temperature": 1.2})
    first, session = begin(model, chosen, 20)
    second, later = go_on(model, session, 20)
    assert go_on(model, session, 20)[0] == second, "without a seed two forks write the same"
    forked, fork = go_on(model, session, 20, seed=4)
    assert forked != second
    assert fork.settings["seed"] == 4 and fork.row.drawn == later.row.drawn == 40
    assert go_on(model, session, 20, "ab")[0] != second, "a prompt is appended to the text"
    assert go_on(model, session, 20, stream=1)[0] != second
    assert first + second == model.write(length=40, seed=3, temperature=1.2)


def test_a_stop_string_that_ended_a_text_counts_no_second_time(model: TextModel) -> None:
    """Its last characters are not the first ones of another."""
    text, session = begin(model, session_settings(seed=1, stop=["aa"]), 5000)
    assert len(text) < 5000 and session.row.automata == {}
    forks = [go_on(model, session, 2, seed=seed)[0] for seed in range(60)]
    assert any(fork.startswith("a") for fork in forks)


def test_what_has_matched_is_behind_the_text(model: TextModel) -> None:
    chosen = session_settings(seed=1, match="(ab|cd){3}")
    text, session = begin(model, chosen, 30)
    assert len(text) == 6
    assert session.settings["match"] is None
    free, _ = go_on(model, session, 30, "a")
    assert len(free) == 30
    again, _ = go_on(model, session, 30, match="(ab|cd){3}")
    assert len(again) == 6


def test_the_middle_of_a_match(model: TextModel) -> None:
    chosen = session_settings(seed=1, match="[ab]{40}")
    running = cut(model, chosen, 1, 10)
    assert running is not None
    begun, session = running
    with pytest.raises(UsageError, match=r"prompt = 'a': expected none, .* in the middle of what its text must match"):
        go_on(model, session, 30, "a")
    with pytest.raises(UsageError, match=r"length = 29: what is left of the text that must match has 30 characters"):
        go_on(model, session, 29)
    assert len(begun + go_on(model, session, 100)[0]) == 40
    assert len(go_on(model, session, 30, "a", match="c{7}")[0]) == 7
    foreign = msgspec.structs.replace(
        session, row=msgspec.structs.replace(session.row, automata={"match.state": "0" * 64})
    )
    with pytest.raises(SessionConflict, match="what the text must match is other tables here"):
        go_on(model, foreign, 30)


def test_what_a_request_gives_counts_over_the_session() -> None:
    old = session_settings(seed=1, stream=2, parameters={"temperature": 0.5, "top_k": 3}, stop=["x"])
    assert merge_settings(old, {}) == old
    merged = merge_settings(old, {"seed": 9, "parameters": {"temperature.temperature": 1.0}})
    assert (merged["seed"], merged["stream"], merged["stop"]) == (9, 2, ["x"])
    again = merge_settings(merged, {"parameters": {"temperature": 0.7}})
    assert [*again["parameters"].items()][-1] == ("temperature", 0.7), "the later of two names counts"
    styled = merge_settings(old, {"style": "bold", "parameters": {"top_k": 4}})
    assert (styled["style"], styled["parameters"]) == ("bold", {"top_k": 4})
    matched = merge_settings(old | {"match": "a+"}, {"json_schema": {"type": "null"}})
    assert (matched["match"], matched["json_schema"], matched["stop"]) == (None, {"type": "null"}, [])


#: A session that was packed before its settings came from the declaration of options.
OLD_SESSION = (
    "c$`&_K~98F42BsudH@gL-efW+#;r#o1&Tc3^^w;Sh9!v`U5)Vq6Nd)`7J38|XXiaUhYT|tzb@J|P5S*$O{_Bfgy4U5wjfa&KMc|OG+*5;S3RSMq"
    "6dCy7%@6;SuBD+8*;FqQP6Td3hEp!NMZ5k{x_a+ELDb0V6v!TG5N-6kTBW7bud1%A)mtpHGGZp+RyFu@Y~Jp9iS^HB~wzvsmgcOl+P_#3l-N+Op5g"
    "86v^G~>tcVg@Q%31LP?ihjucJ8+o7OXk>UiSy*C^bd=?P&#>rMHKQvQHuZKd+qyY6%WI5mTs}n7*LuB5z1x>M|%^yZ&hJy"
)


def test_a_session_of_an_earlier_version() -> None:
    session = unpack(base64.b85decode(OLD_SESSION))
    assert session.settings == session_settings(
        seed=7,
        stream=2,
        parameters={"temperature": 0.7},
        style="bold",
        stop=[],
        match="a+b",
        match_prime=True,
        prime="aa",
        unknown="skip",
    )
    content = msgspec.msgpack.decode(zlib.decompress(pack(session)))
    assert content["settings"].keys() == {
        *("seed", "stream", "parameters", "style", "stop", "match", "json_schema", "match_prime", "prime", "unknown")
    }, "and what an earlier version reads"


@pytest.mark.parametrize("bent", [{"seed": None}, {"stop": "a"}, {"match": 3}, {"prime": None}, {"parameters": []}])
def test_settings_of_other_types(session: Session, bent: dict[str, Any]) -> None:
    with pytest.raises(SessionError, match=r"session: damaged \(Expected .* at `\$.settings"):
        unpack(pack(msgspec.structs.replace(session, settings=session.settings | bent)))


# -- bytes that come back ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def session(model: TextModel) -> Session:
    return begin(model, session_settings(seed=1, stop=["ab"]), 20)[1]


def with_array(session: Session, name: str, **changes: Any) -> Session:
    array = msgspec.structs.replace(session.row.arrays[name], **changes)
    row = msgspec.structs.replace(session.row, arrays=session.row.arrays | {name: array})
    return msgspec.structs.replace(session, row=row)


@pytest.mark.parametrize(
    ("name", "changes", "problem"),
    [
        ("h", {"dtype": "float64"}, "h as float64"),
        ("h", {"dtype": "object"}, "h as object"),
        ("h", {"shape": [2**40, 2**40]}, r"h as float32 \[1099511627776"),
        ("h", {"content": b""}, r"in 0 bytes; expected float32"),
        ("h", {"dtype": "a\nb"}, r"h as a\\nb "),
        ("match.ended", {"content": b"\2"}, "match.ended with bytes that are neither 0 nor 1"),
    ],
)
def test_arrays_that_are_none_of_the_file(
    model: TextModel, session: Session, name: str, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(SessionError, match=f"session: it has .*{problem}") as raised:
        go_on(model, with_array(session, name, **changes), 5)
    assert raised.value.code == "session_invalid"


def test_rows_that_are_none_of_the_file(model: TextModel, session: Session) -> None:
    arrays = {name: array for name, array in session.row.arrays.items() if name != "h"}
    for row in (
        msgspec.structs.replace(session.row, arrays=arrays),
        msgspec.structs.replace(session.row, arrays=session.row.arrays | {"x": StoredArray("bool", [1], b"\0")}),
    ):
        with pytest.raises(SessionError, match="session: it has the states"):
            go_on(model, msgspec.structs.replace(session, row=row), 5)
    with pytest.raises(UsageError, match=r"the state to go on from has token -1; expected 0 to \d+"):
        go_on(model, with_array(session, "token", content=b"\xff" * 8), 5)


def test_an_unpacked_state_can_be_written_to(model: TextModel, session: Session) -> None:
    state = unpack_state(session.row, model.bundle)
    for array in state.arrays.values():
        array[...] = 0
    assert unpack_state(session.row, model.bundle).arrays["h"].any()


def test_another_file_and_another_runtime(model: TextModel, session: Session) -> None:
    check_origin(session, session.file, session.runtime)
    with pytest.raises(SessionConflict, match=f"the file '{session.file[:16]}', and the model's file is '0{{16}}' now"):
        check_origin(session, "0" * 64, session.runtime)
    with pytest.raises(SessionConflict, match=r"written with 'onnxruntime\S* .*', and this server runs 'onnxruntime 0"):
        check_origin(session, session.file, "onnxruntime 0")
    with pytest.raises(SessionConflict):
        go_on(model, msgspec.structs.replace(session, file="0" * 64), 5)


def test_bytes_that_are_no_session(session: Session) -> None:
    payload = pack(session)
    bombs = [zlib.compress(bytes(MAX_SESSION_BYTES + 1)), zlib.compress(b"\xc6\xff\xff\xff\xff"), b""]
    for bent in (*bombs, payload[:-1], payload + b"x", zlib.compress(msgspec.msgpack.encode({"file": 3}))):
        with pytest.raises(SessionError, match="session: damaged") as raised:
            unpack(bent)
        assert raised.value.code == "session_invalid"
    long_prime = session.settings | {"prime": "x" * MAX_SESSION_BYTES}
    with pytest.raises(SessionError, match=r"session: the state of the text takes 4,\d+,\d+ bytes"):
        pack(msgspec.structs.replace(session, settings=long_prime))


@examples(300)
@given(data=st.data())
def test_mutated_sessions_raise_one_error_or_write(model: TextModel, session: Session, data: st.DataObject) -> None:
    """Whoever has the key may sign anything."""
    content = bytearray(msgspec.msgpack.encode(session))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        changed = unpack(zlib.compress(bytes(content), 1))
        options = options_of(changed.settings, 5)
        running = make_slots(model)
        running.join(*continue_text(model._sampler, changed, "", options, KEYWORD_SPELLING))
        running.advance()
    except GenError as error:
        assert "\n" not in str(error)


# -- tokens --------------------------------------------------------------------------------------


@given(st.binary(min_size=1, max_size=100))
def test_a_token_has_its_payload(payload: bytes) -> None:
    keys = SessionKeys([b"k" * 16])
    token = keys.seal(payload)
    assert keys.open(token) == payload
    assert token.replace("-", "a").replace("_", "a").isalnum()


@given(st.data())
def test_a_bent_token(data: st.DataObject) -> None:
    keys = SessionKeys([b"k" * 16])
    token = keys.seal(b"payload")
    position = data.draw(st.integers(0, len(token) - 1))
    bent = (
        token[:position] + data.draw(st.characters().filter(lambda new: new != token[position])) + token[position + 1 :]
    )
    for changed in (bent, token[:position], token + "A", token + "="):
        with pytest.raises(SessionError) as raised:
            keys.open(changed)
        assert raised.value.code in ("session_invalid", "session_foreign_key")


def test_keys_are_rotated() -> None:
    old, new = b"old key " * 2, b"new key " * 2
    token = SessionKeys([old]).seal(b"payload")
    assert SessionKeys([new, old]).open(token) == b"payload"
    assert SessionKeys([new]).open(SessionKeys([new, old]).seal(b"payload")) == b"payload"
    for others in (SessionKeys([new]), SessionKeys.new(), SessionKeys.new()):
        with pytest.raises(SessionError, match="signed with a key that this server does not have") as raised:
            others.open(token)
        assert raised.value.code == "session_foreign_key"


def test_tokens_of_another_format_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = SessionKeys.new()
    with monkeypatch.context() as patch:
        patch.setattr("gentext.sessions.session_keys.SESSION_FORMAT", 0)
        old = keys.seal(b"payload")
    with pytest.raises(SessionError, match="session: format 0, this server reads 1") as raised:
        keys.open(old)
    assert raised.value.code == "session_other_format"
    with pytest.raises(SessionError, match=r"session: 699,\d+ characters; expected"):
        keys.open("A" * (MAX_TOKEN_LENGTH + 1))
    with pytest.raises(SessionError, match=r"session: 1,048,576 bytes; expected"):
        keys.seal(bytes(2**20))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "has no key"),
        (" \n\n", "has no key"),
        ("short\n", "key 1 has 5 bytes; expected 16 or more"),
        (f"{'k' * 16}\nshort", "key 2 has 5 bytes"),
        (f"{'k' * 16}\n" * 3, "3 keys; expected one, or two lines"),
        ("a key with spaces in it", "expected keys of visible ASCII characters"),
        ("k" * 70_000, "cannot be read .larger than"),
        (None, "cannot be read .No such file or directory.; expected a file with a key; this makes one"),
    ],
)
def test_files_with_impossible_keys(tmp_path: Path, content: str | None, problem: str) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=f"keys: {problem}"):
        SessionKeys.load(path)


def test_a_file_with_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{'n' * 16}\r\n{'o' * 16}\n")
    path.chmod(0o600)
    with console.quiet() as lines:
        keys = SessionKeys.load(path)
        assert lines == []
        os.chmod(path, 0o640)
        SessionKeys.load(path)
    assert len(lines) == 1 and "other users can read this file (-rw-r-----)" in lines[0]
    assert SessionKeys([b"n" * 16]).open(keys.seal(b"payload")) == b"payload"
    assert keys.open(SessionKeys([b"o" * 16]).seal(b"payload")) == b"payload"


def test_a_file_without_a_fingerprint(model: TextModel, session: Session) -> None:
    bundle = dataclasses.replace(model.bundle, card={})
    with pytest.raises(SessionError, match="the file has none; export it again"):
        make_session(bundle, session.settings, unpack_state(session.row, model.bundle))


def test_the_size_of_a_session(model: TextModel, session: Session) -> None:
    """Its payload is that of the states, but for what is mostly empty, as the windows of links are."""
    state_bytes = sum(np.prod(array.shape, dtype=int) * 4 for name, array in session.row.arrays.items() if name in "hc")
    assert len(pack(session)) < state_bytes + 2000
