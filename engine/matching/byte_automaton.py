"""Regular expressions as automata over bytes, compiled in a process of their own."""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gentext.matching import expression_child
from gentext.matching.expression import NOTHING, ExpressionError

#: Seconds that compiling may take, the start of the process included, where nobody sets another limit.
MAX_SECONDS = 10.0
#: Automata that are remembered, so that a program that writes with one expression again and again compiles it once.
MAX_REMEMBERED = 16
#: All bytes, those of characters that messages can show before the others.
PRINTABLE_FIRST = [*range(0x30, 0x7F), *range(0x20, 0x30), *range(0x20), *range(0x7F, 0x100)]


def explain_too_large(seconds: float) -> str:
    """Return why an expression is refused that needs too much memory, or more than so many seconds."""
    return (
        f"it is too large: compiling it takes more than {seconds:g} s or {expression_child.MAX_MEMORY >> 30} GB of "
        f"memory; use smaller counts or fewer alternatives"
    )


@dataclasses.dataclass(frozen=True)
class ByteAutomaton:
    """The automaton of an expression, which reads the bytes of a text."""

    transitions: NDArray[np.int32]
    """The next state for each byte, -1 where no text goes on [S, 256]."""
    final: NDArray[np.bool_]
    """Whether a text may end there [S]."""
    start: int
    """The first state; -1 where no text matches."""

    def advance(self, state: int, text: bytes) -> int:
        """Return the state after some bytes, -1 where no text goes on."""
        for byte in text:
            if state < 0:
                break
            state = int(self.transitions[state, byte])
        return state

    def find_shortest_text(self) -> str | None:
        """Return one of the shortest texts that match, in bytes; None where none does."""
        before_by_state: dict[int, tuple[int, int]] = {}
        states = [self.start] if self.start >= 0 else []
        reached = set(states)
        for state in states:  # grows while it is read
            if self.final[state]:
                return self._trace_back(state, before_by_state).decode()
            for byte in PRINTABLE_FIRST:
                next_state = int(self.transitions[state, byte])
                if next_state >= 0 and next_state not in reached:
                    before_by_state[next_state] = state, byte
                    reached.add(next_state)
                    states.append(next_state)
        return None

    def _trace_back(self, state: int, before_by_state: Mapping[int, tuple[int, int]]) -> bytes:
        """Return the bytes that lead to a state; a state and a byte lead to each but the start."""
        text = b""
        while state in before_by_state:
            state, byte = before_by_state[state]
            text = bytes([byte]) + text
        return text


@functools.lru_cache(MAX_REMEMBERED)
def compile_bytes(expression: str, seconds: float = MAX_SECONDS) -> ByteAutomaton:
    """Compile an expression in the syntax of outlines-core, in ``seconds`` at most.

    Raises ExpressionError for one that is too large.
    """
    if expression == NOTHING:
        return ByteAutomaton(np.empty((0, 256), np.int32), np.empty(0, np.bool_), -1)
    request = json.dumps({"expression": expression, "seconds": seconds})
    try:
        process = subprocess.run(
            # -P: the folder of the file has modules with the names of those of Python.
            [sys.executable, "-P", expression_child.__file__],
            input=request.encode(),
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ExpressionError(explain_too_large(seconds)) from None
    if b"ModuleNotFoundError" in process.stderr:
        raise ExpressionError("the package outlines-core is not installed; install gentext again")
    if process.returncode:
        raise ExpressionError(explain_too_large(seconds))
    line, _, table_bytes = process.stdout.partition(b"\n")
    return read_automaton(json.loads(line), table_bytes)


def read_automaton(header: Mapping[str, Any], table_bytes: bytes) -> ByteAutomaton:
    """Return the automaton that `gentext.matching.expression_child` gives; its sizes are checked before it is used.

    Raises ExpressionError with the problem that it gives instead.
    """
    if "problem" in header:
        raise ExpressionError(header["problem"])
    states, start = header["states"], header["start"]
    if not (0 <= states <= expression_child.MAX_STATES and len(table_bytes) == states * 257 * 4):
        raise ExpressionError(
            f"compiling it gave {len(table_bytes):,} bytes for {states:,} states, which is no whole table"
        )
    table = np.frombuffer(table_bytes, np.int32).reshape(states, 257)
    return ByteAutomaton(table[:, :256], table[:, 256] > 0, start)
