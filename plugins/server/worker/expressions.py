"""Compiles what texts must match in a process of its own, so that no other text waits for it.

An expression of a few characters can need seconds and hundreds of megabytes, while Python runs no other thread for a
second or more. The process has less priority than those that write, and is started with the first expression. It
refuses one that takes too long, and is killed where it does not.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from gentext.errors import PrimeError, UsageError
from gentext.matching.byte_automaton import explain_too_large
from gentext.matching.constraints import Constraint
from gentext.matching.match import MatchAutomaton
from gentext.plugins.server.problems import Overload
from gentext.plugins.server.tasks.messages import LENGTH

#: States times symbols of one automaton. Its tables take twelve bytes for each, and are copied when texts begin.
MAX_TABLE = 2**20
#: Bytes of automata that are remembered, and of all tables that texts match at a time.
MAX_REMEMBERED, MAX_TABLES = 2**26, 2**28


#: Seconds that the process has besides those of an expression, to start and to build the automaton.
EXTRA_SECONDS = 5.0
#: Seconds that an expression may take, at most.
LONGEST_SECONDS = 86_400.0
#: An expression that was refused after so many seconds is refused at once for so many; so many of them are remembered.
LONG_SECONDS, REFUSED_SECONDS, MAX_REFUSALS = 0.5, 60.0, 64


class CompileJob(msgspec.Struct):
    """Compile a constraint: the arguments of `gentext.matching.constraints.compile_here`."""

    title: str
    expression: str | None
    schema: Any
    symbols: list[bytes]
    is_allowed: bytes
    primes: list[bytes]
    max_table: int
    seconds: float


class CompiledArrays(msgspec.Struct, tag=True):
    """The arrays of a `MatchAutomaton`, as bytes; the transitions as int32."""

    transitions: bytes
    final: bytes
    distance: bytes
    characters: bytes
    starts: bytes


class Refusal(msgspec.Struct, tag=True):
    """An error of the client."""

    message: str
    is_prime: bool = False
    """Whether it is a PrimeError."""


def write_frame(stream: BinaryIO, message: msgspec.Struct) -> None:
    """Write a message behind its length."""
    content = msgspec.msgpack.encode(message)
    stream.write(LENGTH.pack(len(content)) + content)
    stream.flush()


def read_frame(stream: BinaryIO) -> bytes | None:
    """Return the next message; None at the end, which may be within one."""
    header = stream.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    [length] = LENGTH.unpack(header)
    content = stream.read(length)
    return content if len(content) == length else None


class ExpressionProcess:
    """The process that compiles for one model, and the automata that are remembered. Any thread may call it."""

    def __init__(self, seconds: float = 20.0, max_table: int = MAX_TABLE) -> None:
        self.seconds, self._max_table = min(seconds, LONGEST_SECONDS), max_table
        """How long an expression may take, and how many states times symbols its automaton may have."""
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._automata: collections.OrderedDict[tuple[object, ...], MatchAutomaton] = collections.OrderedDict()
        """Those that were used last, the last one behind the others."""
        self._too_large: dict[tuple[object, ...], tuple[float, str]] = {}
        """Until when an expression is refused, and why."""
        self._table_bytes = TableBytes()

    def compile(
        self,
        constraint: Constraint,
        symbols: Sequence[bytes],
        is_allowed: NDArray[np.bool_],
        primes: Sequence[bytes],
        *,
        boundary: int | None = None,
    ) -> MatchAutomaton:
        """Do what `gentext.matching.constraints.compile_here` does, always with the same ``symbols`` and ``boundary``.

        Raises Overload where the tables of all texts together would be too large.
        """
        schema = msgspec.json.encode(constraint.schema)  # in its own order, which is that of the text
        key = (constraint.expression, schema, is_allowed.tobytes(), *primes)
        with self._lock:
            if key in self._automata:
                self._automata.move_to_end(key)
                return self._automata[key]
            until, message = self._too_large.get(key, (0.0, ""))
            if time.monotonic() < until:
                raise UsageError(message)
            job = CompileJob(
                constraint.title,
                constraint.expression,
                constraint.schema,
                list(symbols),
                is_allowed.tobytes(),
                list(primes),
                self._max_table,
                self.seconds,
            )
            begun = time.monotonic()
            try:
                automaton = dataclasses.replace(read_arrays(self._ask(job), len(symbols)), boundary=boundary)
            except UsageError as error:
                self._remember_refusal(key, str(error), time.monotonic() - begun)
                raise
            self._remember(key, automaton)
            return automaton

    @property
    def process_id(self) -> int | None:
        """The number of the process; None where there is none."""
        return None if self._process is None else self._process.pid

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _ask(self, job: CompileJob) -> CompiledArrays:
        """Return the answer of the process, which is started where there is none."""
        if self._process is None:
            self._process = start_process()
        assert self._process.stdin is not None and self._process.stdout is not None
        timer = threading.Timer(self.seconds + EXTRA_SECONDS, self._process.kill)
        timer.start()
        try:
            write_frame(self._process.stdin, job)  # type: ignore[arg-type]  # typeshed's IO[bytes] is no BinaryIO
            content = read_frame(self._process.stdout)  # type: ignore[arg-type]
        except BrokenPipeError:
            content = None
        finally:
            timer.cancel()
        if content is None:  # it took too long, or too much memory
            self.close()
            raise UsageError(f"{job.title}: {explain_too_large(self.seconds)}")
        reply = _decoder.decode(content)
        if isinstance(reply, Refusal):
            raise (PrimeError if reply.is_prime else UsageError)(reply.message)
        return reply

    def _remember_refusal(self, key: tuple[object, ...], message: str, seconds: float) -> None:
        """Refuse what was refused after a long time at once, but not for ever: the machine may have been busy."""
        if seconds < LONG_SECONDS:
            return
        while len(self._too_large) >= MAX_REFUSALS:
            del self._too_large[next(iter(self._too_large))]
        self._too_large[key] = time.monotonic() + REFUSED_SECONDS, message

    def _remember(self, key: tuple[object, ...], automaton: MatchAutomaton) -> None:
        tables = automaton.link_tables
        size = sum(table.nbytes for table in tables.values())
        if self._table_bytes.count + size > MAX_TABLES:
            self._automata.clear()
        self._table_bytes.add(size, tables["next_state"])
        self._automata[key] = automaton
        while sum(count_bytes(remembered) for remembered in self._automata.values()) > MAX_REMEMBERED:
            self._automata.popitem(last=False)


class TableBytes:
    """Counts the bytes of tables that somebody still uses."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._numbers = itertools.count()

    @property
    def count(self) -> int:
        """The bytes of all tables that exist."""
        return sum(list(self._sizes.values()))

    def add(self, size: int, table: NDArray[Any]) -> None:
        """Count tables for as long as one of them exists. Raises Overload where they are too many."""
        if self.count + size > MAX_TABLES:
            raise Overload(
                f"the tables of what all texts must match are larger than {MAX_TABLES >> 20} MB; try again later"
            )
        number = next(self._numbers)
        self._sizes[number] = size
        weakref.finalize(table, self._sizes.pop, number)


