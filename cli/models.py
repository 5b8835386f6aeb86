"""``gen models``: lists the generators that gentext brings along."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gentext.data.shipped import shipped_models
from gentext.exported.metadata import Bundle
from gentext.exported.onnx_file import read_metadata


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,
) -> None:
    """List the models that come with gentext: gen sample NAME writes with one."""
    reports = [_describe_model(name, path) for name, path in shipped_models().items()]
    if as_json:
        print(json.dumps(reports, indent=2))
        return
    width = max(len(report["name"]) for report in reports)
    print(f"{'name':{width}}    MB  held out  weights  text           summary")
    for report in reports:
        print(
            f"{report['name']:{width}}  {report['bytes'] / 1e6:>4.1f}  {report['loss']:>8.4f}  "
            f"{report['license']['weights']:7}  {report['license']['text']:13}  {report['summary']}"
        )


def _describe_model(name: str, path: Path) -> dict[str, Any]:
    card = Bundle.from_metadata(read_metadata(path), path).card
    return {
        "name": name,
        "bytes": path.stat().st_size,
        "loss": card["precision_losses"][card["precision"]],
        **{key: card[key] for key in ("precision", "parameters", "license", "summary", "edition", "command")},
    }
