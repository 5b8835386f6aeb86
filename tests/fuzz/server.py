"""A Python that has loaded gentext, and forks a process for each command line that it is asked to run.

It is a script: ``server.py train`` has loaded PyTorch and all else that gentext can use, ``server.py base`` behaves as
an installation without the extras. Each line of stdin is a job, and is answered by a line on stdout: see `serve`. What
a job takes beyond its limits of time and memory ends it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import signal
import sys
import threading
import time
import traceback
from importlib import metadata
from typing import Any

#: What a base install lacks. None in ``sys.modules`` makes the import of a module fail.
EXTRAS = (
    "torch",
    "onnx",
    "onnxscript",
    "onnx_ir",
    "spox",
    "safetensors",
    "matplotlib",
    "tomli_w",
    "optuna",
    "filelock",
)
#: Seconds between two looks at a process: at first, and after a while.
QUICK_POLL, POLL = 0.001, 0.01
PAGE = os.sysconf("SC_PAGE_SIZE")


def load_gentext() -> None:
    """Import every module of gentext that can be imported here, but load no plugins: each process does that."""
    for room in ("gentext", "gentext.data", "gentext.plugins", "gentext.export", "gentext.cli"):
        for module in pkgutil.walk_packages(importlib.import_module(room).__path__, f"{room}."):
            if not module.name.endswith("__main__"):
                with contextlib.suppress(ImportError):  # of an extra that is not there
                    importlib.import_module(module.name)


def hide_extras() -> None:
    """Have this Python behave as one without the extras."""
    sys.modules.update(dict.fromkeys(EXTRAS))  # type: ignore[arg-type]
    find_version = metadata.version

    def version(name: str) -> str:
        if name in EXTRAS:
            raise metadata.PackageNotFoundError(name)
        return find_version(name)

    metadata.version = version


def resident_bytes(process: int) -> int:
    """Return the memory that a process has now; 0 when it has ended."""
    try:
        with open(f"/proc/{process}/statm") as file:
            return int(file.read().split()[1]) * PAGE
    except OSError:
        return 0


def become(job: dict[str, Any]) -> None:
    """Take over the streams, the folder and the environment of a job, as a new process would have them."""
    os.setsid()
    atexit._clear()  # what the libraries of the server have registered takes 30 ms
    signal.signal(signal.SIGINT, signal.default_int_handler)
    modes = {"stdin": os.O_RDONLY, "stdout": os.O_WRONLY | os.O_CREAT, "stderr": os.O_WRONLY | os.O_CREAT}
    for number, (stream, mode) in enumerate(modes.items()):
        file = os.open(job[stream], mode, 0o600)
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout = (os.fdopen(number, mode, closefd=False) for number, mode in enumerate("rw"))
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    sys.path[:0] = job["path"]
    sys.argv = ["gen", *job["arguments"]]


def run_command() -> int:
    """Run ``gen`` and what Python does at the end of a process; return the exit status."""
    from gentext.cli.app import main

    try:
        status: Any = main()
    except SystemExit as error:
        status = error.code
    except BaseException as error:
        traceback.print_exception(error)
        status = 1
    if status is not None and not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]  # it waits for threads, as the end of a process does
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError as error:
        print(f"Exception ignored in: {error}", file=sys.stderr)
        return 120
    return int(status or 0) & 255


def supervise(process: int, job: dict[str, Any], start_bytes: int) -> dict[str, Any]:
    """Wait until a process has ended; end it where it goes beyond a limit. Return what is known of it."""
    start = time.monotonic()
    interrupt_at = start + (job["interrupt_after"] or float("inf"))
    was_interrupted, ended_by = False, ""
    limit = start + job["seconds"] + (job["interrupt_after"] or 0)
    while True:
        ended, status, usage = os.wait4(process, os.WNOHANG)
        now = time.monotonic()
        if ended:
            break
        if resident_bytes(process) - start_bytes > job["bytes"]:
            ended_by = "memory"
        elif now > limit:
            ended_by = "hang"
        if ended_by:
            os.kill(process, signal.SIGKILL)
            _, status, usage = os.wait4(process, 0)
            break
        if now > interrupt_at and not was_interrupted:
            os.kill(process, signal.SIGINT)
            was_interrupted = True
        time.sleep(QUICK_POLL if now - start < 0.1 else POLL)
    with contextlib.suppress(OSError):
        os.killpg(process, signal.SIGKILL)  # the processes that it has started and left behind
    return {
        "status": os.waitstatus_to_exitcode(status),
        "ended_by": ended_by,
        "interrupted": was_interrupted,
        "seconds": now - start,
        "bytes": max(0, usage.ru_maxrss * 1024 - start_bytes),
    }


def serve() -> None:
    """Answer each job until stdin ends.

    A job has ``arguments``, ``folder``, ``environment``, ``path`` (folders to import from), the paths ``stdin``,
    ``stdout`` and ``stderr``, ``seconds`` and ``bytes`` at most, and ``interrupt_after``:
    seconds until Ctrl-C, or null.
    """
    for line in iter(sys.stdin.readline, ""):
        job = json.loads(line)
        start_bytes = resident_bytes(os.getpid())
        process = os.fork()
        if not process:
            status = 1
            try:
                become(job)
                status = run_command()
            finally:
                os._exit(status)
        print(json.dumps(supervise(process, job, start_bytes)), flush=True)


if __name__ == "__main__":
    del sys.path[0]  # its modules are none of gentext's
    if sys.argv[1] == "base":
        hide_extras()
    else:
        import onnxscript  # noqa: F401
        import torch._dynamo  # noqa: F401  torch imports it as the first optimizer is built
    load_gentext()
    gc.freeze()  # so that a child's garbage collection copies no page of what is loaded here
    print(flush=True)  # ready
    serve()
