"""The limits that hold for every request, with real sockets against uvicorn and an app that answers at once."""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import io
import json
import queue
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import hypothesis
import hypothesis.strategies as st
import pytest
import uvicorn
from helpers import examples
from starlette.types import Receive, Scope, Send

from gentext.errors import UsageError
from gentext.plugins.server.http.answering import Answering, send_json
from gentext.plugins.server.http.api_keys import ApiKeys
from gentext.plugins.server.http.guards import BodyMemory, Guards, find_route, parse_object, read_json, wait_for_end
from gentext.plugins.server.http.protocol import make_config
from gentext.plugins.server.http.sockets import allow_connections, limit_socket
from gentext.plugins.server.logs import LogWriter, configure_logging, locate, record_of
from gentext.plugins.server.metrics import Metrics
from gentext.plugins.server.problems import Problem
from gentext.plugins.server.settings import Limits
from gentext.plugins.server.tasks.messages import TextJob
from gentext.plugins.server.worker import program
from gentext.requests.options import writing_options
from gentext.sessions.session_keys import read_keys

#: Limits so short that a test can wait for them.
LIMITS = Limits(
    headers=2000,
    body=2**16,
    bodies=2**17,
    connections=40,
    header_seconds=0.5,
    idle_seconds=0.5,
    body_seconds=0.5,
    reader_seconds=0.5,
)
ROUTES = {
    "/health": ["GET"],
    "/echo": ["POST"],
    "/flood": ["GET"],
    "/wait": ["GET"],
    "/fail": ["GET"],
    "/fail_late": ["GET"],
    "/models/{model}": ["GET"],
}
CANARY = "canary-text-of-a-client"
HOST = b"Host: localhost\r\n"
POST = b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"


class App:
    """An app that reads, waits, fails, or sends without end."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        """Set when an answer without end has noticed that its client is gone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == "/echo":
            content = await read_json(receive)
            record_of(scope).model = "tiny"
            await send_json(send, 200, {"length": len(json.dumps(content))})
        elif path == "/fail":
            raise RuntimeError(CANARY)
        elif path in ("/flood", "/fail_late", "/wait"):
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            if path == "/fail_late":
                raise RuntimeError(CANARY)
            leaving = asyncio.create_task(wait_for_end(receive))
            while not leaving.done() and path == "/flood":
                await send({"type": "http.response.body", "body": bytes(2**16), "more_body": True})
                await asyncio.sleep(0)
            await leaving
            self.ended.set()
        else:
            await send_json(send, 200, {"path": path})


class Running:
    """A server in a thread."""

    def __init__(self, limits: Limits, keys: ApiKeys | None = None) -> None:
        self.log, self.metrics, self.app = io.StringIO(), Metrics(), App()
        writer = LogWriter(self.log)
        configure_logging(writer)
        guarded = Guards(self.app, ROUTES, limits, ["models.example"], keys)
        self.server = uvicorn.Server(make_config(Answering(guarded, writer, self.metrics), limits, lifespan="off"))
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = self.listener.getsockname()
        self.thread = threading.Thread(target=asyncio.run, args=[self.server.serve([self.listener])])
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.metrics.watch_connections(self.server.server_state.connections)

    def connect(self, *parts: bytes) -> socket.socket:
        """Open a connection, and send something."""
        connection = socket.create_connection(self.address, timeout=10)
        for part in parts:
            connection.sendall(part)
        return connection

    def ask(self, *parts: bytes) -> tuple[int, dict[str, str], Any]:
        """Send a request; return status, headers and JSON of the answer, once the server has closed the connection."""
        with self.connect(*parts) as connection:
            return read_answer(connection)

    def records(self) -> list[dict[str, Any]]:
        """Return the lines of the log."""
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    def end(self) -> None:
        """End the server."""
        self.server.should_exit = self.server.force_exit = True
        self.thread.join()
        self.listener.close()


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], Any]:
    """Return status, headers and JSON of one answer that has a length."""
    head, _, body = read_until(connection, b"\r\n\r\n").partition(b"\r\n\r\n")
    line, *header_lines = head.decode().split("\r\n")
    headers = {name.lower(): text for name, _, text in (header.partition(": ") for header in header_lines)}
    while len(body) < int(headers["content-length"]):
        body += connection.recv(2**16)
    return int(line.split()[1]), headers, json.loads(body)


