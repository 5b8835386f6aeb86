"""Filters by name, with their options; what goes wrong in one is one line that names it."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import raiser

from gentext.config import NonNegative
from gentext.errors import ConfigError, GenError, PluginError, UnknownComponent, UsageError
from gentext.filters import create_filter
from gentext.manager import PluginHost
from gentext.registry import Component, Distribution

EXAMPLE = Path(__file__).parent.parent / "examples" / "gentext-smiles"
AddFilter = Callable[[str, Any], None]


@pytest.fixture
def add_filter(monkeypatch: pytest.MonkeyPatch) -> AddFilter:
    """Return a function that registers a filter for the test."""
    plugin_host = PluginHost(entry_points=False)
    monkeypatch.setattr("gentext.filters.host", lambda: plugin_host)

    def add(name: str, target: Any) -> None:
        plugin_host.registry.add(Component("filter", name, target, "a filter", Distribution("elsewhere", "1")))

    return add


@dataclasses.dataclass(frozen=True)
class LongConfig:
    characters: NonNegative = 3


class Long:
    """Accepts texts from a length on, and answers with an array."""

    Config = LongConfig

    def __init__(self, config: LongConfig) -> None:
        self.config = config

    def __call__(self, texts: Sequence[str]) -> Any:
        return np.array([len(text) >= self.config.characters for text in texts], np.bool_)


def test_filter_is_created_with_its_options(add_filter: AddFilter) -> None:
    add_filter("long", Long)
    texts_filter = create_filter("long", {"characters": 2})
    assert texts_filter.name == "long"
    answers = texts_filter(("", "ab", "abc"))
    assert answers == [False, True, True]
    assert {type(answer) for answer in answers} == {bool}
    assert create_filter("long", {})([]) == []
    with pytest.raises(UnknownComponent, match=r"^no filter 'lang'\. Available: long\. Did you mean 'long'\?$"):
        create_filter("lang", {})
    with pytest.raises(ConfigError, match=r"^unknown key filter\.long\.character\. Did you mean 'characters'\?"):
        create_filter("long", {"character": 2})
    with pytest.raises(ConfigError, match=r"^filter\.long\.characters = -1: "):
        create_filter("long", {"characters": -1})


@pytest.mark.parametrize("error", [ValueError("wrong"), asyncio.CancelledError("wrong"), SystemExit("wrong")])
def test_error_of_a_filter_is_one_line(
    error: BaseException, add_filter: AddFilter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_on_numbers(texts: Sequence[str]) -> list[bool]:
        return [not text.isdigit() or raiser(error)() for text in texts]

    add_filter("numbers", lambda config: fail_on_numbers)
    add_filter("never", raiser(error))
    add_filter("nothing", lambda config: None)
    is_exit = isinstance(error, SystemExit)
    problem = "ended the program" if is_exit else "fails on the text '12': .*wrong; GEN_PLUGINS_STRICT=1 shows where$"
    with pytest.raises(PluginError, match=f"^the filter 'numbers' {problem}"):
        create_filter("numbers", {})(["a", "12", "b"])
    with pytest.raises(PluginError, match="^the filter 'never' " + ("ended" if is_exit else "cannot be created: ")):
        create_filter("never", {})
    with pytest.raises(PluginError, match=r"^the filter 'nothing' is NoneType; expected an object "):
        create_filter("nothing", {})
    monkeypatch.setenv("GEN_PLUGINS_STRICT", "1")
    with pytest.raises(PluginError if is_exit else type(error)):
        create_filter("numbers", {})(["12"])


@pytest.mark.parametrize("error", [UsageError("read me"), KeyboardInterrupt()])
def test_errors_for_the_user_stay_as_they_are(error: GenError | KeyboardInterrupt, add_filter: AddFilter) -> None:
    add_filter("asks", lambda config: raiser(error))
    with pytest.raises(type(error)) as raised:
        create_filter("asks", {})(["a"])
    assert raised.value is error


def test_error_that_needs_two_texts_names_their_number(add_filter: AddFilter) -> None:
    add_filter("pairs", lambda config: lambda texts: [True] * len(texts) if len(texts) < 2 else 1 // 0)
    with pytest.raises(PluginError, match=r"^the filter 'pairs' fails on 3 texts: ZeroDivisionError: "):
        create_filter("pairs", {})(["a", "b", "c"])


def test_example_without_its_library_is_one_line(add_filter: AddFilter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setitem(sys.modules, "rdkit", None)
    monkeypatch.delitem(sys.modules, "gentext_smiles.filter", raising=False)
    add_filter("smiles", "gentext_smiles.filter:SmilesFilter")
    with pytest.raises(PluginError, match=r"^the filter 'smiles' of elsewhere 1 cannot be loaded .*rdkit"):
        create_filter("smiles", {})
