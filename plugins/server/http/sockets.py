"""Sockets and the files that a process may have open: what the operating system bounds for a server."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from gentext.plugins.server.settings import Limits

if TYPE_CHECKING:
    from asyncio.transports import Transport
    from collections.abc import Iterable

#: Connections that the operating system accepts for the server before it has looked at them.
BACKLOG = 2048
#: Open files besides the connections: the pipes of the workers, models, the log.
OTHER_FILES = 512
#: Bytes that the operating system holds for a client that does not read. Linux doubles them.
SEND_BUFFER = 2**16


def allow_connections(limits: Limits) -> Limits:
    """Raise the process's limit of open files as far as the connections need and the system allows.

    Returns the limits with as many connections as fit.
    """
    try:
        import resource
    except ImportError:  # on Windows, where sockets are no files
        return limits
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = limits.connections + BACKLOG + OTHER_FILES
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        with contextlib.suppress(OSError, ValueError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            soft = allowed
    files = needed if soft == resource.RLIM_INFINITY else soft
    connections = max(files - BACKLOG - OTHER_FILES, files // 4)
    return dataclasses.replace(limits, connections=min(limits.connections, connections))


class ClosingTransport(asyncio.Transport):
    """A transport that is closed in another way: uvicorn closes it in many places."""

    def __init__(self, transport: Transport, close: Callable[[], None]) -> None:
        super().__init__()
        self._transport = transport
        self._close = close
        self._is_closed = False
        self.write = transport.write  # type: ignore[method-assign]
        self.get_extra_info = transport.get_extra_info  # type: ignore[method-assign]
        self.pause_reading = transport.pause_reading  # type: ignore[method-assign]
        self.resume_reading = transport.resume_reading  # type: ignore[method-assign]
        self.abort = transport.abort  # type: ignore[method-assign]

    def close(self) -> None:
        self._is_closed = True
        self._close()

    def is_closing(self) -> bool:
        return self._is_closed or self._transport.is_closing()


def limit_socket(transport: Transport, limits: Limits) -> None:
    """Bound what the operating system holds for a client, and let it notice that the client's machine is gone."""
    connection = transport.get_extra_info("socket")
    options: Iterable[tuple[int, str, int]] = (
        (socket.SOL_SOCKET, "SO_SNDBUF", SEND_BUFFER),
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        # Without it an answer in two parts takes 40 ms: the second waits for the client's system to confirm the first.
        # asyncio sets it for sockets that were made with the number of TCP, which `socket.create_server` leaves out.
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", int(limits.reader_seconds * 1000)),
    )
    for level, name, amount in options:
        with contextlib.suppress(OSError, AttributeError):  # a Unix socket, or another operating system
            connection.setsockopt(level, getattr(socket, name), amount)
