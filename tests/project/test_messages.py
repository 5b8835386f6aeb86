"""Messages that both a command and a Python program may get speak of no flags of the command line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: What only commands reach, and why it may speak of their flags.
COMMANDS_ONLY = {
    "engine/library/bench.py": "starts gen sample for gen bench",
    "engine/requests/declaration.py": "declares the options of gen sample",
    "engine/requests/option_tables.py": "tables of options, for pages",
    "engine/records/record_output.py": "files of gen sample -o; the library returns records",
    "engine/scoring/score_tables.py": "tables of gen score; the library returns scores",
    "engine/scoring/score_files.py": "rows of gen score; the library returns scores",
    "engine/training/declaration.py": "declares the options of gen train",
    "export/web.py": "gen export --web",
    "export/web_runtime.py": "gen export --web",
    "plugins/server": "gen serve",
    "plugins/sweep": "gen sweep",
    "plugins/trainers/commands.py": "gen train",
}
FLAG = re.compile(r"--[a-z]")
#: A whole command, which anybody can run, and a flag whose spelling in Python follows.
ALLOWED = re.compile(r"\bgen [a-z]+[^;,:()]*|--[a-z-]+, in Python ")


def messages(path: Path) -> Iterator[str]:
    """Yield the strings in the code of a file, without its docstrings; a replacement field is a pair of braces."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | parts:
            yield node.value


def flags_of(folder: str) -> dict[str, list[str]]:
    """Return the messages with flags that the files of a folder have, or a file itself."""
    place = ROOT / folder
    flags: dict[str, list[str]] = {}
    for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        found = [message for message in messages(path) if FLAG.search(ALLOWED.sub("", message))]
        if found:
            flags[path.relative_to(ROOT).as_posix()] = found
    return flags


@pytest.mark.parametrize("folder", ["engine", "data", "plugins", "export"])
def test_messages_speak_of_no_flags(folder: str) -> None:
    flags = flags_of(folder)
    assert {path: found for path, found in flags.items() if not path.startswith(tuple(COMMANDS_ONLY))} == {}


def test_exceptions_are_needed() -> None:
    assert [place for place in COMMANDS_ONLY if not flags_of(place)] == []


@pytest.mark.parametrize(
    ("message", "has_flag"),
    [
        ("use --sampler onnx", True),
        ("go on with: gen train --resume --run {}", False),
        ("run gen export RUN, or use --chain", True),
        ("opened with --no-verify, in Python verify=False", False),
    ],
)
def test_whole_commands_are_no_flags(message: str, has_flag: bool) -> None:
    assert bool(FLAG.search(ALLOWED.sub("", message))) == has_flag
