"""Clients of a server that break the rules: endless requests, silent connections, mutated requests."""

from __future__ import annotations

import asyncio
import dataclasses
import http.client
import json
import time
from collections import Counter
from typing import Any

import hypothesis
from hypothesis import strategies

#: Connections that are opened at a time.
BACKLOG = 200


@dataclasses.dataclass(frozen=True)
class RawOutcome:
    """How a server has answered to bytes."""

    status: int | None
    is_closed: bool
    seconds: float
    sent: int

    def __str__(self) -> str:
        answer = "no answer" if self.status is None else str(self.status)
        ending = "closed" if self.is_closed else "still open"
        return f"{answer}, {ending} after {self.seconds:.1f} s and {self.sent:,} bytes"


async def send_raw(address: tuple[str, int], begin: bytes, more: bytes, pause: float, seconds: float) -> RawOutcome:
    """Send bytes, then others again and again, until the server closes the connection or the time is over."""
    reader, writer = await asyncio.open_connection(*address)
    started_at, sent, answer = time.monotonic(), len(begin), b""

    async def read() -> None:
        nonlocal answer
        while data := await reader.read(65536):
            answer += data

    reading = asyncio.ensure_future(read())
    writer.write(begin)
    try:
        while not reading.done() and time.monotonic() < started_at + seconds:
            writer.write(more)
            sent += len(more)
            await asyncio.wait_for(writer.drain(), seconds)
            await asyncio.wait([reading], timeout=pause or 0.001)
    except OSError:
        await asyncio.wait([reading], timeout=1.0)
    took, is_closed = time.monotonic() - started_at, reading.done()
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    writer.transport.abort()
    words = answer.split(b" ", 2)
    return RawOutcome(int(words[1]) if answer.startswith(b"HTTP/") else None, is_closed, took, sent)


class SilentConnections:
    """Connections that say nothing."""

    def __init__(self) -> None:
        self.transports: set[asyncio.BaseTransport] = set()

    @property
    def open_count(self) -> int:
        return len(self.transports)

    def protocol(self) -> asyncio.Protocol:
        return _SilentProtocol(self)

    def close(self) -> None:
        for transport in [*self.transports]:
            assert isinstance(transport, asyncio.Transport)
            transport.abort()


class _SilentProtocol(asyncio.Protocol):
    def __init__(self, group: SilentConnections) -> None:
        self.group = group

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.group.transports.add(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.group.transports.discard(self.transport)


async def open_silent_connections(address: tuple[str, int], count: int) -> SilentConnections:
    """Open so many connections; those that the server refuses are left out."""
    group, loop = SilentConnections(), asyncio.get_running_loop()
    for begin in range(0, count, BACKLOG):
        opening = [loop.create_connection(group.protocol, *address) for _ in range(min(BACKLOG, count - begin))]
        await asyncio.gather(*opening, return_exceptions=True)
    await asyncio.sleep(0.5)
    return group


#: Requests that are right, of each kind.
VALID: list[tuple[str, dict[str, Any]]] = [
    ("/v1/completions", {"prompt": "a", "max_tokens": 5, "seed": 1, "temperature": 0.8, "stop": ["b"], "n": 2}),
    ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 4, "echo": True, "logprobs": 2, "top_p": 0.9}),
    ("/v1/completions", {"prompt": "a", "max_tokens": 6, "stream": True, "stream_options": {"include_usage": True}}),
    ("/v1/completions", {"prompt": "", "max_tokens": 6, "match": "[a-c]{1,4}", "top_k": 5, "min_p": 0.1, "user": "u"}),
    ("/score", {"text": "abc"}),
    ("/best", {"prompt": "a", "count": 2, "length": 3}),
]
#: Values that stand in the place of right ones. A huge max_tokens alone is a valid wish, which would take minutes.
STRANGE = (
    strategies.none()
    | strategies.booleans()
    | strategies.sampled_from([-1, 0, 2**31, 2**63, 10**40, -(10**40), 1e308, -0.0, 0.5])
    | strategies.floats()
    | strategies.text(max_size=20)
    | strategies.sampled_from(["\ud800", "\x00", "../../etc/passwd", "a" * 200_000, "((((", "(a*)*b", "{{}}"])
    | strategies.lists(strategies.none() | strategies.integers() | strategies.text(max_size=5), max_size=4)
    | strategies.dictionaries(
        strategies.text(max_size=5), strategies.integers() | strategies.text(max_size=5), max_size=3
    )
)
EXTRA_NAMES = (
    *("model", "session", "suffix", "best_of", "json_schema", "match_prime", "unknown", "style", "logit_bias"),
    *("presence_penalty", "frequency_penalty", "nonsense", "length", "memory", "beam", "stream"),
)


@strategies.composite
def mutated_requests(draw: strategies.DrawFn) -> tuple[str, bytes]:
    """Return a path and a body that was right before something happened to it."""
    path, body = draw(strategies.sampled_from(VALID))
    body = dict(body)
    for _ in range(draw(strategies.integers(1, 3))):
        name = draw(strategies.sampled_from([*body, *EXTRA_NAMES]) if body else strategies.sampled_from(EXTRA_NAMES))
        if draw(strategies.integers(0, 4)) == 0:
            body.pop(name, None)
        else:
            body[name] = draw(STRANGE)
    content = json.dumps(body).encode("utf-8", "surrogatepass")
    if draw(strategies.integers(0, 3)) == 0:
        at = draw(strategies.integers(0, len(content)))
        content = content[:at] + draw(strategies.binary(max_size=4)) + content[at + draw(strategies.integers(0, 3)) :]
    return path, content


@dataclasses.dataclass
class Mutations:
    """What came back for mutated requests."""

    statuses: Counter[str] = dataclasses.field(default_factory=Counter)
    bad: list[str] = dataclasses.field(default_factory=list)
    """Requests with a status of 500, without an answer, or with the canary in it."""

    def __str__(self) -> str:
        statuses = ", ".join(f"{count:,} x {status}" for status, count in sorted(self.statuses.items()))
        return f"{statuses}; bad: {len(self.bad)}{''.join(f' ({line})' for line in self.bad[:3])}"


def send_mutations(address: tuple[str, int], count: int, seed: int, canary: bytes) -> Mutations:
    """Send so many mutated requests, one after the other."""
    outcome = Mutations()
    connection = http.client.HTTPConnection(*address, timeout=60)

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(mutated_requests())
    def send(request: tuple[str, bytes]) -> None:
        path, content = request
        try:
            connection.request("POST", path, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            outcome.bad.append(f"{path} {content[:200]!r}: {type(error).__name__}")
            connection.close()
            return
        outcome.statuses[str(answer.status)] += 1
        if answer.status >= 500 or b"server_error" in body or canary in body:
            outcome.bad.append(f"{path} {content[:200]!r}: {answer.status} {body[:200]!r}")
        elif answer.status >= 400:
            json.loads(body)["error"]["message"]

    send()
    return outcome
