"""Imports run one way, heavy libraries stay in their folders, small commands load little, and the wheel is complete."""

from __future__ import annotations

import ast
import graphlib
import importlib
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
import gentext.plugins.server
from gentext.errors import MOVED_MODULES
from gentext.library.open_model import CURVES_MODULE
from gentext.manager import BUILTINS
from gentext.training.options import INITIAL_WEIGHTS_MODULE

ROOT = Path(__file__).parents[2]
#: The package and its subpackages, and the folders of the project that hold them.
PACKAGES = {
    "gentext": "engine",
    "gentext.plugins": "plugins",
    "gentext.export": "export",
    "gentext.cli": "cli",
    "gentext.data": "data",
    "gentext.testing": "engine/testing",
}
HEAVY = {
    "torch",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "spox",
    "safetensors",
    "matplotlib",
    "optuna",
    "tensorboard",
    "starlette",
    "uvicorn",
    "prompt_toolkit",
}
#: The folders whose files may import a heavy library. No file of another folder may, not even in a function.
ALLOWED_LIBRARIES = {
    "plugins/models": {"torch"},
    "plugins/trainers": {"torch"},
    "plugins/distill": {"torch"},
    "plugins/pytorch": {"torch", "safetensors"},
    "plugins/samplers": {"onnxruntime"},
    "plugins/server": {"onnxruntime", "starlette", "uvicorn"},
    "plugins/sweep": {"optuna", "matplotlib"},
    "plugins/observers": {"matplotlib", "tensorboard"},
    "export": {"torch", "onnx", "onnxscript", "spox"},
    "engine/testing": {"torch", "onnxruntime"},
    "cli": {"matplotlib"},
    "cli/interactive": {"prompt_toolkit"},
}
#: Libraries that may only be imported inside functions.
FUNCTIONS_ONLY = {"matplotlib", "tensorboard"}
#: Subpackages in the order in which they may import each other. A room of the engine says which rooms it imports.
LAYERS = ("engine", "data", "plugins", "export", "engine/testing", "cli")
#: Modules that may import from a later layer: `python -m gentext` is the command line.
IMPORT_EXCEPTIONS = {("gentext.__main__", "gentext.cli.app")}
#: Names of later layers that modules of the engine may hold as strings: the list of built-in plugins, the folder
#: in which the presets are, the module behind ``--init-from``, and modules that moved.
STRING_EXCEPTIONS = {
    "gentext.errors": {*MOVED_MODULES, *MOVED_MODULES.values()} - {"gentext.interrupts"},
    "gentext.library.open_model": {CURVES_MODULE},
    "gentext.manager": set(BUILTINS),
    "gentext.runs.resolve": {"gentext.plugins"},
    "gentext.training.options": {INITIAL_WEIGHTS_MODULE},
}


def module_name(package: str, file: Path) -> str:
    """Return the dotted name of a module, whose file is relative to the folder of a package."""
    parts = file.with_suffix("").parts
    return ".".join([package, *(part for part in parts if part != "__init__")])


