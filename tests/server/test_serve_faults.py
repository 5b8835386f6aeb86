"""What clients do to a real `gen serve`, by accident or on purpose: it stays up, answers, and gives nothing away."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import hypothesis.strategies as st
import pytest
from conftest import ExportTiny
from helpers import examples
from serving import ServerProcess, running_server
from test_serve_life import REQUEST, STREAM, stream, wait_for

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
#: A text that the model never writes.
CANARY = "Canary-7f3a"
SHORT = "header_seconds=1 idle_seconds=1 body_seconds=1 reader_seconds=1 expression_seconds=3 connections=2600"


@pytest.fixture(scope="module")
def server(export_tiny: ExportTiny) -> Iterator[ServerProcess]:
    """A server with one slot, so that whatever does not free it is noticed, and with short limits."""
    file = export_tiny("match,top_k,temperature") / "generator.onnx"
    limits = [word for limit in SHORT.split() for word in ("--limit", limit)]
    with running_server(f"tiny={file}", "--slots", "2", "--workers", "1", *limits) as process:
        yield process
        assert CANARY not in process.read_printed()
        assert '"status":500' not in process.printed


@pytest.fixture(autouse=True)
def works_afterwards(server: ServerProcess) -> Iterator[None]:
    yield
    wait_for(lambda: count(server, "gentext_busy_slots") + count(server, "gentext_queued_texts") == 0)
    assert server.complete(prompt="a", max_tokens=3)["choices"][0]["text"]


def count(server: ServerProcess, metric: str) -> float:
    """Return a number of the server's metrics, all labels together."""
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if re.match(rf"{metric}[ {{]", line))


def memory(server: ServerProcess) -> int:
    """Return the most bytes of memory that the server has ever had."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def ask(server: ServerProcess, *parts: bytes) -> bytes:
    """Send a request; return all that comes until the server closes the connection."""
    received = b""
    with socket.create_connection(server.address, timeout=20) as connection, contextlib.suppress(ConnectionError):
        for part in parts:
            connection.sendall(part)
        while part := connection.recv(2**16):
            received += part
    return received


def error_of(answer: bytes) -> tuple[int, dict[str, Any]]:
    """Return the status and the error object of an answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    error: dict[str, Any] = json.loads(body)["error"]
    return int(head.split()[1]), error


@pytest.mark.slow
def test_a_gigabyte_is_refused_and_never_held(server: ServerProcess) -> None:
    before = memory(server)
    status, error = error_of(ask(server, HEAD, b"Content-Length: 1073741824\r\n\r\n", bytes(2**16)))
    assert status == 413 and "1,048,576" in error["message"]
    chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(1024):
                connection.sendall(chunk)
    assert memory(server) < before + 2**25


@pytest.mark.slow
def test_headers_and_bodies_without_end_are_ended(server: ServerProcess) -> None:
    for head, status in ((HEAD, 408), (HEAD + b"Content-Length: 1000\r\n\r\n{", 408)):
        with socket.create_connection(server.address, timeout=20) as connection:
            connection.sendall(head)
            with contextlib.suppress(OSError):
                for _ in range(40):  # a byte now and then
                    connection.sendall(b"a")
                    time.sleep(0.05)
            assert error_of(connection.recv(2**16))[0] == status


@pytest.mark.slow
def test_silent_connections_cost_little_and_disappear(server: ServerProcess) -> None:
    """Ten thousand of them are a matter of benchmarks/serve_faults.py."""
    before = memory(server)
    connections = [socket.create_connection(server.address, timeout=20) for _ in range(2000)]
    assert server.complete(prompt="a", max_tokens=3)
    wait_for(lambda: count(server, "gentext_open_connections") < 10)
    assert all(connection.recv(1) == b"" for connection in connections)
    for connection in connections:
        connection.close()
    assert memory(server) < before + 2**25


@pytest.mark.slow
def test_a_client_that_does_not_read_is_cut_off(server: ServerProcess) -> None:
    body = json.dumps(STREAM | {"logprobs": 10, "n": 2, "max_tokens": 400_000}).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**12)
        connection.connect(server.address)
        connection.sendall(REQUEST % (len(body), body))
        wait_for(lambda: count(server, "gentext_busy_slots") == 2)
        wait_for(lambda: count(server, "gentext_busy_slots") == 0, seconds=40)


