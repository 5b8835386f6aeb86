"""What texts must match, compiled in a process of its own as in this one."""

from __future__ import annotations

import dataclasses
import functools
import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gentext.errors import GenError, PrimeError, UsageError
from gentext.matching import expression_child
from gentext.matching.constraints import Constraint, compile_here
from gentext.matching.match import MatchAutomaton
from gentext.plugins.server.problems import Overload, problem_of
from gentext.plugins.server.worker import expressions
from gentext.plugins.server.worker.expressions import ExpressionProcess

SYMBOLS = [b"", *(bytes([code]) for code in range(32, 127)), "é".encode(), b"the"]
ALLOWED = np.array([symbol != b"x" for symbol in SYMBOLS])


@pytest.fixture(scope="module")
def process() -> Iterator[ExpressionProcess]:
    running = ExpressionProcess()
    yield running
    running.close()


def compile_in(process: ExpressionProcess, expression: str, *primes: bytes) -> MatchAutomaton:
    return process.compile(Constraint(f"match = {expression!r}", expression), SYMBOLS, ALLOWED, primes or (b"",))


@pytest.mark.parametrize(
    ("expression", "schema", "primes"),
    [
        ("[a-c]{2,5}é?", None, [b""]),
        ("the( cat| dog)*", None, [b"the", b"the cat"]),
        (None, {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, [b""]),
    ],
)
def test_the_automaton_is_the_one_that_this_process_compiles(
    process: ExpressionProcess, expression: str | None, schema: Any, primes: list[bytes]
) -> None:
    constraint = Constraint("match", expression, schema)
    automaton = process.compile(constraint, SYMBOLS, ALLOWED, primes)
    for field in dataclasses.fields(MatchAutomaton):
        if field.name == "boundary":
            continue
        expected: Any = getattr(compile_here(constraint, SYMBOLS, ALLOWED, primes), field.name)
        received: Any = getattr(automaton, field.name)
        assert received.dtype == expected.dtype and np.array_equal(received, expected), field.name


@pytest.mark.parametrize(
    ("expression", "primes", "kind"),
    [("a(", [b""], UsageError), ("x+", [b""], UsageError), ("abc", [b"ad"], PrimeError), ("(?=a)", [b""], UsageError)],
)
def test_errors_are_those_of_this_process(
    process: ExpressionProcess, expression: str, primes: list[bytes], kind: type[GenError]
) -> None:
    with pytest.raises(GenError) as expected:
        compile_here(Constraint(f"match = {expression!r}", expression), SYMBOLS, ALLOWED, primes)
    with pytest.raises(kind) as received:
        compile_in(process, expression, *primes)
    assert str(received.value) == str(expected.value)
    assert problem_of(received.value).status == 400


def test_an_expression_is_compiled_once(process: ExpressionProcess) -> None:
    automaton = compile_in(process, "once")
    assert compile_in(process, "once") is automaton
    assert compile_in(process, "once", b"on") is not automaton


def test_what_explodes_is_refused_and_the_next_one_is_compiled() -> None:
    process = ExpressionProcess()
    compile_in(process, "a")
    process.seconds, number = 0.5, process.process_id
    with pytest.raises(UsageError, match=r"match = '\.\{1,20000\}': it is too large: .* more than 0\.5 s or 1 GB"):
        compile_in(process, ".{1,20000}")
    with pytest.raises(UsageError, match="too large"):  # at once
        compile_in(process, ".{1,20000}")
    process.seconds = 60
    assert compile_in(process, "b").start == 0 and process.process_id == number, "the limit ends the compiler alone"
    process.close()


#: Tells what `expression_child` is told, and the processor time that it may then take.
SPYING_CHILD = f"""
import json, resource, runpy, sys
request = json.load(sys.stdin)
runpy.run_path({expression_child.__file__!r})["limit_resources"](request["seconds"])
print(json.dumps({{"problem": f"{{request['seconds']}} s, {{resource.getrlimit(resource.RLIMIT_CPU)[0]}} s"}}))
"""
SPIED_WORKER = """
import sys
from gentext.matching import expression_child
from gentext.plugins.server.worker import expression_program
expression_child.__file__ = sys.argv[1]
expression_program.main()
"""


@pytest.mark.parametrize(
    ("seconds", "limits"), [(7.5, "7.5 s, 8 s"), (60.0, "60.0 s, 60 s"), (1e9, "86400.0 s, 86400 s")]
)
def test_the_limit_of_the_server_is_that_of_the_compiler(
    seconds: float, limits: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "child.py").write_text(SPYING_CHILD)
    command = [sys.executable, "-c", SPIED_WORKER, tmp_path / "child.py"]
    worker = functools.partial(subprocess.Popen, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    monkeypatch.setattr(expressions, "start_process", worker)
    process = ExpressionProcess(seconds)
    with pytest.raises(UsageError, match=limits):
        compile_in(process, "a")
    process.close()


def test_large_automata_are_refused_before_they_are_built() -> None:
    process = ExpressionProcess(max_table=1000)
    with pytest.raises(UsageError, match="at most 10 are possible"):
        compile_in(process, "[ab]{50}")
    process.close()


def test_the_tables_of_all_texts_are_bounded(process: ExpressionProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expressions, "MAX_TABLES", 2**18)
    monkeypatch.setattr(expressions, "MAX_REMEMBERED", 2**10)
    used = [compile_in(process, f"[ab]{{{count}}}").link_tables for count in (50, 51)]
    with pytest.raises(Overload) as error:
        for count in range(52, 60):
            used.append(compile_in(process, f"[ab]{{{count}}}").link_tables)
    assert problem_of(error.value).status == 503
    used.clear()
    gc.collect()
    assert compile_in(process, "[ab]{61}").start == 0
