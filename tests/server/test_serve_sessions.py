"""Sessions through a real server: texts go on to the bit, also in the next process; nothing bent is accepted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from conftest import ExportTiny
from serving import ServerProcess, running_server

import gentext
from gentext.generation.slots import Slots
from gentext.plugins.samplers.onnx import OnnxGenerator
from gentext.plugins.server.tasks.messages import TextJob
from gentext.plugins.server.worker.texts import begin_text
from gentext.requests.options import writing_options
from gentext.sessions.session import unpack

LINKS = "match,penalties,bias,top_k,mirostat,temperature"


@pytest.fixture(scope="module")
def files(export_tiny: ExportTiny) -> list[Path]:
    """Two files with the same states."""
    return [export_tiny(LINKS, *key) / "generator.onnx" for key in ((), ("second",))]


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "key"
    path.write_text("0123456789abcdef0123456789abcdef\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def server(files: list[Path], key_file: Path) -> Iterator[ServerProcess]:
    arguments = [f"tiny={files[0]}", f"other={files[1]}", "--workers", "1", "--slots", "8"]
    with running_server(*arguments, "--session-key-file", key_file) as process:
        yield process


@pytest.fixture(scope="module")
def model(files: list[Path]) -> gentext.TextModel:
    return gentext.load(files[0])


def complete(server: ServerProcess, **fields: Any) -> dict[str, Any]:
    """Return the only choice of an answer."""
    [choice] = server.complete(**{"model": "tiny", **fields})["choices"]
    assert isinstance(choice, dict)
    return choice


def test_a_text_goes_on_to_the_bit(server: ServerProcess, model: gentext.TextModel) -> None:
    settings = {"prompt": "ab", "seed": 7, "temperature": 1.2, "repeat_penalty": 1.1, "stop": ["no such"]}
    text, session, sizes = "", None, [1, 30, 2, 67]
    for size in sizes:
        choice = complete(server, max_tokens=size, **(settings if session is None else {"session": session}))
        text, session = text + choice["text"], choice["session"]
    assert text == model.write("ab", length=100, seed=7, temperature=1.2, repeat_penalty=1.1)


def test_forks_and_undo(server: ServerProcess, model: gentext.TextModel) -> None:
    first = complete(server, max_tokens=30, seed=3)
    session = first["session"]
    answer = server.complete(model="tiny", session=session, n=3, max_tokens=40)
    assert answer["seed"] == 3, "the seed that was used"
    forks = [choice["text"] for choice in answer["choices"]]
    assert first["text"] + forks[0] == model.write(length=70, seed=3)
    assert len({*forks}) == 3, "choice i has the stream of the session plus i"
    assert complete(server, session=session, max_tokens=40)["text"] == forks[0], "an older session is an undo"
    forked = complete(server, session=session, max_tokens=40, seed=4)
    assert forked["text"] not in forks
    assert complete(server, session=session, max_tokens=40, seed=4)["text"] == forked["text"]
    assert complete(server, session=session, max_tokens=40, temperature=0.1)["text"] != forks[0]
    appended = complete(server, session=session, prompt="abba", echo=True, max_tokens=40)["text"]
    assert appended.startswith("abba") and appended[4:] != forks[0]
    again = complete(server, session=answer["choices"][1]["session"], max_tokens=20)["text"]
    assert again == complete(server, session=session, n=1, max_tokens=60, seed=3)["text"][40:] or len(again) == 20


def test_a_stream_has_its_session_in_its_last_event(server: ServerProcess, model: gentext.TextModel) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        chunks = list(client.completions.create(model="tiny", prompt="a", max_tokens=300, seed=1, stream=True))
        sessions = [(choice.model_extra or {}).get("session") for chunk in chunks for choice in chunk.choices]
        assert [session is None for session in sessions] == [True] * (len(sessions) - 1) + [False]
        rest = client.completions.create(model="tiny", prompt="", max_tokens=50, extra_body={"session": sessions[-1]})
    text = "".join(choice.text for chunk in chunks for choice in chunk.choices)
    assert text + rest.choices[0].text == model.write("a", length=350, seed=1)


def test_a_text_in_the_middle_of_what_it_must_match(server: ServerProcess) -> None:
    """What has matched is behind the text, and the request may give another expression."""
    choice = complete(server, match="[ab]{5}", max_tokens=9, seed=2)
    assert choice["finish"] == "match"
    assert len(complete(server, session=choice["session"], max_tokens=9)["text"]) == 9
    assert complete(server, session=choice["session"], max_tokens=9, match="cab")["text"] == "cab"


def refuse(server: ServerProcess, **fields: Any) -> tuple[int, dict[str, Any]]:
    answer = server.post("/v1/completions", **{"model": "tiny", **fields})
    error: dict[str, Any] = answer.json()["error"]
    return answer.status_code, error


def test_sessions_that_are_refused(server: ServerProcess, model: gentext.TextModel, files: list[Path]) -> None:
    session = complete(server, max_tokens=3)["session"]
    for bent in ("", "x", "é", session[:-1], session + "AAAA", session[:100] + "AAAA" + session[104:]):
        status, error = refuse(server, session=bent)
        assert status == 400 and error["param"] == "session", error
        assert error["code"] in ("session_invalid", "session_foreign_key"), error
    for stream in (False, True):
        status, error = refuse(server, session=session, model="other", stream=stream)
        assert (status, error["code"]) == (409, "session_other_file")
        fingerprints = [gentext.load(file).card["fingerprint"][:16] for file in files]
        assert all(fingerprint in error["message"] for fingerprint in fingerprints)
    assert "expected one with a session" in refuse(server, session=session, prompt=["a", "b"])[1]["message"]
    assert refuse(server, session=3)[1]["param"] == "session"


def test_sessions_outlive_the_process_with_a_key_file(
    server: ServerProcess, files: list[Path], key_file: Path, model: gentext.TextModel, tmp_path: Path
) -> None:
    """Another server with the same key and file goes on; one with a second, older key too; one without does not."""
    first = complete(server, max_tokens=30, seed=5)
    expected = model.write(length=60, seed=5)[30:]
    rotated = tmp_path / "rotated"
    rotated.write_text(f"a-new-key-of-more-than-16-bytes\n{key_file.read_text()}")
    with running_server(f"tiny={files[0]}", "--workers", "1", "--session-key-file", rotated) as other:
        assert "other users can read this file" in other.printed
        rest = complete(other, session=first["session"], max_tokens=30)
        assert rest["text"] == expected
        assert refuse(server, session=rest["session"])[1]["code"] == "session_foreign_key"
        rotated.write_text("short\n")
        other.process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert complete(other, session=rest["session"], max_tokens=1)["text"]
        rotated.write_text("another-key-of-more-than-16-bytes\n")
        other.process.send_signal(signal.SIGHUP)
        wait_until(lambda: status_of(other, rest["session"]) == 400)
    with running_server(f"tiny={files[0]}", "--workers", "1") as without:
        assert "sessions end with this process" in without.printed
        assert refuse(without, session=first["session"])[1]["code"] == "session_foreign_key"


def status_of(server: ServerProcess, session: str) -> int:
    return server.post("/v1/completions", model="tiny", session=session, max_tokens=1).status_code


def wait_until(is_true: Callable[[], bool]) -> None:
    ending_at = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < ending_at
        time.sleep(0.05)


def test_texts_that_a_drain_cuts_go_on_in_the_next_server(
    files: list[Path], key_file: Path, model: gentext.TextModel
) -> None:
    """One of them has not read its prompt, and one is in the middle of what it must match."""
    arguments = [f"tiny={files[0]}", "--workers", "1", "--session-key-file", key_file, "--slots", "8"]
    requests: list[dict[str, Any]] = [
        {"prompt": "ab", "max_tokens": 1_000_000, "seed": 1, "stop": "no such text"},
        {"prompt": "ab" * 10_000, "max_tokens": 1_000_000, "seed": 2},
        {"prompt": "a", "max_tokens": 1_000_000, "seed": 3, "match": r"([a-p .\n]{7})*"},
    ]
    texts = [""] * len(requests)
    sessions: list[str | None] = [None] * len(requests)
    begun = threading.Semaphore(0)

    def read(server: ServerProcess, number: int) -> None:
        body = {"model": "tiny", "stream": True, **requests[number]}
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=60) as answer:
            begun.release()
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    [choice] = json.loads(line.removeprefix("data: "))["choices"]
                    texts[number] += choice["text"]
                    if choice["finish_reason"]:
                        assert choice["finish"] == "cut" and choice["finish_reason"] == "length"
                        sessions[number] = choice["session"]

    with ThreadPoolExecutor(len(requests)) as pool, running_server(*arguments, "--drain-seconds", "0") as server:
        reading = [pool.submit(read, server, number) for number in range(len(requests))]
        for _ in requests:
            begun.acquire()
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        for reader in reading:
            reader.result()
    assert all(sessions)
    with running_server(*arguments) as server:
        for text, session, request in zip(texts, sessions, requests, strict=True):
            rest = complete(server, session=session, max_tokens=200)["text"]
            settings = {name: setting for name, setting in request.items() if name not in ("prompt", "max_tokens")}
            assert text + rest == model.write(request["prompt"], length=len(text) + 200, **settings)


@pytest.mark.parametrize("prompt", [pytest.param("", marks=pytest.mark.slow), "ba"])
@pytest.mark.parametrize("is_read", [True, False])
def test_what_is_held_back_when_a_text_is_cut_comes_first(model: gentext.TextModel, prompt: str, is_read: bool) -> None:
    """Each character may become a stop string, until the next one is written."""
    sampler = model._sampler
    assert isinstance(sampler, OnnxGenerator)
    slots = Slots(sampler.session, model.bundle, 1)
    slots.schedule.choose_positions = lambda *_: 100  # type: ignore[method-assign]
    stop = [f"{symbol}..\n\n.." for symbol in model.symbols if symbol != "."]
    options = writing_options(seed=3, stop=stop, top_logprobs=2, echo=True)
    begun = begin_text(model, TextJob(0, "ab" * 20_000, options | {"length": 3000}, has_logprobs=True))
    begun.join(slots)
    assert begun.slot is not None
    events = [begun.take_piece(piece) for piece in slots.advance()]
    while is_read and not begun.slot.decoder.state.pending:
        events += [begun.take_piece(piece) for piece in slots.advance()]
    events.append(begun.cut(slots))
    begun.leave(slots)
    first = "".join(event.text for event in events)
    session = unpack(events[-1].session or b"")
    assert session.row.pending if is_read else session.row.unread

    going_on = begin_text(model, TextJob(0, prompt, options | {"length": 50}, True, events[-1].session))
    going_on.join(slots)
    events = []
    while not events or events[-1].finish is None:
        events += [going_on.take_piece(piece) for piece in slots.advance()]
    text = "".join(event.text for event in events)
    scores = [score for event in events for score in event.scores or ()]
    if prompt:
        assert text.startswith(session.row.pending + prompt) and len(text) == len(session.row.pending) + 2 + 50
    else:
        assert first + text == model.write("ab" * 3000, length=len(first) + 50, seed=3)
    assert all(text[score.offset] == score.text and len(score.top) == 2 for score in scores)
    assert [score.offset for score in scores] == list(range(len(session.row.pending), len(text)))


def test_a_file_that_was_replaced(files: list[Path], key_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "generator.onnx"
    shutil.copy(files[0], path)
    with running_server(f"tiny={path}", "--workers", "1", "--session-key-file", key_file) as server:
        session = complete(server, max_tokens=3)["session"]
        shutil.copy(files[1], tmp_path / "new.onnx")
        os.replace(tmp_path / "new.onnx", path)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: status_of(server, session) == 409)


@pytest.mark.parametrize("is_stream", [False, True])
def test_texts_that_take_too_long_are_cut_and_go_on(
    files: list[Path], model: gentext.TextModel, is_stream: bool
) -> None:
    body = {"prompt": "a", "max_tokens": 900_000, "seed": 6, "stream": is_stream}
    with running_server(files[0], "--workers", "1", "--limit", "request_seconds=0.5") as server:
        answer = server.post("/v1/completions", **body)
        lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line and "[DONE]" not in line]
        choices = [choice for line in lines for choice in json.loads(line)["choices"]]
        text = "".join(choice["text"] for choice in choices)
        assert choices[-1]["finish"] == "cut" and 0 < len(text) < 900_000
        rest = server.complete(session=choices[-1]["session"], max_tokens=200)["choices"][0]["text"]
    assert text + rest == model.write("a", length=len(text) + 200, seed=6)
