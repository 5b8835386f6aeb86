"""The sampling chain against plain references: each built-in link, their order, and the draw."""

from __future__ import annotations

import collections
import math
from typing import Any, ClassVar

import array_api_strict
import numpy as np
import pytest
from helpers import examples
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from gentext import stepping
from gentext.config import NoConfig
from gentext.errors import ConfigError
from gentext.manager import host
from gentext.noise import uniforms
from gentext.plugins.strategies.top_k import TopK
from gentext.sampling.chain import DEFAULT_CHAIN, Chain, Link, build_chain, build_link
from gentext.sampling.draw import draw_tokens
from gentext.strategy import Param, Strategy, Table, largest_per_symbol
from gentext.testing import check_strategy

V = 11
BUILTINS = ("top_k", "top_p", "min_p", "temperature", "penalties")
NUMBERS = (
    st.floats(-20, 20, width=32, allow_subnormal=False)
    | st.sampled_from([0.0, -0.0, 1.0, -1.0, 3.0])
    | st.just(-math.inf)
)
#: Logits [1, V] with at least one symbol that is not masked; ties are frequent.
LOGITS = arrays(np.float32, (1, V), elements=NUMBERS).filter(lambda row: bool(np.isfinite(row).any()))


def run(name: str, logits: NDArray[np.float32], **values: float) -> NDArray[np.float32]:
    """Apply one link to logits [N, V] and return what it gives."""
    chain = build_chain(host().registry, [name], logits.shape[1])
    params = chain.param_arrays(len(logits), {name: values})
    return chain.apply(logits, params, chain.initial_state(len(logits), params), {}, chain.table_arrays(None))[0]


def unmasked(logits: NDArray[np.float32]) -> list[int]:
    return np.flatnonzero(logits[0] > -np.inf).tolist()


def ranked(logits: NDArray[np.float32]) -> list[int]:
    """Unmasked symbols, the most probable first, ties by index."""
    return [
        symbol
        for symbol in sorted(range(V), key=lambda symbol: (-logits[0, symbol], symbol))
        if logits[0, symbol] > -np.inf
    ]


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = np.exp(logits.astype(np.float64) - logits.max())
    return wide / wide.sum()


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in BUILTINS), ("penalties", {"window": 1}), ("penalties", {"window": 7})],
)
@pytest.mark.parametrize("vocab_size", [2, 13])
def test_builtins_pass_the_kit(name: str, options: dict[str, Any], vocab_size: int) -> None:
    cls = host().registry.get("strategy", name)
    check_strategy(cls, cls.Config(**options), vocab_size=vocab_size)


@examples(100)
@given(LOGITS, st.integers(1, V + 2))
def test_top_k_keeps_exactly_k(logits: NDArray[np.float32], k: int) -> None:
    out = run("top_k", logits, top_k=k)
    assert unmasked(out) == sorted(ranked(logits)[:k])
    assert np.array_equal(out[0, unmasked(out)], logits[0, unmasked(out)])


@examples(100)
@given(LOGITS, st.floats(0, 1, width=32, exclude_max=True, allow_subnormal=False))
def test_top_p_keeps_the_nucleus(logits: NDArray[np.float32], p: float) -> None:
    order = ranked(logits)
    running = np.cumsum(probabilities(logits)[0, order])
    assume(np.abs(running - p).min() > 1e-5)  # float32 may decide the other way on the edge
    nucleus = order[: max(1, int(np.searchsorted(running, p)) + 1)]
    out = run("top_p", logits, top_p=p)
    assert unmasked(out) == sorted(nucleus)
    assert np.array_equal(out[0, nucleus], logits[0, nucleus])


@examples(100)
@given(LOGITS, st.floats(0, 1, width=32, allow_subnormal=False))
def test_min_p_keeps_what_is_probable_enough(logits: NDArray[np.float32], p: float) -> None:
    logits = np.round(logits, 3)  # the reference cannot tell logits apart whose ratio rounds to 1
    ratio = probabilities(logits)[0] / probabilities(logits).max()
    assume((np.abs(ratio - p) > 1e-5 * p).all() or p in (0, 1))
    assert unmasked(run("min_p", logits, min_p=p)) == [
        symbol for symbol in ranked_by_index(logits) if ratio[symbol] >= p
    ]


def ranked_by_index(logits: NDArray[np.float32]) -> list[int]:
    return sorted(ranked(logits))


@examples(100)
@given(LOGITS, st.floats(2.0**-126, 1e6, width=32, allow_subnormal=False))
def test_temperature_divides_and_never_gives_nan(logits: NDArray[np.float32], t: float) -> None:
    assert unmasked(run("temperature", logits, temperature=0)) == [ranked(logits)[0]]
    out = run("temperature", logits, temperature=t)
    assert not np.isnan(out).any()
    wide = logits.astype(np.float64)
    expected = np.exp((wide - wide.max()) / t)
    assert np.allclose(probabilities(out), expected / expected.sum(), atol=1e-5)


