"""Draws curves.png from metrics.jsonl after each measurement, and at the end of the run. (matplotlib)

The measurements on the way read short stretches, each from the initial state; the last one reads all of the held-out
text as one stream, which is easier. So the picture shows it as a point of its own.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

from gentext.console import warn
from gentext.errors import RunError
from gentext.events import Progress
from gentext.files.file_names import readable_name
from gentext.hookspecs import hookimpl
from gentext.interfaces import FitResult
from gentext.interrupts import Interrupts
from gentext.run import CURVES_FILE, Run, atomic_write
from gentext.settings import Settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Whether this process has warned that matplotlib is missing.
_has_warned = False


@hookimpl
def evaluated(run: Run, progress: Progress) -> None:
    _draw_chart(run)


@hookimpl
def run_finished(run: Run, settings: Settings, result: FitResult) -> None:
    # Within matplotlib Ctrl-C can become a ValueError. While a run trains, it waits for the end of a step anyway.
    with Interrupts() as interrupts:
        _draw_chart(run)
    if interrupts.requested:
        raise KeyboardInterrupt


def _draw_chart(run: Run) -> None:
    global _has_warned
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        figure = build_chart(readable_name(run.path.name), run.read_metrics())
    except ModuleNotFoundError:
        if not _has_warned:
            warn("curves.png needs matplotlib, which is not installed: pip install 'gentext[train]'")
        _has_warned = True
        return
    try:
        with warnings.catch_warnings(), atomic_write(run.path / CURVES_FILE) as file:
            warnings.filterwarnings("ignore", "Glyph ")  # a run may be named in a script that matplotlib's font lacks
            FigureCanvasAgg(figure).print_png(file)
    except RunError as error:  # a training is worth more than its picture
        warn(f"{error}; training goes on")


def build_chart(name: str, rows: list[dict[str, Any]]) -> Figure:
    """Return the picture of a run of this name, from the rows of its metrics.jsonl."""
    figure = _new_figure()
    axes = figure.add_subplot()
    step_rows = [row for row in rows if "rate" in row and row.get("loss") is not None]
    _plot(axes, step_rows, "loss", color="#9db4c8", lw=1, label="training (last step)")
    measured_rows = [row for row in rows if row.get("val_loss") is not None and not row.get("finished")]
    _plot(axes, measured_rows, "val_loss", marker="o", ms=4, color="#c8503c", label="held out")
    trained_rows = [row for row in measured_rows if row.get("train_loss") is not None]
    _plot(axes, trained_rows, "train_loss", marker="o", ms=4, color="#3c6ea0", label="training, without dropout")
    final_rows = [
        {"step": row["best_step"], "val_loss": row["val_loss"]}
        for row in rows
        if row.get("finished") and row.get("val_loss") is not None
    ]
    if final_rows:
        label = "held out, all of it as one stream"
        _plot(axes, final_rows, "val_loss", marker="D", ms=6, lw=0, color="#7a1f10", label=label)
    best_row = min(final_rows or measured_rows, key=lambda row: row["val_loss"], default=None)
    if best_row is not None:
        axes.annotate(
            f"{best_row['val_loss']:.4f}",
            (best_row["step"], best_row["val_loss"]),
            (0, -16 if final_rows else 8),  # in points: below the last point, which lies under the curve
            textcoords="offset points",
            ha="center",
        )
    axes.set(xlabel="step", ylabel="nats a symbol")
    axes.set_title(name, parse_math=False)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _new_figure() -> Figure:
    """Return an empty figure that a notebook shows, whether or not it has imported pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class Chart(Figure):
        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            FigureCanvasAgg(self).print_png(file)
            return file.getvalue()

    return Chart(figsize=(8, 4.5), layout="constrained")


def _plot(axes: Axes, rows: list[dict[str, Any]], column: str, **style: Any) -> None:
    axes.plot([row["step"] for row in rows], [row[column] for row in rows], **style)
