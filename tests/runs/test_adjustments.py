"""The hook adjust_settings: what plugins may change before training, and what is refused."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import fails

from gentext.adjustments import Change, TrainingFacts
from gentext.errors import ConfigError
from gentext.hookspecs import hookimpl
from gentext.manager import host
from gentext.run import Run

Gen = Callable[..., tuple[int, str, str]]
Adjust = Callable[[dict[str, Any], frozenset[str], TrainingFacts], Any]
Install = Callable[[str, Adjust], None]


@pytest.fixture
def install() -> Iterator[Install]:
    """Install a plugin of some name, with the hook as its only function, for one test."""
    plugins: list[types.SimpleNamespace] = []

    def call(name: str, adjust: Adjust) -> None:
        def adjust_settings(config: dict[str, Any], free: frozenset[str], facts: TrainingFacts) -> Any:
            return adjust(config, free, facts)

        plugins.append(types.SimpleNamespace(adjust_settings=hookimpl(adjust_settings)))
        host()._manager.register(plugins[-1], name)

    yield call
    for plugin in plugins:
        host()._manager.unregister(plugin)


@pytest.fixture
def train(gen: Gen, tiny_text: Path, tiny_options: tuple[str, ...], tmp_path: Path) -> Callable[..., Any]:
    """Train for two steps, or with the budget that is given."""

    def call(*options: object) -> tuple[int, str, str]:
        budget = () if "--minutes" in options else ("--steps", 2)
        rules = ("--set", "trainer.rate=0.01", "--set", "trainer.warmup=0")  # leaves nothing to the preset's rules
        return gen(
            "train",
            tiny_text,
            "--run",
            tmp_path / "run",
            *tiny_options,
            *rules,
            *budget,
            "--no-export",
            "--verbose",
            *options,
        )

    return call


def test_a_plugin_adjusts_what_nobody_has_typed(train: Any, gen: Gen, install: Install, tmp_path: Path) -> None:
    calls: list[TrainingFacts] = []

    def adjust(config: dict[str, Any], free: frozenset[str], facts: TrainingFacts) -> list[Change]:
        calls.append(facts)
        assert {"model.layers", "trainer.clip"} <= free
        assert not {"model.hidden", "model.name", "batcher.batch", "trainer.eval_every"} & free
        assert config["model"]["hidden"] == 8 and config["trainer"]["patience"] == 0  # a default, written out
        config["model"]["hidden"] = 5  # a copy: nobody sees it
        return [Change("model.layers", 1, "it is small"), Change("trainer.clip", 0.5, "to be safe")]

    install("modest 1.0", adjust)
    code, _, err = train()
    assert code == 0, err
    line = "for this text and budget: model.layers=1 (it is small), trainer.clip=0.5 (to be safe); another value can be"
    assert line in err
    config = Run(tmp_path / "run").config
    assert (config["model"]["layers"], config["model"]["hidden"], config["trainer"]["clip"]) == (1, 8, 0.5)
    first, second = calls
    assert (first.budget, first.symbols, first.preset, first.processes) == (None, 18_000, "small", 1)
    assert second.budget is not None and (second.budget.steps, second.budget.timed) == (2, False)
    code, _, err = gen("train", "--resume", "--run", tmp_path / "run")
    assert code == 0, err
    assert len(calls) == 2 and "for this text" not in err
    assert Run(tmp_path / "run").config == config


def test_minutes_are_measured_again_for_another_batcher(train: Any, install: Install, tmp_path: Path) -> None:
    calls: list[tuple[bool, bool, int]] = []

    def adjust(config: dict[str, Any], free: frozenset[str], facts: TrainingFacts) -> list[Change]:
        if facts.budget is None:
            return []
        assert facts.budget.timed and facts.budget.steps is None
        calls.append(("batcher.offset" in free, config["batcher"]["offset"], config["model"]["layers"]))
        changes = [Change("model.layers", 1, "little time")]
        return [*changes, Change("batcher.offset", False, "why not")] if "batcher.offset" in free else changes

    install("hasty 1.0", adjust)
    code, _, err = train("--minutes", "0.001", "--set", "model.dropout=0", "--set", "trainer.weight_decay=0")
    assert code == 0, err
    assert calls == [(True, True, 2), (False, False, 2)]
    assert "for this text and budget: batcher.offset=False (why not), model.layers=1 (little time);" in err
    assert Run(tmp_path / "run").config["model"]["layers"] == 1


def test_weights_of_another_run_have_a_size(
    train: Any, gen: Gen, install: Install, tiny_text: Path, tmp_path: Path
) -> None:
    assert train()[0] == 0
    install("bold 1.0", lambda config, free, facts: [Change("model.hidden", 64, "more is better")])
    done = gen("train", tiny_text, "--run", tmp_path / "second", "--init-from", tmp_path / "run", "--steps", 1)
    fails(1, done, "the hook adjust_settings of plugin bold 1.0 changes model.hidden, which is not free")


def raises(error: Exception) -> Adjust:
    """Return an implementation that raises."""

    def adjust(config: dict[str, Any], free: frozenset[str], facts: TrainingFacts) -> Any:
        raise error

    return adjust


LAYERS = Change("model.layers", 1, "small")
CLIP = Change("trainer.clip", 2.0, "short")


@pytest.mark.parametrize(
    ("plugins", "fragments"),
    [
        ({"one": lambda *_: [Change("model.hidden", 4, "")]}, ["plugin one changes model.hidden, which is not free"]),
        ({"one": lambda *_: [Change("run.seed", 4, "")]}, ["plugin one changes run.seed, which is not free"]),
        ({"one": lambda *_: ["model.layers"]}, ["plugin one returned 'model.layers'; expected a list of"]),
        ({"one": lambda *_: 5}, ["adjust_settings of plugin one failed: TypeError"]),
        ({"one": raises(ValueError("cannot count"))}, ["plugin one failed: ValueError: cannot count"]),
        ({"one": raises(ConfigError("read me"))}, ["gen: error: read me"]),
        ({"one": lambda *_: [LAYERS], "two": lambda *_: [LAYERS]}, ["two plugins change model.layers: one and two"]),
        (
            {
                "one": lambda config, free, facts: [] if facts.budget else [CLIP],
                "two": lambda config, free, facts: [CLIP] if facts.budget else [],
            },
            ["two plugins change trainer.clip: one and two", "or set trainer.clip yourself"],
        ),
        ({"one": lambda *_: [Change("model.layers", "thin", "")]}, ["model.layers = 'thin': expected `int`"]),
    ],
    ids=" and ".join,  # names of plugins and fragments, for functions have other names in each process
)
def test_what_is_refused(
    plugins: dict[str, Adjust], fragments: list[str], train: Any, install: Install, tmp_path: Path
) -> None:
    for name, adjust in plugins.items():
        install(name, adjust)
    fails(1, train(), *fragments)
    assert not (tmp_path / "run").exists()


def test_two_plugins_change_two_keys(train: Any, install: Install) -> None:
    install("one", lambda *_: [LAYERS])
    install("two", lambda *_: None)
    install("three", lambda *_: (CLIP,))
    code, _, err = train()
    assert code == 0 and "model.layers=1 (small), trainer.clip=2 (short);" in err, err
