"""Which room may know what, and that asking for little imports little."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import gentext

HOUSE = Path(__file__).parent.parent
ROOMS = {"gentext": "engine", **{f"gentext.{name}": name for name in ("plugins", "export", "cli", "data")}}
HEAVY = {"torch", "onnx", "onnxruntime", "onnxscript", "spox", "ndonnx", "safetensors", "matplotlib"}
HEAVY |= {"optuna", "tensorboard"}
#: Files of plugins/ and the heavy libraries that they may know; the other rooms may know what stands below.
KNOWS = {
    **{
        name: {"torch"}
        for name in (
            "distributed",
            "growing",
            "recurrent",
            "lstm",
            "device",
            "evaluate",
            "training",
            "bptt",
            "torch_sampler",
        )
    },
    "checkpoint": {"torch", "safetensors"},
    "dropout": {"torch"},
    "muon": {"torch"},
    "session": {"onnxruntime"},
    "study": {"optuna"},
    "tensorboard": {"tensorboard"},
}
MAY = {"engine": set(), "cli": set(), "data": set(), "export": {"torch", "onnx", "onnxscript", "spox"}}
#: Rooms that a room's files may import from, besides the engine.
VISITS = {"engine": set(), "plugins": {"plugins"}, "export": {"export", "plugins"}, "data": {"data"}}


#: Every module of the package, as room/file.
FILES = [f"{room}/{path.name}" for room in ROOMS.values() for path in sorted((HOUSE / room).glob("*.py"))]


def module_name(file: str) -> str:
    room, _, name = file.removesuffix(".py").partition("/")
    package = next(package for package, folder in ROOMS.items() if folder == room)
    return package if name == "__init__" else f"{package}.{name}"


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports anywhere, and whether that is done as the file is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    later = {
        id(below)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for below in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((one.name, id(node) not in later) for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from ((f"{node.module}.{one.name}", id(node) not in later) for one in node.names)


@pytest.mark.parametrize("file", FILES)
def test_every_file_keeps_to_its_room(file: str) -> None:
    room, _, stem = file.removesuffix(".py").partition("/")
    known = KNOWS.get(stem, set()) if room == "plugins" else MAY[room]
    for name, at_once in imports(HOUSE / file):
        top, *rest = name.split(".")
        drawing = top == "matplotlib" and not at_once
        assert top not in HEAVY or top in known or drawing, name
        assert top not in ROOMS.values(), f"{name}: say gentext.{name}"
        if top == "gentext" and rest and rest[0] in ROOMS.values() and room != "cli":
            lazy = room == "engine" and rest[0] == "data" and not at_once  # the text itself, when it is read
            assert rest[0] in VISITS[room] or lazy or file == "engine/__main__.py", name


#: Imports modules one by one, each in a process that knows nothing of gentext. Prints those that fail.
ALONE = """
import importlib, json, os, sys, traceback, warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import numpy, onnx, onnxruntime, onnxscript.optimizer, pooch, spox.opset.ai.onnx.v21, torch, typer
    import safetensors.torch
assert not [name for name in sys.modules if name.startswith("gentext")]
for name in json.load(sys.stdin):
    child = os.fork()
    if not child:
        try:
            importlib.import_module(name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(name)
"""


def test_every_module_can_be_imported_alone() -> None:
    names = [module_name(file) for file in FILES]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE], input=json.dumps(names), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


#: Runs something and prints, last, which modules it has loaded.
LOADED = "import json, sys; {}; sys.stdout.flush(); print(); print(json.dumps(sorted(sys.modules)))"
GEN = "from gentext.cli.app import main; assert main({!r}) == 0"


def test_little_is_loaded_for_little(tiny_run: Path) -> None:
    sample = [["sample", str(tiny_run / name), "--length", "9"] for name in ("model.onnx", "generator.onnx")]
    runs = {
        "import gentext": (LOADED.format("import gentext"), HEAVY | {"typer", "rich", "pooch"}),
        "gen --help": (LOADED.format(GEN.format(["--help"])), HEAVY),
        "gen sample --help": (LOADED.format(GEN.format(["sample", "--help"])), HEAVY),
        "gen plugins": (LOADED.format(GEN.format(["plugins"])), HEAVY),
        "gen info": (LOADED.format(GEN.format(["info", str(tiny_run)])), HEAVY - {"onnxruntime"}),
        **{one[1]: (LOADED.format(GEN.format(one)), HEAVY - {"onnxruntime"}) for one in sample},
    }
    quiet = {**os.environ, "GEN_PLUGINS": ""}
    started = {
        name: subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True, env=quiet)
        for name, (code, _) in runs.items()
    }
    for name, process in started.items():
        out, err = process.communicate()
        assert process.returncode == 0, err
        modules = json.loads(out.splitlines()[-1])
        assert not {one.split(".")[0] for one in modules} & runs[name][1], name
        others = {"gentext.cli.train", "gentext.cli.bench", "gentext.pipeline"} & set(modules)
        assert not others or "sample" not in runs[name][0], name


def test_every_package_is_listed() -> None:
    tool = tomllib.loads((HOUSE / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {
        str(path.parent.relative_to(HOUSE))
        for path in HOUSE.glob("*/**/__init__.py")
        if path.relative_to(HOUSE).parts[0] not in ("tests", "build", ".venv", "benchmarks")
    }
    # No code, but setuptools wants their folders listed.
    presets = {f"gentext.plugins.{name}": f"plugins/{name}" for name in ("presets", "spaces")}
    assert folders == set(ROOMS.values())
    assert tool["package-dir"] == ROOMS | presets
    assert sorted(tool["packages"]) == sorted(ROOMS | presets)
    # A module of that name would hide the room, or be hidden by it.
    assert not [room for room in ROOMS.values() if (HOUSE / "engine" / f"{room}.py").exists()]
    listed = [
        path
        for name, folder in presets.items()
        for one in tool["package-data"][name]
        for path in (HOUSE / folder).glob(one)
    ]
    assert sorted(listed) == sorted((HOUSE / "plugins").glob("**/*.toml"))


def test_public_names_are_exact() -> None:
    public = {
        name
        for name, value in vars(gentext).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public == set(gentext.__all__)
    assert list(gentext.__all__) == sorted(gentext.__all__)
