"""Options and parameters of links: tables that options fill, what is out of range, and the chain of all links."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Gen
from helpers import fails
from reference_figures import Floats

from gentext.errors import ConfigError
from gentext.manager import host
from gentext.plugins.tokenizers.char import CharConfig, CharTokenizer
from gentext.sampling.chain import Chain, build_chain, build_link
from gentext.sampling.configured_chain import builtin_strategies, configured_chain
from gentext.testing import check_strategy
from gentext.testing.strategy import check_on_numpy

V = 9
#: Options of links on the symbols of the test kit: with them, those that have tables are active, and windows small.
OPTIONS: dict[str, dict[str, Any]] = {
    "bias": {"logit_bias": r"a:-2,\n:1.5"},
    "ban": {"ban": "a"},
    "schedule": {"schedule": "0:1.2,3:0.5,9:0"},
    "dry": {"window": 3},
    "no_repeat_ngram": {"window": 3},
}


def with_options(name: str, symbols: str, options: dict[str, str], logits: Floats) -> tuple[Chain, Any]:
    """Return the chain of one link with these options, and what ``apply`` returned for rows of logits."""
    chain = build_chain(host().registry, [name], len(symbols)).with_options({name: options})
    tables = chain.table_arrays(CharTokenizer.build([symbols], CharConfig()))
    states = chain.initial_state(len(logits), {name: {}})
    return chain, chain.apply(logits, {name: {}}, states, {}, tables)[0]


def test_bias_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "bias.json"
    file.write_text('{"c": 3, "\\n": -0.5}', encoding="utf-8")
    logits = np.array([[0, 1, -np.inf, 2, 0.25, 7]], np.float32)  # of \n , : a b c
    options = {"logit_bias": r"a:-2,::+1e0,,:1.5,\n:4", "logit_bias_file": str(file)}
    assert with_options("bias", "\n,:abc", options, logits)[1].tolist() == [[4, 2.5, -math.inf, 0, 0.25, 10]]


def test_ban_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "banned.txt"
    file.write_text("c\n\\n\n", encoding="utf-8")
    logits = np.array([[0, 1, 2, 3], [5, -np.inf, -np.inf, 1]], np.float32)  # of \n a b c
    after = with_options("ban", "\nabc", {"ban": "b", "ban_file": str(file)}, logits)[1]
    assert after[0].tolist() == [-math.inf, 1, -math.inf, -math.inf]
    assert np.array_equal(after[1], logits[1])  # only banned symbols are left, so they may be written


def test_schedule_is_linear_between_its_points() -> None:
    chain, _ = with_options("schedule", "ab", {"schedule": "2:2,4:1,8:0.5"}, np.zeros((1, 2), np.float32))
    tables, states = (
        chain.table_arrays(CharTokenizer.build(["ab"], CharConfig())),
        chain.initial_state(1, {"schedule": {}}),
    )
    logits = np.array([[0, -6]], np.float32)
    states = chain.accept(np.array([0]), {"schedule": logits}, {"schedule": {}}, states, tables, np.zeros((1, 1), bool))
    temperatures = []
    for _ in range(11):
        after, states, outputs = chain.apply(logits, {"schedule": {}}, states, {}, tables)
        temperatures.append(float(-6 / after[0, 1]))
        states = chain.accept(np.array([0]), outputs, {"schedule": {}}, states, tables, np.ones((1, 1), bool))
    expected = [2, 2, 2, 1.5, 1, 0.875, 0.75, 0.625, 0.5, 0.5, 0.5]  # the symbol of the prime is no position
    np.testing.assert_allclose(temperatures, expected, rtol=1e-6)


FILES = {
    "list.json": "[1]",
    "text.json": '{"a": "x"}',
    "broken.json": "{",
    "unknown.json": '{"q": 1}',
    "unknown.txt": "q",
}


@pytest.mark.parametrize(
    ("name", "option", "text", "message"),
    [
        ("bias", "logit_bias", "q:1", "logit_bias q:1: the model has no symbol 'q'"),
        ("bias", "logit_bias", "a", r"logit_bias a: expected SYMBOL:NUMBER with commas, as in e:-2"),
        ("bias", "logit_bias", "a:e", "expected SYMBOL:NUMBER with commas"),
        ("bias", "logit_bias", "a:1001", "1001 for 'a'; expected a number from -1000 to 1000"),
        (
            "bias",
            "logit_bias_file",
            "list.json",
            'list.json: expected a JSON object of symbols and numbers, such as {"e": -2',
        ),
        ("bias", "logit_bias_file", "text.json", "'x' for 'a'; expected a number"),
        ("bias", "logit_bias_file", "broken.json", "broken.json: no JSON"),
        ("bias", "logit_bias_file", "unknown.json", "unknown.json: the model has no symbol 'q'"),
        ("bias", "logit_bias_file", "missing.json", "missing.json: cannot be read .No such file"),
        ("ban", "ban", "aq", "ban aq: the model has no symbol with the character 'q'"),
        ("ban", "ban", "ab", "ban: every symbol of the model is banned; leave at least one"),
        ("ban", "ban_file", "unknown.txt", "unknown.txt: the model has no symbol with the character 'q'"),
        ("ban", "ban_file", "missing.txt", "missing.txt: cannot be read .No such file"),
        ("schedule", "schedule", "5", "schedule '5': expected POSITION:TEMPERATURE, as in 0:1.2,500:0.6"),
        ("schedule", "schedule", "0:1,x:2", "schedule 'x:2': expected POSITION:TEMPERATURE"),
        ("schedule", "schedule", "-1:1", "schedule '-1:1': expected a position from 0 to 16777216"),
        ("schedule", "schedule", "0:nan", "schedule '0:nan': expected a temperature from 0 to 1e"),
        ("schedule", "schedule", "0:-1", "schedule '0:-1': expected a temperature from 0 to 1e"),
        ("schedule", "schedule", "5:1,5:2", "schedule '5:2': expected positions that rise from point to point"),
        ("schedule", "schedule", ",".join(f"{n}:1" for n in range(34)), "34 points; expected at most 33"),
    ],
)
def test_impossible_options_are_one_line(name: str, option: str, text: str, message: str, tmp_path: Path) -> None:
    for file, content in FILES.items():
        (tmp_path / file).write_text(content, encoding="utf-8")
    options = {option: str(tmp_path / text) if option.endswith("file") else text}
    with pytest.raises(ConfigError, match=message) as raised:
        with_options(name, "ab", options, np.zeros((1, 2), np.float32))
    assert "\n" not in str(raised.value)


# -- every link ------------------------------------------------------------------------------------

BUILTINS = builtin_strategies(host().registry)


def out_of_range() -> list[tuple[str, str, float]]:
    cases = []
    for name in BUILTINS:
        for param, spec in host().registry.get("strategy", name).params.items():
            cases += [(name, param, bound) for bound in (spec.low - 1, spec.high * 2 + 1) if math.isfinite(bound)]
    return cases


@pytest.mark.parametrize(("name", "param", "number"), out_of_range())
def test_numbers_out_of_range_are_refused(name: str, param: str, number: float) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{name}.{param} = {number:g}: expected a ")):
        build_chain(host().registry, [name], V, {name: {param: number}})


@pytest.mark.parametrize("name", BUILTINS)
def test_links_pass_the_kit(name: str) -> None:
    cls = host().registry.get("strategy", name)
    check_strategy(cls)
    check_on_numpy(cls, vocab_size=2)
    if name in OPTIONS:
        check_strategy(cls, cls.Config(**OPTIONS[name]))


def test_names_of_parameters_are_unique() -> None:
    links = [build_link(host().registry, name, V) for name in BUILTINS]
    names = [name for link in links for name in [*link.strategy.params, *link.strategy.per_run]]
    assert len(set(names)) == len(names)


def test_all_stands_for_the_built_in_links_in_the_order_of_llama_cpp() -> None:
    chain = configured_chain(host().registry, {"links": ["all"]}, V)
    assert set(BUILTINS) - set(chain.names) == {"adaptive_p"}, "the last place has room for one link"
    order = ["bias", "ban", "penalties", "top_n_sigma", "top_k", "typical", "top_p", "min_p", "xtc", "temperature"]
    assert [name for name in chain.names if name in order] == order
    assert chain.active(chain.param_arrays(1), {}).names == ["temperature"]


@pytest.mark.parametrize(
    ("names", "first", "last"),
    [
        (["all"], "bias", "mirostat"),  # match comes before them all
        (["all", "adaptive_p"], "bias", "adaptive_p"),
        (["top_p", "all"], "top_p", "mirostat"),
        (["adaptive_p", "all", "bias"], "adaptive_p", "bias"),
    ],
)
def test_all_holds_what_is_not_named(names: list[str], first: str, last: str) -> None:
    chain = configured_chain(host().registry, {"links": names}, V)
    assert (chain.names[0], chain.names[1], chain.names[-1]) == ("match", first, last)
    assert len(chain.names) == len(BUILTINS) - 1  # but for one of the two that must both stand last


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["all", "all"], "the chain all, all names 'all' twice; once is enough"),
        (["all", "mirostat", "adaptive_p"], "mirostat and adaptive_p must both stand last in the chain; leave one out"),
        (["top_k", "top_k"], "the chain top_k, top_k names 'top_k' twice; a link stands in it at most once"),
    ],
)
def test_impossible_chains_are_one_line(names: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured_chain(host().registry, {"links": names}, V)


def test_link_that_is_off_makes_room_in_the_last_place(gen: Gen, tiny_run: Path) -> None:
    sample = ("sample", tiny_run, "--chain", "top_k,mirostat", "--seed", 1, "--length", 20, "--show-chain")
    code, out, err = gen(*sample, "--adaptive-target", 0.5)
    assert code == 0 and "-> adaptive_p(adaptive_target=0.5" in err and "mirostat" not in err, err
    assert out != gen(*sample)[1]
    both = ("--mirostat", 2, "--adaptive-target", 0.5)
    fails(1, gen(*sample, *both), "mirostat and adaptive_p must both stand last in the chain; leave one out")
