"""``gen bench``: what it measures, and in which order."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from gentext import bench
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
    assert report["whole_process_seconds"]["gen sample"] > report["whole_process_seconds"]["import numpy, onnxruntime"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, out, err = gen("bench", tiny_run / GENERATOR_FILE, "--threads", 1)
    assert code == 0, err
    assert re.search(rf"^{GENERATOR_FILE}, threads 1/1 +[\d,]+ +[\d,]+$", out, re.MULTILINE)
