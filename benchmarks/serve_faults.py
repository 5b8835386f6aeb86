"""What a server does when its clients are broken or hostile."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from serve_client import Behaviour, Connection, ask_once, error_message
from serve_failures import (
    LONG_TEXT,
    PATIENCE,
    Outcome,
    Place,
    begin_streams,
    end_streams,
    fill_disk,
    kill_under_load,
    library_text,
    plant_bug,
    replace_file,
    write_text,
)
from serve_hostile import open_silent_connections, send_mutations, send_raw
from serve_load import percentile
from serve_texts import Text, draw_text

#: A text that no model writes by chance, of letters and digits that most models know.
CANARY = "QZXJ73519KWV"
#: A valid expression whose automaton is larger than any memory.
EXPLODING = "(((a|b){1,500}c){1,500}d){1,500}"
METRIC_BUSY = "gentext_busy_slots"


async def stay_silent(place: Place, count: int) -> Outcome:
    """Open thousands of connections that say nothing, beside one client that is served all the time."""
    server = place.server("silent").start()
    client = await Connection.open(server.address)
    text = Text(1, 0, "", 50, 0)
    served = (await client.ask("/v1/completions", text.request())).status == 200
    silent = await open_silent_connections(server.address, count)
    begin = time.monotonic()
    served &= (await client.ask("/v1/completions", text.request())).status == 200
    open_at_once, waited = silent.open_count, None
    while time.monotonic() < begin + PATIENCE + 10:
        if await write_text(server, text) == library_text(place.path, text):
            waited = time.monotonic() - begin
            break
        await asyncio.sleep(0.2)
    while silent.open_count and time.monotonic() < begin + PATIENCE + 10:
        await asyncio.sleep(0.2)
    closed_after, left = time.monotonic() - begin, silent.open_count
    memory = server.memory()
    silent.close()
    client.close()
    server.stop()
    happened = (
        f"{open_at_once:,} of {count:,} stay open at first, {left:,} after {closed_after:.0f} s; a client from before "
        f"is {'served' if served else 'not served'}, a new one after "
        f"{'no time' if waited is None else f'{waited:.1f} s'}; {memory:.0f} MB"
    )
    return Outcome(happened, served and waited is not None and not left)


async def send_endless_headers(place: Place) -> Outcome:
    """Send a header slowly and without end, and one that is too large."""
    server = place.server("headers").start()
    begin = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nX-Long: "
    slow, large = await asyncio.gather(
        send_raw(server.address, begin, b"a", 0.5, PATIENCE + 10),
        send_raw(server.address, begin, b"a" * 100_000, 0.0, PATIENCE + 10),
    )
    server.stop()
    happened = f"a byte each half second: {slow}; without a pause: {large}"
    return Outcome(happened, slow.is_closed and large.is_closed)


async def send_large_bodies(place: Place) -> Outcome:
    """Announce a body of 1 GB, and send one in chunks without end."""
    server = place.server("bodies").start()
    before = server.memory()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    announced, chunked, slow = await asyncio.gather(
        send_raw(server.address, head + b"Content-Length: 1000000000\r\n\r\n", b" " * 100_000, 0.0, 60),
        send_raw(server.address, head + b"Transfer-Encoding: chunked\r\n\r\n", chunk, 0.0, 60),
        send_raw(server.address, head + b"Content-Length: 1000\r\n\r\n", b" ", 1.0, 60),
    )
    grown = server.memory() - before
    server.stop()
    happened = f"announced: {announced}; in chunks: {chunked}; a byte a second: {slow}; memory {grown:+.0f} MB"
    is_refused = announced.status == chunked.status == 413
    return Outcome(happened, is_refused and slow.is_closed and grown < 20)


async def leave_the_folder(place: Place) -> Outcome:
    """Ask for files that are no business of a client."""
    server = place.server("paths").start()
    secret = b"root:"
    targets = ("/../../../../etc/passwd", "/docs/../../../../etc/passwd", "/docs/%2e%2e/%2e%2e/%2e%2e/etc/passwd")
    targets += (
        "//etc/passwd",
        "/docs/..%2f..%2f..%2fetc%2fpasswd",
        "/docs%00/etc/passwd",
        "/v1/models/../../etc/passwd",
    )
    answers = [await ask_once(server.address, target) for target in targets]
    body = {"model": "../../../../etc/passwd", "prompt": "", "max_tokens": 1}
    answers.append(await ask_once(server.address, "/v1/completions", body))
    server.stop()
    statuses = sorted({answer.status for answer in answers})
    is_right = not any(secret in answer.body for answer in answers) and all(400 <= status < 500 for status in statuses)
    return Outcome(f"{len(answers)} requests, statuses {', '.join(map(str, statuses))}", is_right)


async def send_exploding_expression(place: Place) -> Outcome:
    """Ask for texts that match an expression whose automaton would fill any memory, beside a stream."""
    server = place.server("expression").start()
    [(connection, task)] = await begin_streams(server, 1)
    begin = time.monotonic()
    body = {"prompt": "", "max_tokens": 100, "match": EXPLODING}
    answers = await asyncio.gather(*(ask_once(server.address, "/v1/completions", body) for _ in range(4)))
    seconds = time.monotonic() - begin
    longest, memory = percentile(connection.gaps, 100), server.memory()
    await end_streams([(connection, task)])
    server.stop()
    happened = (
        f"four at a time: {answers[0].status} after {seconds:.1f} s: {error_message(answers[0])}; the longest gap of a "
        f"stream beside them {longest:.0f} ms; {memory:.0f} MB"
    )
    return Outcome(happened, all(answer.status == 400 for answer in answers))


async def read_nothing(place: Place) -> Outcome:
    """Begin streams that nobody reads, and streams whose clients vanish."""
    server = place.server("readers").start()
    unread = [await Connection.open(server.address, behaviour=Behaviour(pause=3600)) for _ in range(4)]
    request = LONG_TEXT.request(stream=True, logprobs=5, max_tokens=1_000_000)
    tasks = [asyncio.ensure_future(connection.ask("/v1/completions", request)) for connection in unread]
    gone = await begin_streams(server, 32)
    busy = server.metrics().total(METRIC_BUSY)
    begin = time.monotonic()
    for connection, _ in gone:
        assert connection.transport is not None
        connection.transport.abort()
    times = {}
    for slots in (len(unread), 0):
        while server.metrics().total(METRIC_BUSY) > slots and time.monotonic() < begin + 120:
            await asyncio.sleep(0.05)
        times[slots] = time.monotonic() - begin
    left = server.metrics().total(METRIC_BUSY)
    for task in tasks:
        task.cancel()
    server.stop()
    happened = (
        f"{busy:.0f} slots are busy; those of 32 vanished clients are free after {times[4]:.2f} s, those of 4 clients "
        f"that read nothing after {times[0]:.1f} s"
    )
    return Outcome(happened, left == 0 and times[4] < 5)


async def mutate_requests(place: Place, count: int) -> Outcome:
    """Send mutated requests beside a stream with a canary, which nobody else may ever get."""
    server = place.server("mutated").start()
    canary = await Connection.open(server.address)
    request = Text(5, 0, CANARY, 1_000_000, 0).request(stream=True, echo=True)
    task = asyncio.ensure_future(canary.ask("/v1/completions", request))
    sent = await asyncio.to_thread(send_mutations, server.address, count, place.seed, CANARY.encode())
    has_canary = canary.partial_characters > len(CANARY) and CANARY.encode() in b"".join(canary.pieces)
    await end_streams([(canary, task)])
    text = draw_text(random.Random(place.seed), [300])
    is_right = await write_text(server, text) == library_text(place.path, text)
    server.stop()
    log = server.log.read_text(encoding="utf-8", errors="replace")
    happened = (
        f"{sent}; tracebacks in the log: {log.count('Traceback')}, canary in the log: {log.count(CANARY)}, in its own "
        f"stream: {'yes' if has_canary else 'no'}; a text afterwards is {'right' if is_right else 'wrong'}"
    )
    is_silent = "Traceback" not in log and CANARY not in log
    return Outcome(happened, is_right and is_silent and has_canary and not sent.bad)


async def run_faults(
    path: Path,
    folder: Path,
    requests: int,
    connections: int,
    seed: int,
    only: str,
    say: Callable[[str], None],
) -> list[tuple[str, ...]]:
    """Return a row for each fault whose name has the words ``only`` in it."""
    place = Place(path, folder, seed)
    faults: dict[str, Callable[[], Awaitable[Outcome]]] = {
        "kill -9 under load, and a restart": lambda: kill_under_load(place),
        "a full disk": lambda: fill_disk(place),
        "a file that is replaced while it is served": lambda: replace_file(place),
        f"{connections:,} connections that say nothing": lambda: stay_silent(place, connections),
        "headers without end": lambda: send_endless_headers(place),
        "a body of 1 GB": lambda: send_large_bodies(place),
        "path traversal": lambda: leave_the_folder(place),
        "an expression that explodes": lambda: send_exploding_expression(place),
        "clients that read nothing, or vanish": lambda: read_nothing(place),
        "a planted bug": lambda: plant_bug(place),
        f"{requests:,} mutated requests, and a canary": lambda: mutate_requests(place, requests),
    }
    rows = []
    for name, fault in faults.items():
        if only not in name:
            continue
        try:
            outcome = await fault()
        except Exception as error:  # the other faults are tried all the same
            outcome = Outcome(f"{type(error).__name__}: {error}", False)
        say(f"{name}: {outcome.happened}")
        rows.append((name, outcome.happened.replace("|", "\\|"), "right" if outcome.is_right else "WRONG", ""))
    return rows
