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

from gentext import expression_child
from gentext.expression import ExpressionError

__all__ = ["ByteAutomaton", "compile_bytes", "read_automaton"]

#: Seconds that compiling may take, the start of the process included.
MAX_SECONDS = 12
#: Automata that are remembered, so that a program that writes with one expression again and again compiles it once.
MAX_REMEMBERED = 16
TOO_LARGE = (
    f"it is too large: compiling it takes more than {expression_child.MAX_SECONDS} s or "
    f"{expression_child.MAX_MEMORY >> 30} GB of memory; use smaller counts or fewer alternatives"
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


@functools.lru_cache(MAX_REMEMBERED)
def compile_bytes(expression: str) -> ByteAutomaton:
    """Compile an expression in the syntax of outlines-core; raise ExpressionError for one that is too large."""
    request = json.dumps({"expression": expression})
    try:
        process = subprocess.run(
            # -P: the folder of the file has modules with the names of those of Python.
            [sys.executable, "-P", expression_child.__file__],
            input=request.encode(),
            capture_output=True,
            timeout=MAX_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ExpressionError(TOO_LARGE) from None
    if b"ModuleNotFoundError" in process.stderr:
        raise ExpressionError("the package outlines-core is not installed; install gentext again")
    if process.returncode:
        raise ExpressionError(TOO_LARGE)
    line, _, table_bytes = process.stdout.partition(b"\n")
    return read_automaton(json.loads(line), table_bytes)


def read_automaton(header: Mapping[str, Any], table_bytes: bytes) -> ByteAutomaton:
    """Return the automaton that `gentext.expression_child` gives; its sizes are checked before it is used.

    Raises ExpressionError with the problem that it gives instead.
    """
    if "problem" in header:
        raise ExpressionError(header["problem"])
    states, start = header["states"], header["start"]
    if not (0 <= states <= expression_child.MAX_STATES and len(table_bytes) == states * 257 * 4):
        raise ExpressionError(TOO_LARGE)
    table = np.frombuffer(table_bytes, np.int32).reshape(states, 257)
    return ByteAutomaton(table[:, :256], table[:, 256] > 0, start)
