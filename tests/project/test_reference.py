"""The pages of docs/reference that docs/generate.py writes are those that the code gives."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "generate.py"))


def test_generated_pages_are_up_to_date(generator: dict[str, Any]) -> None:
    folder, texts = ROOT / "docs" / "reference", generator["pages"]()
    stale = [name for name, text in texts.items() if (folder / name).read_text(encoding="utf-8") != text]
    assert not stale, f"{stale}: run make reference"
    written = {
        str(path.relative_to(folder))
        for path in folder.rglob("*.md")
        if generator["NOTICE"] in path.read_text(encoding="utf-8")
    }
    assert written == texts.keys(), "a page whose command or module is gone"


def test_public_name_without_docstring_is_an_error(generator: dict[str, Any]) -> None:
    def undocumented() -> None: ...

    with pytest.raises(LookupError, match="undocumented is public and has no docstring"):
        generator["docstring"](undocumented, "undocumented")
