"""The links beyond top_k: figures of llama.cpp and transformers, float64 versions, and cases computed by hand."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from gentext.chain import Chain, build_chain, build_link
from gentext.describe import builtin_strategies, configured_chain
from gentext.errors import ConfigError
from gentext.export.strategies.check import check_compiles
from gentext.manager import host
from gentext.plugins.tokenizers.char import CharConfig, CharTokenizer
from gentext.testing import check_strategy

Floats = NDArray[np.float32]
V = 9
#: Options with which links that have tables are active, on the symbols of the test kit.
OPTIONS: dict[str, dict[str, str]] = {
    "bias": {"logit_bias": r"a:-2,\n:1.5"},
    "ban": {"ban": "a"},
    "schedule": {"schedule": "0:1.2,3:0.5,9:0"},
}


def apply(name: str, logits: Floats, noise: float = 0.0, **numbers: float) -> Floats:
    """Apply one link to logits [N, V]; a link that takes noise gets this number."""
    chain = build_chain(host().registry, [name], logits.shape[1])
    params = chain.param_arrays(len(logits), {name: numbers})
    uniforms = {name: np.full((len(logits), 1), noise, np.float32)}
    return chain.apply(logits, params, chain.initial_state(len(logits), params), uniforms, {})[0]


def logits_of(*probabilities: float) -> Floats:
    with np.errstate(divide="ignore"):
        return np.log(np.array([probabilities], np.float32))


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(weights / weights.sum())


#: Link, parameters, probabilities, and those that must come out: tests/test-sampling.cpp of llama.cpp.
LLAMA_CPP: list[tuple[str, dict[str, float], list[float], list[float]]] = [
    ("temperature", {"temperature": 1}, [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
    ("temperature", {"temperature": 0}, [0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1]),
    ("temperature", {"temperature": 1, "dynatemp_range": 0}, [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
    ("temperature", {"temperature": 0, "dynatemp_range": 0}, [0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1]),
    ("top_k", {"top_k": 1}, [0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1]),
    ("top_k", {"top_k": 3}, [0.1, 0.2, 0.3, 0.4], [0, 0.22222, 0.33333, 0.44444]),
    ("top_k", {"top_k": 4}, [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
    ("top_k", {"top_k": 0}, [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
    ("top_p", {"top_p": 0}, [0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1]),
    ("top_p", {"top_p": 0.7}, [0.1, 0.2, 0.3, 0.4], [0, 0, 0.428571, 0.571429]),
    ("top_p", {"top_p": 0.8}, [0.1, 0.2, 0.3, 0.4], [0, 0.22222, 0.33333, 0.44444]),
    ("top_p", {"top_p": 1}, [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
    ("min_p", {"min_p": 0}, [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
    ("min_p", {"min_p": 0.24}, [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
    ("min_p", {"min_p": 0.26}, [0.1, 0.2, 0.3, 0.4], [0, 0.2 / 0.9, 0.3 / 0.9, 0.4 / 0.9]),
    ("min_p", {"min_p": 0.49}, [0.1, 0.2, 0.3, 0.4], [0, 0.2 / 0.9, 0.3 / 0.9, 0.4 / 0.9]),
    ("min_p", {"min_p": 0.51}, [0.1, 0.2, 0.3, 0.4], [0, 0, 0.3 / 0.7, 0.4 / 0.7]),
    ("min_p", {"min_p": 0.74}, [0.1, 0.2, 0.3, 0.4], [0, 0, 0.3 / 0.7, 0.4 / 0.7]),
    ("min_p", {"min_p": 0.76}, [0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1]),
    ("min_p", {"min_p": 1}, [0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1]),
    # There the probabilities of xtc and typical are not normalised anew.
    ("xtc", {"xtc_probability": 0.99, "xtc_threshold": 0.09}, [0.4, 0.3, 0.2, 0.1], [0, 0, 0, 1]),
    ("xtc", {"xtc_probability": 0.99, "xtc_threshold": 0.19}, [0.4, 0.3, 0.2, 0.1], [0, 0, 0.2 / 0.3, 0.1 / 0.3]),
    (
        "xtc",
        {"xtc_probability": 0.99, "xtc_threshold": 0.29},
        [0.4, 0.3, 0.2, 0.1],
        [0, 0.3 / 0.6, 0.2 / 0.6, 0.1 / 0.6],
    ),
    ("xtc", {"xtc_probability": 0.99, "xtc_threshold": 0.39}, [0.4, 0.3, 0.2, 0.1], [0.4, 0.3, 0.2, 0.1]),
    ("typical", {"typical_p": 0.5}, [0.97, 0.01, 0.01, 0.01], [1, 0, 0, 0]),
    ("typical", {"typical_p": 0.5}, [0.4, 0.2, 0.2, 0.2], [0, 1 / 3, 1 / 3, 1 / 3]),
    ("top_n_sigma", {"top_n_sigma": 1}, [0.1, 0.2, 0.3, 0.4], [0, 0, 0.428571, 0.571429]),
    ("top_n_sigma", {"top_n_sigma": 0}, [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
    ("top_n_sigma", {"top_n_sigma": 3}, [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
    # Of pull request 26035.
    ("p_less", {"p_less": 1}, [0.1, 0.15, 0.2, 0.25, 0.3], [0, 0, 0, 0.45454545, 0.54545455]),
    ("p_less", {"p_less": 1}, [0.2] * 5, [0.2] * 5),
]


@pytest.mark.parametrize(("name", "numbers", "probabilities", "expected"), LLAMA_CPP)
def test_figures_of_llama_cpp(
    name: str, numbers: dict[str, float], probabilities: list[float], expected: list[float]
) -> None:
    np.testing.assert_allclose(softmax(apply(name, logits_of(*probabilities), **numbers))[0], expected, atol=1e-5)


#: The same from tests/generation/test_logits_process.py of transformers, whose results are not normalised anew.
TRANSFORMERS: list[tuple[str, dict[str, float], list[float], list[float]]] = [
    # Not the first row for top_p: there 0.5 + 0.3 equals the share 0.8, and rounding decides.
    ("top_p", {"top_p": 0.8}, [0.15, 0.3, 0.3, 0.25], [0, 0.3, 0.3, 0.25]),
    ("min_p", {"min_p": 0.05}, [0.9, 0.0274, 0.047, 0.0274], [0.9, 0, 0.047, 0]),
    ("min_p", {"min_p": 0.05}, [0.15, 0.3, 0.3, 0.25], [0.15, 0.3, 0.3, 0.25]),
    ("min_p", {"min_p": 0.05}, [0.97, 0.01, 0.01, 0.01], [0.97, 0, 0, 0]),
    ("top_h", {"top_h": 0.3}, [0.97, 0.01, 0.01, 0.01], [0.97, 0, 0, 0]),
    ("top_h", {"top_h": 0.7}, [0.4, 0.3, 0.2, 0.1], [0.4, 0.3, 0, 0]),
    ("top_h", {"top_h": 1.0}, [0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25]),
    ("top_h", {"top_h": 0.4}, [0.75, 0.25, 0, 0], [0.75, 0, 0, 0]),
    ("typical", {"typical_p": 0.5}, [0.97, 0.01, 0.01, 0.01], [0.97, 0, 0, 0]),
    ("typical", {"typical_p": 0.5}, [0.4, 0.2, 0.2, 0.2], [0, 0.2, 0.2, 0.2]),
    ("epsilon", {"epsilon_cutoff": 0.1}, [0.87, 0.099, 0.001, 0.03], [0.87, 0, 0, 0]),
    ("epsilon", {"epsilon_cutoff": 0.1}, [0.4, 0.299, 0.101, 0.2], [0.4, 0.299, 0.101, 0.2]),
    ("eta", {"eta_cutoff": 0.0625}, [0, 0.1, 0.8, 0.1], [0, 0.1, 0.8, 0.1]),
    ("eta", {"eta_cutoff": 0.0625}, [0.01, 0.04, 0.9, 0.05], [0, 0, 0.9, 0]),
]


@pytest.mark.parametrize(("name", "numbers", "probabilities", "expected"), TRANSFORMERS)
def test_figures_of_transformers(
    name: str, numbers: dict[str, float], probabilities: list[float], expected: list[float]
) -> None:
    np.testing.assert_allclose(np.exp(apply(name, logits_of(*probabilities), **numbers)[0]), expected, atol=1e-3)


# -- float64 versions, symbol by symbol --------------------------------------------------------
# Each returns a margin for each symbol: it stays where the margin is positive. One near 0 may be decided either way.


def _entropy(p: NDArray[np.float64]) -> float:
    return -sum(x * math.log(x) for x in p if x > 0)


def epsilon_margin(p: NDArray[np.float64], cutoff: float) -> list[float]:
    return [1.0 if x == p.max() else x - cutoff for x in p]


def eta_margin(p: NDArray[np.float64], cutoff: float) -> list[float]:
    return epsilon_margin(p, min(cutoff, math.sqrt(cutoff) * math.exp(-_entropy(p))))


def p_less_margin(p: NDArray[np.float64], switch: float) -> list[float]:
    return [x - (sum(y * y for y in p) - 1e-5) for x in p]


def top_n_sigma_margin(p: NDArray[np.float64], n: float) -> list[float]:
    logits = [math.log(x) for x in p if x > 0]
    cut = max(logits) - n * float(np.std(logits))
    return [math.log(x) - cut if x > 0 else -1.0 for x in p]


def top_h_margin(p: NDArray[np.float64], h: float) -> list[float]:
    margins, running = [0.0] * len(p), 0.0
    for rank, symbol in enumerate(sorted(range(len(p)), key=lambda s: (-p[s], s))):
        running += -p[symbol] * math.log(p[symbol]) if p[symbol] > 0 else 0.0
        margins[symbol] = 1.0 if rank == 0 else h * _entropy(p) - running
    return margins


def typical_margin(p: NDArray[np.float64], share: float) -> list[float]:
    margins, running, h = [-1.0] * len(p), 0.0, _entropy(p)
    # float32 may order two deviations the other way: such cases are left out through a margin of 0.
    deviations = sorted(abs(-math.log(x) - h) for x in p if x > 0)
    is_close = any(0 < after - before < 1e-4 for before, after in itertools.pairwise(deviations))
    order = sorted((s for s in range(len(p)) if p[s] > 0), key=lambda s: (abs(-math.log(p[s]) - h), s))
    for rank, symbol in enumerate(order):
        margins[symbol] = 0.0 if is_close else 1.0 if rank == 0 else share - running
        running += p[symbol]
    return margins


MASKS: dict[str, tuple[str, float, Callable[[NDArray[np.float64], float], list[float]]]] = {
    "epsilon": ("epsilon_cutoff", 0.99, epsilon_margin),
    "eta": ("eta_cutoff", 0.99, eta_margin),
    "p_less": ("p_less", 0, p_less_margin),
    "top_n_sigma": ("top_n_sigma", 3.0, top_n_sigma_margin),
    "top_h": ("top_h", 0.99, top_h_margin),
    "typical": ("typical_p", 0.99, typical_margin),
}
#: Logits [V]; several are equal, and some masked.
LOGITS = arrays(
    np.float32,
    V,
    elements=st.integers(-40, 40).map(lambda n: n / 8) | st.just(-math.inf),
).filter(lambda row: bool((row > -np.inf).any()))


@pytest.mark.parametrize("name", list(MASKS))
@settings(max_examples=150, deadline=None)
@given(LOGITS, st.floats(0.01, 1))
def test_masks_against_float64(name: str, logits: Floats, fraction: float) -> None:
    param, high, margin_of = MASKS[name]
    number = float(np.float32(high * fraction)) or 1
    margins = np.array(margin_of(softmax(logits), number))
    margins[logits == -np.inf] = -1
    assume((np.abs(margins) > 1e-5).all())
    after = apply(name, logits[None], **{param: number})[0]
    assert np.array_equal(after, np.where(margins > 0, logits, -np.inf).astype(np.float32))


@settings(max_examples=150, deadline=None)
@given(LOGITS, st.floats(0, 1), st.floats(0, 0.6), st.floats(0, 1, exclude_max=True))
def test_xtc_against_float64(logits: Floats, probability: float, threshold: float, noise: float) -> None:
    p = softmax(logits)
    assume(np.abs(p - threshold).min() > 1e-5 and abs(noise - probability) > 1e-5)
    tops = sorted((s for s in range(V) if p[s] >= threshold and logits[s] > -np.inf), key=lambda s: (-p[s], s))
    dropped = tops[:-1] if noise < probability and threshold <= 0.5 else []
    after = apply("xtc", logits[None], noise, xtc_probability=probability, xtc_threshold=threshold)[0]
    assert np.flatnonzero((after == -np.inf) & (logits > -np.inf)).tolist() == sorted(dropped)


@settings(max_examples=150, deadline=None)
@given(LOGITS, st.floats(0.1, 4), st.floats(0.1, 6), st.sampled_from([0, 0.5, 1, 3]))
def test_dynamic_temperature_against_float64(logits: Floats, t: float, spread: float, exponent: float) -> None:
    p, count = softmax(logits), int((logits > -np.inf).sum())
    if count > 1:
        low = max(0.0, t - spread)
        t_dynamic = low + (t + spread - low) * (_entropy(p) / math.log(count)) ** exponent
    else:
        t_dynamic = 1.0
    assume(t_dynamic > 0.05)  # the smaller it is, the more a rounding of the logits counts
    after = apply("temperature", logits[None], temperature=t, dynatemp_range=spread, dynatemp_exponent=exponent)
    wide = logits.astype(np.float64)
    np.testing.assert_allclose(softmax(after[0]), softmax((wide - wide.max()) / t_dynamic), atol=2e-5)


def test_dynamic_temperature_by_hand() -> None:
    # Two equal symbols have the greatest entropy, so the temperature is 1 + 0.5; one symbol alone stays as it is.
    logits = np.array([[3, 3, -np.inf], [1, -np.inf, -np.inf]], np.float32)
    numbers = {"temperature": 1.0, "dynatemp_range": 0.5, "dynatemp_exponent": 1.0}
    assert apply("temperature", logits, **numbers)[0].tolist() == [0, 0, -math.inf]
    assert apply("temperature", logits, **numbers)[1].tolist() == logits[1].tolist()
    # Temperature 0 with a range goes from 0 to the range, so it is no longer always the most probable symbol.
    after = apply("temperature", logits_of(0.5, 0.25, 0.25), temperature=0, dynatemp_range=1)
    relative_entropy = (0.5 * math.log(2) + 0.5 * math.log(4)) / math.log(3)
    np.testing.assert_allclose(
        after[0], [0, -math.log(2) / relative_entropy, -math.log(2) / relative_entropy], atol=1e-5
    )


def test_xtc_by_hand() -> None:
    logits = logits_of(0.3, 0.3, 0.3, 0.1)
    numbers = {"xtc_probability": 1.0, "xtc_threshold": 0.2}
    assert np.isinf(apply("xtc", logits, 0.999, **numbers)[0]).tolist() == [True, True, False, False]  # ties by index
    assert not np.isinf(apply("xtc", logits, 0.0, xtc_probability=1.0, xtc_threshold=0.51)).any()
    assert not np.isinf(apply("xtc", logits, 0.5, xtc_probability=0.5, xtc_threshold=0.2)).any()
    nothing = np.array([[1, -np.inf, -np.inf, -np.inf]], np.float32)
    assert np.array_equal(apply("xtc", nothing, 0.0, xtc_probability=1.0, xtc_threshold=0), nothing)


# -- links with tables ---------------------------------------------------------------------------


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
@pytest.mark.parametrize("vocab_size", [3, 13])
def test_links_pass_the_kit(name: str, vocab_size: int) -> None:
    cls = host().registry.get("strategy", name)
    check_strategy(cls, vocab_size=vocab_size)
    if name in OPTIONS:
        check_strategy(cls, cls.Config(**OPTIONS[name]), vocab_size=vocab_size)
    check_compiles(build_link(host().registry, name, vocab_size))


def test_names_of_parameters_are_unique() -> None:
    chain = build_chain(host().registry, [name for name in BUILTINS if name not in ("adaptive_p",)], V)
    names = [name for link in chain for name in [*link.strategy.params, *link.strategy.per_run]]
    assert len(set(names)) == len(names)


def test_all_stands_for_the_built_in_links_in_the_order_of_llama_cpp() -> None:
    chain = configured_chain(host().registry, {"links": ["all"]}, V)
    assert set(BUILTINS) - set(chain.names) == {name for name in BUILTINS if name not in chain.names}
    order = ["bias", "ban", "penalties", "top_n_sigma", "top_k", "typical", "top_p", "min_p", "xtc", "temperature"]
    assert [name for name in chain.names if name in order] == order
    assert chain.active(chain.param_arrays(1), {}).names == ["top_k"]
