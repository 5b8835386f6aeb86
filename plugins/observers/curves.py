"""Draws curves.png from metrics.jsonl after each measurement. (matplotlib)"""

from __future__ import annotations

from typing import Any

from gentext.console import warn
from gentext.events import Progress
from gentext.hookspecs import hookimpl
from gentext.run import CURVES, Run, atomic_write

#: Whether this process has warned that matplotlib is missing.
_warned = False


@hookimpl
def evaluated(run: Run, progress: Progress) -> None:
    global _warned
    try:
        _draw(run, run.read_metrics())
    except ModuleNotFoundError:
        if not _warned:
            warn("curves.png needs matplotlib, which is not installed: pip install 'gentext[train]'")
        _warned = True


def _draw(run: Run, rows: list[dict[str, Any]]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    steps = [row for row in rows if "rate" in row and row.get("loss") is not None]
    measured = [row for row in rows if row.get("val_loss") is not None and not row.get("finished")]
    axes.plot(
        [row["step"] for row in steps],
        [row["loss"] for row in steps],
        color="#9db4c8",
        lw=1,
        label="training (last step)",
    )
    axes.plot(
        [row["step"] for row in measured],
        [row["val_loss"] for row in measured],
        "o-",
        color="#c8503c",
        ms=4,
        label="held out",
    )
    if measured:
        best = min(measured, key=lambda row: row["val_loss"])
        axes.annotate(
            f"{best['val_loss']:.4f}",
            (best["step"], best["val_loss"]),
            (0, 8),
            textcoords="offset points",
            ha="center",
        )
    axes.set(xlabel="step", ylabel="nats a symbol", title=run.path.name)
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_write(run.path / CURVES) as file:
        FigureCanvasAgg(figure).print_png(file)
