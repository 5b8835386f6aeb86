"""uvicorn's HTTP protocol with deadlines and bounds, which it lacks itself, and the number of open connections.

What a client may hold without giving anything for it is a connection, and that for a few seconds: its headers must end,
its body may not arrive with more framing than content, and it must read what it is sent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gentext.plugins.server.http.sockets import BACKLOG, ClosingTransport, limit_socket
from gentext.plugins.server.problems import Problem
from gentext.plugins.server.settings import Limits

if TYPE_CHECKING:
    from asyncio.transports import Transport

    from starlette.types import ASGIApp

#: Requests of one connection that may wait behind the one that is answered.
MAX_PIPELINED = 16
#: A connection whose request was refused before its end is read for so long, and so many bytes: closing it at once
#: would make the client's system discard the answer.
LINGER_SECONDS, LINGER_BYTES = 2.0, 2**24


def make_config(app: ASGIApp, limits: Limits, **options: Any) -> uvicorn.Config:
    """Return uvicorn's settings for an app behind these limits; ``options`` are further ones, as ``port``."""
    return uvicorn.Config(
        app,
        http=limited_protocol(limits),
        ws="none",
        loop="asyncio",
        backlog=BACKLOG,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        **options,
    )


def limited_protocol(limits: Limits) -> type[LimitedProtocol]:
    """Return the protocol with these limits, as a class, which uvicorn expects."""
    return type("LimitedProtocol", (LimitedProtocol,), {"limits": limits, "silent": {}})


class LimitedProtocol(HttpToolsProtocol):
    """One connection."""

    limits = Limits()
    silent: ClassVar[dict[LimitedProtocol, None]] = {}
    """The connections of a server that have not said anything yet, the oldest first."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.ws_protocol_class = None
        self.timeout_keep_alive = self.limits.idle_seconds  # type: ignore[assignment]  # only passed to call_later
        self._deadline: asyncio.TimerHandle | None = None
        """When the headers must have ended, or the closing connection must be gone."""
        self._reader_deadline: asyncio.TimerHandle | None = None
        self._in_headers = False
        self._in_message = False
        """Whether a request has begun to arrive, and not ended."""
        self._is_ending = False
        self._framing = 0
        """Bytes of the message that arrives which are not its body: headers, sizes of chunks, trailers."""
        self._discarded = 0
        self._problem: Problem | None = None
        """Why the parser was stopped, where it was not bad HTTP."""

    # -- the connection --------------------------------------------------------------------------

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        self._socket_transport = transport
        super().connection_made(ClosingTransport(transport, self._close))
        limit_socket(transport, self.limits)
        self._set_deadline(self.limits.header_seconds, self._end_headers)
        self.silent[self] = None
        if len(self.connections) > self.limits.connections:
            self._make_room()

    def _make_room(self) -> None:
        """End the connection that has been silent for the longest time, which may be this one."""
        oldest = next(iter(self.silent))
        if oldest is not self:
            oldest._socket_transport.abort()
            del self.silent[oldest]
        else:
            self._refuse(Problem(503, "too many connections are open; try again later", headers={"Retry-After": "1"}))

    def connection_lost(self, error: Exception | None) -> None:
        self.silent.pop(self, None)
        self._is_ending = True
        self._set_deadline(None)
        self.resume_writing()
        self._unset_keepalive_if_required()
        super().connection_lost(error)

    def _close(self) -> None:
        """Close the connection once the client has the answer, but within a time."""
        if self._is_ending:
            return
        self._is_ending = True
        transport = self._socket_transport
        if self._in_message and transport.can_write_eof() and not transport.is_closing():
            transport.write_eof()
            transport.resume_reading()
        else:
            transport.close()
        seconds = self.limits.reader_seconds if transport.get_write_buffer_size() else LINGER_SECONDS
        self._set_deadline(seconds, transport.abort)

    def _refuse(self, problem: Problem) -> None:
        """Answer a request instead of the app, and close the connection."""
        if self._is_ending:
            return
        is_answering = self._is_answering()
        if not is_answering or not (self.pipeline or self.cycle.response_started):  # not in the midst of an answer
            self._socket_transport.write(write_answer(problem))
        if is_answering:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._close()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    # -- what arrives ----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.silent.pop(self, None)
        if self._is_ending:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self._socket_transport.pause_reading()
            return
        self._framing += len(data)
        super().data_received(data)
        if self._in_headers and self._framing > self.limits.headers:
            self._refuse(self._too_long_headers())
        elif self._in_message and self._framing > self.limits.headers + self.limits.body:
            self._refuse(Problem(413, "the body has more framing than content"))
        elif not self._is_ending and not self._is_answering() and self._deadline is None:
            self._set_deadline(self.limits.header_seconds, self._end_headers)

    def send_400_response(self, message: str) -> None:
        """Do what uvicorn wants for a request that the parser refused."""
        problem, self._problem = self._problem, None
        self._in_message = True
        self._refuse(problem or Problem(400, "the request is no HTTP that this server understands"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = self._in_message = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_headers:  # behind the body they are trailers, which nobody needs
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self.limits.headers:
            self._stop_parser(self._too_long_headers())
        if len(self.pipeline) >= MAX_PIPELINED:
            self._stop_parser(Problem(429, f"more than {MAX_PIPELINED} requests wait for their turn in one connection"))
        self._set_deadline(None)
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._framing -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_message = False
        self._framing = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._is_answering() and self._in_message:
            self.transport.close()

    def _stop_parser(self, problem: Problem) -> None:
        self._problem = problem
        raise ValueError(problem.message)

    def _too_long_headers(self) -> Problem:
        return Problem(431, f"the headers are longer than {self.limits.headers:,} bytes")

    # -- deadlines -------------------------------------------------------------------------------

    def _set_deadline(self, seconds: float | None, act: Callable[[], object] | None = None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None or act is None else self.loop.call_later(seconds, act)

    def _end_headers(self) -> None:
        """End a connection whose headers have not ended in time; one that has said nothing gets no answer."""
        if self._in_message:
            self._refuse(Problem(408, f"the headers did not end within {self.limits.header_seconds:g} s"))
        else:
            self._close()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._reader_deadline is None:
            abort = self._socket_transport.abort
            self._reader_deadline = self.loop.call_later(self.limits.reader_seconds, abort)

    def resume_writing(self) -> None:
        if self._reader_deadline is not None:
            self._reader_deadline.cancel()
            self._reader_deadline = None
        super().resume_writing()


def write_answer(problem: Problem) -> bytes:
    """Return a whole answer of HTTP/1.1, after which the connection is closed."""
    body = json.dumps(problem.to_json()).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **problem.headers,
    }
    lines = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}"]
    lines += [f"{name}: {text}" for name, text in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body
