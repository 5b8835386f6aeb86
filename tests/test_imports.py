"""Which room may know what, and that asking for little imports little."""

from __future__ import annotations

import ast
import graphlib
import json
import os
import re
import shutil
import subprocess
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import gentext

ROOT = Path(__file__).parent.parent
ROOMS = {"gentext": "engine", **{f"gentext.{name}": name for name in ("plugins", "export", "cli", "data")}}
HEAVY = {"torch", "onnx", "onnxruntime", "onnxscript", "spox", "safetensors", "matplotlib", "optuna", "tensorboard"}
#: Folders whose files may import a heavy library as they are imported; no file elsewhere imports any of them at all.
MAY_IMPORT = {
    "plugins/models": {"torch"},
    "plugins/trainers": {"torch"},
    "plugins/pytorch": {"torch", "safetensors"},
    "plugins/samplers": {"onnxruntime"},
    "plugins/sweep": {"optuna", "matplotlib"},
    "plugins/observers": {"matplotlib", "tensorboard"},
    "export": {"torch", "onnx", "onnxscript", "spox"},
    "cli": {"matplotlib"},
}
#: Of these, the libraries that wait for the function that needs them.
LAZY = {"matplotlib", "tensorboard"}
#: The order in which imports run: a module imports from its own layer and from those before it. The layers of the
#: engine are the headings of its docstring.
LAYERS = ("contracts", "files", "data", "sampling", "training", "library", "plugins", "export", "cli")
#: Who may import from a later layer: `python -m gentext` is the command line.
EXCEPTIONS = {("gentext.__main__", "gentext.cli.app")}


def module_name(file: str) -> str:
    """Return the dotted name of a file of the package, which is given as room/.../file.py."""
    room, *rest = file.removesuffix(".py").split("/")
    package = next(package for package, folder in ROOMS.items() if folder == room)
    return ".".join([package, *(name for name in rest if name != "__init__")])


#: Every module of the package, by its dotted name.
MODULES = {
    module_name(str(path.relative_to(ROOT))): path
    for room in ROOMS.values()
    for path in sorted((ROOT / room).rglob("*.py"))
}


def engine_layers() -> dict[str, str]:
    """Return the layer of each engine module, as the docstring of the package lists them."""
    layers, heading = {}, ""
    for line in (gentext.__doc__ or "").splitlines():
        if match := re.fullmatch(r"(\w+)", line):
            heading = match[1].lower()
        elif heading and (match := re.fullmatch(r"    (\w+)  .*", line)):
            layers[f"gentext.{match[1]}"] = heading
    return layers


def layer_of(module: str) -> str:
    """Return the layer of a module."""
    room = module.split(".")[1] if "." in module else ""
    return room if f"gentext.{room}" in ROOMS else engine_layers().get(module, "")


class Import(NamedTuple):
    """One import in a file."""

    module: str
    """The module, or a name in it."""
    lazy: bool
    """Whether it waits for a function to be called."""


def imports(path: Path) -> Iterator[Import]:
    """Yield every import of a file but those that only its annotations need."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    annotations = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    ignored = {id(below) for node in annotations for below in ast.walk(node)}
    lazy = {id(below) for node in functions for below in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in ignored:
            continue
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, id(node) in lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (Import(f"{node.module}.{alias.name}", id(node) in lazy) for alias in node.names)


def module_of(name: str) -> str | None:
    """Return the module of the package that an imported name is, or lies in."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


def test_every_engine_module_is_in_the_index() -> None:
    engine = {name for name in MODULES if name.count(".") == 1 and name not in ROOMS and not name.endswith("__main__")}
    assert engine_layers().keys() == engine
    assert set(engine_layers().values()) < set(LAYERS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    for name, _ in imports(MODULES[module]):
        assert name.split(".")[0] not in ROOMS.values(), f"{name}: say gentext.{name}"
        target = module_of(name)
        if target is None or (module, target) in EXCEPTIONS or "gentext" in (module, target):
            continue
        order = [LAYERS.index(layer_of(one)) for one in (module, target)]
        assert order[1] <= order[0] or module == "gentext.__main__", f"{layer_of(module)} imports {target}"


def test_modules_form_no_circle() -> None:
    waiting = {
        module: {
            target for name, _ in imports(path) if (target := module_of(name)) and target not in (module, "gentext")
        }
        for module, path in MODULES.items()
    }
    graphlib.TopologicalSorter(waiting).prepare()


@pytest.mark.parametrize("module", MODULES)
def test_heavy_libraries_have_their_folders(module: str) -> None:
    folder = str(MODULES[module].relative_to(ROOT).parent)
    allowed = set().union(*(names for room, names in MAY_IMPORT.items() if f"{folder}/".startswith(f"{room}/")))
    for name, lazy in imports(MODULES[module]):
        library = name.split(".")[0]
        assert library not in HEAVY or (library in allowed and (lazy or library not in LAZY)), name


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
    names = list(MODULES)
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


def test_built_wheel_holds_the_tree(tmp_path: Path) -> None:
    source = tmp_path / "source"  # building leaves files beside the sources
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "runs", "tests", "*.egg-info"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        built = {name for name in wheel.namelist() if ".dist-info/" not in name}
    # What lies in a room belongs into the package: code, and the data that code reads.
    files = {path for room in ROOMS.values() for path in (ROOT / room).rglob("*") if path.is_file()}
    tree = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    assert built == {f"gentext/{name.removeprefix('engine/')}" for name in tree}


def test_public_names_are_exact() -> None:
    public = {
        name
        for name, value in vars(gentext).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public == set(gentext.__all__)
    assert list(gentext.__all__) == sorted(gentext.__all__)
