"""Trains in several processes that know each other, as torchrun would start them. A script for test_ranks.py.

Reads a JSON list of (arguments of gen, number of processes, which of them dies or null, at which step) and prints a
JSON list of (exit statuses, what all of them said). Forking is a matter of milliseconds; torchrun takes seconds.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import Any

import torch
from killed import die

from gentext.cli.app import main
from gentext.plugins.trainers.learner import Learner
from gentext.plugins.trainers.options import StepOptions


def dies_at(step: int) -> None:
    """Let this process end before an optimizer step; those of `measure_speed` have a rate of next to nothing."""
    original = Learner.step

    def deadly(learner: Learner, done: int, options: StepOptions) -> float:
        if done == step and options.rate > 1e-8:
            die()
        return original(learner, done, options)

    Learner.step = deadly  # type: ignore[method-assign]


def serve_store() -> str:
    """Start what torchrun has for its children, in a process of its own, and return its port."""
    (reader, writer), parent = os.pipe(), os.getpid()
    if not os.fork():
        store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        os.write(writer, str(store.port).encode())
        while os.getppid() == parent:
            time.sleep(0.1)
        os._exit(0)
    return os.read(reader, 10).decode()


def start(arguments: list[str], rank: int, size: int, err: Any, death: int | None) -> int:
    child = os.fork()  # torch is loaded by now, but has started no threads of its own
    if child:
        return child
    os.dup2(err.fileno(), 2)
    if size > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(size),
        }
    if death is not None:
        dies_at(death)
    try:
        code = main(arguments)
    except SystemExit as error:
        code = int(error.code or 0)
    os._exit(code)


if __name__ == "__main__":
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    done = []
    for arguments, size, dying, step in json.load(sys.stdin):
        os.environ["MASTER_PORT"] = serve_store()
        with tempfile.TemporaryFile() as err:
            children = [start(arguments, one, size, err, step if one == dying else None) for one in range(size)]
            codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
            err.seek(0)
            done.append((codes, err.read().decode()))
    print(json.dumps(done))
