"""Draws curves.png from metrics.jsonl after each measurement. (matplotlib)"""

from __future__ import annotations

import warnings
from typing import Any

from gentext.console import warn
from gentext.events import Progress
from gentext.hookspecs import hookimpl
from gentext.run import CURVES_FILE, Run, atomic_write

#: Whether this process has warned that matplotlib is missing.
_has_warned = False


@hookimpl
def evaluated(run: Run, progress: Progress) -> None:
    global _has_warned
    try:
        _draw_chart(run, run.read_metrics())
    except ModuleNotFoundError:
        if not _has_warned:
            warn("curves.png needs matplotlib, which is not installed: pip install 'gentext[train]'")
        _has_warned = True


def _draw_chart(run: Run, rows: list[dict[str, Any]]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    step_rows = [row for row in rows if "rate" in row and row.get("loss") is not None]
    measured_rows = [row for row in rows if row.get("val_loss") is not None and not row.get("finished")]
    axes.plot(
        [row["step"] for row in step_rows],
        [row["loss"] for row in step_rows],
        color="#9db4c8",
        lw=1,
        label="training (last step)",
    )
    axes.plot(
        [row["step"] for row in measured_rows],
        [row["val_loss"] for row in measured_rows],
        "o-",
        color="#c8503c",
        ms=4,
        label="held out",
    )
    trained_rows = [row for row in measured_rows if row.get("train_loss") is not None]
    axes.plot(
        [row["step"] for row in trained_rows],
        [row["train_loss"] for row in trained_rows],
        "o-",
        color="#3c6ea0",
        ms=4,
        label="training, without dropout",
    )
    if measured_rows:
        best_row = min(measured_rows, key=lambda row: row["val_loss"])
        axes.annotate(
            f"{best_row['val_loss']:.4f}",
            (best_row["step"], best_row["val_loss"]),
            (0, 8),
            textcoords="offset points",
            ha="center",
        )
    axes.set(xlabel="step", ylabel="nats a symbol")
    axes.set_title(run.path.name, parse_math=False)
    axes.grid(alpha=0.3)
    axes.legend()
    with warnings.catch_warnings(), atomic_write(run.path / CURVES_FILE) as file:
        warnings.filterwarnings("ignore", "Glyph ")  # a run may be named in a script that matplotlib's font lacks
        FigureCanvasAgg(figure).print_png(file)
