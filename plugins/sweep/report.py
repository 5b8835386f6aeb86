"""What a sweep has to show: sweep.json, sweep.csv and sweep.png in its folder. (matplotlib)"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gentext.config import ConfigTable
from gentext.plugins.sweep.space import Choices, Space
from gentext.plugins.sweep.study import Row
from gentext.run import atomic_write, write_text

#: What is known of a trial besides its number, state, loss and values.
FACTS = ("train_loss", "best_step", "steps", "seconds", "symbols_per_second", "reason")


def write_tables(folder: Path, corpus: str, space: Space, rows: Sequence[Row]) -> None:
    """Write the three files; ``rows`` are sorted, the best first."""
    write_text(folder / "sweep.json", json.dumps(summary(folder, corpus, rows), indent=1) + "\n")
    write_text(folder / "sweep.csv", _csv(space, rows))
    _draw(folder, space, rows)


def summary(folder: Path, corpus: str, rows: Sequence[Row]) -> ConfigTable:
    """Return a sweep as JSON data: its trials, the best first."""
    trials = [
        {"trial": row.number, "state": row.state, "val_loss": row.val_loss, "values": row.values}
        | {name: row.facts.get(name) for name in FACTS}
        for row in rows
    ]
    best = trials[0]["trial"] if trials and trials[0]["state"] == "finished" else None
    return {"sweep": str(folder), "corpus": corpus, "best": best, "trials": trials}


def text(space: Space, rows: Sequence[Row]) -> str:
    """Return the trials as a table for people."""
    cells = [["trial", "held out", "state", *space]]
    for row in rows:
        loss = "" if row.val_loss is None else f"{row.val_loss:.4f}"
        values = [shown(row.values[name]) if name in row.values else "" for name in space]
        cells.append([str(row.number), loss, row.state, *values])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    return "\n".join(lines)


def shown(value: Any) -> str:
    """Return a value as people want to read it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _csv(space: Space, rows: Sequence[Row]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["trial", "state", "val_loss", *space, *FACTS])
    for row in rows:
        values = [row.values.get(name) for name in space]
        writer.writerow([row.number, row.state, row.val_loss, *values, *map(row.facts.get, FACTS)])
    return file.getvalue()


def _draw(folder: Path, space: Space, rows: Sequence[Row]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(space) + 1
    columns = 2 if count == 4 else min(3, count)
    lines = math.ceil(count / columns)
    figure = Figure(figsize=(4 * columns, 3.2 * lines), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False, sharey=True).flat)
    measured = sorted((row for row in rows if row.val_loss is not None), key=lambda row: row.number)
    finished = [row for row in measured if row.state == "finished"]
    _scatter(panels[0], measured, [row.number for row in measured])
    lowest = [min(one.val_loss or 0 for one in finished[: at + 1]) for at in range(len(finished))]
    panels[0].step([row.number for row in finished], lowest, where="post", color="#c8503c", lw=1, label="best so far")
    panels[0].set(xlabel="trial")
    panels[0].xaxis.get_major_locator().set_params(integer=True)
    for panel, (name, entry) in zip(panels[1:], space.items(), strict=False):
        known = [row for row in measured if name in row.values]
        if isinstance(entry, Choices):
            places = {repr(one): at for at, one in enumerate(entry.choices)}
            _scatter(panel, known, [places[repr(row.values[name])] for row in known])
            panel.set_xticks(range(len(places)), [str(one) for one in entry.choices])
            panel.set_xlim(-0.5, len(places) - 0.5)
        else:
            _scatter(panel, known, [row.values[name] for row in known])
            panel.set(xscale="log" if entry.log else "linear")
        panel.set(xlabel=name)
    for panel in panels[count:]:
        panel.remove()
    for panel in panels[::columns]:
        panel.set(ylabel="held out, nats a symbol")
    if measured:
        panels[0].legend(fontsize="small")
    figure.suptitle(folder.name)
    with atomic_write(folder / "sweep.png") as file:
        FigureCanvasAgg(figure).print_png(file)


def _scatter(panel: Any, rows: Sequence[Row], places: Sequence[Any]) -> None:
    """Draw the losses of trials over something; what was pruned is hollow, the best is a star."""
    panel.grid(alpha=0.3)
    best = min((row.val_loss for row in rows if row.state == "finished" and row.val_loss is not None), default=None)
    for state, face in (("finished", "#3c6e96"), ("pruned", "none"), ("running", "#cccccc"), ("failed", "#cccccc")):
        at = [(place, row.val_loss) for place, row in zip(places, rows, strict=True) if row.state == state]
        if at:
            panel.scatter(*zip(*at, strict=True), s=24, facecolors=face, edgecolors="#3c6e96", label=state)
    star = [(p, r.val_loss) for p, r in zip(places, rows, strict=True) if r.state == "finished" and r.val_loss == best]
    if star:
        panel.scatter(*zip(*star, strict=True), s=110, marker="*", color="#c8503c", zorder=3)
