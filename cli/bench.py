"""``gen bench``: how fast a model writes on this machine."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gentext.arguments import with_flags
from gentext.cli.bench_costs import compare_precisions, format_costs, weight_facts
from gentext.console import say, warn
from gentext.errors import ExportDefect, MissingExtra, UsageError
from gentext.files.folders import temporary_folder
from gentext.library import bench as measure
from gentext.library.declaration import ThreadedFileArguments
from gentext.run import GENERATOR_FILE, MODEL_FILE, Run
from gentext.runs.completion import complete_models
from gentext.runs.source import find_source, open_exported
from gentext.settings import check_device, check_threads

NOTEBOOK_LABEL = "the notebook, in PyTorch"


@with_flags
def bench(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN | FILE.onnx]", help="Default: the newest exported run.", autocompletion=complete_models
        ),
    ] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Also run the notebook's way of sampling, in PyTorch, and show ratios.")
    ] = False,
    picture: Annotated[Path | None, typer.Option(help="Draw the rates into this PNG file.")] = None,
    *,
    threads: Annotated[
        int, typer.Option(help="Threads. Default: the fastest number at each batch size, as measured.")
    ] = 0,
    opening: ThreadedFileArguments,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure characters a second at several batch sizes, the time to the first one, and the whole process.

    A run is measured in every precision, which needs the train extra; a file in its own.
    """
    device, verify = opening["device"], opening["verify"]
    check_device(device)
    check_threads(threads)
    if picture is not None:
        _check_picture(picture)
    path = find_source(source)
    report: dict[str, Any] = {"source": str(path), "machine": measure.describe_machine()}
    with temporary_folder() as folder:
        measurements: dict[Any, measure.Measurement] = {}
        file_reports: list[dict[str, Any]] = []
        if baseline:  # first, since this is what may be impossible
            measurements[NOTEBOOK_LABEL], report["notebook"] = _prepare_notebook(path, device, verify)
        for name, file in _files_to_measure(path, Path(folder)).items():
            say(f"preparing {name}")
            by_batch, file_report = _prepare_file(file, device, threads, verify)
            file_reports.append({"name": name} | file_report)
            measurements |= {(name, batch): measurement for batch, measurement in by_batch.items()}
        say(f"measuring all in turn, {measure.REPEATS} times")
        rates = measure.measure_in_turn(measurements, measure.REPEATS)
        for file_report in file_reports:
            file_report["rates"] = [
                batch_report | _summarize(rates, (file_report["name"], batch_report["batch"]))
                for batch_report in file_report["rates"]
            ]
        process_seconds, import_seconds = measure.time_whole_process(path, verify)
    report["files"] = file_reports
    report["precisions"] = compare_precisions(file_reports, rates)
    report["whole_process_seconds"] = {"gen sample": process_seconds, "import numpy, onnxruntime": import_seconds}
    if baseline:
        report["notebook"] |= _summarize(rates, NOTEBOOK_LABEL)
    print(json.dumps(report, indent=1) if as_json else _format_table(report))
    if picture is not None:
        _draw_chart(report, picture)


def _summarize(rates: dict[Any, list[float]], name: Any) -> dict[str, float]:
    """Return the summary of one measurement's rates, with the ratio to the notebook's if that was measured too."""
    summary = dataclasses.asdict(measure.summarize_rates(rates[name]))
    if NOTEBOOK_LABEL in rates:
        summary["ratio"] = measure.median_ratio(rates[name], rates[NOTEBOOK_LABEL])
    return summary


def _files_to_measure(path: Path, folder: Path) -> dict[str, Path]:
    """Return the files to measure, by name: a file itself, or a run's generator in each precision and its model."""
    if path.is_file():
        return {path.name: path}
    run = Run(path)
    existing_files = {name: path / name for name in (GENERATOR_FILE, MODEL_FILE) if (path / name).is_file()}
    try:
        from gentext.export.exporter import export_run
        from gentext.export.job import ExportOptions
        from gentext.export.precision import PRECISIONS
    except ModuleNotFoundError:
        say("without the train extra only the files that are there are measured")
        return existing_files
    files = {}
    for precision in PRECISIONS:
        precision_folder = folder / precision
        precision_folder.mkdir()
        try:
            export_run(run, precision_folder, ExportOptions(precision, limit=float("inf")))
        except ExportDefect as defect:
            warn(f"generator {precision} is not measured. {defect}")
            continue
        files[f"generator {precision}"] = precision_folder / GENERATOR_FILE
    return files | {"model, step by step": existing_files[MODEL_FILE]}


