"""``gen bench``: how fast a model writes on this machine."""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from gentext import bench as measure
from gentext.cli.source import find_source
from gentext.console import say
from gentext.errors import MissingExtra, UsageError
from gentext.opening import open_exported
from gentext.run import GENERATOR, MODEL, Run
from gentext.settings import check_device, check_threads

NOTEBOOK = "the notebook, in PyTorch"


def bench(
    source: Annotated[
        Path | None, typer.Argument(metavar="[RUN | FILE.onnx]", help="Default: the newest exported run.")
    ] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Also run the notebook's way of sampling, in PyTorch, and show ratios.")
    ] = False,
    picture: Annotated[Path | None, typer.Option(help="Draw the rates into this PNG file.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(help="Threads. Default: at each batch those that are fastest, measured.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Measure characters a second at several batch sizes, the time to the first, and the whole process.

    Of a run, every precision is measured (that needs the train extra); of a file, its own.
    """
    check_device(device)
    check_threads(threads)
    path = find_source(source)
    report: dict[str, Any] = {"source": str(path), "machine": measure.machine()}
    with tempfile.TemporaryDirectory() as folder:
        files = _files(path, Path(folder))
        tries: dict[Any, measure.Measurement] = {}
        rows: list[dict[str, Any]] = []
        for name, file in files.items():
            say(f"preparing {name}")
            found, row = _prepare(file, device, threads)
            rows.append({"name": name} | row)
            tries |= {(name, batch): one for batch, one in found.items()}
        if baseline:
            tries[NOTEBOOK], report["notebook"] = _notebook(path, device)
        say(f"measuring all in turn, {measure.REPEATS} times")
        taken = measure.measure_in_turn(tries, measure.REPEATS)
        for row in rows:
            row["rates"] = [one | _rate(taken, (row["name"], one["batch"])) for one in row["rates"]]
        whole, imports = measure.whole_process(path)
    report["files"] = rows
    report["whole_process_seconds"] = {"gen sample": whole, "import numpy, onnxruntime": imports}
    if baseline:
        report["notebook"] |= _rate(taken, NOTEBOOK)
    print(json.dumps(report, indent=1) if as_json else _table(report))
    if picture is not None:
        _draw(report, picture)


def _rate(taken: dict[Any, list[float]], name: Any) -> dict[str, float]:
    """Return what was found about one of those measured; against the notebook where that was one of them."""
    found = dataclasses.asdict(measure.summary(taken[name]))
    return found | ({"ratio": measure.ratio(taken[name], taken[NOTEBOOK])} if NOTEBOOK in taken else {})


def _files(path: Path, folder: Path) -> dict[str, Path]:
    """Return what to measure, by name: a file as it is, or a run's precisions."""
    if path.is_file():
        return {path.name: path}
    run = Run(path)
    there = {name: path / name for name in (GENERATOR, MODEL) if (path / name).is_file()}
    try:
        from gentext.export.exporter import ExportOptions, export_run
        from gentext.export.precision import PRECISIONS
    except ModuleNotFoundError:
        say("without the train extra only the files that are there are measured")
        return there
    files = {}
    for precision in PRECISIONS:
        target = folder / precision
        target.mkdir()
        export_run(run, target, ExportOptions(precision, limit=float("inf")))
        files[f"generator {precision}"] = target / GENERATOR
    return files | {"model, step by step": there[MODEL]}


def _prepare(file: Path, device: str, threads: int) -> tuple[dict[int, measure.Measurement], dict[str, Any]]:
    """Return what measures each batch, and what is known of the file already."""
    opened = functools.cache(lambda count: open_exported(file, device, count))
    suits = {batch: threads or measure.fastest_threads(opened, batch)[0] for batch in measure.BATCHES}
    opening, first = measure.first_character(lambda: open_exported(file, device, suits[1]))
    tries = {batch: measure.writing(opened(count), batch) for batch, count in suits.items()}
    row = {"device": opened(suits[1]).device, "open_seconds": opening, "first_character_seconds": first}
    return tries, row | {"rates": [{"batch": batch, "threads": count} for batch, count in suits.items()]}


def _notebook(path: Path, device: str) -> tuple[measure.Measurement, dict[str, Any]]:
    """Return the notebook's loop on a network of the same size, and the threads that suit it."""
    import gentext

    script = Path(gentext.__file__).parent.parent / "benchmarks" / "notebook.py"
    if not script.is_file():
        raise UsageError("--baseline needs benchmarks/notebook.py: run it from a checkout of the project")
    model = open_exported(path, device).bundle.card.get("config", {}).get("model", {})
    if model.get("name") != "lstm":
        raise UsageError("--baseline: the notebook's network is an LSTM; this model is none")
    try:
        import importlib.util

        spec = importlib.util.spec_from_file_location("notebook", script)
        assert spec is not None and spec.loader is not None
        notebook = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(notebook)
    except ModuleNotFoundError:
        raise MissingExtra("gen bench --baseline", "train") from None
    symbols = open_exported(path, device).bundle.vocab_size
    say("preparing the notebook's loop")
    loop, threads = notebook.sampling_loop(symbols, model["hidden"], model["layers"], 500)
    return loop, {"threads": threads}


def _table(report: dict[str, Any]) -> str:
    machine = report["machine"]
    lines = [f"{machine['cpu']}, {machine['cores']} cores ({' '.join(machine['instructions'])})"]
    lines.append(", ".join(f"{name} {machine[name]}" for name in list(machine)[3:] if machine[name]))
    notebook = report.get("notebook")
    lines.append(f"{'characters a second, batch':<36}" + "".join(f"{batch:>16}" for batch in measure.BATCHES))
    for row in report["files"]:
        cells = [f"{one['median']:,.0f}" + (f" ({one['ratio']:.1f}x)" if notebook else "") for one in row["rates"]]
        threads = "/".join(str(one["threads"]) for one in row["rates"])
        named = f"{row['name']}, threads {threads}"
        lines.append(f"{named:<36}" + "".join(f"{cell:>16}" for cell in cells))
    if notebook:
        lines.append(f"{NOTEBOOK:<36}{notebook['median']:>16,.0f}  at {notebook['threads']} threads")
    for row in report["files"]:
        opening, first = row["open_seconds"] * 1e3, row["first_character_seconds"] * 1e3
        lines.append(f"{row['name']}: opened in {opening:.0f} ms, first character {first:.1f} ms later")
    whole, imports = report["whole_process_seconds"].values()
    lines.append(
        f"whole process, gen sample --length 200: {whole:.2f} s; import numpy, onnxruntime: {imports:.2f} s "
        f"({whole / imports:.1f}x)"
    )
    return "\n".join(lines)


def _draw(report: dict[str, Any], path: Path) -> None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingExtra("--picture", "train") from None
    from gentext.run import atomic_write

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for row in report["files"]:
        rates = row["rates"]
        axes.plot([one["batch"] for one in rates], [one["median"] for one in rates], "o-", label=row["name"])
    if "notebook" in report:
        axes.plot([1], [report["notebook"]["median"]], "x", color="black", label=NOTEBOOK)
    axes.set(xscale="log", yscale="log", xlabel="rows written side by side", ylabel="characters a second, all rows")
    axes.set_xticks(list(measure.BATCHES), [str(batch) for batch in measure.BATCHES])
    axes.set_title(f"{report['machine']['cpu']}, {report['machine']['cores']} cores")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    with atomic_write(path) as file:
        FigureCanvasAgg(figure).print_png(file)
