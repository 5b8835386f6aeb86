"""Shows an inspected text as one HTML page, which needs nothing else."""

from __future__ import annotations

import html
import importlib.resources
import json
import string
from pathlib import Path
from typing import Any

from gentext.console import show_controls
from gentext.data.page_files import PAGE_FOLDER
from gentext.files.atomic import open_output


def write_page(path: Path, title: str, data: dict[str, Any]) -> None:
    """Write the page with what its script reads. Raises RunError where the file cannot be written."""
    template = (importlib.resources.files("gentext.inspection") / "page.html").read_text("utf-8")
    # "<" could end the element that holds the data.
    encoded = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    colours = (PAGE_FOLDER / "colours.css").read_text("utf-8").partition("*/\n")[2].rstrip()
    title = html.escape(show_controls(title))
    page = string.Template(template).substitute(title=title, colours=colours, data=encoded)
    with open_output(path) as file:
        file.write(page.encode())