#: The file of every module of the package, by the module's dotted name.
MODULES = {
    module_name(package, path.relative_to(ROOT / folder)): path
    for package, folder in PACKAGES.items()
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def index(package: types.ModuleType, heading: str = "") -> list[str]:
    """Return the names that the docstring of a package lists, below a heading."""
    lines = iter((package.__doc__ or "").splitlines())
    if heading:
        for line in lines:
            if line.startswith(heading):
                break
    names = []
    for line in lines:
        if match := re.fullmatch(r"    (\w+)  .*", line):
            names.append(match[1])
        elif names:
            break
    return names


#: The rooms of the engine in their order, and the modules of the engine that are in none.
ROOMS, FLAT_MODULES = index(gentext, "Rooms"), index(gentext, "Modules")
#: Rooms that modules in no room may import.
ROOMS_OF_FLAT_MODULES = {"files", "exported", "components", "sampling"}


def place_of(module: str) -> str:
    """Return the room of a module of the engine, its subpackage, or ``engine`` for a module in no room."""
    _, name, *_ = [*module.split("."), ""]
    subpackage = f"gentext.{name}"
    if subpackage in PACKAGES:
        return PACKAGES[subpackage]
    return name if name in ROOMS else "engine"


def rooms_to_import(room: str) -> set[str]:
    """Return the rooms, and the subpackage ``data``, that a room may import, as its docstring says."""
    docstring = importlib.import_module(f"gentext.{room}").__doc__ or ""
    [names] = re.findall(r"^May import(?:: ([\w, ]+)| no other room)\.$", docstring, re.MULTILINE)
    return {name for name in names.split(", ") if name}


class Import(NamedTuple):
    """One import in a file."""

    name: str
    """A module, or a name in a module."""
    in_function: bool
    """Whether it happens only when a function is called."""


def imports(path: Path, *, for_annotations: bool = False) -> Iterator[Import]:
    """Yield every import of a file; those that only its annotations need where ``for_annotations`` says so."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for child in ast.walk(node):
                child.in_function = True  # type: ignore[attr-defined]
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for child in ast.walk(node):
                child.for_annotations = True  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if getattr(node, "for_annotations", False) and not for_annotations:
            continue
        in_function = getattr(node, "in_function", False)
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, in_function) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (Import(f"{node.module}.{alias.name}", in_function) for alias in node.names)


def imported_module(name: str) -> str | None:
    """Return the module of the package that an imported name is, or lies in; None for another package."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


def strings(path: Path) -> Iterator[str]:
    """Yield every string in the code of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_module_is_in_an_index() -> None:
    flat = {path.stem for path in (ROOT / "engine").glob("*.py")} - {"__init__", "__main__"}
    assert sorted(FLAT_MODULES) == sorted(flat)
    rooms = {path.parent.name for path in (ROOT / "engine").glob("*/__init__.py")} - {"testing"}
    assert sorted(ROOMS) == sorted(rooms)
    for room in ROOMS:
        modules = {path.stem for path in (ROOT / "engine" / room).glob("*.py")} - {"__init__"}
        assert sorted(index(importlib.import_module(f"gentext.{room}"))) == sorted(modules), room


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_others_use(room: str) -> None:
    docstring = importlib.import_module(f"gentext.{room}").__doc__ or ""
    [sentence] = re.findall(r"^Others use (.*?)\.$", docstring, re.MULTILINE | re.DOTALL)
    for module, name in re.findall(r"`(\w+)\.(\w+)`", sentence):
        assert hasattr(importlib.import_module(f"gentext.{room}.{module}"), name)


def test_rooms_have_an_order() -> None:
    for room in ROOMS:
        assert rooms_to_import(room) - {"data"} <= {*ROOMS[: ROOMS.index(room)]}, room


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    place = place_of(module)
    allowed = ROOMS_OF_FLAT_MODULES if place == "engine" else rooms_to_import(place) if place in ROOMS else set(ROOMS)
    for name, _ in imports(MODULES[module]):
        assert name.split(".")[0] not in PACKAGES.values(), f"{name}: say gentext.{name}"
        imported = imported_module(name)
        # The package itself offers names of the engine to plugins, and imports them from every room.
        if imported is None or (module, imported) in IMPORT_EXCEPTIONS or "gentext" in (module, imported):
            continue
        imported_place = place_of(imported)
        if imported_place in (place, "engine") or imported_place in allowed:
            continue
        layer, imported_layer = (name if name in LAYERS else "engine" for name in (place, imported_place))
        assert LAYERS.index(imported_layer) < LAYERS.index(layer), f"{module} imports {imported}"


def test_rooms_of_the_server_are_what_they_say() -> None:
    rooms = index(gentext.plugins.server, "Rooms")
    assert sorted(rooms) == sorted(path.parent.name for path in (ROOT / "plugins/server").glob("*/__init__.py"))
    for room in rooms:
        package = f"gentext.plugins.server.{room}"
        modules = {module for module in MODULES if module.startswith(f"{package}.")}
        assert {f"{package}.{name}" for name in index(importlib.import_module(package))} == modules
        allowed = {f"plugins.server.{name}" for name in rooms_to_import(f"plugins.server.{room}")}
        for module in modules:
            for name, _ in imports(MODULES[module], for_annotations=True):
                other = re.match(rf"gentext\.(plugins\.server\.({'|'.join(rooms)}))\.", name)
                assert other is None or other[1] in {f"plugins.server.{room}", *allowed}, f"{module} imports {name}"


def test_engine_names_later_layers_in_few_strings() -> None:
    later = re.compile(r"gentext\.(plugins|export|cli)\b[\w.:]*")
    for module, path in MODULES.items():
        if place_of(module) in ("engine", *ROOMS):
            names = {text for text in strings(path) if later.fullmatch(text)}
            assert names == STRING_EXCEPTIONS.get(module, set()), module


def test_modules_form_no_circle() -> None:
    """In the engine not even imports for annotations form one; elsewhere none that happens at run time does."""
    graph = {}
    for module, path in MODULES.items():
        in_engine = place_of(module) in ("engine", *ROOMS) and module not in ("gentext", "gentext.__main__")
        imported = {imported_module(name) for name, _ in imports(path, for_annotations=in_engine)}
        graph[module] = imported - {None, module, "gentext"}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", MODULES)
def test_heavy_libraries_have_their_folders(module: str) -> None:
    file = MODULES[module].relative_to(ROOT).as_posix()
    allowed: set[str] = set()
    for folder, libraries in ALLOWED_LIBRARIES.items():
        if file.startswith(f"{folder}/"):
            allowed |= libraries
    for name, in_function in imports(MODULES[module]):
        library = name.split(".")[0]
        if library in HEAVY:
            assert library in allowed, name
            assert in_function or library not in FUNCTIONS_ONLY, name


#: Imports modules one by one, each in a process that has imported no other module of gentext; prints those that fail.
#: The heavy libraries are imported once, before the processes are forked.
IMPORT_EACH_ALONE = """
import gc, importlib, json, os, sys, traceback, warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import matplotlib.figure, numpy, onnx, onnxruntime, onnxscript.optimizer, optuna.storages, pooch
    import safetensors.torch, spox.opset.ai.onnx.v21, torch, typer
gc.freeze()  # so that no child's garbage collection copies what is loaded here
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


@pytest.mark.slow
def test_every_module_can_be_imported_alone() -> None:
    command = [sys.executable, "-W", "error", "-c", IMPORT_EACH_ALONE]
    process = subprocess.run(command, input=json.dumps(list(MODULES)), capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (0, ""), process.stderr


#: Runs something, and prints on the last line the modules that are loaded then.
PRINT_LOADED = "import json, sys; {}; sys.stdout.flush(); print(); print(json.dumps(sorted(sys.modules)))"


class Program(NamedTuple):
    """A program, and the modules that it must not load."""

    code: str
    forbidden: set[str]


def gen_program(words: list[str], forbidden: set[str]) -> Program:
    return Program(f"from gentext.cli.app import main; assert main({words!r}) == 0", forbidden)


def test_little_is_loaded_for_little(tiny_run: Path, tmp_path: Path) -> None:
    no_training = {
        "gentext.cli.train",
        "gentext.cli.bench",
        "gentext.training.pipeline",
        "gentext.plugins.sweep.command",
        "gentext.plugins.server.command",
    }
    sampling_libraries = HEAVY - {"onnxruntime"} | {"filelock"}
    files = [str(tiny_run / name) for name in ("model.onnx", "generator.onnx")]
    programs = [
        Program("import gentext", HEAVY | {"typer", "rich", "pooch"}),
        gen_program(["--help"], HEAVY),
        gen_program(["sample", "--help"], HEAVY | no_training),
        gen_program(["plugins"], HEAVY),
        gen_program(["info", str(tiny_run)], sampling_libraries),
        gen_program(["inspect", files[0], "--text", "ab", "-o", str(tmp_path / "page.html")], sampling_libraries),
        *(gen_program(["sample", file, "--length", "9"], sampling_libraries | no_training) for file in files),
    ]
    environment = {**os.environ, "GEN_PLUGINS": ""}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PRINT_LOADED.format(program.code)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for program in programs
    ]
    for program, process in zip(programs, processes, strict=True):
        out, err = process.communicate()
        assert process.returncode == 0, err
        modules = json.loads(out.splitlines()[-1])
        loaded = {*modules, *(module.split(".")[0] for module in modules)}
        assert not loaded & program.forbidden, program.code


@pytest.mark.slow
def test_built_wheel_holds_the_tree(tmp_path: Path) -> None:
    source = tmp_path / "source"  # building leaves files beside the sources
    for folder in PACKAGES.values():
        shutil.copytree(ROOT / folder, source / folder, dirs_exist_ok=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    # All files of these folders belong into the package: code, and the data that code reads.
    paths = {path for folder in PACKAGES.values() for path in (ROOT / folder).rglob("*") if path.is_file()}
    names = {path.relative_to(ROOT).as_posix() for path in paths if "__pycache__" not in path.parts}
    assert packed == {f"gentext/{name.removeprefix('engine/')}" for name in names}


def test_public_names_are_exact() -> None:
    # What only the module itself imports, and what its imports bind, is no part of it.
    internal = {"annotations", "Any", "TYPE_CHECKING"}
    public = {
        name
        for name in dir(gentext)
        if not name.startswith("_") and not isinstance(getattr(gentext, name), types.ModuleType)
    }
    assert public - internal == set(gentext.__all__)
    assert list(gentext.__all__) == sorted(gentext.__all__)
