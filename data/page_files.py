"""The page on which a model writes, and the JavaScript modules with which it does: see docs/browser.md.

They lie in the folder ``page/``. `gen serve` shows them, and `gen export --web` copies them beside a model.
"""

from __future__ import annotations

from pathlib import Path

#: The folder of the page.
PAGE_FOLDER = Path(__file__).parent / "page"
#: Endings of the files that a browser loads.
SERVED_SUFFIXES = {".html", ".css", ".js", ".svg", ".png", ".ico", ".woff2"}
#: The file that says how the page's model computes.
ENGINE_FILE = "engine.json"


def page_files() -> dict[str, Path]:
    """Return the files that a browser loads, by name."""
    return {path.name: path for path in sorted(PAGE_FOLDER.iterdir()) if path.suffix in SERVED_SUFFIXES}
