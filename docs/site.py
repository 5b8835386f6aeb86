"""Builds the site of the documentation in build/site: ``make docs``.

The order of the pages is that of docs/index.md. A dead link or a public name without a docstring ends the build.
"""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
BOOK, SITE = BUILD / "book", BUILD / "site"


def main() -> None:
    begin = time.monotonic()
    runpy.run_path(str(ROOT / "docs" / "generate.py"))["pages"]()  # raises where a docstring is missing
    copy_pages()
    look = (ROOT / "docs" / "zensical.toml").read_text(encoding="utf-8")
    settings = BUILD / "zensical.toml"
    settings.write_text(look.replace("[project]\n", f"[project]\nnav = {navigation()}\n", 1), encoding="utf-8")
    build = [Path(sys.executable).with_name("zensical"), "build", "--strict", "--clean", "--config-file", settings]
    code = subprocess.run(build, check=False).returncode
    if code:
        sys.exit(code)
    megabytes = sum(path.stat().st_size for path in SITE.rglob("*") if path.is_file()) / 1e6
    print(f"build/site/index.html: {megabytes:.1f} MB in {time.monotonic() - begin:.1f} s")


def copy_pages() -> None:
    """Copy README, CHANGELOG and docs/ side by side, so that their links stay as they are."""
    shutil.rmtree(BOOK, ignore_errors=True)
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.copytree(ROOT / "docs", BOOK / "docs", ignore=shutil.ignore_patterns("*.py", "*.toml", "__pycache__"))
    for name in ("README.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, BOOK)
    colours = (ROOT / "data" / "page" / "colours.css").read_text(encoding="utf-8")
    dark = colours.replace(':root[data-theme="dark"]', '[data-md-color-scheme="slate"]')
    (BOOK / "docs" / "colours.css").write_text(dark, encoding="utf-8")


def navigation() -> str:
    """Return the sections of docs/index.md as TOML: lists of pages, each page once."""
    sections = {"gentext": ["README.md"], "All pages": ["docs/index.md"]}
    for heading, text in index_sections():
        listed = [page for pages in sections.values() for page in pages]
        sections[heading] = list(dict.fromkeys(page for page in index_pages(text) if page not in listed))
    entries = [f"{{ {json.dumps(title)} = {json.dumps(pages)} }}" for title, pages in sections.items()]
    return f"[{', '.join(entries)}]"


def index_sections() -> Iterator[tuple[str, str]]:
    """Yield each heading of docs/index.md with the text below it."""
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        yield heading, body


def index_pages(text: str) -> Iterator[str]:
    """Yield the pages that a text of docs/index.md links to, as paths below the project."""
    for target in re.findall(r"\]\(([^)#]+\.md)", text):
        yield str((ROOT / "docs" / target).resolve().relative_to(ROOT))


if __name__ == "__main__":
    main()
