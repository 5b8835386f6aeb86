"""Turns a regular expression into an automaton over bytes, as a program of its own. (outlines-core)

`gentext.matching.byte_automaton` starts this file, because some expressions need more memory or time than there is, and
the library then aborts its process. It imports nothing of gentext, so that it starts quickly.
"""

from __future__ import annotations

import array
import json
import math
import sys

#: Memory in bytes, at most.
MAX_MEMORY = 2**30
#: States of an automaton, at most.
MAX_STATES = 2**16
#: Stands before and behind every text. Behind it, because the library follows the first of several alternatives that
#: match, and would leave out ``ab`` of ``a|ab`` if both were an end. Before it, because the library also makes the
#: states of a text that begins later, which are 2**N for ``"(a|"){N}"``; they all need another mark. No text has its
#: first byte, with which the last plane of characters begins.
MARK = "\U0010ffff"
#: The ids of the mark, and of the end that the library wants to know.
MARK_TOKEN, END_TOKEN = 256, 257


def main() -> None:
    """Read JSON from stdin, with the ``expression`` and the ``seconds`` that it may take.

    Writes one line of JSON and the table of `compile_expression`.
    """
    request = json.load(sys.stdin)
    limit_resources(request["seconds"])
    header, table = compile_expression(request["expression"])
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n" + table)


def compile_expression(expression: str) -> tuple[dict[str, object], bytes]:
    """Return the automaton of an expression in the syntax of outlines-core.

    The header has the number of ``states`` and the first one, ``start``; for an expression that cannot be used it has
    the ``problem`` alone. The table is int32 [states, 257]: the next state for each byte, -1 where no text goes on, and
    in its last column 1 where a text may end.
    """
    from outlines_core import Index, Vocabulary

    tokens = {bytes([byte]): [byte] for byte in range(MARK.encode()[0])}
    vocabulary = Vocabulary(END_TOKEN, {**tokens, MARK.encode(): [MARK_TOKEN]})
    try:
        index = Index(f"{MARK}(?:{expression}){MARK}", vocabulary)
    except ValueError as error:
        return {"problem": " ".join(str(error).split())}, b""
    transitions, ends = index.get_transitions(), index.get_final_states()
    start = transitions.pop(index.get_initial_state(), {}).get(MARK_TOKEN)
    if len(transitions) > MAX_STATES:
        return {"problem": f"it needs {len(transitions):,} states; at most {MAX_STATES:,} are possible"}, b""
    numbers = {state: number for number, state in enumerate(sorted(transitions))}
    table = array.array("i", [-1]) * (len(numbers) * 257)
    for state, next_state_by_token in transitions.items():
        first = numbers[state] * 257
        for token, next_state in next_state_by_token.items():
            if token < MARK_TOKEN and next_state in numbers:
                table[first + token] = numbers[next_state]
        table[first + 256] = next_state_by_token.get(MARK_TOKEN) in ends
    return {"states": len(numbers), "start": numbers.get(start, -1)}, table.tobytes()


def limit_resources(seconds: float) -> None:
    """Limit memory and processor time, where the operating system can, and write no image of the memory.

    Whoever has started this process ends it after so many seconds; the limit counts where nobody is left who could.
    """
    try:
        import resource
    except ImportError:  # on Windows
        return
    for limit, amount in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, MAX_MEMORY),
        (resource.RLIMIT_CPU, max(1, math.ceil(seconds))),
    ):
        _, highest = resource.getrlimit(limit)
        amount = amount if highest == resource.RLIM_INFINITY else min(amount, highest)
        try:
            resource.setrlimit(limit, (amount, highest))
        except (OSError, ValueError):  # macOS does not limit addresses
            continue


if __name__ == "__main__":
    main()