@examples(100)
@given(LOGITS)
def test_neutral_values_change_no_bit(logits: NDArray[np.float32]) -> None:
    everything = build_chain(host().registry, BUILTINS, V)
    neutral = {link.name: {name: param.neutral for name, param in link.strategy.params.items()} for link in everything}
    params = everything.param_arrays(1, neutral)
    states = everything.initial_state(1, params)
    token = np.array([3])
    states = everything.accept(token, dict.fromkeys(BUILTINS, logits), params, states, {}, np.ones((1, 1), bool))
    out = everything.apply(logits, params, states, {}, {})[0]
    assert np.array_equal(out.view(np.int32), logits.view(np.int32))
    assert everything.active(params, {}).names == []


@examples(50)
@given(st.lists(st.integers(0, V - 1), max_size=30), st.integers(1, 9), st.lists(st.integers(-2, 2), min_size=3))
def test_penalties_count_like_a_naive_recount(tokens: list[int], window: int, steps: list[int]) -> None:
    repeat, frequency, presence = 2.0 ** steps[0], steps[1] / 2, steps[2] / 4  # exact in float32
    chain = build_chain(host().registry, ["penalties"], V, {"penalties": {"window": window}})
    values = {"repeat_penalty": repeat, "frequency_penalty": frequency, "presence_penalty": presence}
    params = chain.param_arrays(1, {"penalties": values})
    states = chain.initial_state(1, params)
    logits = np.linspace(-4, 6, V, dtype=np.float32)[None]
    for end in range(len(tokens) + 1):
        counts = collections.Counter(tokens[max(0, end - window) : end])
        expected = logits.copy()
        for symbol, count in counts.items():
            logit = logits[0, symbol]
            expected[0, symbol] = (logit / repeat if logit > 0 else logit * repeat) - count * frequency - presence
        out, states, outputs = chain.apply(logits, params, states, {}, {})
        assert np.allclose(out, expected, atol=1e-6)
        if end < len(tokens):
            new = np.array([[end % 2 == 0]])  # the prime's symbols count as well
            states = chain.accept(np.array([tokens[end]]), outputs, params, states, {}, new)


# -- building a chain -------------------------------------------------------------------------


