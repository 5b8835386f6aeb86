"""Runs the server: opens the models and the address, and ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import uvicorn

from gentext.console import say
from gentext.errors import UsageError
from gentext.exported.metadata import Bundle
from gentext.exported.onnx_file import read_checked_metadata
from gentext.plugins.server.http.api_keys import ApiKeys
from gentext.plugins.server.http.app import Server
from gentext.plugins.server.http.protocol import make_config
from gentext.plugins.server.http.sockets import BACKLOG, allow_connections
from gentext.plugins.server.logs import LogWriter, configure_logging
from gentext.plugins.server.metrics import Metrics
from gentext.plugins.server.settings import Limits
from gentext.plugins.server.tasks.models import Models, ServedModel
from gentext.plugins.server.tasks.workers import WorkerOptions
from gentext.run import GENERATOR_FILE
from gentext.runs.source import find_source
from gentext.sessions.session_keys import SessionKeys, read_keys
from gentext.settings import check_device

#: Seconds that connections have to end after the last text has ended.
CLOSE_SECONDS = 5
#: Why texts end when the server ends.
SERVER_ENDS = "the server ends"


@dataclasses.dataclass(frozen=True)
class ServeOptions:
    """The options of ``gen serve``."""

    sources: Sequence[str]
    host: str
    port: int
    workers: int
    device: str
    limits: Limits
    allowed_hosts: Sequence[str] = ()
    api_key_file: Path | None = None
    session_key_file: Path | None = None


def serve_models(options: ServeOptions) -> None:
    """Serve models until a signal ends it. Raises a GenError for a file or an address that cannot be used."""
    check_device(options.device)
    worker_options = WorkerOptions(
        options.limits.slots, options.workers, options.device, options.limits.expression_seconds
    )
    options = dataclasses.replace(options, limits=allow_connections(options.limits))
    keys = None if options.api_key_file is None else ApiKeys(read_keys(options.api_key_file, "--api-key-file"))
    metrics = Metrics()
    models = Models(
        (
            ServedModel(name, path, worker_options, options.limits, metrics.model(name))
            for name, path in find_models(options.sources)
        ),
        metrics,
    )
    session_keys = load_session_keys(options.session_key_file)
    with open_address(options.host, options.port) as listener:
        asyncio.run(_serve(Server(models, options.limits, session_keys), listener, options, keys))


def load_session_keys(path: Path | None) -> SessionKeys:
    """Return the keys of a file; without one, a new key. Raises UsageError for a file without a usable key."""
    return SessionKeys.new() if path is None else SessionKeys.load(path, "--session-key-file")


def find_models(sources: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Yield the name and the file of each model. Raises a GenError for one that cannot be opened."""
    for source in sources or [""]:
        name, separator, path_text = source.rpartition("=")
        path = find_source(Path(path_text) if path_text else None)
        if not separator:
            name = path.name.removesuffix(".onnx")
        path = path / GENERATOR_FILE if path.is_dir() else path
        if not path.is_file() or Bundle.from_metadata(read_checked_metadata(path), path).kind != "generator":
            raise UsageError(f"{path}: expected a file with a compiled generator; gen export writes one")
        yield name, path


def open_address(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises UsageError for an address that is in use, or not of this machine."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise UsageError(
            f"--host {host} --port {port}: {error.strerror or error}; expected an address of this machine, and a port "
            f"that nobody uses"
        ) from None


async def _serve(server: Server, listener: socket.socket, options: ServeOptions, keys: ApiKeys | None) -> None:
    log = LogWriter()
    configure_logging(log)
    app = server.application([options.host, *options.allowed_hosts], keys, log)
    http_server = HttpServer(make_config(app, options.limits, lifespan="off", timeout_graceful_shutdown=CLOSE_SECONDS))
    server.models.metrics.watch_connections(http_server.server_state.connections)
    measuring = asyncio.create_task(server.models.metrics.measure_lag())
    serving = asyncio.create_task(http_server.serve([listener]))
    try:
        await server.models.open()
        end = _handle_signals(server, options, keys)
        if options.session_key_file is None:
            say("gen: sessions end with this process; with --session-key-file FILE they go on in the next one")
        host, port = listener.getsockname()[:2]
        say(f"gen: serving {', '.join(server.models.by_name)} at http://{f'[{host}]' if ':' in host else host}:{port}")
        await asyncio.wait([asyncio.create_task(end.wait()), serving], return_when=asyncio.FIRST_COMPLETED)
        await _drain(server, options.limits.drain_seconds)
    finally:
        http_server.should_exit = True
        measuring.cancel()
        await serving
        await server.models.close()


class HttpServer(uvicorn.Server):
    """uvicorn's server without its signal handlers: `_handle_signals` has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _handle_signals(server: Server, options: ServeOptions, keys: ApiKeys | None) -> asyncio.Event:
    """Return what SIGTERM and SIGINT set, to end the server; SIGHUP loads the files again, those of keys too."""
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        _reload_keys(server, options, keys)
        task = asyncio.create_task(server.models.reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    handlers: dict[str, Callable[[], object]] = {"SIGTERM": end.set, "SIGINT": end.set, "SIGHUP": reload}
    for name, handler in handlers.items():
        with contextlib.suppress(NotImplementedError, AttributeError):  # Windows has no such handlers
            loop.add_signal_handler(getattr(signal, name), handler)
    return end


def _reload_keys(server: Server, options: ServeOptions, keys: ApiKeys | None) -> None:
    """Load the keys again; where that fails, those that were loaded before are still used."""
    try:
        if options.session_key_file is not None:
            server.session_keys = load_session_keys(options.session_key_file)
        if keys is not None and options.api_key_file is not None:
            keys.keys = read_keys(options.api_key_file, "--api-key-file")
    except UsageError as error:
        say(f"gen: {error}; the keys that were loaded before are still used")


async def _drain(server: Server, seconds: float) -> None:
    """Refuse new requests, let texts go on for some time, and end those that are left with their sessions."""
    server.is_draining = True
    if server.models.busy:
        say(f"gen: {server.models.busy} texts are under way; the server ends in {seconds:g} seconds at most")
    ending_at = asyncio.get_running_loop().time() + seconds
    while server.models.busy and asyncio.get_running_loop().time() < ending_at:
        await asyncio.sleep(0.05)
    server.models.cut_all(SERVER_ENDS)
    ending_at = asyncio.get_running_loop().time() + CLOSE_SECONDS
    while server.models.busy and asyncio.get_running_loop().time() < ending_at:
        await asyncio.sleep(0.05)
