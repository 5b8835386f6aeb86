"""Graphs of strangers that never end, or ask for all memory: Ctrl-C ends the first, one line reports the second."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from helpers import fails, one_line, raiser, read_until, start
from onnx import TensorProto, helper

from gentext.export.proto import serialize_model
from gentext.interrupts import call_stoppable

Gen = Callable[..., tuple[int, str, str]]
posix = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")

#: Runs, in one call into C that handles no signal, for many minutes.
STUCK = """
import hashlib, signal
from gentext.interrupts import call_stoppable, end_stuck_process
signal.signal(signal.SIGINT, signal.default_int_handler)
with end_stuck_process():
    print("ready", flush=True)
    call_stoppable(lambda: hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1), lambda: None)
"""


def hostile_file(source: Path, target: Path, output: str, nodes: list[onnx.NodeProto]) -> Path:
    """Write a file whose output waits for some nodes, which make the number ``zero``; its check fits."""
    proto = onnx.load(source)
    [last_node] = [node for node in proto.graph.node if output in node.output]
    last_node.output[list(last_node.output).index(output)] = f"{output}.before"
    proto.graph.initializer.append(helper.make_tensor("always", TensorProto.BOOL, [], [True]))
    proto.graph.initializer.append(helper.make_tensor("nothing", TensorProto.FLOAT, [], [0.0]))
    proto.graph.initializer.append(helper.make_tensor("huge", TensorProto.INT64, [2], [10**7, 10**7]))
    proto.graph.node.extend(nodes)
    proto.graph.node.append(helper.make_node("Add", [f"{output}.before", "zero"], [output]))
    target.write_bytes(serialize_model(proto))
    return target


def endless_loop() -> list[onnx.NodeProto]:
    """Return a Loop without a limit, whose condition stays true."""
    values = [
        helper.make_tensor_value_info(name, element_type, [])
        for name, element_type in (
            ("trip", TensorProto.INT64),
            ("condition", TensorProto.BOOL),
            ("number", TensorProto.FLOAT),
            ("condition_out", TensorProto.BOOL),
            ("number_out", TensorProto.FLOAT),
        )
    ]
    steps = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in ("condition", "number")]
    body = helper.make_graph(steps, "body", values[:3], values[3:])
    return [helper.make_node("Loop", ["", "always", "nothing"], ["zero"], body=body)]


@posix
@pytest.mark.parametrize(
    ("name", "output", "options", "exit_status"),
    [
        ("model.onnx", "logits", ["--length", 0], 130),
        ("generator.onnx", "logprobs", ["--length", 0], 130),
        ("generator.onnx", "logprobs", ["--count", 40, "--threads", 2], 1),  # two cores, each with a share of the rows
    ],
)
def test_ctrl_c_ends_a_loop_without_end(
    name: str, output: str, options: list[Any], exit_status: int, tiny_run: Path, tmp_path: Path
) -> None:
    path = hostile_file(tiny_run / name, tmp_path / "endless.onnx", output, endless_loop())
    process = start("sample", path, "--seed", 1, *options)
    err = read_until(process.stderr, b"device: ")
    time.sleep(0.5)  # until the graph runs
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    remaining_out, remaining_err = process.communicate(timeout=30)
    assert (process.returncode, remaining_out) == (exit_status, b"")
    if exit_status == 130:
        assert len((err + remaining_err).splitlines()) == 1
    else:
        one_line((err + remaining_err).decode(), "stopped by Ctrl-C")


@posix
def test_process_ends_where_a_call_cannot_be_stopped() -> None:
    process = subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    read_until(process.stdout, b"ready")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    one_line(err.decode(), "stopped by Ctrl-C")


def test_graph_that_asks_for_all_memory(gen: Gen, tiny_run: Path, tmp_path: Path) -> None:
    """10^14 elements. Fewer may be there: see docs/security.md."""
    nodes = [
        helper.make_node("Expand", ["nothing", "huge"], ["many"]),
        helper.make_node("ReduceMax", ["many"], ["zero"], keepdims=0),
    ]
    path = hostile_file(tiny_run / "model.onnx", tmp_path / "huge.onnx", "logits", nodes)
    fails(1, gen("sample", path), "huge.onnx: ", "more memory than there is")


@posix
def test_calls_elsewhere_are_left_alone() -> None:
    """In another thread, or under a handler of somebody else, a call goes on and its errors are its own."""
    stopped: list[int] = []

    def call() -> str:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)
        return "whole"

    if threading.current_thread() is not threading.main_thread():
        pytest.skip("only the main thread handles signals")
    signals: list[int] = []
    previous_handler = signal.signal(signal.SIGINT, lambda number, _: signals.append(number))
    try:
        assert call_stoppable(call, lambda: stopped.append(1)) == "whole"
        results: list[str] = []
        thread = threading.Thread(target=lambda: results.append(call_stoppable(call, lambda: stopped.append(2))))
        thread.start()
        thread.join()
        assert (results, stopped, signals) == (["whole"], [], [signal.SIGINT] * 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):  # seconds in C
            call_stoppable(lambda: hashlib.pbkdf2_hmac("sha256", b"", b"", 6_000_000), lambda: stopped.append(3))
        assert stopped == [3]
    finally:
        signal.signal(signal.SIGINT, previous_handler)
    with pytest.raises(ValueError, match="its own"):
        call_stoppable(raiser(ValueError("its own")), lambda: None)
