"""What every answer has: a request id, an error object instead of an exception, a line in the log, and a count."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import Any, TypeVar

import msgspec
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gentext.plugins.server.http.guards import BODY, ROUTE, ClientGone, wait_for_end
from gentext.plugins.server.logs import RECORD, LogWriter, RequestRecord
from gentext.plugins.server.metrics import Metrics
from gentext.plugins.server.problems import Problem

#: The ids of requests that clients may choose.
REQUEST_ID = re.compile(r"[!-~]{1,128}")
#: The status in the log of a request whose client went before an answer began; nginx has it so.
CLIENT_GONE = 499
Result = TypeVar("Result")


async def send_body(
    send: Send, status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None = None
) -> None:
    """Send a whole answer."""
    all_headers = {"Content-Type": content_type, "Content-Length": str(len(body)), **(headers or {})}
    raw_headers = [(name.lower().encode("ascii"), text.encode("latin-1")) for name, text in all_headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw_headers})
    await send({"type": "http.response.body", "body": body})


async def send_json(send: Send, status: int, content: object, headers: Mapping[str, str] | None = None) -> None:
    """Send JSON as a whole answer."""
    await send_body(send, status, msgspec.json.encode(content), "application/json", headers)


class EventStream:
    """The answer of an endpoint: server-sent events, which end when the client has gone.

    ``end`` is called then, and after the last event, even where the events never began.
    """

    def __init__(self, events: AsyncGenerator[bytes], end: Callable[[], None]) -> None:
        self._events, self._end = events, end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await while_connected(receive, self._send(send))
        finally:
            self._end()

    async def _send(self, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        async with contextlib.aclosing(self._events):
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for event in self._events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def while_connected(receive: Receive, answer: Coroutine[Any, Any, Result]) -> Result:
    """Return a result, or raise ClientGone when the client has gone; the body must have been read."""
    answering = asyncio.ensure_future(answer)
    listening = asyncio.ensure_future(wait_for_end(receive))
    try:
        await asyncio.wait([answering, listening], return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientGone
        return answering.result()
    finally:
        listening.cancel()
        answering.cancel()
        await asyncio.gather(answering, listening, return_exceptions=True)


class Answering:
    """The outermost part of the app: all others are within it."""

    def __init__(self, app: ASGIApp, log: LogWriter, metrics: Metrics) -> None:
        self._app, self._log, self._metrics = app, log, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        sent_id = headers.get("x-request-id", "")
        request_id = sent_id if REQUEST_ID.fullmatch(sent_id) else secrets.token_hex(16)
        record = scope[RECORD] = RequestRecord(request_id, scope["method"], scope["path"])

        async def send_recorded(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                id_header = (b"x-request-id", request_id.encode("ascii"))
                message = {**message, "headers": [*message.get("headers", ()), id_header]}
            await send(message)

        try:
            await self._answer(scope, receive, send_recorded, record)
        finally:
            self._log.write_request(record)
            self._metrics.request_finished(scope.get(ROUTE) or "none", record.status, record.seconds)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, record: RequestRecord) -> None:
        """Call the app. After its answer has begun, an exception leaves it without an end, which clients notice."""
        try:
            await self._app(scope, receive, send)
        except ClientGone:
            record.status = record.status or CLIENT_GONE
        except Problem as problem:
            if record.status:
                self._log.write_exception(problem, record.request_id)
            else:
                await send_problem(scope, send, problem)
        except Exception as error:
            self._log.write_exception(error, record.request_id)
            if not record.status:
                await send_problem(scope, send, Problem(500, "the server has made an error; its log has more"))


async def send_problem(scope: Scope, send: Send, problem: Problem) -> None:
    """Send an error object. The connection is closed where the body of the request has not been read."""
    headers = Headers(scope=scope)
    is_announced = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
    is_unread = is_announced and not (BODY in scope and scope[BODY].has_ended)
    closing = {"Connection": "close"} if is_unread else {}
    await send_json(send, problem.status, problem.to_json(), {**problem.headers, **closing})
