"""Plant faults in copies of the project, one at a time, and say whether the tests of ``make test`` see them.

    python tests/mutants.py FOLDER [--count 20] [--seed 0] [--first 0] [--rooms-only]

A seeded generator draws one fault after another, each in another room until all have had one: a comparison or a sum is
turned, ``and`` becomes ``or``, a constant changes, a ``return`` or ``raise`` goes. Three planted faults come first.
FOLDER gets the copies. The tests of the room run first, and if they pass, all do, unless ``--rooms-only`` is given.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
FOLDERS = ("engine", "plugins", "export", "cli")
TURNED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.GtE,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


class Fault(NamedTuple):
    """A replacement in a file, from one offset in its bytes to another."""

    file: str
    begin: int
    end: int
    replacement: str


#: Rooms whose tests are in folders of other names.
TESTED_IN = {
    "batchers": ("models", "training"),
    "distill": ("sweep",),
    "engine": ("runs", "cli"),
    "strategies": ("sampling",),
    "trainers": ("training", "models"),
}
#: A wrong sign in the draw, a session that forgets its position, an option that the server ignores.
PLANTED = (
    ("engine/sampling/draw.py", "cumulative_weights > u", "cumulative_weights < u"),
    ("engine/sessions/session.py", "        state.drawn,\n", "        0,\n"),
    ("plugins/server/worker/texts.py", "options = job.options\n", 'options = job.options | {"match_prime": False}\n'),
)


def planted() -> Iterator[Fault]:
    for file, before, after in PLANTED:
        content = (ROOT / file).read_bytes()
        assert content.count(before.encode()) == 1, f"{file}: {before!r}"
        begin = content.index(before.encode())
        yield Fault(file, begin, begin + len(before.encode()), after)


def faults(file: str) -> list[Fault]:
    """Return all faults that can be planted in the functions of a file."""
    content = (ROOT / file).read_bytes()
    starts = [0]
    for line in content.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for function in ast.walk(ast.parse(content)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for statement in function.body:
            for node in ast.walk(statement):
                if changed := change(node):
                    begin = starts[node.lineno - 1] + node.col_offset
                    end = starts[node.end_lineno - 1] + node.end_col_offset
                    found.append(Fault(file, begin, end, changed))
    return sorted(set(found))


def change(node: ast.AST) -> str | None:
    """Return the source of a node with a fault; None where none can be planted."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in TURNED:
        return (
            f"({ast.unparse(ast.Compare(node.left, [TURNED[type(node.ops[0])](), *node.ops[1:]], node.comparators))})"
        )
    if isinstance(node, ast.BinOp) and type(node.op) in TURNED:
        return f"({ast.unparse(ast.BinOp(node.left, TURNED[type(node.op)](), node.right))})"
    if isinstance(node, ast.BoolOp):
        return f"({ast.unparse(ast.BoolOp(TURNED[type(node.op)](), node.values))})"
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int):
        return str(not node.value) if isinstance(node.value, bool) else str(node.value + 1)
    if isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        return "return None"
    return "pass" if isinstance(node, ast.Raise) else None


def draw(seed: int) -> Iterator[Fault]:
    """Yield faults without end, in each room once before any has another."""
    rng = random.Random(seed)
    rooms: dict[str, list[str]] = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            rooms.setdefault(path.parent.relative_to(ROOT).as_posix(), []).append(path.relative_to(ROOT).as_posix())
    while True:
        for room in rng.sample(sorted(rooms), len(rooms)):
            if choices := [fault for file in rooms[room] for fault in faults(file)]:
                yield rng.choice(choices)


def tests_of(file: str) -> list[str]:
    """Return the folders of the tests of a file's room."""
    rooms = Path(file).parts[:-1]
    names = {*rooms[:-1], *TESTED_IN.get(rooms[-1], (rooms[-1],))} - {"engine", "plugins"} or {"plugins"}
    return [f"tests/{name}" for name in sorted(names) if (ROOT / "tests" / name).is_dir()]


def is_seen(copy: Path, fault: Fault, rooms_only: bool) -> bool:
    """Plant a fault in a copy, and return whether a test fails."""
    shutil.rmtree(copy, ignore_errors=True)
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in files.split("\0")[:-1]:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    path = copy / fault.file
    content = path.read_bytes()
    path.write_bytes(content[: fault.begin] + fault.replacement.encode() + content[fault.end :])
    package = copy / "build" / "mutant" / "gentext"
    package.mkdir(parents=True)
    for part in [*(copy / "engine").iterdir(), *(copy / name for name in ("plugins", "export", "cli", "data"))]:
        (package / part.name).symlink_to(part)
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    options = [
        "-n",
        "2",
        "--dist",
        "loadfile",
        "-x",
        "-q",
        "-m",
        "not slow",
        "-p",
        "no:cacheprovider",
        "--hypothesis-profile=first_failure",
    ]
    for places in filter(None, [tests_of(fault.file), None if rooms_only else ["tests"]]):
        command = [sys.executable, "-m", "pytest", *options, *places]
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
        if done.returncode:
            failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
            print(f"  seen by {failed[0] if failed else done.stdout[-300:]}", flush=True)
            return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--rooms-only", action="store_true")
    options = parser.parse_args()
    drawn = draw(options.seed)
    all_faults = [*planted(), *(next(drawn) for _ in range(options.count))][options.first :]
    survived = 0
    for number, fault in enumerate(all_faults, options.first):
        content = (ROOT / fault.file).read_bytes()
        line = content[: fault.begin].count(b"\n") + 1
        before = content[fault.begin : fault.end].decode()
        print(f"{number}: {fault.file}:{line}: {before!r} -> {fault.replacement!r}", flush=True)
        if not is_seen(options.folder / "mutant", fault, options.rooms_only):
            survived += 1
            print("  survived", flush=True)
    print(f"{len(all_faults) - survived} of {len(all_faults)} were seen")


if __name__ == "__main__":
    main()
