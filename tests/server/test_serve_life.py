"""The life of a server: files that change, workers that die, clients that go, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import run_gen
from serving import ServerProcess, running_server

import gentext
from gentext.plugins.server.http.app import Server
from gentext.plugins.server.logs import LogWriter
from gentext.plugins.server.metrics import Metrics
from gentext.plugins.server.settings import Limits
from gentext.plugins.server.tasks.models import Models, ServedModel
from gentext.plugins.server.tasks.workers import WorkerOptions
from gentext.sessions.session_keys import SessionKeys

#: A request over a connection of its own: the length of the body, and the body.
REQUEST = (
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s"
)
STREAM = {"prompt": "a", "max_tokens": 900_000, "stream": True, "seed": 1}


def stream(server: ServerProcess, **fields: Any) -> contextlib.AbstractContextManager[httpx.Response]:
    """Ask for a text that takes long, as events."""
    return httpx.stream("POST", f"{server.url}/v1/completions", json=STREAM | fields, timeout=30)


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait until a condition holds."""
    ending_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ending_at, "it takes too long"
        time.sleep(0.05)


def worker_processes(server: ServerProcess) -> list[int]:
    """Return the numbers of a server's workers."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return [int(child) for child in children if b"server.worker.program" in Path(f"/proc/{child}/cmdline").read_bytes()]


def read_events(answer: httpx.Response) -> list[dict[str, Any]]:
    """Return what is left of the events of a stream."""
    lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.fixture
def file(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(tiny_run / "generator.onnx", tmp_path / "tiny.onnx"))


def test_texts_end_in_order_with_the_server(file: Path) -> None:
    server = ServerProcess([file, "--drain-seconds", "0.5"])
    with stream(server) as answer:
        lines = answer.iter_lines()
        next(lines)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: httpx.get(f"{server.url}/ready").status_code == 503)
        refused = server.post("/v1/completions", prompt="a")
        assert refused.status_code == 503 and refused.headers["retry-after"]
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line and "[DONE]" not in line]
    [choice] = events[-1]["choices"]
    assert (choice["finish_reason"], choice["finish"]) == ("length", "cut")
    status, printed = server.end()
    assert status == 0 and "Traceback" not in printed


def test_a_signal_right_after_the_address_ends_the_server(file: Path) -> None:
    status, printed = ServerProcess([file]).end()
    assert status == 0 and "Traceback" not in printed


def test_a_vanished_client_frees_its_slot(file: Path) -> None:
    with running_server(file, "--slots", "1", "--workers", "1") as server:
        with stream(server) as answer:
            next(answer.iter_lines())
        server.complete(prompt="a", max_tokens=3)  # would wait for the only slot

        # One that waits for the whole answer.
        with socket.create_connection(server.address) as connection:
            body = json.dumps({"max_tokens": 900_000}).encode()
            connection.sendall(REQUEST % (len(body), body))
            time.sleep(0.3)
        server.complete(prompt="a", max_tokens=3)


def test_a_worker_that_dies_is_started_again(file: Path) -> None:
    with running_server(file, "--workers", "1") as server:
        [worker] = worker_processes(server)
        with stream(server) as answer:
            lines = answer.iter_lines()
            next(lines)
            os.kill(worker, signal.SIGKILL)
            events = [json.loads(line.removeprefix("data: ")) for line in lines if line and "[DONE]" not in line]
        assert "ended unexpectedly" in events[-1]["error"]["message"]
        assert server.complete(prompt="a", max_tokens=3, seed=1)["choices"][0]["text"]
        assert worker_processes(server) != [worker]


def test_files_are_loaded_again(file: Path, tiny_run: Path, tmp_path: Path) -> None:
    code, _, err = run_gen("export", tiny_run, "--chain", "top_k", "--output", tmp_path / "other")
    assert code == 0, err
    with running_server(file, "--workers", "1") as server:
        [worker] = worker_processes(server)
        with stream(server) as answer:
            lines = answer.iter_lines()
            next(lines)
            # A damaged file is not taken.
            good = file.read_bytes()
            (tmp_path / "new.onnx").write_bytes(good[: len(good) // 2])
            os.replace(tmp_path / "new.onnx", file)
            server.process.send_signal(signal.SIGHUP)
            wait_for(lambda: "still used" in server.read_printed())
            assert server.complete(max_tokens=3)

            os.replace(tmp_path / "other" / "generator.onnx", file)
            server.process.send_signal(signal.SIGHUP)
            wait_for(lambda: list(httpx.get(f"{server.url}/v1/models").json()["data"][0]["chain"]) == ["top_k"])
            assert len(worker_processes(server)) == 2 and worker in worker_processes(server)
            next(lines)  # the stream goes on with the old file
        wait_for(lambda: len(worker_processes(server)) == 1)
        text = server.complete(prompt="a", max_tokens=20, seed=3)["choices"][0]["text"]
        assert text == gentext.load(file).write("a", length=20, seed=3)


def test_a_full_queue_is_refused(file: Path) -> None:
    with running_server(file, "--slots", "1", "--workers", "1", "--queue", "1") as server:
        connections = []
        for _ in range(2):
            connection = socket.create_connection(server.address)
            body = json.dumps(STREAM).encode()
            connection.sendall(REQUEST % (len(body), body))
            connections.append(connection)
        wait_for(lambda: server.post("/v1/completions", max_tokens=1).status_code == 429)
        refused = server.post("/v1/completions", max_tokens=1)
        assert refused.headers["retry-after"] == "1" and refused.json()["error"]["type"] == "rate_limit_error"
        for connection in connections:
            connection.close()


@pytest.mark.slow
def test_a_slow_client_makes_its_text_wait(file: Path) -> None:
    with running_server(file, "--workers", "1") as server:
        with stream(server, logprobs=10, max_tokens=30_000) as slow:
            time.sleep(2)
            text = "".join(event["choices"][0]["text"] for event in read_events(slow))
        assert text == gentext.load(file).write("a", length=30_000, seed=1)


START_ERRORS = {
    "missing": (["none.onnx"], "none.onnx"),
    "no model": (["text.onnx"], "text.onnx"),
    "no generator": (["RUN/model.onnx"], "compiled generator"),
    "two of one name": (["RUN/generator.onnx", "x/generator.onnx"], "both named generator"),
    "foreign address": (["RUN", "--host", "192.0.2.1"], "address of this machine"),
    "slots": (["RUN", "--slots", "100000000"], "slots"),
}


@pytest.mark.parametrize("name", START_ERRORS)
def test_a_server_that_cannot_start_gives_one_line(name: str, tiny_run: Path, tmp_path: Path) -> None:
    arguments, words = START_ERRORS[name]
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "x").mkdir()
    shutil.copy(tiny_run / "generator.onnx", tmp_path / "x")
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "gentext",
            "serve",
            "--port",
            "0",
            *(a.replace("RUN", str(tiny_run)) for a in arguments),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode in (1, 2) and ended.stderr.count("\n") == 1 and words in ended.stderr, ended.stderr


def test_a_port_in_use(tiny_run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        code, _, err = run_gen("serve", tiny_run, "--port", other.getsockname()[1])
    assert code == 2 and "nobody uses" in err


def test_a_server_that_loads_its_files_refuses_texts(file: Path) -> None:
    limits, metrics = Limits(), Metrics()
    model = ServedModel("tiny", file, WorkerOptions(limits.slots, 1, "cpu", 1.0), limits, metrics.model("tiny"))
    server = Server(Models([model], metrics), limits, SessionKeys.new())  # whose workers are not started
    app = server.application(["tiny.example"], None, LogWriter(io.StringIO()))

    async def post(body: dict[str, Any]) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tiny.example") as client:
            return await client.post("/v1/completions", json=body)

    for body in ({"prompt": "a"}, {"prompt": "a", "temperature": 0.5}, {"session": "none"}):
        answer = asyncio.run(post(body))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), answer.text
        assert answer.json()["error"]["message"] == "the model tiny is not loaded yet"
