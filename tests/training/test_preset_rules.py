"""The rules of size and budget: nothing changes where the presets were measured; outside, each rule does its work."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gentext.adjustments import Budget, TrainingFacts
from gentext.plugins.presets.plugin import adjust_settings
from gentext.run import Run
from gentext.runs.record_options import RecordOptions
from gentext.runs.resolve import TrainOptions, adjustable_keys, resolve_config


class Silent:
    """Stands for a model that does not name its hidden matrices."""


class Named:
    """Stands for a model that does."""

    def hidden_matrices(self) -> dict[str, int]:
        return {}


class Scalable(Named):
    """Stands for a model whose logits can be scaled, too, as those of the built-in ones."""

    def scale_logits(self, factor: float) -> None: ...


Gen = Callable[..., tuple[int, str, str]]


#: What the rules choose for records.
FALLING_DECAY = {"trainer.weight_decay": 1.0, "trainer.decay_schedule": "falling"}
#: What the rules choose for texts that are read five or six times.
FEW_NGRAMS = {"model.ngram_dropout": 0.25}
#: What they choose for those that are read seven times or more.
FEWEST_NGRAMS = {"model.ngram_dropout": 0.3}


def changes(
    preset: str,
    symbols: int,
    passes: float = 1.0,
    steps: int | None = None,
    settings: tuple[str, ...] = (),
    timed: bool = False,
    vocab_size: int = 90,
    processes: int = 1,
    model: type = Named,
    records: int = 0,
) -> dict[str, Any]:
    """Return what the rules change, as `gen train` asks them."""
    options = TrainOptions(preset=preset, settings=settings, records=RecordOptions("lines") if records else None)
    config, free = resolve_config(options), adjustable_keys(options)
    facts = TrainingFacts(symbols, vocab_size, processes, preset, model, records)
    changes = adjust_settings(config, free, facts)
    for change in changes:
        section, key = change.key.split(".")
        config[section][key] = change.value
    budget = Budget(steps, round(symbols * passes), timed)
    changes += adjust_settings(config, free, dataclasses.replace(facts, budget=budget))
    return {change.key: change.value for change in changes}


@given(
    preset=st.sampled_from(["small", "base"]),
    symbols=st.integers(360_000, 1_800_000),
    passes=st.floats(1, 1.9),
    vocab_size=st.integers(30, 120),
)
def test_nothing_changes_where_the_presets_were_measured(
    preset: str, symbols: int, passes: float, vocab_size: int
) -> None:
    assert changes(preset, symbols, passes, vocab_size=vocab_size) == {}


def test_a_trainer_without_a_rate_keeps_its_options() -> None:
    options = TrainOptions(preset="base")
    config = resolve_config(options)
    free = {key for key in adjustable_keys(options) if not key.startswith("trainer.")}
    config["trainer"] = {"name": "another"}
    facts = TrainingFacts(2_000_000, 90, 1, "base", Named, 0, budget=Budget(None, 4_000_000, True))
    assert all(not change.key.startswith("trainer.") for change in adjust_settings(config, free, facts))


@given(
    symbols=st.integers(100, 10**9),
    passes=st.floats(0.01, 1000),
    steps=st.none() | st.integers(1, 10**6),
    processes=st.integers(1, 16),
    timed=st.booleans(),
)
def test_any_text_and_budget_give_values_that_can_be(
    symbols: int, passes: float, steps: int | None, processes: int, timed: bool
) -> None:
    assert changes("notebook", symbols, passes, steps, timed=timed) == {}
    changed = changes("base", symbols, passes, steps, timed=timed, processes=processes, model=Scalable)
    ranges: dict[str, tuple[float, float]] = {
        "model.hidden": (64, 320),
        "model.dropout": (0.05, 0.5),
        "model.ngram_rows": (256, 4096),
        "model.ngram_dropout": (0.1, 0.8),
        "trainer.patience": (3, 3),
        "batcher.batch": (4, 128),
        "trainer.rate": (0.0015, 0.006),
        "trainer.warmup": (0, 21),
        "trainer.weight_decay": (0.3, 1.0),
    }
    assert changed.pop("trainer.decay_schedule", "falling") == "falling"
    assert 2_000 <= changed.pop("trainer.calibration", 2_000) <= max(2_000, min(10_000, 0.02 * symbols))
    for key, value in changed.items():
        assert ranges[key][0] <= value <= ranges[key][1], (key, value)
    assert changed.get("batcher.batch", 16) >= min(16, processes)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"symbols": 1_800_000, "passes": 3}, {"model.ngram_dropout": 0.15, "trainer.weight_decay": 1.0}),
        ({"symbols": 1_800_000, "passes": 6}, {"model.dropout": 0.05, **FEW_NGRAMS, "trainer.weight_decay": 1.0}),
        (
            {"symbols": 1_800_000, "passes": 20},
            {"model.dropout": 0.2, **FEWEST_NGRAMS, "trainer.weight_decay": 1.0},
        ),
        (
            {"symbols": 1_800_000, "passes": 4, "model": Scalable},
            {"model.ngram_dropout": 0.2, "trainer.weight_decay": 1.0},
        ),
        (
            {"symbols": 1_800_000, "passes": 5, "model": Scalable, "settings": ("model.ngram_length=0",)},
            {"trainer.weight_decay": 1.0},
        ),
        (
            {"symbols": 1_800_000, "passes": 5, "model": Scalable},
            {**FEW_NGRAMS, "trainer.calibration": 10_000, "trainer.weight_decay": 1.0},
        ),
        (
            {"symbols": 1_800_000, "passes": 6, "model": Scalable},
            {**FEW_NGRAMS, "trainer.calibration": 10_000, **FALLING_DECAY},
        ),
        (
            {"symbols": 1_800_000, "passes": 20, "model": Scalable},
            {"model.dropout": 0.1, **FEWEST_NGRAMS, "trainer.calibration": 10_000, **FALLING_DECAY},
        ),
        (
            {"symbols": 1_800_000, "passes": 20, "model": Scalable, "settings": ("trainer.calibration=0",)},
            {"model.dropout": 0.2, **FEWEST_NGRAMS, "trainer.weight_decay": 1.0},
        ),
        (
            {"symbols": 200_000, "passes": 8, "model": Scalable, "settings": ("batcher.batch=16",)},
            {"model.dropout": 0.3, "model.ngram_dropout": 0.45, "trainer.calibration": 4_000, **FALLING_DECAY},
        ),
        (
            {"symbols": 300_000, "passes": 7, "model": Scalable, "settings": ("model.hidden=64",)},
            {"model.ngram_dropout": 0.4, "trainer.calibration": 6_000, **FALLING_DECAY},
        ),
        ({"symbols": 200_000, "passes": 1}, {"batcher.batch": 8, "trainer.rate": 0.0021}),
        ({"symbols": 150_000, "steps": 100}, {"model.hidden": 176, "model.ngram_rows": 4096, "trainer.warmup": 10}),
        ({"symbols": 40_000_000, "passes": 1}, {"batcher.batch": 32, "trainer.rate": 0.0042}),
        ({"symbols": 1_500_000, "passes": 1, "timed": True, "settings": ("model.hidden=352",)}, {}),
        (
            {"symbols": 1_800_000, "passes": 1, "timed": True},
            {"model.hidden": 256, "batcher.batch": 32, "trainer.rate": 0.0042},
        ),
        (
            {"symbols": 8_000_000, "passes": 1, "timed": True},
            {"model.hidden": 320, "batcher.batch": 64, "trainer.rate": 0.006},
        ),
        ({"symbols": 40_000_000, "passes": 1, "timed": True}, {"batcher.batch": 64, "trainer.rate": 0.006}),
        (
            {"symbols": 500_000, "passes": 3, "timed": True, "settings": ("model.hidden=176",)},
            {"model.ngram_dropout": 0.15, "trainer.patience": 3, "trainer.weight_decay": 1.0},
        ),
        ({"symbols": 590_000, "records": 82_000}, {"batcher.batch": 256, "trainer.rate": 0.0032, **FALLING_DECAY}),
        ({"symbols": 52_000_000, "records": 1_400_000}, {"batcher.batch": 64, "trainer.rate": 0.0037, **FALLING_DECAY}),
        (
            {"symbols": 58_000_000, "passes": 0.017, "timed": True, "records": 1_580_000},
            {"model.hidden": 256, "batcher.batch": 64, "trainer.rate": 0.0036, **FALLING_DECAY},
        ),
        ({"symbols": 1_000_000, "steps": 100}, {"trainer.warmup": 10}),
        ({"symbols": 1_000_000, "settings": ("batcher.batch=64",)}, {"trainer.rate": 0.006, "trainer.warmup": 15}),
        (
            {"symbols": 1_000_000, "passes": 6, "settings": ("model.dropout=0",)},
            {**FEW_NGRAMS, "trainer.weight_decay": 1.0},
        ),
        (
            {"symbols": 1_000_000, "passes": 6, "settings": ("trainer.optimizer=adamw", "model.dropout=0")},
            FEW_NGRAMS,
        ),
        ({"symbols": 1_000_000, "passes": 6, "settings": ("model.name=other",)}, {"trainer.weight_decay": 1.0}),
        ({"symbols": 1_000_000, "passes": 6, "settings": ("model.name=other",), "model": Silent}, {}),
    ],
)
def test_each_rule(arguments: dict[str, Any], expected: dict[str, Any]) -> None:
    assert changes("base", **arguments) == expected


def test_a_short_text_has_a_smaller_network_in_a_budget_of_minutes() -> None:
    assert changes("small", 420_000, passes=1.5) == {}
    assert changes("small", 420_000, passes=1.5, timed=True)["model.hidden"] == 128
    assert changes("small", 80_000, passes=1.5, timed=True)["model.hidden"] == 96
    assert "model.hidden" not in changes("small", 700_000, passes=8, timed=True)


def test_a_model_that_can_hardly_learn_the_text_by_heart_has_no_dropout_and_little_decay() -> None:
    assert changes("tiny", 1_800_000, passes=20) == {**FEWEST_NGRAMS, "trainer.weight_decay": 0.3}
    assert changes("tiny", 200_000, passes=20).keys() >= {"model.dropout", "trainer.weight_decay"}


@pytest.mark.parametrize(
    "budget", [pytest.param(("--epochs", "2"), marks=pytest.mark.slow), ("--minutes", "0.01"), ("--steps", "30")]
)
def test_rules_are_printed_and_stored(budget: tuple[str, str], gen: Gen, tiny_text: Path, tmp_path: Path) -> None:
    settings = (
        "--set",
        "model.embedding=4",
        "--set",
        "batcher.length=40",
        "--set",
        "run.threads=1",
        "--no-export",
        "--verbose",
    )
    code, _, err = gen("train", tiny_text, "--run", tmp_path / "run", *settings, *budget)
    assert code == 0, err
    [line] = re.findall(r"^for this text and budget: (.*); another value can be set$", err, re.MULTILINE)
    config = Run(tmp_path / "run").config
    printed = dict(re.findall(r"([a-z]+\.[a-z_]+)=([0-9.]+) ", line))
    assert printed["model.hidden"] == ("64" if budget[0] == "--minutes" else "96")
    assert {key: f"{config[key.split('.')[0]][key.split('.')[1]]:g}" for key in printed} == printed
    code, _, err = gen("train", "--resume", "--run", tmp_path / "run")
    assert code == 0, err
    assert "for this text" not in err
    assert Run(tmp_path / "run").config == config