def test_links_are_inserted_at_their_place() -> None:
    registry = host().registry
    chain = build_chain(registry, DEFAULT_CHAIN, V)
    assert chain.with_link(build_link(registry, "penalties", V)).names == ["match", "penalties", *DEFAULT_CHAIN[1:]]
    bare = build_chain(registry, ["temperature"], V)
    assert bare.with_link(build_link(registry, "min_p", V)).names == ["min_p", "temperature"]
    upside_down = build_chain(registry, ["temperature", "top_k"], V)
    assert upside_down.with_link(build_link(registry, "penalties", V)).names == ["penalties", "temperature", "top_k"]
    assert Chain([]).with_link(build_link(registry, "top_k", V)).names == ["top_k"]


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["top_k", "top_k"], {}, "names 'top_k' twice"),
        (["top_k"], {"top_p": {}}, r"options for chain\.top_p, but the chain is top_k"),
        (["top_k"], {"top_k": {"top_k": True}}, r"chain\.top_k\.top_k = True: expected a number"),
        (["top_k"], {"top_k": {"top_k": 2.5}}, r"top_k\.top_k = 2\.5: expected a whole number from 0"),
        (["top_p"], {"top_p": {"top_p": 1.5}}, r"top_p = 1\.5: expected a number from 0 up to 1"),
        (["top_p"], {"top_p": {"top_p": math.nan}}, "top_p = nan: expected a number"),
        (["penalties"], {"penalties": {"repeat_penalty": 0}}, "repeat_penalty = 0: expected a number from 0.01"),
        (["penalties"], {"penalties": {"windou": 3}}, r"chain\.penalties\.windou\. Did you mean 'window'\?"),
    ],
)
def test_impossible_chains_are_refused(names: list[str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_chain(host().registry, names, V, options)


def test_default_chain_samples_as_the_notebook() -> None:
    chain = build_chain(host().registry, DEFAULT_CHAIN, V)
    assert chain.active(chain.param_arrays(2), {}).names == ["temperature"]
    assert chain.param_arrays(2, {"top_k": {"top_k": 5}})["top_k"]["top_k"].tolist() == [[5], [5]]


class Scaled(Strategy):
    """Stands last, and is off where its switch is neutral, although its other parameter never is."""

    params: ClassVar[dict[str, Param]] = {
        "amount": Param(0.0, "how much", low=0, high=1),
        "base": Param(1.0, "of what", low=1, high=3, default=2.0),
    }
    switch = "amount"
    place = "last"

    def apply(self, xp: Any, logits: Any, params: Any, state: Any, noise: Any, tables: Any) -> Any:
        return logits * params["base"] ** -params["amount"], state


class Shifted(Strategy):
    """Has tables alone."""

    tables: ClassVar[dict[str, Table]] = {"shift": Table((V,), "float32", 0.0)}

    def apply(self, xp: Any, logits: Any, params: Any, state: Any, noise: Any, tables: Any) -> Any:
        return logits + tables["shift"][None, :], state


def link(cls: type[Strategy], name: str) -> Link:
    strategy = cls(NoConfig(), V)
    return Link(name, strategy, {param: spec.initial for param, spec in strategy.params.items()})


def test_one_switch_or_all_tables_turn_a_link_off() -> None:
    chain = Chain([link(Shifted, "shifted"), link(Scaled, "scaled")])
    params = chain.param_arrays(3)
    assert chain.active(params, {}).names == []
    assert chain.active(params, {"shifted": {"shift": np.zeros(V, np.float32)}}).names == []
    assert chain.active(params, {"shifted": {"shift": np.eye(V, dtype=np.float32)[2]}}).names == ["shifted"]
    params["scaled"]["amount"][1] = 0.5
    assert chain.active(params, {}).names == ["scaled"]


def test_at_most_one_link_stands_last() -> None:
    chain = build_chain(host().registry, ["temperature"], V).with_link(link(Scaled, "scaled"))
    assert chain.with_link(link(TopK, "top_k")).names == ["top_k", "temperature", "scaled"]
    with pytest.raises(
        ConfigError, match="the links scaled and second must both stand last in the chain; leave one out"
    ):
        chain.with_link(link(Scaled, "second"))


@examples(50)
@given(arrays(np.float32, (3, 7), elements=NUMBERS), arrays(np.int64, (3, 7), elements=st.integers(-2, V + 1)))
def test_largest_per_symbol(values: NDArray[np.float32], symbols: NDArray[np.int64]) -> None:
    largest = largest_per_symbol(np, values, symbols, V, -1.5)
    strict = array_api_strict
    in_strict = largest_per_symbol(strict, strict.asarray(values), strict.asarray(symbols), V, -1.5)
    assert np.array_equal(np.asarray(in_strict), largest)
    assert largest.dtype == np.float32
    for row in range(3):
        for symbol in range(V):
            assert largest[row, symbol] == max([-1.5, *values[row, symbols[row] == symbol]])


# -- the draw ---------------------------------------------------------------------------------


def test_draw_follows_the_probabilities() -> None:
    count = 200_000
    logits = np.array([0.5, -2, 1, -np.inf, 0, -1, 2.5, -0.3], np.float32)
    expected = probabilities(logits[None])[0] * count
    tokens, masked = draw_tokens(np.tile(logits, (count, 1)), uniforms(11, 0, "draw", 0, count))
    counts = np.bincount(tokens, minlength=len(logits))
    assert not masked.any()
    assert counts[3] == 0
    possible = expected > 0
    statistic = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    assert statistic < 22.46  # the 0.999 quantile of chi-square with 6 degrees of freedom


@examples(100)
@given(LOGITS, st.floats(0, 1 - 2.0**-24, width=32, allow_subnormal=False))
def test_draw_never_takes_a_masked_symbol(logits: NDArray[np.float32], u: float) -> None:
    possible = [symbol for symbol in ranked_by_index(logits) if np.exp(logits[0, symbol] - logits.max()) > 0]
    for number in (0.0, 1 - 2.0**-24, u):
        tokens, masked = draw_tokens(logits, np.array([[number]], np.float32))
        assert tokens[0] in possible
        assert not masked[0]
    assert draw_tokens(logits, np.zeros((1, 1), np.float32))[0][0] == possible[0]


def test_draw_at_the_ends_and_of_nothing() -> None:
    logits = np.full((3, 4), -np.inf, np.float32)
    logits[0, 1:3] = [30, 1]  # symbol 2 has a share far below 2**-24, so u = 1 - 2**-24 draws symbol 1
    logits[1, 3] = 0
    tokens, masked = draw_tokens(logits, np.full((3, 1), 1 - 2.0**-24, np.float32))
    assert tokens[:2].tolist() == [1, 3]
    assert masked.tolist() == [False, False, True]


def test_rows_of_a_batch_are_rows_alone() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (64, 60)).astype(np.float32)
    chain = build_chain(host().registry, BUILTINS, 60)
    values = {"top_p": {"top_p": 0.8}, "min_p": {"min_p": 0.01}, "temperature": {"temperature": 0.7}}
    u = uniforms(5, 0, "draw", 0, 64)

    def choose(rows: slice) -> NDArray[np.int64]:
        params = chain.param_arrays(len(logits[rows]), values)
        states = chain.initial_state(len(logits[rows]), params)
        return draw_tokens(chain.apply(logits[rows], params, states, {}, {})[0], u[rows])[0]

    alone = [int(choose(slice(row, row + 1))[0]) for row in range(64)]
    assert choose(slice(None)).tolist() == alone
    assert choose(slice(7, 30)).tolist() == alone[7:30]


def test_logprob_of_a_row_without_choice() -> None:
    logits = np.array([[-np.inf, -np.inf], [0.0, -np.inf]], np.float32)
    logprobs = stepping._log_probabilities(logits, np.array([[0], [0]]), np.array([False, True]))[:, 0]
    assert np.isnan(logprobs[0]) and logprobs[1] == 0.0
