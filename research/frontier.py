"""Loss against characters a second: the curve on which people choose a size and a precision.

    gen train anna --preset small --minutes 5 --run runs/small            # and others, on the same text
    python research/frontier.py runs/base runs/small ... [--precisions fp32,int8] [--rows 1,64] [--picture FILE.png]

Each run is exported in each precision. The loss is that of its best checkpoint by the notebook's formula, plus what the
precision costs on the held-out text. All rates are measured in turn, and so is the notebook's own loop, with its own
network: "times" are medians of ratios of the same turn. `--json` prints JSON instead of the table, `--markdown` the
table as in docs/figures.md. In the picture each file is named by its run's folder and its precision; the line is the
lowest loss that a file of at least this rate has.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import common
import notebook
import trainings
from training import NOTEBOOK_LOSS, loss_by_formula

from gentext.errors import GenError
from gentext.export.exporter import export_run
from gentext.export.job import ExportOptions
from gentext.library import bench
from gentext.plugins.pytorch import build_model, load_best_checkpoint
from gentext.plugins.samplers.onnx import OnnxConfig, OnnxSampler
from gentext.run import GENERATOR_FILE, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.text import Annotation

#: Characters a second, loss and name of a file.
Point = tuple[float, float, str]
#: Where the name of a point may stand beside it, in points of 1/72 inch: near it, or further away with a line to it.
LABEL_PLACES = [(0, 7), (0, -7), (7, 0), (-7, 0), (5, 5), (5, -5), (-5, 5), (-5, -5)]
LABEL_PLACES += [(x, y) for y in (14, -14, 26, -26, 38, -38) for x in (10, -10, 40, -40)]

#: The key of the notebook's loop among the measured rates, and the rows that it writes.
NOTEBOOK = ("the notebook", "its loop", 1)
#: Characters that the notebook's loop writes in each turn.
NOTEBOOK_CHARACTERS = 1000


@dataclasses.dataclass(frozen=True)
class File:
    """A generator: a run in one precision."""

    run: str
    precision: str
    path: Path
    parameters: int
    loss: float
    """By the notebook's formula, in nats a character."""


def export_files(run: Path, precisions: Sequence[str], folder: Path) -> list[File]:
    """Export a run in each precision."""
    model = build_model(Run(run), load_best_checkpoint(Run(run)))
    parameters = sum(weights.numel() for weights in model.parameters())
    loss = loss_by_formula(Run(run), model)
    files = []
    for precision in precisions:
        output = folder / f"{run.name}-{precision}"
        output.mkdir()
        export_run(Run(run), output, ExportOptions(precision=precision))
        path = output / GENERATOR_FILE
        losses = OnnxSampler(OnnxConfig()).open(path, "cpu").bundle.card.get("precision_losses", {})
        cost = losses[precision] - losses["fp32"] if precision in losses else 0.0
        files.append(File(run.name, precision, path, parameters, loss + cost))
    return files


def measure_rates(
    files: Sequence[File], rows: Sequence[int], seconds: float, repeats: int
) -> dict[tuple[str, str, int], list[float]]:
    """Return the characters a second of all rows together, in each turn, of each file and of the notebook's loop."""
    measurements: dict[tuple[str, str, int], bench.Measurement] = {}
    for file in files:
        for batch in rows:
            threads, _ = bench.fastest_threads(
                lambda threads, path=file.path: OnnxSampler(OnnxConfig(threads)).open(path, "cpu"), batch
            )
            opened = OnnxSampler(OnnxConfig(threads)).open(file.path, "cpu")
            measurements[file.run, file.precision, batch] = bench.prepare_measurement(opened, batch, seconds)
    measurements[NOTEBOOK], _ = notebook.sampling_loop(83, 512, 2, NOTEBOOK_CHARACTERS)
    return bench.measure_in_turn(measurements, repeats)


def table_rows(
    files: Sequence[File], rows: Sequence[int], rates: dict[tuple[str, str, int], list[float]]
) -> list[dict[str, Any]]:
    """Return a row for each file, the one with the lowest loss first."""
    table = []
    for file in sorted(files, key=lambda file: file.loss):
        row: dict[str, Any] = {
            "run": file.run,
            "precision": file.precision,
            "parameters": file.parameters,
            "loss": file.loss,
        }
        for batch in rows:
            of_file = rates[file.run, file.precision, batch]
            row[f"{batch} rows, characters/s"] = bench.summarize_rates(of_file).median
            row[f"{batch} rows, times"] = bench.median_ratio(of_file, rates[NOTEBOOK])
        table.append(row)
    notebook_rate = bench.summarize_rates(rates[NOTEBOOK]).median
    last = dict.fromkeys(table[0], "")
    return [*table, last | {"run": NOTEBOOK[0], "loss": NOTEBOOK_LOSS, f"{rows[0]} rows, characters/s": notebook_rate}]


def print_markdown(table: Sequence[dict[str, Any]], rows: Sequence[int]) -> None:
    """Print the table for docs/figures.md: in each cell of a number of rows, the rate and the times."""
    columns = [
        "run",
        "precision",
        "parameters",
        "loss",
        *(f"{name_rows(batch)}, characters a second" for batch in rows),
    ]
    print("| " + " | ".join(columns) + " |\n|" + "-|" * len(columns))
    for row in table:
        parameters = f"{row['parameters']:,}" if row["parameters"] else ""
        cells = [row["run"], row["precision"], parameters, f"{row['loss']:.4f}"]
        for batch in rows:
            rate, times = row[f"{batch} rows, characters/s"], row[f"{batch} rows, times"]
            cells.append((f"{rate:,.0f}" if rate else "") + (f" ({times:.3g} times)" if times else ""))
        print("| " + " | ".join(cells) + " |")