def count_bytes(automaton: MatchAutomaton) -> int:
    """Return the bytes of an automaton and its tables."""
    return automaton.transitions.nbytes + sum(table.nbytes for table in automaton.link_tables.values())


def start_process() -> subprocess.Popen[bytes]:
    """Return a new process that compiles."""
    # The libraries of NumPy reserve memory for each thread, which would count for the limit.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "gentext.plugins.server.worker.expression_program"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )


def pack_arrays(automaton: MatchAutomaton) -> CompiledArrays:
    """Return an automaton as bytes."""
    return CompiledArrays(
        automaton.transitions.astype(np.int32).tobytes(),
        automaton.final.tobytes(),
        automaton.distance.tobytes(),
        automaton.characters.tobytes(),
        automaton.starts.tobytes(),
    )


def read_arrays(arrays: CompiledArrays, symbols: int) -> MatchAutomaton:
    """Return the automaton that `pack_arrays` had, over so many symbols."""
    return MatchAutomaton(
        np.frombuffer(arrays.transitions, np.int32).reshape(-1, symbols).astype(np.int64),
        np.frombuffer(arrays.final, np.bool_),
        np.frombuffer(arrays.distance, np.int64),
        np.frombuffer(arrays.characters, np.int64),
        np.frombuffer(arrays.starts, np.int64),
    )


_decoder: msgspec.msgpack.Decoder[CompiledArrays | Refusal] = msgspec.msgpack.Decoder(CompiledArrays | Refusal)
