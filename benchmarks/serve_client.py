"""A client of ``gen serve`` that takes little processor time, because it shares the cores with the server.

While an answer comes in, its pieces are stored and their times are noted. They are parsed when the answer is complete.
"""

from __future__ import annotations

import array
import asyncio
import dataclasses
import json
import re
import socket
import time
from collections.abc import Mapping
from typing import Any

import msgspec

#: An event with at least one new character.
TEXT_EVENT = re.compile(rb'"text": ?"[^"]')
END_OF_CHUNKS = b"0\r\n\r\n"
STREAM_HEADERS = {"content-type": "text/event-stream"}
#: Bytes that the kernel stores for a client that reads slowly.
SLOW_RECEIVE_BUFFER = 4096


class Choice(msgspec.Struct):
    """One choice of a completion, or what it gains by an event."""

    index: int = 0
    text: str = ""
    finish_reason: str | None = None
    finish: str | None = None
    session: str | None = None


class Event(msgspec.Struct):
    """A completion, an event of one, or an error."""

    choices: list[Choice] = []
    error: dict[str, Any] | None = None
    seed: int | None = None


@dataclasses.dataclass
class Behaviour:
    """What a client does besides reading as fast as it can."""

    pause: float = 0.0
    """Seconds without reading after each piece."""
    vanish_after: int | None = None
    """Pieces of an answer after which the connection is cut."""


@dataclasses.dataclass
class Answer:
    """An answer, and when it came."""

    status: int
    headers: dict[str, str]
    body: bytes
    first_seconds: float | None = None
    """From the request to the first new character."""
    has_vanished: bool = False

    @property
    def choices(self) -> dict[int, Choice]:
        """The whole choices by their indices, joined from all events. Raises ServerError for an error."""
        choices: dict[int, Choice] = {}
        texts: dict[int, list[str]] = {}
        for event in self.events():
            if event.error is not None:
                raise ServerError(f"{self.status}: {event.error.get('message', event.error)}")
            for change in event.choices:
                choice = choices.setdefault(change.index, Choice(change.index))
                texts.setdefault(change.index, []).append(change.text)
                choice.finish_reason = change.finish_reason or choice.finish_reason
                choice.finish = change.finish or choice.finish
                choice.session = change.session or choice.session
        for index, choice in choices.items():
            choice.text = "".join(texts[index])
        return choices

    def events(self) -> list[Event]:
        """Return the events of a stream, or the answer as one event."""
        if not self.headers.get("content-type", "").startswith("text/event-stream"):
            return [msgspec.json.decode(self.body, type=Event)]
        lines = [line[6:] for line in self.body.split(b"\n") if line.startswith(b"data: ")]
        return [msgspec.json.decode(line, type=Event) for line in lines if line != b"[DONE]"]

    @property
    def characters(self) -> int:
        """The number of characters in all texts."""
        return sum(len(choice.text) for event in self.events() for choice in event.choices)

    def is_complete(self) -> bool:
        """Return whether a stream has its last line."""
        return b"data: [DONE]" in self.body[-20:]


class ServerError(Exception):
    """The server has answered with an error, or not at all."""


