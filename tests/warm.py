"""A Python that has loaded PyTorch already, and forks for each program that it is asked to run.

Importing PyTorch takes seconds, and a sweep starts a process for every trial. This script is a server that imports
the libraries once. It writes a launcher, which is called as Python is. The launcher hands its streams, folder and
environment over to a forked child, passes on the signals that it gets, and ends as the child ends. A launcher that is
killed takes its child along. The server does not load gentext: each child does, as a new process would.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import shlex
import signal
import socket
import struct
import sys
import traceback
from pathlib import Path

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Seconds between two looks at whether a child has ended.
POLL = 0.01


def receive(connection: socket.socket, size: int) -> bytes:
    """Return so many bytes, or fewer where the other end is closed."""
    data = b""
    while len(data) < size and (block := connection.recv(size - len(data))):
        data += block
    return data


def launch(address: str, arguments: list[str]) -> None:
    """Have the server run Python with these arguments, and end as its child ends."""
    if arguments[0] == "-P":  # the program that compiles an expression: it has less memory than PyTorch needs
        os.execv(sys.executable, [sys.executable, *arguments])
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    job = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(connection, [struct.pack("q", len(job))], [0, 1, 2])
    connection.sendall(job)
    [child] = struct.unpack("q", receive(connection, 8))
    for number in SIGNALS:
        signal.signal(number, lambda number, _: os.kill(child, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    [status] = struct.unpack("q", receive(connection, 8))
    if status < 0:
        if -status in SIGNALS:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def serve(address: str) -> list[str]:
    """Fork a child for each launcher until stdin ends; in a child, return the arguments of its program."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print(flush=True)  # ready
    launchers: dict[int, socket.socket] = {}  # by the process id of the child
    while True:
        waiting = [0, listener, *launchers.values()]
        ready = select.select(waiting, [], [], POLL if launchers else None)[0]
        for child, launcher in [*launchers.items()]:
            if launcher in ready:  # its end was closed: it was killed
                os.kill(child, signal.SIGKILL)
            ended, status = os.waitpid(child, 0 if launcher in ready else os.WNOHANG)
            if ended:
                if launcher not in ready:
                    launcher.sendall(struct.pack("q", os.waitstatus_to_exitcode(status)))
                launchers.pop(child).close()
        if 0 in ready:
            sys.exit()
        if listener in ready:
            launcher = listener.accept()[0]
            size, streams, _, _ = socket.recv_fds(launcher, 8, 3)
            arguments, folder, environment = json.loads(receive(launcher, *struct.unpack("q", size)))
            child = os.fork()  # PyTorch is loaded by now, but has started no threads
            if not child:
                for connection in (listener, launcher, *launchers.values()):
                    connection.close()
                become(streams, folder, environment)
                return list(arguments)
            launcher.sendall(struct.pack("q", child))
            launchers[child] = launcher
            for stream in streams:
                os.close(stream)


def become(streams: list[int], folder: str, environment: dict[str, str]) -> None:
    """Take over what a launcher was started with."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout = (os.fdopen(number, mode, closefd=False) for number, mode in enumerate("rw"))
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)


def run(arguments: list[str]) -> None:
    """Run ``-c CODE``, ``-m MODULE`` or a file as Python would, each with what is for the program itself."""
    if arguments[0] == "-u":
        arguments = arguments[1:]
    kind, *rest = arguments
    if kind == "-m":
        sys.argv, sys.path[0] = rest, os.getcwd()
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        exec(rest[0], vars(sys.modules["__main__"]))
    else:
        sys.argv, sys.path[0] = arguments, os.path.dirname(kind)
        runpy.run_path(kind, run_name="__main__")


def end(error: BaseException | None) -> None:
    """End the process as Python would, but at once: it would tidy up each module that the server has loaded."""
    if isinstance(error, SystemExit):
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    else:
        traceback.print_exception(error)
        status = int(error is not None)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    address = sys.argv[1]
    if sys.argv[2:]:
        launch(address, sys.argv[2:])
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401
    import optuna.storages  # noqa: F401
    import torch._dynamo  # noqa: F401  torch imports it as the first optimizer is made

    launcher = Path(f"{address}.sh")
    words = [sys.executable, "-IS", __file__, address]
    launcher.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    launcher.chmod(0o700)
    gc.freeze()  # so that a child's garbage collection copies no page of what is loaded here
    arguments = serve(address)
    sys.executable = str(launcher)
    try:
        run(arguments)
    except BaseException as error:
        end(error)
    end(None)