def _prepare_file(
    file: Path, device: str, threads: int, verify: bool
) -> tuple[dict[int, measure.Measurement], dict[str, Any]]:
    """Return a measurement for each size of batch, and the part of the file's report that is measured already."""
    open_with = functools.cache(lambda count: open_exported(file, device, count, verify))
    threads_by_batch = {batch: threads or measure.fastest_threads(open_with, batch)[0] for batch in measure.BATCH_SIZES}
    open_seconds, first_seconds = measure.time_first_character(
        lambda: open_exported(file, device, threads_by_batch[1], verify)
    )
    measurements = {
        batch: measure.prepare_measurement(open_with(count), batch) for batch, count in threads_by_batch.items()
    }
    file_report = {
        "device": open_with(threads_by_batch[1]).device,
        **weight_facts(open_with(threads_by_batch[1]).bundle),
        "open_seconds": open_seconds,
        "first_character_seconds": first_seconds,
        "rates": [{"batch": batch, "threads": count} for batch, count in threads_by_batch.items()],
    }
    return measurements, file_report


def _prepare_notebook(path: Path, device: str, verify: bool) -> tuple[measure.Measurement, dict[str, Any]]:
    """Return a measurement of the notebook's loop on a network of the same size, and the threads it is fastest with."""
    import gentext

    script_path = Path(gentext.__file__).parent.parent / "benchmarks" / "notebook.py"
    if not script_path.is_file():
        raise UsageError("--baseline needs benchmarks/notebook.py: run it from a checkout of the project")
    bundle = open_exported(path, device, verify=verify).bundle
    model = bundle.card.get("config", {}).get("model", {})
    if not all(isinstance(model.get(size_name), int) for size_name in ("hidden", "layers")):
        raise UsageError("--baseline: the notebook's network has the sizes hidden and layers; this model has not both")
    try:
        module_spec = importlib.util.spec_from_file_location("notebook", script_path)
        assert module_spec is not None and module_spec.loader is not None
        notebook = importlib.util.module_from_spec(module_spec)
        module_spec.loader.exec_module(notebook)
    except ModuleNotFoundError:
        raise MissingExtra("gen bench --baseline", "train") from None
    say("preparing the notebook's loop")
    measurement, threads = notebook.sampling_loop(bundle.vocab_size, model["hidden"], model["layers"], 500)
    return measurement, {"threads": threads}


def _format_table(report: dict[str, Any]) -> str:
    machine = report["machine"]
    lines = [f"{machine['cpu']}, {machine['cores']} cores ({' '.join(machine['instructions'])})"]
    lines.append(", ".join(f"{name} {machine[name]}" for name in list(machine)[3:] if machine[name]))
    notebook = report.get("notebook")
    lines.append(f"{'characters a second, batch':<36}" + "".join(f"{batch:>16}" for batch in measure.BATCH_SIZES))
    for file_report in report["files"]:
        cells = [
            f"{rate['median']:,.0f}" + (f" ({rate['ratio']:.1f}x)" if notebook else "") for rate in file_report["rates"]
        ]
        threads = "/".join(str(rate["threads"]) for rate in file_report["rates"])
        heading = f"{file_report['name']}, threads {threads}"
        lines.append(f"{heading:<36}" + "".join(f"{cell:>16}" for cell in cells))
    if notebook:
        lines.append(f"{NOTEBOOK_LABEL:<36}{notebook['median']:>16,.0f}  at {notebook['threads']} threads")
    lines += format_costs(report["files"], report["precisions"])
    for file_report in report["files"]:
        open_ms, first_ms = file_report["open_seconds"] * 1e3, file_report["first_character_seconds"] * 1e3
        lines.append(f"{file_report['name']}: opened in {open_ms:.0f} ms, first character {first_ms:.1f} ms later")
    process_seconds, import_seconds = report["whole_process_seconds"].values()
    lines.append(
        f"whole process, gen sample --length 200: {process_seconds:.2f} s; import numpy, onnxruntime: "
        f"{import_seconds:.2f} s ({process_seconds / import_seconds:.1f}x)"
    )
    return "\n".join(lines)


def _check_picture(path: Path) -> None:
    """Raise the error that drawing would raise, before minutes are spent on measuring."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("--picture", "train")
    if not path.absolute().parent.is_dir() or path.is_dir():
        raise UsageError(f"--picture {path}: expected the name of a new PNG file in a folder that exists")


def _draw_chart(report: dict[str, Any], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from gentext.files.atomic import open_output

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for file_report in report["files"]:
        batches = [rate["batch"] for rate in file_report["rates"]]
        medians = [rate["median"] for rate in file_report["rates"]]
        axes.plot(batches, medians, "o-", label=file_report["name"])
    if "notebook" in report:
        axes.plot([1], [report["notebook"]["median"]], "x", color="black", label=NOTEBOOK_LABEL)
    axes.set(xscale="log", yscale="log", xlabel="rows written side by side", ylabel="characters a second, all rows")
    axes.set_xticks(list(measure.BATCH_SIZES), [str(batch) for batch in measure.BATCH_SIZES])
    axes.set_title(f"{report['machine']['cpu']}, {report['machine']['cores']} cores")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    with open_output(path) as file:
        FigureCanvasAgg(figure).print_png(file)
