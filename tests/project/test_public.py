"""The public surface: plugins and documents use modules that docs/hooks.md lists, and of them names in __all__."""

from __future__ import annotations

import ast
import importlib
import re
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import gentext
from gentext import interfaces

ROOT = Path(__file__).parents[2]
#: The pages by hand: those that docs/generate.py writes show signatures, which are no programs.
PAGES = [
    path
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "<!-- Written by docs/generate.py" not in path.read_text(encoding="utf-8")
]
PLUGINS = sorted(
    path
    for folder in ("tests/strangers", "examples")
    for path in (ROOT / folder).glob("gentext-*/**/*.py")
    if not {"build", "gentext_broken"} & set(path.parts)
)


def public_modules() -> list[str]:
    """Return the modules that docs/hooks.md lists as public."""
    text = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")
    section = text.partition("## Public modules\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([\w.]+)` \|", section, re.MULTILINE)


def python_of(path: Path) -> str:
    """Return the Python of a file; of a page, that of all its blocks, at the lines where they stand."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return text
    lines = [""] * (text.count("\n") + 1)
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        first = text[: block.start(1)].count("\n")
        for offset, line in enumerate(block[1].splitlines()):
            lines[first + offset] = line
    return "\n".join(lines)


def uses(path: Path) -> Iterator[tuple[int, str, str | None]]:
    """Yield each use of gentext in a file: the line, the module, and the name, or None for the module itself."""
    tree = ast.parse(python_of(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gentext":
            yield from ((node.lineno, node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "gentext"]
            yield from ((node.lineno, name, None) for name in names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "gentext":
            yield node.lineno, "gentext", node.attr


def test_reference_has_the_public_modules() -> None:
    text = (ROOT / "docs" / "reference" / "modules.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^## (gentext[\w.]*)$", text, re.MULTILINE)) == sorted(public_modules())


@pytest.mark.parametrize("module", public_modules())
def test_public_modules_name_what_is_public(module: str) -> None:
    names = importlib.import_module(module).__all__
    assert list(names) == sorted(set(names)), "sorted, and each once"
    for name in names:
        assert not name.startswith("_")
        assert not isinstance(getattr(importlib.import_module(module), name), types.ModuleType)


def test_every_contract_is_public() -> None:
    path = ROOT / "engine" / "interfaces.py"
    classes = {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)}
    assert classes <= set(interfaces.__all__)


def test_modules_with_public_names_are_listed() -> None:
    """A module that has __all__ is public; the library's modules are so through gentext itself."""
    listed = public_modules()
    assert len(set(listed)) == len(listed) > 10
    for path in (ROOT / "engine").glob("*.py"):
        if "\n__all__ = " in path.read_text(encoding="utf-8") and path.stem != "__init__":
            module = importlib.import_module(f"gentext.{path.stem}")
            in_gentext = set(module.__all__) <= set(gentext.__all__)
            assert module.__name__ in listed or in_gentext, f"{module.__name__} has __all__, but is not public"


@pytest.mark.parametrize("path", [*PAGES, *PLUGINS], ids=lambda path: path.stem if path.suffix == ".md" else path.name)
def test_documents_and_plugins_use_what_is_public(path: Path) -> None:
    listed = public_modules()
    for line, module, name in uses(path):
        where = f"{path.name}:{line}: {module}" + (f".{name}" if name else "")
        assert module in listed, f"{where}: not a public module"
        if name is not None and f"{module}.{name}" not in listed:
            assert name in importlib.import_module(module).__all__, f"{where}: not in __all__"


def test_documents_use_the_library() -> None:
    """The test above finds what it looks for."""
    names = {name for _, module, name in uses(ROOT / "docs" / "library.md") if module == "gentext"}
    assert names == {None, "GenError", "distill", "load", "train"}
