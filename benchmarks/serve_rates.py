"""Many long texts against one, and the memory of a server over a long time."""

from __future__ import annotations

import array
import asyncio
import time
from pathlib import Path

import numpy as np
from serve_client import Connection
from serve_load import Clients
from serve_process import Server
from serve_texts import Text, measure_bare


async def run_ratio(server: Server, path: Path, clients: int, seconds: float, seed: int) -> list[tuple[str, ...]]:
    """Return the row about many clients with long texts against one."""
    bare = measure_bare(path, [1, clients], 1.0)
    rates: dict[int, list[float]] = {1: [], clients: []}
    for turn in range(3):
        for count in (1, clients):
            rates[count].append(await measure_long(server, count, seconds, seed + turn))
    after = measure_bare(path, [1, clients], 1.0)
    bare_ratio = float(np.mean([measured[clients].rate / measured[1].rate for measured in (bare, after)]))
    ratio = float(np.median(np.array(rates[clients]) / np.array(rates[1])))
    return [
        (
            f"{clients} clients with long texts against one, as a share of the bare generator's ratio",
            f"{ratio / bare_ratio:.3f} ({ratio:.2f} of {bare_ratio:.2f})",
            "0.7",
            "0.9",
        )
    ]


async def measure_long(server: Server, count: int, seconds: float, seed: int) -> float:
    """Return the characters a second of so many clients, each with one text that is longer than the measurement."""
    gaps = array.array("d")
    connections = [await Connection.open(server.address, gaps) for _ in range(count)]
    text = Text(seed, 0, "", 1_000_000, 0)
    asking = [
        asyncio.ensure_future(connection.ask("/v1/completions", text.request(stream=True, seed=seed + number)))
        for number, connection in enumerate(connections)
    ]
    await asyncio.sleep(1.0)  # all have begun
    characters, begin = sum(connection.partial_characters for connection in connections), time.perf_counter()
    await asyncio.sleep(seconds)
    characters, end = sum(connection.partial_characters for connection in connections) - characters, time.perf_counter()
    for connection in connections:
        connection.close()
    await asyncio.gather(*asking, return_exceptions=True)
    await asyncio.sleep(0.5)
    return characters / (end - begin)


async def run_memory(server: Server, minutes: float, streams: int, seed: int) -> list[tuple[str, ...]]:
    """Return the row about the memory at the end of a long time of coming and going, against minute five."""
    clients = Clients(server, streams, seed)
    running = asyncio.create_task(clients.run(minutes * 60))
    while not running.done():
        await asyncio.sleep(10)
        clients.figures.finished.clear()  # their texts are not compared here
    figures = await running
    early_at = min(300.0, minutes * 60 / 12)
    early = [memory for at, memory in figures.memory if at >= early_at][:12]
    late = [memory for at, memory in figures.memory if at <= minutes * 60][-12:]
    growth = float(np.median(late)) / float(np.median(early)) - 1
    return [
        (
            f"memory after {minutes:g} minutes of coming and going, against minute {early_at / 60:.2g}",
            f"{growth:+.1%} ({np.median(early):.0f} to {np.median(late):.0f} MB, {len(figures.lost)} lost)",
            "+5 %",
            "",
        )
    ]