class Connection(asyncio.Protocol):
    """One connection, for one request after another. ``gaps`` gains the seconds between two pieces of text."""

    def __init__(self, gaps: array.array[float], behaviour: Behaviour) -> None:
        self.gaps, self.behaviour = gaps, behaviour
        self.transport: asyncio.Transport | None = None
        self.is_open = False
        self._waiter: asyncio.Future[None] | None = None
        self._begin(0.0)

    def _begin(self, sent_at: float) -> None:
        self.pieces: list[bytes] = []
        self._sent_at, self._first_at, self._last_at = sent_at, 0.0, 0.0
        self._tail = b""
        self._left = -2
        """Bytes of the body that are still to come; -1: they come in chunks, -2: the headers are not complete."""

    @classmethod
    async def open(
        cls,
        address: tuple[str, int],
        gaps: array.array[float] | None = None,
        behaviour: Behaviour | None = None,
    ) -> Connection:
        """Connect to a server."""
        behaviour = behaviour or Behaviour()
        own_socket = socket.socket()
        own_socket.setblocking(False)
        if behaviour.pause:
            own_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_RECEIVE_BUFFER)
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(own_socket, address)
        except OSError:
            own_socket.close()
            raise
        _, connection = await loop.create_connection(
            lambda: cls(array.array("d") if gaps is None else gaps, behaviour), sock=own_socket
        )
        return connection

    def connection_made(self, transport: Any) -> None:
        self.transport, self.is_open = transport, True

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        self._wake()

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self.pieces.append(data)
        if self._last_at:
            self.gaps.append(now - self._last_at)
            self._last_at = now
        elif TEXT_EVENT.search(data):
            self._first_at = self._last_at = now
        if self._has_ended(data) or len(self.pieces) == self.behaviour.vanish_after:
            self._wake()
        elif self.behaviour.pause and self.transport is not None:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(self.behaviour.pause, self._read_on)

    def _read_on(self) -> None:
        if self.is_open and self.transport is not None:
            self.transport.resume_reading()

    def _has_ended(self, data: bytes) -> bool:
        if self._left == -2:
            head, found, body = b"".join(self.pieces).partition(b"\r\n\r\n")
            if not found:
                return False
            length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
            self._left, data = int(length[1]) if length else -1, body
        if self._left >= 0:
            self._left = max(0, self._left - len(data))
            return self._left == 0
        self._tail = (self._tail + data)[-len(END_OF_CHUNKS) :]
        return self._tail == END_OF_CHUNKS

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def ask(
        self, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request, a POST where it has a body, and return the answer.

        Raises ServerError when the connection ends before the answer does.
        """
        content = b"" if body is None else msgspec.json.encode(body)
        lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", "Host: localhost"]
        lines += [f"{name}: {text}" for name, text in (headers or {}).items()]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        return await self.send("\r\n".join([*lines, "", ""]).encode() + content)

    async def send(self, request: bytes) -> Answer:
        """Send the bytes of a request, and return the answer."""
        if not self.is_open or self.transport is None:
            raise ServerError("the connection is closed")
        self._begin(time.perf_counter())
        self._waiter = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        await self._waiter
        has_vanished = len(self.pieces) == self.behaviour.vanish_after
        if has_vanished:
            self.transport.abort()
        whole = b"".join(self.pieces)
        head, found, rest = whole.partition(b"\r\n\r\n")
        if not found:
            raise ServerError(f"the server has closed the connection after {len(whole)} bytes")
        status_line, *fields = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): text.strip() for name, _, text in (field.partition(":") for field in fields)}
        is_chunked = headers.get("transfer-encoding") == "chunked"
        if not has_vanished and (self._tail != END_OF_CHUNKS if is_chunked else self._left > 0):
            raise ServerError(f"the server has closed the connection after {len(rest)} bytes of the body")
        first_seconds = self._first_at - self._sent_at if self._first_at else None
        answer_body = join_chunks(rest) if is_chunked else rest
        if has_vanished:
            answer_body = complete_events(answer_body)
        return Answer(int(status_line.split()[1]), headers, answer_body, first_seconds, has_vanished)

    @property
    def partial_characters(self) -> int:
        """The number of characters of a stream that have come so far."""
        head, _, body = b"".join(self.pieces).partition(b"\r\n\r\n")
        if b"text/event-stream" not in head:
            return 0
        return Answer(200, STREAM_HEADERS, complete_events(join_chunks(body))).characters

    def close(self) -> None:
        """Close the connection."""
        if self.transport is not None:
            self.transport.close()


def join_chunks(body: bytes) -> bytes:
    """Return a body without the sizes of its chunks; the last chunk may be cut off."""
    parts, begin = [], 0
    while (end := body.find(b"\r\n", begin)) > 0 and (size := int(body[begin:end], 16)):
        parts.append(body[end + 2 : end + 2 + size])
        begin = end + 4 + size
        if begin > len(body):
            break
    return b"".join(parts)


def complete_events(body: bytes) -> bytes:
    """Return the part of a stream up to the end of its last complete event."""
    return body[: body.rfind(b"\n\n") + 2]


async def ask_once(
    address: tuple[str, int],
    path: str,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request on a connection of its own."""
    connection = await Connection.open(address)
    try:
        return await connection.ask(path, body, headers)
    finally:
        connection.close()


def error_message(answer: Answer) -> str:
    """Return the message of an error object, or the beginning of the body where it is none."""
    try:
        return str(json.loads(answer.body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return repr(answer.body[:100])