def name_rows(batch: int) -> str:
    """Return how many texts are written at a time, in words."""
    return "one text" if batch == 1 else f"{batch} texts at once"


def draw_picture(table: Sequence[dict[str, Any]], rows: Sequence[int], path: Path) -> None:
    """Draw a panel for each number of rows, with a point for each file and for the notebook, which writes one text."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(rows), 5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(rows), sharey=True, squeeze=False)[0]
    notebook_rate = table[-1][f"{rows[0]} rows, characters/s"]
    points_by_panel = []
    for axes, batch in zip(panels, rows, strict=True):
        points = [
            (row[f"{batch} rows, characters/s"], row["loss"], f"{row['run']}, {row['precision']}") for row in table[:-1]
        ]
        draw_frontier(axes, points)
        for precision, marker in zip(dict.fromkeys(row["precision"] for row in table[:-1]), "osD^v", strict=False):
            of_precision = [point for point, row in zip(points, table, strict=False) if row["precision"] == precision]
            axes.plot(
                [rate for rate, _, _ in of_precision],
                [loss for _, loss, _ in of_precision],
                marker,
                label=precision,
                alpha=0.8,
            )
        axes.plot([notebook_rate], [NOTEBOOK_LOSS], "x", color="black", markersize=8, markeredgewidth=2)
        axes.axhline(NOTEBOOK_LOSS, color="black", linestyle="--", linewidth=1, zorder=0)
        axes.set_xscale("log")
        axes.margins(x=0.12, y=0.12)
        axes.xaxis.set_major_formatter(lambda rate, _: f"{rate:,.0f}")
        axes.set_xlabel(f"characters a second, {name_rows(batch)}")
        axes.grid(alpha=0.3, which="both")
        points_by_panel.append([*points, (notebook_rate, NOTEBOOK_LOSS, "the notebook")])
    panels[0].set_ylabel("held-out loss, nats a character")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=len(rows) + 3)
    canvas.draw()  # settles where the points are
    for axes, points in zip(panels, points_by_panel, strict=True):
        place_labels(axes, points, canvas.get_renderer())
    with path.open("wb") as file:
        canvas.print_png(file)


def draw_frontier(axes: Axes, points: Sequence[Point]) -> None:
    """Draw the lowest loss that a file of at least each rate has, as steps."""
    best: list[Point] = []
    for point in sorted(points, reverse=True):
        if not best or point[1] < best[-1][1]:
            best.append(point)
    rates, losses = [rate for rate, _, _ in best], [loss for _, loss, _ in best]
    axes.step(rates, losses, where="post", color="#9db4c8", linewidth=1.5, zorder=1, label="the frontier")


def place_labels(axes: Axes, points: Sequence[Point], renderer: RendererAgg) -> None:
    """Write the name of each point beside it, at the first place that no other name and no point covers."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    centres = axes.transData.transform([(rate, loss) for rate, loss, _ in points])
    occupied = [Bbox.from_extents(x - 5, y - 5, x + 5, y + 5) for x, y in centres]
    for point in points:
        candidates = []
        for place in LABEL_PLACES:
            label = write_label(axes, point, place)
            label.update_positions(renderer)
            box = Text.get_window_extent(label, renderer)  # without the line
            inner = Bbox.intersection(box, axes.bbox)
            is_outside = inner is None or inner.width < box.width or inner.height < box.height
            candidates.append((box.padded(1).count_overlaps(occupied) + is_outside, label, box))
        _, chosen, box = min(candidates, key=lambda candidate: candidate[0])  # the first of the best ones
        occupied.append(box)
        for _, label, _ in candidates:
            if label is not chosen:
                label.remove()


def write_label(axes: Axes, point: Point, place: tuple[float, float]) -> Annotation:
    """Write the name of a point at a place beside it, in points of 1/72 inch; further away with a line to it."""
    rate, loss, name = point
    x, y = place
    label = axes.annotate(
        name,
        (rate, loss),
        place,
        textcoords="offset points",
        ha="left" if x > 0 else "right" if x < 0 else "center",
        va="bottom" if y > 0 else "top" if y < 0 else "center",
        fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
        arrowprops={"arrowstyle": "-", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4} if math.hypot(x, y) > 12 else None,
    )
    label.set_in_layout(False)
    return label


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="runs on the same text")
    parser.add_argument("--precisions", type=lambda text: text.split(","), default=["fp32", "int8"])
    parser.add_argument("--rows", type=trainings.whole_numbers, default=[1, 64])
    parser.add_argument("--seconds", type=float, default=bench.MEASUREMENT_SECONDS, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=bench.REPEATS)
    parser.add_argument("--picture", type=Path, metavar="FILE.png")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true")
    shape.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    if len({run.resolve().name for run in options.runs}) < len(options.runs):
        parser.error("two runs have folders of one name, by which the points are labelled; rename one")
    if options.picture and not options.picture.absolute().parent.is_dir():
        parser.error(f"--picture {options.picture}: expected a file in a folder that exists")
    try:
        texts = {Run(run).config["corpus"]["sha256"] for run in options.runs}
    except GenError as error:
        parser.error(str(error))
    if len(texts) > 1:
        print("the runs have learned from different texts: their losses do not compare", file=sys.stderr)
    with trainings.temporary_folder() as folder:
        try:
            files = [file for run in options.runs for file in export_files(run, options.precisions, Path(folder))]
        except GenError as error:
            parser.error(str(error))
        rates = measure_rates(files, options.rows, options.seconds, options.repeats)
    table = table_rows(files, options.rows, rates)
    if options.markdown:
        print_markdown(table, options.rows)
    else:
        common.print_table("loss against characters a second", table, options.json)
    if options.picture:
        draw_picture(table, options.rows, options.picture)


if __name__ == "__main__":
    main()