REFUSED = {
    "compressed": ({"Content-Encoding": "gzip"}, 415),
    "no JSON": ({"Content-Type": "text/plain"}, 415),
    "rebound": ({"Host": "evil.example"}, 421),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_guards_refuse(server: ServerProcess, name: str) -> None:
    headers, status = REFUSED[name]
    answer = httpx.post(f"{server.url}/v1/completions", json={"prompt": CANARY}, headers=headers)
    assert answer.status_code == status and CANARY not in answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/docs/../../etc/passwd", "/v1/models/..%2f..%2fetc%2fpasswd", "/%00", "/v1/models/"]
)
def test_no_path_leads_out(server: ServerProcess, path: str) -> None:
    answer = ask(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert error_of(answer)[0] == 404 and b"root:" not in answer


def test_keys_are_asked_for(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{CANARY}\n")
    (tmp_path / "keys").chmod(0o600)
    with running_server(tiny_run, "--api-key-file", tmp_path / "keys", "--workers", "1") as server:
        url = f"{server.url}/v1/models"
        for key, status in ((None, 401), (CANARY[:-1], 401), (CANARY, 200)):
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            assert httpx.get(url, headers=headers).status_code == status
        assert httpx.get(f"{server.url}/metrics").status_code == 401
        assert httpx.get(f"{server.url}/health").status_code == 200
        (tmp_path / "keys").write_text("another-key\n")
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: httpx.get(url, headers={"Authorization": "Bearer another-key"}).status_code == 200)
        assert httpx.get(url, headers={"Authorization": f"Bearer {CANARY}"}).status_code == 401
    assert CANARY not in server.printed


@pytest.mark.slow
def test_a_text_goes_on_while_an_expression_explodes(server: ServerProcess) -> None:
    refusals: list[httpx.Response] = []
    with stream(server, prompt="a") as answer:
        lines = answer.iter_lines()
        next(lines)
        exploding = threading.Thread(
            target=lambda: refusals.append(server.post("/v1/completions", match="(.|\n)*a(.|\n){30}", max_tokens=99))
        )
        exploding.start()
        events = 0
        while exploding.is_alive():
            next(lines)
            events += 1
    assert refusals[0].status_code == 400 and "too large" in refusals[0].json()["error"]["message"]
    assert events > 5


@pytest.mark.slow
def test_a_canary_stays_in_its_own_stream(server: ServerProcess) -> None:
    """No prompt, and no symbol of another text that shares its calls, reaches a text, a session or an error."""
    with stream(server, prompt="ab", user=CANARY) as answer:
        next(answer.iter_lines())
        alone = seeded_texts(server, "ab")
        others = [seeded_texts(server, prompt) for prompt in (CANARY, f"ab{CANARY}", "")]
    assert seeded_texts(server, "ab") == alone
    assert CANARY not in json.dumps([alone, others])


def seeded_texts(server: ServerProcess, prompt: str) -> list[Any]:
    answer = server.complete(prompt=prompt, max_tokens=300, seed=5, unknown="skip")
    return [choice["text"] for choice in answer["choices"]]


# -- mutated requests ---------------------------------------------------------------------------

BODY = {"prompt": "ab", "n": 2, "max_tokens": 5, "seed": 3, "stop": ["b"], "logprobs": 2, "echo": True, "top_k": 2}
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
OTHER_NAMES = (
    "model stream stream_options match json_schema match_prime session temperature style logit_bias best_of suffix "
    "user unknown frequency_penalty text count length beam"
)
names = st.sampled_from([*BODY, *OTHER_NAMES.split()])


@st.composite
def mutated_requests(draw: st.DrawFn) -> bytes:
    """Return a request of which some fields have other values, and some bytes are others."""
    path = draw(st.sampled_from(["/v1/completions", "/score", "/best"]))
    fields = {"text": "ab"} if path == "/score" else {"prompt": "ab"} if path == "/best" else dict(BODY)
    fields |= draw(st.dictionaries(names, values, max_size=3))
    body = json.dumps(fields).encode()
    head = HEAD.replace(b"/v1/completions", path.encode())
    request = bytearray(head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    for _ in range(draw(st.integers(0, 2))):
        begin = draw(st.integers(0, len(request) - 1))
        request[begin : begin + draw(st.integers(0, 4))] = draw(st.binary(max_size=6))
    return bytes(request)


def check_mutation(server: ServerProcess, request: bytes) -> None:
    """Send a request; fail where the answer is an error of the server. Half a request is left after a while."""
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(request)
        connection.settimeout(0.3)
        answer = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            while len(answer) < 12 and (part := connection.recv(2**16)):
                answer += part
    assert not answer or 200 <= int(answer[9:12]) < 500, (request, answer)


@pytest.mark.slow
@examples(200)
@hypothesis.given(mutated_requests())
def test_mutated_requests_are_answered_without_an_error_of_the_server(server: ServerProcess, request: bytes) -> None:
    """Thousands of them are a matter of benchmarks/serve_faults.py."""
    check_mutation(server, request)
