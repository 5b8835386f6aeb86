"""Filters by name, with their options; what goes wrong in one is one line that names it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Gen
from fuzz.plugin_modules import BODIES, HEADER
from helpers import fails, one_line, raiser

import gentext
from gentext.components.filters import create_filter
from gentext.config import NonNegative
from gentext.errors import ConfigError, GenError, PluginError, UnknownComponent, UsageError
from gentext.manager import PluginHost
from gentext.registry import Component, Distribution
from gentext.runs.completion import complete_filters

EXAMPLE = Path(__file__).parents[2] / "examples" / "gentext-smiles"
AddFilter = Callable[[str, Any], None]


@pytest.fixture
def add_filter(monkeypatch: pytest.MonkeyPatch) -> AddFilter:
    """Return a function that registers a filter for the test."""
    plugin_host = PluginHost(entry_points=False)
    for module in ("components.filters", "manager"):
        monkeypatch.setattr(f"gentext.{module}.host", lambda: plugin_host)

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
    with pytest.raises(PluginError, match="^the filter 'never' .*" + ("ended" if is_exit else "cannot be created: ")):
        create_filter("never", {})
    with pytest.raises(PluginError, match=r"^the filter 'nothing' of .* is NoneType, which lacks __call__; "):
        create_filter("nothing", {})
    monkeypatch.setenv("GEN_PLUGINS_STRICT", "1")
    with pytest.raises(PluginError if is_exit else type(error)):
        create_filter("numbers", {})(["12"])


@pytest.mark.parametrize("body", [body for body in BODIES if "print" not in body and "stdout" not in body])
def test_whatever_a_filter_does_is_one_line(body: str, add_filter: AddFilter) -> None:
    names: dict[str, Any] = {}
    exec(f"{HEADER}\ndef answer(texts):\n    {body.replace('OWN', '[True] * len(texts)')}\n", names)
    add_filter("strange", lambda config: names["answer"])
    try:
        assert create_filter("strange", {})(["a", "b"]) == [True, True]
        assert "OWN" in body
    except PluginError as error:
        assert str(error).startswith("the filter 'strange' ") and len(str(error).splitlines()) == 1


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


def test_a_shell_completes_filters(add_filter: AddFilter) -> None:
    add_filter("long", Long)
    assert complete_filters("lo") == [("long", "a filter")]
    assert complete_filters("s") == []


# -- gen sample --filter ----------------------------------------------------------------------


def written(result: tuple[int, str, str]) -> list[dict[str, Any]]:
    """Return the records of ``gen sample --json``."""
    code, out, err = result
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


def test_each_number_draws_again_until_all_filters_accept(
    add_filter: AddFilter, tiny_records_run: Path, gen: Gen
) -> None:
    asked: list[str] = []

    def count_texts(texts: Sequence[str]) -> list[bool]:
        asked.extend(texts)
        return [text.count(" ") % 2 == 0 for text in texts]

    add_filter("long", Long)
    add_filter("even", lambda config: count_texts)
    words = ("sample", tiny_records_run, "--count", 60, "--seed", 4, "--json", "--length", 60)
    filters = ("--filter", "long", "--filter", "even", "--set", "filter.long.characters=12")
    unfiltered = written(gen(*words))
    result = gen(*words, *filters, "--slots", 16)
    records = written(result)
    assert [record["number"] for record in records] == list(range(60))
    accepted = [len(record["text"]) >= 12 and record["text"].count(" ") % 2 == 0 for record in unfiltered]
    assert 5 < sum(accepted) < 55
    for record, first, is_accepted in zip(records, unfiltered, accepted, strict=True):
        assert len(record["text"]) >= 12 and record["text"].count(" ") % 2 == 0
        assert (record == first) == is_accepted  # what stays is what was written without a filter
    # the counts of both filters are those of the tries, and the second one is asked about what the first one accepts
    line = result[2].splitlines()[-1]
    counts = {name: int(re.search(rf"([\d,]+) refused by {name}\b", line)[1]) for name in ("long", "even")}  # type: ignore[index]
    cut = re.search(r"([\d,]+) cut", line)
    assert counts["long"] + counts["even"] + (int(cut[1]) if cut else 0) == sum(r["stream"] // 2**40 for r in records)
    assert len(asked) == counts["even"] + 60 and min(map(len, asked)) >= 12
    assert written(gen(*words, *filters, "--slots", 1)) == records


def test_filters_of_the_library_have_the_options_of_the_command(
    add_filter: AddFilter, tiny_records_run: Path, gen: Gen
) -> None:
    add_filter("long", Long)
    words = ("--filter", "long", "--set", "filter.long.characters=30")
    expected = gen("sample", tiny_records_run, "--count", 9, "--seed", 4, *words)[1].splitlines()
    model = gentext.load(tiny_records_run)
    for filters in (["long"], [lambda texts: [True] * len(texts), "long"]):
        records = model.records(9, seed=4, filters=filters, filter_options={"long": {"characters": 30}})
        assert [record.text for record in records] == expected
    with pytest.raises(ConfigError, match=r"^unknown key filter\.long\.character\. Did you mean 'characters'\?"):
        model.records(9, filters=["long"], filter_options={"long": {"character": 30}})
    with pytest.raises(UsageError, match=r"^filter\.lonk: there is no filter lonk .* Did you mean 'long'\?"):
        model.records(9, filters=["long"], filter_options={"lonk": {}})


def test_failure_in_the_middle_leaves_whole_records(
    add_filter: AddFilter, tiny_records_run: Path, gen: Gen, tmp_path: Path
) -> None:
    calls: list[int] = []

    def fail_later(texts: Sequence[str]) -> list[bool]:
        calls.append(len(texts))
        if sum(calls) > limit:
            raise ValueError("out of order")
        return [len(text) % 3 > 0 for text in texts]

    add_filter("careful", lambda config: fail_later)
    output = tmp_path / "records.txt"
    words = ("sample", tiny_records_run, "--count", 100, "--filter", "careful", "--slots", 4)
    limit = 60
    line = fails(1, gen(*words, "--seed", 4, "-o", output), "the filter 'careful' fails on ", "out of order")
    assert "GEN_PLUGINS_STRICT=1 shows where" in line
    beginning = output.read_text(encoding="utf-8")
    assert 5 < beginning.count("\n") < 60 and beginning.endswith("\n")
    limit = 10**9
    code, _, err = gen("sample", "--resume", "-o", output)
    assert code == 0, err
    assert gen(*words, "--seed", 4)[1] == output.read_text(encoding="utf-8")
    assert output.read_text(encoding="utf-8").startswith(beginning)


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ("--filter lang", "no filter 'lang'. Available: long. Did you mean 'long'?"),
        ("--filter long --set filter.long.characters=-1", "filter.long.characters = -1: "),
        ("--filter long --set filter.long=3", "filter.long = 3: expected options of the filter"),
        ("--set filter.long.characters=3", "filter.long: there is no filter long to set options of."),
        ("--filter long --set filter.lonk.characters=3", "Did you mean 'long'?"),
        ("--filter long --set filter.long.characters=9999 --max-tries 3", "3 refused by long"),
    ],
)
def test_wrong_filter_is_one_line(
    words: str, fragment: str, add_filter: AddFilter, tiny_records_run: Path, gen: Gen
) -> None:
    add_filter("long", Long)
    code, out, err = gen("sample", tiny_records_run, "--count", 5, "--seed", 4, *words.split(" "))
    assert code in (1, 2) and out == ""
    assert fragment in one_line(err)


def test_model_of_one_text_has_no_records_to_filter(add_filter: AddFilter, tiny_run: Path, gen: Gen) -> None:
    add_filter("long", Long)
    fails(2, gen("sample", tiny_run, "--filter", "long"), "--filter is for models of records")
    fails(2, gen("sample", tiny_run, "--set", "filter.long.characters=3"), "--set filter is for models of records")
