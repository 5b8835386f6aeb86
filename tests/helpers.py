"""What several test files need as plain functions; pytest finds this module by its setting ``pythonpath``."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
from numpy.typing import NDArray

from gentext.registry import Component, Distribution
from gentext.runs.resolve import ConfiguredComponent

#: ``gen``, listening to Ctrl-C even where the tests run in a shell's background, which is deaf to it.
GEN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from gentext.cli.app import main
sys.exit(main())
"""

#: Builds a wheel of each folder, as pip does, which starts three processes for each.
BUILD_WHEELS = """
import contextlib, os, sys
from setuptools.build_meta import build_wheel
target, *folders = sys.argv[1:]
with contextlib.redirect_stdout(sys.stderr):
    for folder in folders:
        os.chdir(folder)
        build_wheel(target)
"""


def examples(count: int = 100, **options: Any) -> hypothesis.settings:
    """Return the settings of a test of so many examples in ``make slow``, of which ``make test`` tries a fifth."""
    tried = count if os.environ.get("GENTEXT_TEST_EXAMPLES") == "all" else max(count // 5, 10)
    return hypothesis.settings(max_examples=tried, deadline=None, **options)


def configured(kind: str, name: str, target: Any, options: Any) -> ConfiguredComponent:
    """Return a component as a config that names it gives it, without registering it."""
    registered = Component(kind, name, target, "a component of a test", Distribution("tests", "1"))
    return ConfiguredComponent(name, target, options, registered)


def one_line(err: str, *fragments: str) -> str:
    """Check that an output ends in the one line of an error, which has these fragments, and return it."""
    errors = [line for line in err.splitlines() if line.startswith("gen: error: ")]
    assert errors == err.splitlines()[-1:], err
    assert "Traceback" not in err
    for fragment in fragments:
        assert fragment in errors[0], errors[0]
    return errors[0]


def fails(code: int, result: tuple[int, str, str], *fragments: str) -> str:
    """Check that a command ended with one clear line that has these fragments, and return the line."""
    found, _, err = result
    assert found == code, err
    return one_line(err, *fragments)


def raiser(error: BaseException) -> Callable[..., Any]:
    """Return a function that raises."""

    def call(*args: object, **kwargs: object) -> None:
        raise error

    return call


def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", GEN, *map(str, arguments)]
    return subprocess.Popen(command, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options})


def read_until(stream: Any, text: bytes, seconds: float = 60) -> bytes:
    """Read a pipe until some text has come."""
    seen, end = b"", time.monotonic() + seconds
    while text not in seen:
        assert select.select([stream], [], [], max(0, end - time.monotonic()))[0], seen
        block = os.read(stream.fileno(), 65536)
        assert block, seen
        seen += block
    return seen


def run_on_terminal(*arguments: object, streams: Collection[str] = ("stdin", "stdout", "stderr")) -> tuple[int, str]:
    """Run ``gen`` with some of its streams on a terminal; return its exit status and what the terminal was sent."""
    import pty  # not on Windows

    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = start(*arguments, **{"stdin": slave, **dict.fromkeys(streams, slave)}, env=environment)
    os.close(slave)
    output = b""
    with contextlib.suppress(OSError):  # on Linux, when the other end is closed
        while block := os.read(master, 65536):
            output += block
    os.close(master)
    process.communicate()
    return process.returncode, output.decode().replace("\r\n", "\n")


def spelled(command: str, place: dict[str, Path]) -> list[str]:
    return [word.format(**place) for word in shlex.split(command)]


def notebook_batches(
    arr: NDArray[np.int64], batch_size: int, seq_length: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """get_batches as the notebook has it, with its second, commented-out way to cut the text."""
    n_batches = len(arr) // (batch_size * seq_length)
    arr = arr[: n_batches * batch_size * seq_length].reshape((batch_size, -1))
    for n in range(0, arr.shape[1], seq_length):
        x = arr[:, n : n + seq_length]
        y = np.zeros_like(x)
        y[:, :-1] = x[:, 1:]
        try:
            y[:, -1] = arr[:, n + seq_length]
        except IndexError:
            y[:, -1] = arr[:, 0]
        yield x, y
