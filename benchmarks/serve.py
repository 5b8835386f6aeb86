"""What a server of texts does under load, over hours, across restarts and with broken clients.

    python benchmarks/serve.py load|ratio|memory|forks|faults... [--file FILE] [--streams 1000] [--minutes 10]

Starts ``gen serve`` on a free port of the loopback interface; the client is this process, on the same cores. Without
--file, a file of two layers of 512 in int8 is made, which takes a minute.

load    streams that arrive and leave, some slow, some vanishing; afterwards each finished text is compared with the
        one that the library writes
ratio   64 clients with long texts against one
memory  the memory at the end of a long time of coming and going, against minute five (an hour: --minutes 60)
forks   continued and forked texts over two replicas with one session key, with a restart between
faults  kills, a full disk, a replaced file, connections without end, hostile requests: what happens
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from serve_faults import run_faults
from serve_forks import run_forks
from serve_load import run_load
from serve_process import Server
from serve_rates import run_memory, run_ratio
from serve_texts import make_file

from gentext.library.bench import describe_machine

MODES = ("load", "ratio", "memory", "forks", "faults")
#: Clients of `ratio`.
RATIO_CLIENTS = 64


def say(line: str) -> None:
    """Tell what is going on."""
    print(line, file=sys.stderr, flush=True)


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of the table: what, what was measured, what it must be, and what to reach for."""
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def run_mode(mode: str, path: Path, folder: Path, options: argparse.Namespace) -> list[tuple[str, ...]]:
    """Return the rows of a mode."""
    if mode == "forks":
        return asyncio.run(run_forks(path, folder, options.forks, options.seed, say))
    if mode == "faults":
        return asyncio.run(
            run_faults(path, folder, options.requests, options.connections, options.seed, options.only, say)
        )
    # A client that does not stream has several texts, and here no text should wait for a slot.
    server = Server([path], folder / f"{mode}.log", "--slots", str(2 * options.streams), *options.server_option)
    if options.url:
        parts = urllib.parse.urlsplit(options.url)
        server.address = (parts.hostname or "127.0.0.1", parts.port or 80)
    else:
        server.start()
    try:
        if mode == "load":
            return [*asyncio.run(run_load(server, path, options.streams, options.minutes * 60, options.seed, say))]
        if mode == "ratio":
            return asyncio.run(run_ratio(server, path, RATIO_CLIENTS, 10.0, options.seed))
        return asyncio.run(run_memory(server, options.minutes, options.streams, options.seed))
    finally:
        if not options.url:
            status = server.stop()
            say(f"gen serve has ended with status {status}: {server.last_lines()[-300:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modes", nargs="+", choices=MODES)
    parser.add_argument("--file", type=Path, help="an exported file whose chain is the default one")
    parser.add_argument("--url", help="a server that serves this file already, for load, ratio and memory")
    parser.add_argument("--server-option", action="append", default=[], help="a word for the command line of gen serve")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--forks", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=5000, help="mutated requests of faults")
    parser.add_argument("--connections", type=int, default=10_000, help="connections of faults that say nothing")
    parser.add_argument("--only", default="", help="words in the name of a fault; the others are left out")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    machine = describe_machine()
    say(f"{machine['cpu']}, {machine['cores']} cores ({' '.join(machine['instructions'])})")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = options.file or make_file(folder)
        print_rows([("what", "measured", "must", "reach"), ("-", "-", "-", "-")])
        for mode in options.modes:
            print_rows(run_mode(mode, path, folder, options))


if __name__ == "__main__":
    main()
