"""Writes what `gen inspect` shows as one HTML page, which needs nothing else."""

from __future__ import annotations

import base64
import html
import importlib.resources
import json
import string
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gentext.cli.inspect_report import BEST_UNITS, Report
from gentext.console import show_controls
from gentext.data.page_files import PAGE_FOLDER
from gentext.files.atomic import write_text


def write_page(report: Report, path: Path) -> None:
    """Write the page. Raises RunError where the file cannot be written."""
    template = (importlib.resources.files("gentext.cli") / "inspect_page.html").read_text("utf-8")
    # "<" could end the element that holds the data.
    data = json.dumps(_page_data(report), separators=(",", ":")).replace("<", "\\u003c")
    colours = (PAGE_FOLDER / "colours.css").read_text("utf-8").partition("*/\n")[2].rstrip()
    title = html.escape(show_controls(f"{report.text_name}, read by {report.model_name}"))
    write_text(path, string.Template(template).substitute(title=title, colours=colours, data=data))


def _page_data(report: Report) -> dict[str, Any]:
    """Return what the page's script reads. Arrays are base64 of little-endian numbers."""
    inspection = report.inspection
    numbers = {unit: number for number, unit in enumerate(report.units)}
    units = []
    for unit in report.units:
        series, scale = report.series(unit)
        label = report.unit_label(unit)
        codes = _encode(np.rint(series * 127), np.int8)
        units.append({"name": inspection.unit_names[unit], "label": label, "scale": scale, "series": codes})
    features = [
        {
            "name": feature.name,
            "meaning": feature.meaning,
            "entropy": information and information.entropy,
            "chance": information and information.chance,
            "best": [
                {"unit": numbers[unit], "bits": float(information.bits[unit])}
                for unit in (information.best_units(BEST_UNITS) if information else [])
                if information
            ],
        }
        for feature, information in zip(report.features, report.information, strict=True)
    ]
    return {
        "summary": show_controls(report.summary),
        "estimate": report.estimate,
        "symbols": [show_controls(symbol) for symbol in report.symbols],
        "tokens": _encode(inspection.tokens, np.uint32),
        "surprise": _encode(-inspection.logprobs, np.float32),
        "topCount": inspection.top_tokens.shape[1],
        "topTokens": _encode(inspection.top_tokens, np.uint32),
        "topSurprise": _encode(-inspection.top_logprobs, np.float32),
        "units": units,
        "features": features,
    }


def _encode(array: NDArray[Any], dtype: type[np.generic]) -> str:
    return base64.b64encode(array.astype(np.dtype(dtype).newbyteorder("<")).tobytes()).decode("ascii")
