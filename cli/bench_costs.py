"""What a position costs on this machine, and which precision is the faster, from the measurements of ``gen bench``.

A position of one row reads all matrices of the model once, and does little with each number. So its time is often that
in which the processor's cache, or its memory, delivers the weights, and a precision with smaller ones is faster. With
many rows each weight that was read serves all of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from gentext.exported.metadata import Bundle
from gentext.library import bench as measure

#: Numbers of rows for which the precisions are compared, where they were measured.
COMPARED_BATCHES = (1, 64)

#: No .onnx file is larger.
MAX_FILE_BYTES = 2**31
#: What `gen bench --json` says of a file, or of a comparison.
Report = dict[str, Any]
#: The rates of each file, by its name and the number of rows.
Rates = Mapping[Any, list[float]]


def weight_facts(bundle: Bundle) -> Report:
    """Return the precision of a compiled generator, and the bytes of weights that a position reads, where known.

    A file from elsewhere may hold anything in its card.
    """
    precision, weight_bytes = bundle.card.get("precision"), bundle.card.get("weight_bytes")
    if bundle.kind != "generator" or not isinstance(precision, str):
        return {}
    is_count = type(weight_bytes) is int and 0 < weight_bytes < MAX_FILE_BYTES
    return {"precision": precision} | ({"weight_bytes": weight_bytes} if is_count else {})


def compare_precisions(file_reports: Sequence[Report], rates: Rates) -> list[Report]:
    """Return the fastest and the second fastest of the generators for each compared number of rows, with the ratio."""
    names = [file_report["name"] for file_report in file_reports if "precision" in file_report]
    if len(names) < 2:
        return []
    comparisons = []
    for batch in COMPARED_BATCHES:
        if (names[0], batch) in rates:
            by_rate = sorted(names, key=lambda name: statistics.median(rates[name, batch]), reverse=True)
            ratio = measure.median_ratio(rates[by_rate[0], batch], rates[by_rate[1], batch])
            comparisons.append({"batch": batch, "fastest": by_rate[0], "second": by_rate[1], "ratio": ratio})
    return comparisons


def format_costs(file_reports: Sequence[Report], comparisons: Sequence[Report]) -> list[str]:
    """Return a line for each generator, and one that says which is the faster, or what could be."""
    generators = [file_report for file_report in file_reports if "precision" in file_report]
    lines = [_format_position(generator) for generator in generators]
    if comparisons:
        lines.append("; ".join(_format_comparison(comparison) for comparison in comparisons))
    elif any(_reads_large_weights(generator) for generator in generators):
        lines.append("int8 would read a quarter: gen export RUN --precision int8; gen bench RUN measures both")
    return lines


def _reads_large_weights(generator: Report) -> bool:
    """Return whether int8 would read fewer bytes; it is for CPUs."""
    is_on_cpu = generator["device"].startswith("onnxruntime on CPU")
    return is_on_cpu and generator["precision"] == "fp32" and "weight_bytes" in generator


def _format_position(generator: Report) -> str:
    first, *further = generator["rates"]
    text = f"{generator['name']}: a position of {_count_rows(first['batch'])} takes {_format_microseconds(first)}"
    if "weight_bytes" in generator:
        weight_bytes = generator["weight_bytes"]
        gigabytes_per_second = weight_bytes * first["median"] / first["batch"] / 1e9
        text += f" and reads {weight_bytes / 1e6:.1f} MB of weights, {gigabytes_per_second:.1f} GB/s"
    compared = [rate for rate in further if rate["batch"] in COMPARED_BATCHES]
    return "; ".join([text, *(f"of {_count_rows(rate['batch'])} {_format_microseconds(rate)}" for rate in compared)])


def _format_comparison(comparison: Report) -> str:
    rows = _count_rows(comparison["batch"])
    if comparison["ratio"] < measure.THREADS_MARGIN:
        return f"for {rows} {comparison['fastest']} and {comparison['second']} are equally fast"
    return f"for {rows} {comparison['fastest']} is the faster: {comparison['ratio']:.2f} times {comparison['second']}"


def _format_microseconds(rate: Report) -> str:
    return f"{rate['batch'] / rate['median'] * 1e6:,.0f} us"


def _count_rows(rows: int) -> str:
    return "one row" if rows == 1 else f"{rows} rows"
