"""``gen bench``: what it measures, and in which order."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gentext.cli.bench_costs import compare_precisions, format_costs
from gentext.library import bench
from gentext.plugins.samplers.session import open_file
from gentext.run import GENERATOR_FILE

Gen = Callable[..., tuple[int, str, str]]


def test_a_ratio_compares_what_ran_in_the_same_turn() -> None:
    order = []
    slow_later = iter([4.0, 2.0, 3.0, 1.0, 1.0, 0.5])

    def measure(name: str) -> float:
        order.append(name)
        return next(slow_later)

    rates = bench.measure_in_turn({name: lambda name=name: measure(name) for name in "ab"}, 3)
    assert order == list("ababab")
    assert bench.median_ratio(rates["a"], rates["b"]) == 2.0
    assert bench.summarize_rates(rates["a"]) == bench.RateSummary(median=3.0, low=1.0, high=4.0)


def test_bench(gen: Gen, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writing = bench.prepare_measurement
    monkeypatch.setattr(bench, "prepare_measurement", lambda opened, batch, seconds=0.0: writing(opened, batch, 0.005))
    monkeypatch.setattr(bench, "BATCH_SIZES", (1, 17))
    monkeypatch.setattr(bench, "REPEATS", 1)
    picture = tmp_path / "rates.png"
    options = ("--baseline", "--json", "--picture", picture)
    code, out, err = gen("bench", tiny_run / GENERATOR_FILE, *options)
    assert code == 0, err
    report = json.loads(out)
    (file,) = report["files"]
    assert [rate["batch"] for rate in file["rates"]] == [1, 17]
    for rate in file["rates"]:
        assert 0 < rate["low"] <= rate["median"] <= rate["high"]
        assert rate["threads"] >= 1
        assert rate["ratio"] == pytest.approx(rate["median"] / report["notebook"]["median"])
    card = open_file(tiny_run / GENERATOR_FILE, "cpu").bundle.card
    assert (file["precision"], file["weight_bytes"]) == (card["precision"], card["weight_bytes"])
    assert report["precisions"] == []
    assert report["whole_process_seconds"]["gen sample"] > report["whole_process_seconds"]["import numpy, onnxruntime"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, out, err = gen("bench", tiny_run / GENERATOR_FILE, "--threads", 1)
    assert code == 0, err
    assert re.search(rf"^{GENERATOR_FILE}, threads 1/1 +[\d,]+ +[\d,]+$", out, re.MULTILINE)
    position = (
        rf"^{GENERATOR_FILE}: a position of one row takes [\d,]+ us and reads \d+\.\d MB of weights, \d+\.\d GB/s$"
    )
    assert re.search(position, out, re.MULTILINE)


def test_the_faster_precision_is_named_for_one_row_and_for_many() -> None:
    def report(precision: str, weight_bytes: int, medians: dict[int, float]) -> dict[str, Any]:
        rates = [{"batch": batch, "median": median} for batch, median in medians.items()]
        facts = {"name": precision, "device": "onnxruntime on CPU", "precision": precision}
        return {**facts, "weight_bytes": weight_bytes, "rates": rates}

    files = [
        report("fp32", 12_000_000, {1: 10_000.0, 8: 20_000.0, 64: 64_000.0}),
        report("int8", 3_000_000, {1: 20_000.0, 8: 30_000.0, 64: 65_000.0}),
        {"name": "model", "rates": []},
    ]
    rates = {(file["name"], rate["batch"]): [rate["median"]] * 3 for file in files for rate in file["rates"]}
    assert format_costs(files, compare_precisions(files, rates)) == [
        "fp32: a position of one row takes 100 us and reads 12.0 MB of weights, 120.0 GB/s; of 64 rows 1,000 us",
        "int8: a position of one row takes 50 us and reads 3.0 MB of weights, 60.0 GB/s; of 64 rows 985 us",
        "for one row int8 is the faster: 2.00 times fp32; for 64 rows int8 and fp32 are equally fast",
    ]
    # A file alone is measured in its own precision, and one of an older version does not say what it reads.
    assert format_costs(files[:1], compare_precisions(files[:1], rates))[1].startswith("int8 would read a quarter")
    assert len(format_costs([files[0] | {"device": "onnxruntime on CUDA"}], [])) == 1, "int8 is for CPUs"
    del files[1]["weight_bytes"]
    assert format_costs(files[1:], compare_precisions(files[1:], rates)) == [
        "int8: a position of one row takes 50 us; of 64 rows 985 us"
    ]
