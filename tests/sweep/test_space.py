"""The space of a sweep: which files are read, which are refused, and how values reach the config."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from gentext.config import parse_setting
from gentext.errors import ConfigError
from gentext.plugins.sweep.space import (
    Choices,
    Range,
    Space,
    check_space,
    format_setting,
    parse_space,
    read_space,
    space_table,
)
from gentext.runs.resolve import TrainOptions

NUMBERS = st.integers(-(2**40), 2**40) | st.floats(-1e12, 1e12)
VALUES = NUMBERS | st.booleans() | st.text(st.characters(exclude_categories=["Cs"]))


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    low, high = sorted([draw(NUMBERS), draw(NUMBERS)])
    if not low < high:
        high = low + 1
    return Range(low, high, draw(st.booleans()) and low > 0)


ENTRIES = ranges() | st.lists(VALUES, min_size=1, max_size=5, unique_by=repr).map(Choices)
SPACES = st.dictionaries(st.sampled_from(["model.hidden", "model.dropout", "trainer.rate"]), ENTRIES, min_size=1)


@given(SPACES)
def test_file_gives_the_same_space(space: Space) -> None:
    assert parse_space(tomllib.loads(tomli_w.dumps(space_table(space))), "a file") == space


@given(VALUES)
def test_value_reaches_the_config_as_it_is(value: Any) -> None:
    read = parse_setting(format_setting("model.hidden", value))["model"]["hidden"]
    assert read == value and type(read) is type(value)


def test_builtin_space_holds_the_preset() -> None:
    space = read_space(None)
    assert check_space(space, TrainOptions(preset="small")).keys() == space.keys()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[model.hiden]\nchoices = [8]", "unknown key model.hiden. Did you mean 'hidden'?"),
        ("[modl.hidden]\nchoices = [8]", "[modl] cannot be swept. Did you mean 'model'?"),
        ("[run.val_frac]\nlow = 0.1\nhigh = 0.2", "[run] cannot be swept"),
        ("[model.dropout]\nlow = 0.5\nhigh = 0.1", "model.dropout]: low = 0.5, high = 0.1: upside down"),
        ("[model.dropout]\nlow = 0.5\nhigh = 0.5", "upside down"),
        ("[model.dropout]\nlow = 0.5\nhigh = 1.5", "model.dropout = 1.5: expected"),
        ("[model.dropout]\nlow = 0.5", "missing required field `high`"),
        ("[model.dropout]\nlow = 0.0\nhihg = 0.5", "Did you mean 'high'?"),
        ("[model.dropout]\nlow = 0.0\nhigh = nan", "expected a finite number"),
        ("[trainer.rate]\nlow = 0.0\nhigh = 0.1\nlog = true", "a logarithm needs low above 0"),
        ("[trainer.rate]\nlow = 0.1\nhigh = 0.2\nstep = 0.5", "step = 0.5: expected"),
        ("[model.hidden]\nlow = 8\nhigh = 16\nstep = 0.5", "expected a whole number"),
        ("[model.hidden]\nlow = 8.0\nhigh = 16", "model.hidden = 8.0: expected `int`"),
        ("[model.hidden]\nchoices = []", "expected at least one value"),
        ("[model.hidden]\nchoices = [8, 8]", "a choice stands twice"),
        ("[model.hidden]\nchoices = [8, 'a']", "model.hidden = 'a': expected `int`"),
        ("[model.hidden]\nchoices = [[8]]", "expected `bool | int | float | str`"),
        ("[model]\nhidden = 8", "expected [model.hidden] with choices"),
        ("model = 8", "expected tables such as [model.key]"),
        ("[model.name]\nchoices = ['lstm', 'lstn']\n[model.hidden]\nchoices = [8]", "'lstn'"),
        ("", "empty; expected tables"),
        ("[model", "not valid TOML"),
    ],
)
def test_wrong_space(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(Exception) as caught:
        check_space(read_space(path), TrainOptions())
    assert problem in str(caught.value)
    assert caught.type is ConfigError or "lstn" in problem  # an unknown component has an error of its own
