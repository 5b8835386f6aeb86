"""Loss against characters a second: the curve on which people choose a size and a precision.

    gen train anna --preset small --minutes 5 --run runs/small            # and others, on the same text
    python benchmarks/frontier.py runs/base runs/small ... [--precisions fp32,int8] [--rows 1,64] [--picture FILE.png]

Each run is exported in each precision. The loss is that of its best checkpoint by the notebook's formula, plus what the
precision costs on the held-out text. All rates are measured in turn, and so is the notebook's own loop, with its own
network: "times" are medians of ratios of the same turn. `--json` prints JSON instead of tables.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import notebook
import trainings
from training import NOTEBOOK_LOSS, loss_by_formula

from gentext import bench
from gentext.export.exporter import ExportOptions, export_run
from gentext.plugins.pytorch import build_model, load_best_checkpoint
from gentext.plugins.samplers.onnx import OnnxConfig, OnnxSampler
from gentext.run import GENERATOR_FILE, Run

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


def draw_picture(table: Sequence[dict[str, Any]], rows: Sequence[int], path: Path) -> None:
    """Draw a panel for each number of rows, with a point for each file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(rows), 4.5), layout="constrained")
    panels = figure.subplots(1, len(rows), sharey=True, squeeze=False)[0]
    precisions = list(dict.fromkeys(row["precision"] for row in table[:-1]))
    for axes, batch in zip(panels, rows, strict=True):
        for precision, marker in zip(precisions, "osD^", strict=False):
            points = [row for row in table[:-1] if row["precision"] == precision]
            rates = [row[f"{batch} rows, characters/s"] for row in points]
            axes.plot(rates, [row["loss"] for row in points], marker, label=precision, alpha=0.8)
            for row, rate in zip(points, rates, strict=True):
                axes.annotate(row["run"], (rate, row["loss"]), xytext=(4, 4), textcoords="offset points", fontsize=7)
        axes.axhline(NOTEBOOK_LOSS, color="black", linestyle="--", linewidth=1, label="the notebook's loss")
        axes.set_xscale("log")
        axes.set_xlabel(f"characters a second, {batch} {'text' if batch == 1 else 'texts at once'}")
        axes.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("held-out loss, nats a character")
    panels[0].legend()
    with path.open("wb") as file:
        FigureCanvasAgg(figure).print_png(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="runs on the same text")
    parser.add_argument("--precisions", type=lambda text: text.split(","), default=["fp32", "int8"])
    parser.add_argument("--rows", type=trainings.whole_numbers, default=[1, 64])
    parser.add_argument("--seconds", type=float, default=bench.MEASUREMENT_SECONDS, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=bench.REPEATS)
    parser.add_argument("--picture", type=Path, metavar="FILE.png")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with trainings.temporary_folder() as folder:
        files = [file for run in options.runs for file in export_files(run, options.precisions, Path(folder))]
        rates = measure_rates(files, options.rows, options.seconds, options.repeats)
    table = table_rows(files, options.rows, rates)
    common.print_table("loss against characters a second", table, options.json)
    if options.picture:
        draw_picture(table, options.rows, options.picture)


if __name__ == "__main__":
    main()
