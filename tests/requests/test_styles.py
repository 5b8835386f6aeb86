"""Styles of writing, and remarks on settings that have no effect or act against one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import gentext
from gentext.cli.links import FlagSpelling
from gentext.errors import UsageError
from gentext.manager import host
from gentext.requests.options import writing_options
from gentext.requests.parameters import ChosenChain
from gentext.requests.styles import STYLES, style_numbers
from gentext.sampling.chain import DEFAULT_CHAIN, build_chain

Gen = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tiny_run: Path) -> gentext.TextModel:
    return gentext.load(tiny_run)


def choose(model: gentext.TextModel, parameters: Mapping[str, object], **options: object) -> ChosenChain:
    """Return the chain that these flags choose."""
    chosen_options = writing_options(parameters=parameters, **options)  # type: ignore[arg-type]
    return model.prepare_writing([""], chosen_options, FlagSpelling()).chosen_chain


def test_the_defaults_are_those_of_the_style_balanced() -> None:
    chain = build_chain(host().registry, DEFAULT_CHAIN, 5)
    assert {link.name: dict(link.defaults) for link in chain} == style_numbers("balanced", chain)


@pytest.mark.parametrize("style", STYLES)
def test_a_style_sets_the_links_of_the_default_chain(model: gentext.TextModel, style: str) -> None:
    chosen = choose(model, {"top-k": 3}, style=style)
    for link in chosen.chain:
        expected = {name: param.neutral for name, param in link.strategy.params.items()}
        expected |= STYLES[style].get(link.name, {}) | ({"top_k": 3} if link.name == "top_k" else {})
        assert chosen.param_numbers(link.name) == expected
    assert chosen.notes == []


def test_a_style_leaves_other_links_alone_and_brings_its_own(model: gentext.TextModel) -> None:
    chosen = choose(model, {"repeat-penalty": 1.2}, style="careful", chain=["penalties", "top_p"])
    assert chosen.chain.names == ["penalties", "top_p", "top_k", "temperature"]
    assert chosen.param_numbers("penalties")["repeat_penalty"] == 1.2
    assert chosen.param_numbers("top_k") == STYLES["careful"]["top_k"]


def test_a_style_is_the_same_everywhere(gen: Gen, model: gentext.TextModel, tiny_run: Path) -> None:
    numbers = {name: number for params in STYLES["bold"].values() for name, number in params.items()}
    neutral = {"top_k": 0, "top_p": 1, "min_p": 0, "temperature": 1}
    by_numbers = model.write(length=80, seed=3, **{**neutral, **numbers})
    assert model.write(length=80, seed=3, style="bold") == by_numbers
    assert model.write_many(length=80, seed=3, style="bold")[0].text == by_numbers
    assert "".join(model.stream(length=80, seed=3, style="bold")) == by_numbers
    code, out, _ = gen("sample", tiny_run, "--length", 80, "--seed", 3, "--style", "bold")
    assert (code, out) == (0, by_numbers + "\n")
    code, out, _ = gen("sample", tiny_run, "--length", 80, "--seed", 3, "--style", "bold", "--temperature", 0.1)
    assert out == model.write(length=80, seed=3, **{**neutral, **numbers, "temperature": 0.1}) + "\n"


@pytest.mark.parametrize("style", ["wild", "", ["bold"]])
def test_an_unknown_style(model: gentext.TextModel, style: object) -> None:
    with pytest.raises(UsageError, match=r"^style = .*: expected careful, balanced, bold$"):
        model.write(style=style)  # type: ignore[arg-type]


OFF = {"top-k": 0, "min-p": 0, "temperature": 1}
NOTES: list[tuple[dict[str, object], str]] = [
    ({"temperature": 0, "top-p": 0.5}, "--top-p has no effect: temperature leaves one symbol"),
    ({**OFF, "top-k": 1, "temperature": 0.7}, "--temperature has no effect: top_k leaves one symbol"),
    ({"temperature": 0, "schedule": "0:1.2"}, "--schedule has no effect: temperature leaves one symbol"),
    ({"dry-base": 1.5}, "--dry-base has no effect without --dry-multiplier"),
    ({"dry-sequence-breakers": "a"}, "--dry-sequence-breakers has no effect without --dry-multiplier"),
    ({"mirostat-tau": 3}, "--mirostat-tau has no effect without --mirostat"),
    ({"xtc-threshold": 0.2}, "--xtc-threshold has no effect without --xtc-probability"),
    ({"xtc-threshold": 0.6}, "--xtc-threshold has no effect without --xtc-probability"),
    ({"adaptive-decay": 0.5}, "--adaptive-decay has no effect without --adaptive-target"),
    ({"dynatemp-exponent": 2}, "--dynatemp-exponent has no effect without --dynatemp-range"),
    ({"top-k": 1000}, "--top-k 1000 has no effect: the model has 19 symbols"),
    (
        {"xtc-probability": 0.5, "xtc-threshold": 0.6},
        "--xtc-threshold 0.6 turns xtc off: no two symbols are both that probable",
    ),
    (
        {"schedule": "0:1.2", "temperature": 0.7, "dynatemp-range": 0.2},
        "--schedule divides what temperature has divided already; "
        "for the schedule alone: --temperature 1, --dynatemp-range 0",
    ),
    (
        {**OFF, "mirostat": 2, "top-k": 5, "min-p": 0.1},
        "mirostat cuts what top_k, min_p has left; for mirostat alone: --top-k 0, --min-p 0",
    ),
]


@pytest.mark.parametrize(("flags", "note"), NOTES)
def test_a_setting_without_effect_or_against_another_is_noted(
    model: gentext.TextModel, flags: dict[str, object], note: str
) -> None:
    assert choose(model, flags).notes == [note]


@pytest.mark.parametrize(
    "flags",
    [
        {},
        OFF,
        {**OFF, "temperature": 0},
        {"temperature": 0, "repeat-penalty": 1.1, "dry-multiplier": 1},  # penalties come before the choice
        {"temperature": 0, "xtc-probability": 0.5, "typical-p": 0.5},  # they may mask the most probable symbol
        {"temperature": 0, "dynatemp-range": 1, "top-p": 0.5},
        {"dynatemp-range": 0.2, "dynatemp-exponent": 2},
        {"dry-multiplier": 1, "dry-base": 1.5},
        {"xtc-probability": 0.5, "xtc-threshold": 0.5},
        {**OFF, "mirostat": 2, "mirostat-tau": 3, "temperature": 0.9},
        {**OFF, "schedule": "0:1.2"},
        {"schedule": ""},
        {"top-k": 18},
    ],
)
def test_settings_that_have_an_effect_are_not_noted(model: gentext.TextModel, flags: dict[str, object]) -> None:
    assert choose(model, flags).notes == []


def test_a_setting_of_a_link_that_made_room_is_noted(model: gentext.TextModel) -> None:
    chosen = choose(model, {"mirostat-tau": 3, "adaptive-target": 0.5}, chain=["mirostat"])
    assert chosen.chain.names == ["adaptive_p"]
    assert chosen.notes == ["--mirostat-tau has no effect: mirostat is not in the chain"]


def test_remarks_in_python_have_the_words_of_python(tiny_run: Path) -> None:
    model = gentext.load(tiny_run)
    model.write(length=2, mirostat=2, top_k=5, min_p=0, temperature=1)
    assert "mirostat cuts what top_k has left; for mirostat alone: top_k = 0" in model.messages
