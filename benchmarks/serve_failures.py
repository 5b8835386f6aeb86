"""What a server does when it is killed, when its disk is full, and when its file is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import secrets
import shutil
import signal
import time
from pathlib import Path
from typing import NamedTuple

from serve_client import Answer, Connection, ServerError, ask_once, error_message
from serve_process import Server
from serve_texts import Text, draw_text, write_texts

from gentext.data.shipped import shipped_models

#: Seconds of silence after which a connection must have been closed, beyond the server's own deadline.
PATIENCE = 20.0
LONG_TEXT = Text(7, 0, "", 100_000, 0)
#: Python runs this before any other module of a process: preparing a text whose prompt is BUG fails.
PLANTED_BUG = """
from gentext.plugins.server.worker import texts
begin_text = texts.begin_text
def fail(model, job, *others):
    if job.prompt == "BUG":
        raise ZeroDivisionError("planted")
    return begin_text(model, job, *others)
texts.begin_text = fail
"""


class Place(NamedTuple):
    """Where the faults happen."""

    path: Path
    folder: Path
    seed: int

    def server(self, name: str, *options: str) -> Server:
        """Return a server that is not started, with a session key."""
        key_file = self.folder / "session.key"
        if not key_file.exists():
            key_file.touch(0o600)
            key_file.write_text(f"{secrets.token_hex(32)}\n", encoding="ascii")
        return Server([self.path], self.folder / f"{name}.log", "--session-key-file", str(key_file), *options)


class Outcome(NamedTuple):
    """What happened, and whether it is what should happen."""

    happened: str
    is_right: bool


async def begin_streams(
    server: Server, count: int, text: Text = LONG_TEXT
) -> list[tuple[Connection, asyncio.Task[Answer]]]:
    """Begin long streams, and wait until each has some text."""
    streams = []
    for number in range(count):
        connection = await Connection.open(server.address)
        request = dataclasses.replace(text, seed=text.seed + number).request(stream=True)
        streams.append((connection, asyncio.ensure_future(connection.ask("/v1/completions", request))))
    while not all(connection.partial_characters or task.done() for connection, task in streams):
        await asyncio.sleep(0.05)
    return streams


async def end_streams(streams: list[tuple[Connection, asyncio.Task[Answer]]]) -> int:
    """Close what is still open; return how many streams had ended before."""
    ended = sum(task.done() for _, task in streams)
    for connection, _ in streams:
        connection.close()
    await asyncio.gather(*(task for _, task in streams), return_exceptions=True)
    return ended


def library_text(path: Path, text: Text) -> str:
    [(_, written, _)] = write_texts(path, [text])
    return written


async def write_text(server: Server, text: Text) -> str:
    """Return a text; an error's message stands in its place."""
    with contextlib.suppress(OSError, ServerError):
        answer = await ask_once(server.address, "/v1/completions", text.request())
        return answer.choices[0].text if answer.status == 200 else f"{answer.status}: {error_message(answer)}"
    return "no answer"


async def kill_under_load(place: Place) -> Outcome:
    """Kill -9 with fifty streams; sessions from before go on after the restart."""
    server = place.server("kill").start()
    rng = random.Random(place.seed)
    texts = [dataclasses.replace(draw_text(rng, [300]), setting=0) for _ in range(20)]
    halves = [
        (await ask_once(server.address, "/v1/completions", text.request(max_tokens=150))).choices[0] for text in texts
    ]
    streams = await begin_streams(server, 50)
    left = server.kill()
    await asyncio.sleep(1.0)
    ended = await end_streams(streams)
    server.start()
    equal = 0
    for text, half in zip(texts, halves, strict=True):
        body = text.request(prompt="", max_tokens=150, session=half.session)
        del body["seed"]
        answer = await ask_once(server.address, "/v1/completions", body)
        equal += answer.status == 200 and half.text + answer.choices[0].text == library_text(place.path, text)
    server.stop()
    happened = f"{ended} of 50 clients noticed within 1 s, {len(left)} workers left; {equal} of 20 sessions went on"
    return Outcome(happened, (ended, len(left), equal) == (50, 0, 20))


