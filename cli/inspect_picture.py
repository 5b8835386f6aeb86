"""Draws what `gen inspect` shows as a picture: the beginning of the text in the colours of surprise and of units."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gentext.console import show_controls
from gentext.errors import MissingExtra
from gentext.files.atomic import open_output
from gentext.inspection.inspected_text import InspectedText

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Characters of a line, lines of each panel at most, and panels: surprise, and so many units.
COLUMNS, LINES, PANELS = 88, 8, 3
#: Width and height of a character.
CELL_INCHES = (0.092, 0.2)
#: Inches that the titles need, at least.
MIN_WIDTH = 7
#: Bits of surprise with the full colour.
FULL_BITS = 8
SURPRISE, PLUS, MINUS = (226, 96, 36), (214, 92, 40), (40, 110, 180)


def draw_picture(text: InspectedText, path: Path) -> None:
    """Draw the picture. Raises MissingExtra without matplotlib, RunError where the file cannot be written."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingExtra("--png", "train") from None
    places = _place_symbols(text.symbols)
    panels: list[tuple[str, NDArray[np.floating]]] = [
        (text.summary, np.minimum(1, -text.reading.logprobs / np.log(2) / FULL_BITS))
    ]
    for unit in [*text.chosen_units, *text.telling_units()][: PANELS - 1]:
        title = f"unit {text.reading.unit_names[unit]}: {text.unit_label(unit)}"
        panels.append((title, text.series(unit)[0]))
    size = max(line for line, _, _ in places) + 1, max(column + len(visible_text) for _, column, visible_text in places)
    width, height = size[1] * CELL_INCHES[0], size[0] * CELL_INCHES[1] + 0.4
    figure = Figure(figsize=(max(width, MIN_WIDTH), len(panels) * height), layout="constrained", facecolor="white")
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for panel, (title, strengths) in zip(axes, panels, strict=True):
        panel.set_title(show_controls(title), loc="left", fontsize=10, parse_math=False)
        _draw_text(panel, places, strengths, signed=title != text.summary, size=size)
    with warnings.catch_warnings(), open_output(path) as file:
        warnings.filterwarnings("ignore", "Glyph ")  # matplotlib's font lacks many scripts
        FigureCanvasAgg(figure).print_png(file)


def _place_symbols(symbols: list[str]) -> list[tuple[int, int, str]]:
    """Return line, column and visible text of the first symbols, as many as the panels have room for."""
    places, line, column = [], 0, 0
    for symbol in symbols:
        visible_text = show_controls(symbol.replace("\n", "⏎").replace("\t", "→"))
        if column + len(visible_text) > COLUMNS:
            line, column = line + 1, 0
        if line >= LINES:
            break
        places.append((line, column, visible_text))
        column += len(visible_text)
        if symbol.endswith("\n"):
            line, column = line + 1, 0
    return places


def _draw_text(
    axes: Axes,
    places: list[tuple[int, int, str]],
    strengths: NDArray[np.floating],
    *,
    signed: bool,
    size: tuple[int, int],
) -> None:
    from matplotlib.patches import Rectangle

    axes.set(xlim=(0, size[1]), ylim=(size[0], 0), anchor="W")
    axes.set_aspect(CELL_INCHES[1] / CELL_INCHES[0])
    axes.axis("off")
    for (line, column, visible_text), strength in zip(places, strengths, strict=False):
        colour = (MINUS if strength < 0 else PLUS) if signed else SURPRISE
        red, green, blue = (part / 255 for part in colour)
        alpha = 0.85 * abs(float(strength))
        axes.add_patch(Rectangle((column, line), len(visible_text), 1, lw=0, color=(red, green, blue, alpha)))
        for offset, character in enumerate(visible_text):
            ink = "#b8b2a7" if character == "⏎" else "#23211d"
            axes.text(
                column + offset + 0.5,
                line + 0.72,
                character,
                ha="center",
                family="monospace",
                fontsize=9.5,
                color=ink,
                parse_math=False,
            )
