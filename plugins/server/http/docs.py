"""The page of the API at ``/docs``: docs.html, whose tables of options are made from their declaration."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from gentext.requests.declaration import ManyTextsArguments, SearchArguments
from gentext.requests.option_tables import OptionRow, option_rows

#: The page loads nothing and runs no scripts.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
#: The options that each table of the page has rows of.
TABLES = {"completions": ManyTextsArguments, "best": SearchArguments}


def render_page() -> bytes:
    """Return the page.

    A line ``<!-- TABLE: NAME... -->`` becomes the rows of these fields; ``others`` are those that no line names.
    """
    page = Path(__file__).with_name("docs.html").read_text(encoding="utf-8")
    for table, kind in TABLES.items():
        page = _fill_table(page, table, kind)
    return page.encode()


def _fill_table(page: str, table: str, kind: Any) -> str:
    rows = {row.name: row for row in option_rows(kind, "field").values()}
    lines = rf"<!-- {table}: ([\w ]+) -->"
    named = [name for names in re.findall(lines, page) for name in names.split()]
    others = [name for name in rows if name not in named]

    def render_rows(match: re.Match[str]) -> str:
        names = [name for word in match[1].split() for name in (others if word == "others" else [word])]
        return "\n".join(_render_row(rows[name]) for name in names)

    return re.sub(lines, render_rows, page)


def _render_row(row: OptionRow) -> str:
    comma = "," if " to " in row.range else ""
    of_type = f"{row.type}{comma} {row.range}".rstrip()
    default = row.default if row.default == "none" else f"``{row.default}``"
    cells = [f"``{row.name}``", of_type, default, row.help]
    return "<tr>" + "".join(f"<td>{_to_html(cell)}</td>" for cell in cells) + "</tr>"


def _to_html(text: str) -> str:
    return re.sub(r"``(.+?)``", r"<code>\1</code>", html.escape(text, quote=False))
