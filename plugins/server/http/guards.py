"""What holds for every request before an app sees it: host, key, route, type and size, and how its body is read."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gentext.files.reading import check_data
from gentext.plugins.server.http.api_keys import ApiKeys
from gentext.plugins.server.problems import Problem
from gentext.plugins.server.settings import Limits

#: Routes that need no key. Metrics need one: they tell how busy the server is, and Prometheus can send one.
OPEN_ROUTES = frozenset({"/health", "/ready", "/docs"})
#: Where the route of a request, and its `BoundedBody`, stand in its ASGI scope.
ROUTE, BODY = "gentext.route", "gentext.body"


class ClientGone(Exception):
    """The client has closed its connection."""


class Guards:
    """Refuses requests, by a `Problem`, and bounds the body of those that it lets through.

    ``methods_by_route`` has the methods of each route. A route may end with a name in braces, which stands for the rest
    of a path, as ``/v1/models/{model}``. An app gets HEAD as GET: uvicorn leaves the body of the answer out.
    """

    def __init__(
        self,
        app: ASGIApp,
        methods_by_route: Mapping[str, Collection[str]],
        limits: Limits,
        hosts: Collection[str] = (),
        keys: ApiKeys | None = None,
        open_routes: Collection[str] = (),
    ) -> None:
        """``open_routes`` need no key, besides `OPEN_ROUTES`."""
        self._app, self._methods_by_route, self._limits = app, methods_by_route, limits
        self._hosts = frozenset(host.lower() for host in hosts)
        self._keys = keys
        self._open_routes = {*OPEN_ROUTES, *open_routes}
        self._bodies = BodyMemory(limits.bodies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[ROUTE] = route = find_route(self._methods_by_route, scope["path"])
        headers = Headers(scope=scope)
        check_host(headers.getlist("host"), self._hosts)
        if self._keys is not None and route not in self._open_routes:
            self._keys.check(headers.get("authorization"))
        check_method(self._methods_by_route, route, scope["method"])
        check_headers(headers, scope["method"], self._limits)
        body = scope[BODY] = BoundedBody(receive, self._limits, self._bodies)
        try:
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            await self._app({**scope, "method": method}, body, send)
        finally:
            body.release()


def find_route(routes: Collection[str], path: str) -> str | None:
    """Return the route of a path; there are no others, so nothing climbs out of a folder."""
    if path in routes and "{" not in path:
        return path
    for route in routes:
        beginning = route.partition("{")[0]
        if route.endswith("}") and path.startswith(beginning) and len(path) > len(beginning):
            return route
    return None


def check_host(host_headers: list[str], allowed: Collection[str]) -> None:
    """Raise a problem for a host that is not ours: a page of a stranger may let its own name point to this server.

    Addresses are no names, so they cannot be pointed elsewhere. ``*`` allows every name.
    """
    if len(host_headers) != 1:
        raise Problem(400, f"{len(host_headers)} Host headers; expected one")
    host = host_headers[0].lower()
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if name in allowed or "*" in allowed or name == "localhost" or is_address(name):
        return
    raise Problem(421, f"the host {name[:100]!r} is not one of this server; allow it with --allowed-host", code="host")


def is_address(name: str) -> bool:
    """Return whether a host is an IP address, one of version 6 in brackets."""
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def check_method(methods_by_route: Mapping[str, Collection[str]], route: str | None, method: str) -> None:
    """Raise a problem for a path that does not exist, or a method that it does not have."""
    if route is None:
        raise Problem(404, "there is no such path; /docs lists those that there are", code="not_found")
    methods = {*methods_by_route[route]}
    if "GET" in methods:
        methods.add("HEAD")
    if method not in methods:
        names = ", ".join(sorted(methods))
        raise Problem(405, f"the method {method} is not possible here; expected {names}", headers={"Allow": names})


def check_headers(headers: Headers, method: str, limits: Limits) -> None:
    """Raise a problem for a body that would not be read, before it is read."""
    if int(headers.get("content-length", 0)) > limits.body:  # the parser lets digits through, and nothing else
        raise Problem(413, f"the body is longer than {limits.body:,} bytes")
    if headers.get("transfer-encoding", "chunked").strip().lower() != "chunked":
        raise Problem(400, "the header Transfer-Encoding: expected chunked or none")
    if headers.get("expect", "100-continue").lower() != "100-continue":
        raise Problem(417, "the header Expect: expected 100-continue or none")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "the header Content-Encoding: expected none; send the body as it is")
    if method == "POST":
        kind, _, options = headers.get("content-type", "").lower().partition(";")
        charset = options.strip().removeprefix("charset=").strip('"') or "utf-8"
        if kind.strip() != "application/json" or charset not in ("utf-8", "utf8"):
            raise Problem(415, "the header Content-Type: expected application/json")


class BodyMemory:
    """Counts the bytes of all bodies that are being read."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.used = 0

    def take(self, count: int) -> None:
        """Count bytes, or raise a problem where there are too many."""
        if self.used + count > self._limit:
            raise Problem(503, "too many bodies arrive at once; try again later", headers={"Retry-After": "1"})
        self.used += count


class BoundedBody:
    """The ``receive`` of a request whose body must end in time and may not be longer than the limit."""

    def __init__(self, receive: Receive, limits: Limits, memory: BodyMemory) -> None:
        self._receive, self._limits, self._memory = receive, limits, memory
        self._deadline = asyncio.get_running_loop().time() + limits.body_seconds
        self._length = 0
        self.has_ended = False
        """Whether all of the body has been read."""

    async def __call__(self) -> Message:
        if self.has_ended:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise Problem(408, f"the body did not end within {self._limits.body_seconds:g} s") from None
        if message["type"] == "http.request":
            count = len(message.get("body", b""))
            if self._length + count > self._limits.body:
                raise Problem(413, f"the body is longer than {self._limits.body:,} bytes")
            self._memory.take(count)
            self._length += count
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.has_ended = True
            self.release()
        return message

    def release(self) -> None:
        """Forget the bytes of the body, which has been read or is not wanted any more."""
        self._memory.used -= self._length
        self._length = 0


async def read_json(receive: Receive) -> dict[str, Any]:
    """Read the body of a request, and return the JSON object that it is.

    Raises a `Problem` for anything else, and ClientGone where the client goes before the end.
    """
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parse_object(b"".join(parts))


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a body is, or raise a problem."""
    if not body:
        raise Problem(400, "the body is empty; expected a JSON object")
    try:
        content = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Problem(400, f"the body is no JSON that can be used: {reason}") from None
    if not isinstance(content, dict):
        raise Problem(400, "the body: expected a JSON object")
    for name, setting in content.items():
        try:
            check_data(setting)
            msgspec.msgpack.encode(setting)  # what the workers get has no whole number below -2^63
        except (ValueError, OverflowError) as error:
            name = name[:100]
            raise Problem(400, f"{name}: {error}", parameter=name) from None
    return content


async def wait_for_end(receive: Receive) -> None:
    """Return when the client has gone, or the answer has ended; the body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
