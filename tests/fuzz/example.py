"""An example: files and command lines, how they are run, and the conditions that must hold for each of them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

#: A command that takes longer hangs; one that takes more memory, above that of its start, takes too much.
MAX_SECONDS, MAX_BYTES = 30.0, 10**9
#: Characters of an error's line, and its beginning.
MAX_ERROR, ERROR_START = 500, "gen: error: "
#: Exit statuses: success, failure, wrong usage, ended by Ctrl-C.
STATUSES = (0, 1, 2, 130)
#: What no user should see: an exception that nobody handled, in the program or at its end, and warnings of Python.
NOISE = re.compile(r"Traceback \(most recent call last\)|Exception ignored in|\.py:\d+: \w*Warning: ")
#: Variables of the environment that a child needs as they are here.
INHERITED = ("PATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")


class Special(NamedTuple):
    """What stands in a place where a file is expected: ``folder``, ``fifo``, ``run`` (a copy of one), or a link."""

    kind: str
    target: str = ""


@dataclasses.dataclass(frozen=True)
class Example:
    """Files, and commands that are run one after the other in the folder that holds them."""

    files: Mapping[str, bytes | Special]
    """By path within the folder, in the order in which they are written."""
    commands: Sequence[Sequence[str]]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    stdin: bytes = b""
    stdout: str = ""
    """A path to print to, such as /dev/full."""
    base: bool = True
    """Whether it runs as in an installation without PyTorch."""
    interrupt_after: float | None = None
    """Seconds until Ctrl-C, for commands that may rightly take long."""
    own_statuses: Sequence[int] = ()
    """Exit statuses of a plugin's own command."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    """As `subprocess.Popen.returncode` has it: negative for a signal."""
    ended_by: str
    """``hang`` or ``memory`` where a limit was exceeded."""
    interrupted: bool
    seconds: float
    bytes: int
    """Memory at its peak, above that of the start."""
    out: str
    err: str


def find_violation(outcome: Outcome, own_statuses: Sequence[int] = ()) -> str | None:
    """Return which condition an outcome does not fulfil, or None."""
    if outcome.ended_by:
        return outcome.ended_by
    if outcome.status < 0:
        return f"signal {-outcome.status}"
    if match := NOISE.search(outcome.err):
        return match[0]
    errors = [line for line in outcome.err.splitlines() if line.startswith(ERROR_START)]
    if outcome.status in own_statuses and not errors:
        return None
    if outcome.status not in STATUSES:
        return f"status {outcome.status}"
    if outcome.status == 0 or outcome.status == 130 or shows_problems(outcome):
        return f"status {outcome.status} with an error" if errors else None
    if len(errors) != 1 or outcome.err.splitlines()[-1] != errors[0]:
        return f"status {outcome.status} without one line for the error at the end"
    if not len(ERROR_START) + 5 < len(errors[0]) <= MAX_ERROR:
        return "an error's line of the wrong length"
    return None


def shows_problems(outcome: Outcome) -> bool:
    """Return whether stdout itself says why the status is not 0: the help, or the problems that gen doctor found."""
    return "Usage: gen" in outcome.out + outcome.err or bool(re.search(r'^problem: |"problems": \[', outcome.out, re.M))


class Runner:
    """Runs examples. Two servers fork their processes: see `server.py`."""

    def __init__(self, run: Path, folder: Path) -> None:
        """``run``: the run that `Special` copies. ``folder``: where examples are put, and removed again."""
        self.run = run
        self.folder = folder
        self._servers: dict[bool, subprocess.Popen[str]] = {}

    def close(self) -> None:
        for server in self._servers.values():
            assert server.stdin is not None and server.stdout is not None
            server.stdin.close()
            server.wait()
            server.stdout.close()

    def _server(self, base: bool) -> subprocess.Popen[str]:
        if base not in self._servers:
            script = Path(__file__).with_name("server.py")
            command = [sys.executable, str(script), "base" if base else "train"]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            server = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
            self._servers[base] = server
            assert server.stdout is not None and server.stdout.readline()
        return self._servers[base]

    def place(self, example: Example) -> Path:
        """Write the files of an example, and return the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        place = self.folder / "place"
        place.mkdir()
        for name, content in example.files.items():
            path = place / name
            for parent in path.parents:
                if not parent.is_dir() and (parent.exists() or parent.is_symlink()):
                    parent.unlink()  # an earlier file of the example gives way to a folder
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Special) and content.kind == "run":
                shutil.copytree(self.run, path, dirs_exist_ok=True)
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif content.kind == "folder":
                path.mkdir()
            elif content.kind == "fifo":
                os.mkfifo(path)
            else:
                path.symlink_to(content.target)
        (self.folder / "stdin").write_bytes(example.stdin)
        return place

    def run_command(self, example: Example, command: Sequence[str]) -> Outcome:
        """Run one command of an example whose files are in place."""
        place = self.folder / "place"
        streams = {name: self.folder / name for name in ("stdin", "stdout", "stderr")}
        for name in ("stdout", "stderr"):
            streams[name].unlink(missing_ok=True)
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        environment |= {"HOME": str(place / "home"), "GEN_CACHE_DIR": str(place / "cache"), "LANG": "C.UTF-8"}
        job = {
            "arguments": list(command),
            "folder": str(place),
            "environment": environment | dict(example.environment),
            "path": [str(place / "site")],
            **{name: str(path) for name, path in streams.items()},
            "seconds": MAX_SECONDS,
            "bytes": MAX_BYTES,
            "interrupt_after": example.interrupt_after,
        }
        if example.stdout:
            job["stdout"] = example.stdout
        server = self._server(example.base)
        assert server.stdin is not None and server.stdout is not None
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        answer: dict[str, Any] = json.loads(server.stdout.readline())
        out, err = (
            path.read_bytes()[:1_000_000].decode(errors="replace") if path.exists() else ""
            for path in (streams["stdout"], streams["stderr"])
        )
        return Outcome(**answer, out=out, err=err)


def copy_regular_files(source: Path, target: Path) -> None:
    """Copy the regular files and links of a folder; a FIFO cannot be copied."""

    def skip(folder: str, names: list[str]) -> list[str]:
        modes = {name: os.lstat(os.path.join(folder, name)).st_mode for name in names}
        return [name for name, mode in modes.items() if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))]

    shutil.copytree(source, target, ignore=skip, dirs_exist_ok=True)
