"""``gen corpora``: lists the texts that have a name."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from gentext.console import say
from gentext.data.catalogue import CATALOGUE, CatalogueEntry, data_dir, is_available


def corpora(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,
) -> None:
    """List the texts that gen train knows by name, and which of them are already here."""
    entries = list(CATALOGUE.values())
    if as_json:
        rows = [dataclasses.asdict(entry) | {"here": is_available(entry)} for entry in entries]
        print(json.dumps(rows, indent=2))
        return
    width = max(len(entry.name) for entry in entries)
    print(f"{'name':{width}}  {'characters':>11}  here  summary")
    for entry in entries:
        print(_format_row(entry, width))
    say(f"The others are downloaded when they are used, to {data_dir()} (GEN_DATA_DIR names another folder)")


def _format_row(entry: CatalogueEntry, width: int) -> str:
    approximate_sign = "~" if entry.filename is None else ""  # such a text changes with the version of Python
    characters = "?" if entry.characters is None else f"{approximate_sign}{entry.characters:,}"
    availability = "yes" if is_available(entry) else "no"
    return f"{entry.name:{width}}  {characters:>11}  {availability:4}  {entry.summary}"