async def fill_disk(place: Place) -> Outcome:
    """Have every write to a file or to the log fail for want of space."""
    server = place.server("disk")
    server.log = Path("/dev/full")
    server.start(launcher=["prlimit", "--fsize=0"])
    text = draw_text(random.Random(place.seed), [300])
    written = await write_text(server, text)
    status = server.stop()
    is_right = written == library_text(place.path, text)
    return Outcome(f"a text is {'right' if is_right else repr(written)}; SIGTERM ends it with {status}", is_right)


async def replace_file(place: Place) -> Outcome:
    """Replace the served file: by a broken one, then by another model, each with SIGHUP."""
    served = place.folder / "served.onnx"
    shutil.copy(place.path, served)
    server = place._replace(path=served).server("replaced").start()
    text = Text(3, 0, "", 20_000, 0)
    stream = await begin_streams(server, 1, text)
    half = (await ask_once(server.address, "/v1/completions", text.request(max_tokens=50))).choices[0]
    (place.folder / "broken.onnx").write_bytes(place.path.read_bytes()[:100_000])
    (place.folder / "broken.onnx").replace(served)
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    await asyncio.sleep(2.0)
    short = dataclasses.replace(text, length=300)
    keeps_old = await write_text(server, short) == library_text(place.path, short)
    other = shipped_models()["shakespeare"]
    shutil.copy(other, place.folder / "other.onnx")
    (place.folder / "other.onnx").replace(served)
    server.process.send_signal(signal.SIGHUP)
    new_text, end = library_text(other, short), time.monotonic() + PATIENCE
    while not (has_new := await write_text(server, short) == new_text) and time.monotonic() < end:
        await asyncio.sleep(0.1)
    body = {"prompt": "", "max_tokens": 10, "session": half.session}
    old_session = await ask_once(server.address, "/v1/completions", body)
    [(connection, task)] = stream
    with contextlib.suppress(ServerError, TimeoutError):
        await asyncio.wait_for(task, 60)
    is_whole = task.done() and not task.exception() and task.result().choices[0].text == library_text(place.path, text)
    connection.close()
    server.stop()
    happened = (
        f"a broken file: {'the old model stays' if keeps_old else 'no right answer'}; another model: "
        f"{'served' if has_new else 'not served'}, the stream of before {'is whole' if is_whole else 'is not whole'}, "
        f"its session gets {old_session.status}: {error_message(old_session)}"
    )
    return Outcome(happened, keeps_old and has_new and is_whole and old_session.status == 409)


async def plant_bug(place: Place) -> Outcome:
    """Have the code of the workers fail for one prompt."""
    (place.folder / "sitecustomize.py").write_text(PLANTED_BUG, encoding="utf-8")
    server = place.server("bug")
    server.environment["PYTHONPATH"] = str(place.folder)
    server.start()
    text = draw_text(random.Random(place.seed), [300])
    answer = await ask_once(server.address, "/v1/completions", {"prompt": "BUG", "max_tokens": 10})
    body = {"prompt": "BUG", "max_tokens": 10, "stream": True}
    stream = await ask_once(server.address, "/v1/completions", body)
    errors = [event.error for event in stream.events() if event.error is not None]
    is_right = await write_text(server, text) == library_text(place.path, text)
    server.stop()
    happened = (
        f"{answer.status}: {error_message(answer)}; in a stream {stream.status} with {len(errors)} error event; a text "
        f"afterwards is {'right' if is_right else 'wrong'}"
    )
    is_hidden = b"planted" not in answer.body + stream.body
    return Outcome(happened, is_right and is_hidden and answer.status == 500 and len(errors) == 1)
