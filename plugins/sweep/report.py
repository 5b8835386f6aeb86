"""Reports on a sweep: a table for the terminal, and sweep.json, sweep.csv and sweep.png in its folder. (matplotlib)"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gentext.config import ConfigTable
from gentext.files.file_names import readable_name
from gentext.plugins.sweep.space import Choices, Range, Space
from gentext.plugins.sweep.study import TrialRow
from gentext.run import atomic_write, write_text

#: Columns for a trial's details; they follow its number, state, loss and values.
DETAIL_NAMES = ("train_loss", "best_step", "steps", "seconds", "symbols_per_second", "reason")


def write_report(
    folder: Path, corpus: str, space: Space, rows: Sequence[TrialRow], symbols_per_record: float | None
) -> None:
    """Write the three files; ``rows`` are sorted, the best first. ``symbols_per_record`` is None for one text."""
    summary = summarize_sweep(folder, corpus, rows, symbols_per_record)
    write_text(folder / "sweep.json", json.dumps(summary, indent=1) + "\n")
    write_text(folder / "sweep.csv", _format_csv(space, rows, symbols_per_record))
    _write_picture(folder, space, rows)


def summarize_sweep(
    folder: Path, corpus: str, rows: Sequence[TrialRow], symbols_per_record: float | None
) -> ConfigTable:
    """Return a sweep as JSON data: its trials, the best first."""
    trials = [
        {"trial": row.number, "state": row.state, **_losses(row, symbols_per_record), "values": row.values}
        | {name: row.details.get(name) for name in DETAIL_NAMES}
        for row in rows
    ]
    best_number = trials[0]["trial"] if trials and trials[0]["state"] == "finished" else None
    return {"sweep": str(folder), "corpus": corpus, "best": best_number, "trials": trials}


def format_table(space: Space, rows: Sequence[TrialRow], symbols_per_record: float | None) -> str:
    """Return the trials as a table for people."""
    titles = ["held out"] if symbols_per_record is None else ["held out", "bits a record"]
    cell_rows = [["trial", *titles, "state", *space]]
    for row in rows:
        losses = ["" if loss is None else f"{loss:.4f}" for loss in _losses(row, symbols_per_record).values()]
        settings = [format_setting_value(row.values[name]) if name in row.values else "" for name in space]
        cell_rows.append([str(row.number), *losses, row.state, *settings])
    widths = [max(map(len, column)) for column in zip(*cell_rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(cell_row, widths, strict=True)) for cell_row in cell_rows
    ]
    return "\n".join(lines)


def format_setting_value(setting: Any) -> str:
    """Return a value for people to read: a fraction has at most four digits."""
    return f"{setting:.4g}" if isinstance(setting, float) else str(setting)


def _losses(row: TrialRow, symbols_per_record: float | None) -> dict[str, float | None]:
    """Return a trial's held-out loss in nats a symbol, and of records in bits a record too, by name."""
    losses = {"val_loss": row.val_loss}
    if symbols_per_record is not None:
        losses["bits_per_record"] = None if row.val_loss is None else row.val_loss / math.log(2) * symbols_per_record
    return losses


def _format_csv(space: Space, rows: Sequence[TrialRow], symbols_per_record: float | None) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    loss_names = ["val_loss"] if symbols_per_record is None else ["val_loss", "bits_per_record"]
    writer.writerow(["trial", "state", *loss_names, *space, *DETAIL_NAMES])
    for row in rows:
        losses = _losses(row, symbols_per_record).values()
        settings = [row.values.get(name) for name in space]
        writer.writerow([row.number, row.state, *losses, *settings, *map(row.details.get, DETAIL_NAMES)])
    return buffer.getvalue()


# -- the picture ------------------------------------------------------------------------------


def _write_picture(folder: Path, space: Space, rows: Sequence[TrialRow]) -> None:
    """Draw a panel with the losses in the order of the trials, and one for each key of the space."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panel_count = len(space) + 1
    column_count = 2 if panel_count == 4 else min(3, panel_count)
    line_count = math.ceil(panel_count / column_count)
    figure = Figure(figsize=(4 * column_count, 3.2 * line_count), layout="constrained")
    panels = list(figure.subplots(line_count, column_count, squeeze=False, sharey=True).flat)
    measured_rows = sorted((row for row in rows if row.val_loss is not None), key=lambda row: row.number)
    _draw_progress(panels[0], measured_rows)
    for panel, (name, distribution) in zip(panels[1:], space.items(), strict=False):
        _draw_values(panel, name, distribution, [row for row in measured_rows if name in row.values])
    for panel in panels[panel_count:]:
        panel.remove()
    for panel in panels[::column_count]:
        panel.set(ylabel="held out, nats a symbol")
    if measured_rows:
        panels[0].legend(fontsize="small")
    figure.suptitle(readable_name(folder.name), parse_math=False)
    with warnings.catch_warnings(), atomic_write(folder / "sweep.png") as file:
        warnings.filterwarnings("ignore", "Glyph ")  # a sweep may be named in a script that matplotlib's font lacks
        FigureCanvasAgg(figure).print_png(file)


def _draw_progress(panel: Any, rows: Sequence[TrialRow]) -> None:
    """Draw the losses by trial, and the lowest loss so far."""
    _draw_losses(panel, rows, [row.number for row in rows])
    finished_rows = [row for row in rows if row.state == "finished"]
    lowest_losses = list(itertools.accumulate((row.val_loss or 0 for row in finished_rows), min))
    panel.step(
        [row.number for row in finished_rows], lowest_losses, where="post", color="#c8503c", lw=1, label="best so far"
    )
    panel.set(xlabel="trial")
    panel.xaxis.get_major_locator().set_params(integer=True)


def _draw_values(panel: Any, name: str, distribution: Choices | Range, rows: Sequence[TrialRow]) -> None:
    """Draw the losses by the values of one key of the space."""
    if isinstance(distribution, Choices):
        positions = {repr(choice): index for index, choice in enumerate(distribution.choices)}
        _draw_losses(panel, rows, [positions[repr(row.values[name])] for row in rows])
        panel.set_xticks(range(len(positions)), [str(choice) for choice in distribution.choices])
        panel.set_xlim(-0.5, len(positions) - 0.5)
    else:
        _draw_losses(panel, rows, [row.values[name] for row in rows])
        panel.set(xscale="log" if distribution.log else "linear")
    panel.set(xlabel=name)


def _draw_losses(panel: Any, rows: Sequence[TrialRow], positions: Sequence[Any]) -> None:
    """Draw the losses of trials over their positions: pruned trials are hollow, the best one is a star."""
    panel.grid(alpha=0.3)
    best_loss = min(
        (row.val_loss for row in rows if row.state == "finished" and row.val_loss is not None), default=None
    )
    losses = [(position, row.val_loss, row.state) for position, row in zip(positions, rows, strict=True)]
    for state, face_colour in (
        ("finished", "#3c6e96"),
        ("pruned", "none"),
        ("running", "#cccccc"),
        ("failed", "#cccccc"),
    ):
        points = [(position, loss) for position, loss, loss_state in losses if loss_state == state]
        if points:
            panel.scatter(*zip(*points, strict=True), s=24, facecolors=face_colour, edgecolors="#3c6e96", label=state)
    best_points = [(position, loss) for position, loss, state in losses if state == "finished" and loss == best_loss]
    if best_points:
        panel.scatter(*zip(*best_points, strict=True), s=110, marker="*", color="#c8503c", zorder=3)