def read_until(connection: socket.socket, end: bytes) -> bytes:
    received = b""
    while end not in received:
        part = connection.recv(2**16)
        assert part, f"the connection ended after {received!r}"
        received += part
    return received


def wait_for_close(connection: socket.socket) -> float:
    """Return after how many seconds the server closes a connection."""
    begun = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while connection.recv(2**16):
            pass
    return time.monotonic() - begun


def post(body: bytes, *headers: bytes) -> bytes:
    return POST + b"".join(headers) + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    server = Running(LIMITS)
    yield server
    server.end()
    assert "Traceback" not in server.log.getvalue()
    assert CANARY not in server.log.getvalue()


# -- what is refused ----------------------------------------------------------------------------

REFUSED = {
    "no host": (b"GET /health HTTP/1.0\r\n\r\n", 400),
    "two hosts": (b"GET /health HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
    "rebound host": (b"GET /health HTTP/1.1\r\nHost: evil.example:8000\r\n\r\n", 421),
    "path traversal": (b"GET /models/../../etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n", 200),  # one name, no path
    "path traversal at the root": (b"GET /..%2f..%2fetc/passwd HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "unknown path": (b"GET /health/ HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "wrong method": (b"GET /echo HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    "preflight": (b"OPTIONS /echo HTTP/1.1\r\n" + HOST + b"Origin: http://evil.example\r\n\r\n", 405),
    "text": (post(b"{}").replace(b"application/json", b"text/plain"), 415),
    "other charset": (post(b"{}").replace(b"application/json", b"application/json; charset=utf-16"), 415),
    "compressed": (post(b"{}", b"Content-Encoding: gzip\r\n"), 415),
    "expectation": (post(b"{}", b"Expect: a miracle\r\n"), 417),
    "gigabyte": (POST + b"Content-Length: 1073741824\r\n\r\n" + bytes(2**20), 413),
    "gigabyte in chunks": (POST + b"Transfer-Encoding: chunked\r\n\r\n40000000\r\n" + bytes(2**18), 413),
    "absurd length": (POST + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n", 400),
    "other encoding": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "length and chunks": (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "long headers": (b"GET /health HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 3000 + b"\r\n\r\n", 431),
    "header without end": (b"GET /health HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 2100, 431),
    "framing alone": (POST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 2**17, 413),
    "half a request": (b"GET /health HTTP/1.1\r\n" + HOST, 408),
    "half a body": (POST + b"Content-Length: 100\r\n\r\n{", 408),
    "no JSON": (post(b"{'a': 1}"), 400),
    "no object": (post(b"[1]"), 400),
    "bad UTF-8": (post(b'{"a": "\xff"}'), 400),
    "half a surrogate": (post(b'{"a": "\\ud800"}'), 400),
    "deep JSON": (post(b'{"a":' + b"[" * 20_000), 400),
    "huge number": (post(b'{"a": ' + b"9" * 100 + b"}"), 400),
    "very negative number": (post(b'{"a": [-9223372036854775809]}'), 400),
    "nothing": (post(b""), 400),
    "exception": (b"GET /fail HTTP/1.1\r\n" + HOST + b"\r\n", 500),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_gets_an_error_object(running: Running, name: str) -> None:
    request, expected = REFUSED[name]
    status, headers, content = running.ask(request)
    assert status == expected, content
    assert not [header for header in headers if header.startswith("access-control")]
    if status >= 400:
        assert set(content["error"]) == {"message", "type", "param", "code"}
        assert CANARY not in content["error"]["message"]


def test_no_body_is_held_that_is_too_long() -> None:
    memory = BodyMemory(10)
    memory.take(6)
    with pytest.raises(Problem, match="too many bodies"):
        memory.take(5)
    assert memory.used == 6


def test_100_continue_is_asked_for_only_by_a_request_that_is_read(running: Running) -> None:
    with running.connect(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n") as connection:
        assert read_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 100")
        connection.sendall(b"{}")
        assert read_answer(connection)[0] == 200
    assert running.ask(POST + b"Expect: 100-continue\r\nContent-Length: 999999\r\n\r\n")[0] == 413


def test_a_refused_body_is_not_taken_for_the_next_request(running: Running) -> None:
    smuggled = b"GET /fail HTTP/1.1\r\n" + HOST + b"\r\n"
    with running.connect(post(smuggled).replace(b"application/json", b"text/plain")) as connection:
        assert read_answer(connection)[0] == 415
        assert connection.recv(100) == b""


def test_head_has_no_body_and_connections_are_used_again(running: Running) -> None:
    with running.connect(b"HEAD /health HTTP/1.1\r\n" + HOST + b"\r\n") as connection:
        assert read_until(connection, b"\r\n\r\n").endswith(b"\r\n\r\n")
        connection.sendall(post(b"{}") + post(b'{"a": 1}'))
        received = read_until(connection, b'{"length":8}')
        assert received.count(b"HTTP/1.1 200") == 2 and b'{"length":2}HTTP/1.1' in received


def test_more_requests_than_may_wait_in_a_connection_end_it(running: Running) -> None:
    with running.connect(b"GET /wait HTTP/1.1\r\n" + HOST + b"\r\n") as connection:
        read_until(connection, b"begun")
        connection.sendall((b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n") * 30)
        assert wait_for_close(connection) < 5


@examples(150)
@hypothesis.given(st.data())
def test_mutated_requests_get_an_answer_below_500_or_none(running: Running, data: st.DataObject) -> None:
    """The full number is a matter of benchmarks/serve_faults.py."""
    request = bytearray(post(b'{"prompt": "a", "n": 1}', b"X-Request-Id: abc\r\n"))
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(0, len(request) - 1))
        request[begin : begin + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=6))
    with running.connect(bytes(request)) as connection:
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            answer = connection.recv(2**16)
            assert not answer or 200 <= int(answer[9:12]) < 500


# -- time and connections -------------------------------------------------------------------------


def test_silent_connections_disappear(running: Running) -> None:
    connections = [running.connect() for _ in range(20)]
    slow = running.connect(b"GET /health HTTP/1.1\r\n")
    assert running.ask(b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n")[0] == 200
    slow.sendall(HOST)  # a byte now and then does not move the deadline
    for connection in [*connections, slow]:
        assert wait_for_close(connection) < 5
        connection.close()
    idle = running.connect(b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n")
    assert read_answer(idle)[0] == 200
    idle.sendall(b"\r\n")  # is no request
    assert wait_for_close(idle) < 5
    idle.close()
    wait_until(lambda: not running.server.server_state.connections)


def test_one_connection_too_many_is_refused(running: Running) -> None:
    connections = [running.connect(b"GET /wait HTTP/1.1\r\n" + HOST + b"\r\n") for _ in range(LIMITS.connections)]
    for connection in connections:
        read_until(connection, b"begun")
    status, headers, _ = running.ask()
    assert (status, headers["connection"]) == (503, "close")
    for connection in connections:
        connection.close()
    wait_until(lambda: not running.server.server_state.connections)
    assert running.ask(b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n")[0] == 200


def test_silent_connections_make_room_for_others(running: Running) -> None:
    connections = [running.connect() for _ in range(2 * LIMITS.connections)]
    assert running.ask(b"GET /health HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")[0] == 200
    for connection in connections:
        connection.close()
    wait_until(lambda: not running.server.server_state.connections)


def test_a_reader_that_does_not_read_is_cut_off(running: Running) -> None:
    running.app.ended.clear()
    with running.connect(b"GET /flood HTTP/1.1\r\n" + HOST + b"\r\n"):
        assert running.app.ended.wait(10)


def test_an_app_notices_that_its_client_has_gone(running: Running) -> None:
    for lets_the_system_reset in (False, True):
        running.app.ended.clear()
        connection = running.connect(b"GET /wait HTTP/1.1\r\n" + HOST + b"\r\n")
        read_until(connection, b"begun")
        if lets_the_system_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        assert running.app.ended.wait(10)


def wait_until(is_true: Any) -> None:
    for _ in range(500):
        if is_true():
            return
        time.sleep(0.01)
    raise AssertionError("it has not become true")


# -- keys, ids, logs, metrics -----------------------------------------------------------------------


def test_keys_are_needed_but_for_health(tmp_path: Any) -> None:
    (tmp_path / "keys").write_text("first-key\n\nsecond-key\n")
    (tmp_path / "keys").chmod(0o600)
    server = Running(LIMITS, ApiKeys(read_keys(tmp_path / "keys", "--api-key-file")))
    try:
        assert server.ask(b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n")[0] == 200
        status, headers, content = server.ask(post(b"{}"))
        assert (status, headers["www-authenticate"], content["error"]["type"]) == (
            401,
            "Bearer",
            "authentication_error",
        )
        for key, expected in {"second-key": 200, "second-kez": 401, "": 401, "first": 401, "first-key ": 200}.items():
            assert server.ask(post(b"{}", f"Authorization: Bearer {key}\r\n".encode()))[0] == expected
        assert server.ask(post(b"{}", "Authorization: Bearer \xe9\r\n".encode("latin-1")))[0] == 401
        assert server.ask(post(b"{}", b"Authorization: Basic first-key\r\n"))[0] == 401
    finally:
        server.end()
    assert "first-key" not in server.log.getvalue()


def test_bad_key_files_are_refused_and_open_ones_are_warned_of(tmp_path: Any, capsys: Any) -> None:
    path = tmp_path / "keys"
    for content, message in ((b" \n", "has no key"), (b"a b\n", "visible ASCII"), (b"x" * 2**17, "larger")):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=message):
            read_keys(path, "--api-key-file")
    with pytest.raises(UsageError, match="cannot be read"):
        read_keys(tmp_path / "none", "--api-key-file")
    path.write_text("key\n")
    path.chmod(0o644)
    assert read_keys(path, "--api-key-file") == [b"key"]
    assert "chmod 600" in capsys.readouterr().err


def test_each_request_has_an_id_a_line_and_a_count(running: Running) -> None:
    def id_of(sent: bytes) -> str:
        body = b'{"secret": "' + CANARY.encode() + b'"}'
        return running.ask(post(body, b"X-Request-Id: " + sent + b"\r\n"))[1]["x-request-id"]

    own, others = id_of(b"my-id"), {id_of(b"x" * 129), id_of(b"a b")}
    assert own == "my-id" and len(others) == 2 and all(len(other) == 32 for other in others)
    wait_until(lambda: [record for record in running.records() if record.get("request_id") in others])
    [record] = [record for record in running.records() if record.get("request_id") == "my-id"]
    assert (record["path"], record["status"], record["model"]) == ("/echo", 200, "tiny")
    content, kind = running.metrics.expose()
    assert b'gentext_requests_total{route="/echo",status="200"}' in content and kind.startswith("text/plain")
    assert b"gentext_open_connections" in content


def test_an_exception_within_an_answer_ends_it_and_is_one_line(running: Running) -> None:
    before = len(running.records())
    with running.connect(b"GET /fail_late HTTP/1.1\r\n" + HOST + b"\r\n") as connection:
        read_until(connection, b"begun")
        assert wait_for_close(connection) < 5
    wait_until(lambda: [record for record in running.records()[before:] if record.get("path") == "/fail_late"])
    [error] = [record["error"] for record in running.records()[before:] if record.get("error")]
    assert error.startswith("RuntimeError at test_server_guards.py:")


def test_an_exception_in_a_worker_is_one_line_without_its_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(CANARY)

    replies: queue.SimpleQueue[Any] = queue.SimpleQueue()
    monkeypatch.setattr(program, "begin_text", fail)
    job = TextJob(1, CANARY, writing_options(seed=0, length=5))
    program.Worker(None, None, replies.put).take(job)  # type: ignore[arg-type]
    reply = replies.get(timeout=10)
    assert (reply.number, reply.status) == (1, 500) and CANARY not in reply.message
    [line] = capsys.readouterr().err.splitlines()
    assert json.loads(line)["error"].startswith("RuntimeError at test_server_guards.py:") and CANARY not in line


def test_metrics_of_a_model_and_the_lag_of_the_loop() -> None:
    metrics = Metrics()
    model = metrics.model("tiny")
    assert metrics.model("tiny") is model
    model.symbols(12)
    model.first_symbol(0.003)
    model.chunk(0.04)
    model.watch(lambda: 3, lambda: 4, lambda: 1)

    async def block() -> None:
        measuring = asyncio.create_task(metrics.measure_lag())
        await asyncio.sleep(0)
        time.sleep(0.35)
        await asyncio.sleep(0.01)
        measuring.cancel()

    asyncio.run(block())
    lines = metrics.expose()[0].decode().splitlines()
    for line in (
        'gentext_symbols_total{model="tiny"} 12.0',
        'gentext_first_symbol_seconds_bucket{le="0.005",model="tiny"} 1.0',
        'gentext_first_symbol_seconds_bucket{le="0.002",model="tiny"} 0.0',
        'gentext_chunk_seconds_bucket{le="0.05",model="tiny"} 1.0',
        'gentext_busy_slots{model="tiny"} 3.0',
        'gentext_queued_texts{model="tiny"} 4.0',
        'gentext_worker_restarts_total{model="tiny"} 1.0',
        'gentext_event_loop_lag_seconds_bucket{le="0.2"} 0.0',
        "gentext_event_loop_lag_seconds_count 1.0",
    ):
        assert line in lines


def test_a_log_that_cannot_be_written_disturbs_nobody() -> None:
    with open("/dev/full", "w") as stream:
        LogWriter(stream).write("info", message="lost")
        with contextlib.suppress(OSError):
            stream.close()


def test_routes() -> None:
    assert find_route(ROUTES, "/models/tiny") == "/models/{model}"
    assert find_route(ROUTES, "/models/{model}") == "/models/{model}"
    assert find_route(ROUTES, "/models/") is None
    assert find_route(ROUTES, "/models") is None


def test_as_many_connections_as_files_are_possible() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        assert allow_connections(Limits(connections=50)).connections == 50
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(2500, before[1])
        assert allow_connections(Limits(connections=10**9)).connections < 10**9 or before[1] < 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@hypothesis.given(st.recursive(st.none() | st.booleans() | st.text() | st.integers(-(2**63), 2**63 - 1), st.lists))
def test_json_objects_are_read_as_they_are(content: Any) -> None:
    assert parse_object(json.dumps({"a": content}).encode()) == {"a": content}


def test_an_answer_in_two_parts_does_not_wait_for_the_client() -> None:
    """asyncio turns Nagle's algorithm off for other sockets than those that `serving.open_address` makes."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        accepted = listener.accept()[0]
        with accepted:
            limit_socket(Mock(get_extra_info=lambda name: accepted), Limits())
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_an_exception_is_located_where_it_was_raised() -> None:
    with pytest.raises(ValueError) as raised:
        fractions.Fraction(CANARY)
    last = raised.traceback[-1]
    assert locate(raised.value) == f"ValueError at fractions.py:{last.lineno + 1} in {last.name}"
