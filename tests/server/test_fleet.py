"""Two replicas behind nginx, with the configuration of docs/fleet.md: only its ports and paths are filled in."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import ServerProcess

import gentext

ROOT = Path(__file__).parents[2]
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(NGINX is None, reason="nginx is not installed")]
LENGTH, SEED = 400, 11
#: Seconds that anything may take.
PATIENCE = 30


def fill_in(configuration: str, folder: Path, port: int, replicas: list[ServerProcess]) -> str:
    """Return the configuration with these ports, and with a folder that this test may write to."""
    ports = {"8000": port, **{f"800{number}": replica_port(each) for number, each in enumerate(replicas, 1)}}
    configuration, count = re.subn(r"\b800[0-2]\b", lambda found: str(ports[found[0]]), configuration)
    assert count == 3
    configuration = configuration.replace("/run/", f"{folder}/").replace("/var/log/nginx/", f"{folder}/")
    temporary = "".join(
        f"    {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return configuration.replace("http {\n", f"http {{\n{temporary}", 1)


def replica_port(replica: ServerProcess) -> int:
    return httpx.URL(replica.url).port or 80


class Fleet:
    """Two replicas and their nginx."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        key_file = folder / "session.key"
        key_file.touch(0o600)
        key_file.write_text("11" * 32, encoding="ascii")
        self.options = [f"texts={model}", "--session-key-file", key_file, "--slots", "4", "--drain-seconds", "1"]
        self.replicas = [ServerProcess([*self.options, "--workers", "1"]) for _ in range(2)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        [block] = re.findall(
            r"^```nginx\n(.*?)^```$", (ROOT / "docs" / "fleet.md").read_text(), re.MULTILINE | re.DOTALL
        )
        configuration = folder / "nginx.conf"
        configuration.write_text(fill_in(block, folder, port, self.replicas), encoding="utf-8")
        self.url = f"http://localhost:{port}"
        assert NGINX is not None
        command = [NGINX, "-p", str(folder), "-c", str(configuration), "-e", str(folder / "begin.log")]
        self.nginx = subprocess.Popen([*command, "-g", "daemon off;"], stderr=subprocess.PIPE)
        self.wait(lambda: httpx.get(f"{self.url}/ready").status_code == 200)

    def wait(self, is_true: Any) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(httpx.HTTPError):
                if is_true():
                    return
            assert self.nginx.poll() is None, self.nginx.stderr and self.nginx.stderr.read()
            time.sleep(0.05)
        raise AssertionError("waited in vain")

    def busy(self) -> float:
        """Return the number of busy slots of all replicas."""
        texts = [httpx.get(f"{each.url}/metrics").text for each in self.replicas if each.process.poll() is None]
        return sum(float(count) for count in re.findall(r"^gentext_busy_slots\{.*\} (\S+)$", "\n".join(texts), re.M))

    def close(self) -> None:
        self.nginx.send_signal(signal.SIGQUIT)
        self.nginx.communicate(timeout=PATIENCE)
        for replica in self.replicas:
            replica.end()


@pytest.fixture
def fleet(tmp_path: Path, tiny_run: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, tiny_run / "generator.onnx")
    try:
        yield fleet
    finally:
        fleet.close()


def write(url: str, stream: bool = False, **fields: Any) -> dict[str, Any]:
    """Return a choice; with ``stream``, put together from its events."""
    fields = {"model": "texts", "temperature": 0.9, **fields}
    if not stream:
        answer = httpx.post(f"{url}/v1/completions", json=fields, timeout=PATIENCE)
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["choices"][0])
    whole: dict[str, Any] = {"text": ""}
    with httpx.stream("POST", f"{url}/v1/completions", json=fields | {"stream": True}, timeout=PATIENCE) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                choice = json.loads(line[6:])["choices"][0]
                whole |= {**choice, "text": whole["text"] + choice["text"]}
    assert line == "" or line == "data: [DONE]"
    return whole


def test_a_stream_goes_on_at_the_other_replica(fleet: Fleet, tiny_run: Path) -> None:
    uncut = gentext.load(tiny_run / "generator.onnx").write("ab", length=LENGTH, seed=SEED, temperature=0.9)
    first, second = fleet.replicas
    half = write(first.url, stream=True, prompt="ab", max_tokens=LENGTH // 2, seed=SEED)
    assert (
        write(second.url, stream=True, session=half["session"], max_tokens=LENGTH // 2)["text"] == uncut[LENGTH // 2 :]
    )
    # Through nginx, once the replica that began the text has gone.
    half = write(first.url, stream=True, prompt="ab", max_tokens=LENGTH // 2, seed=SEED)
    first.end()
    for stream in (True, False):
        rest = write(fleet.url, stream=stream, session=half["session"], max_tokens=LENGTH // 2)
        assert half["text"] + rest["text"] == uncut


def test_a_draining_replica_hands_its_texts_over(fleet: Fleet) -> None:
    fields = {"model": "texts", "prompt": "ab", "max_tokens": 1_000_000, "seed": SEED, "stream": True}
    events: list[dict[str, Any]] = []
    with httpx.stream("POST", f"{fleet.url}/v1/completions", json=fields, timeout=PATIENCE) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            events.append(json.loads(line[6:])["choices"][0])
            if len(events) == 1:  # it comes while the text is being written
                [busy] = [each for each in fleet.replicas if "} 1.0" in busy_lines(each)]
                busy.process.send_signal(signal.SIGTERM)
                assert write(fleet.url, prompt="a", max_tokens=5)["finish"] == "length"  # the other one writes it
    assert events[-1]["finish"] == "cut" and events[-1]["finish_reason"] == "length"
    text = "".join(event["text"] for event in events)
    rest = write(fleet.url, session=events[-1]["session"], max_tokens=100, temperature=None)
    [other] = [each for each in fleet.replicas if each is not busy]
    whole = write(other.url, prompt="ab", max_tokens=len(text) + 100, seed=SEED, temperature=None, stream=True)
    assert whole["text"] == text + rest["text"]


def busy_lines(replica: ServerProcess) -> str:
    lines = httpx.get(f"{replica.url}/metrics").text.splitlines()
    return "\n".join(line for line in lines if line.startswith("gentext_busy_slots"))


def test_a_client_that_goes_away_frees_its_slot(fleet: Fleet) -> None:
    fields = {"model": "texts", "prompt": "ab", "max_tokens": 1_000_000, "stream": True}
    with httpx.stream("POST", f"{fleet.url}/v1/completions", json=fields, timeout=PATIENCE) as answer:
        lines = answer.iter_lines()  # the end of this iterator would close the connection
        assert answer.status_code == 200 and next(lines).startswith("data: {")
        assert fleet.busy() == 1
    fleet.wait(lambda: fleet.busy() == 0)


def test_metrics_are_not_public(fleet: Fleet) -> None:
    assert httpx.get(f"{fleet.url}/metrics").status_code == 404
    assert httpx.get(f"{fleet.url}/docs").status_code == 200
