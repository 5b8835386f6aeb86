"""Links that follow the text: mirostat and adaptive_p against float64 versions, and all of them compiled."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from compiled_model import CompiledModel, request, written
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference_figures import Steps, logits_of, softmax

from gentext.generation.compiled import generate_compiled
from gentext.sampling.chain import LinkArraysDict
from gentext.sampling.draw import draw_tokens
from gentext.stepping import generate_stepwise

V = 7


# -- adaptive_p -------------------------------------------------------------------------------


def adapted(probabilities: NDArray[np.float64], target: float) -> NDArray[np.float64]:
    """Return the logits of adaptive_p in float64, -inf where a probability is 0."""
    distance = np.abs(probabilities - target) / 0.3
    return np.where(probabilities > 0, 5 - 10 * distance**2 / (1 + distance), -np.inf)


def test_adaptive_p_by_hand() -> None:
    steps = Steps("adaptive_p", vocab_size=3, adaptive_target=0.5, adaptive_decay=0.5)
    # Without the masked symbol 5/8 and 3/8, at a distance of 5/12: 5 - 10 * (25/144) / (17/12) = 5 - 125/102.
    np.testing.assert_allclose(steps.apply(logits_of(0.5, 0.3, 0.0) + 2)[0], [3.774510, 3.774510, -np.inf], atol=1e-5)
    steps = Steps("adaptive_p", vocab_size=3, adaptive_target=0.5, adaptive_decay=0.5)
    # Distances 0, 2/3 and 1: 5, 5 - 10 * (4/9) / (5/3) and 5 - 10 / 2.
    np.testing.assert_allclose(steps.apply(logits_of(0.5, 0.3, 0.2))[0], [5, 2.333333, 0], atol=1e-5)
    # The sum 0.5 / (1 - 0.5) = 1 of the weight 2 becomes 0.2 + 0.5 of 2: a mean of 0.35, and a target of 0.65.
    steps.accept([2])
    expected = adapted(np.array([0.5, 0.3, 0.2]), 0.65)
    np.testing.assert_allclose(steps.apply(logits_of(0.5, 0.3, 0.2))[0], expected, atol=1e-5)


@examples(100)
@given(st.integers(0, 2**32), st.floats(0, 1), st.floats(0, 0.99))
def test_adaptive_p_follows_its_definition(seed: int, target: float, decay: float) -> None:
    rng = np.random.default_rng(seed)
    steps = Steps("adaptive_p", adaptive_target=target, adaptive_decay=decay)
    weighted_sum, total_weight = target / (1 - decay), 1 / (1 - decay)
    for position in range(12):
        logits = rng.normal(0, 2, (1, V)).astype(np.float32)
        logits[0, rng.random(V) < 0.3] = -np.inf
        logits[0, 0] = 0
        probabilities = softmax(logits)[0]
        expected = adapted(probabilities, min(max(2 * target - weighted_sum / total_weight, 0), 1))
        np.testing.assert_allclose(steps.apply(logits)[0], expected, atol=1e-3)
        token, is_new = int(rng.integers(0, V)), position % 3 > 0
        steps.accept([token], new=is_new)  # a token of the prime may be masked, and leaves the mean as it is
        if is_new:
            weighted_sum = probabilities[token] + decay * weighted_sum
            total_weight = 1 + decay * total_weight


# -- mirostat ---------------------------------------------------------------------------------


def count_of_version_1(probabilities: NDArray[np.float64], mu: float) -> float:
    """Return k before it is rounded, as the paper and llama.cpp define it, in float64."""
    ranked = np.sort(probabilities[probabilities > 0])[::-1][:100]
    if len(ranked) == 1:
        return 1
    ranks = np.arange(1, len(ranked))
    t, b = np.log((ranks + 1) / ranks), np.log(ranked[:-1] / ranked[1:])
    s = (t * b).sum() / (t * t).sum()
    with np.errstate(over="ignore"):  # of nearly equal probabilities it keeps infinitely many
        return min(float(((s - 1) * 2**mu / (1 - len(probabilities) ** (1 - s))) ** (1 / s)), len(probabilities) + 1)


def test_mirostat_by_hand() -> None:
    steps = Steps("mirostat", vocab_size=4, mirostat=2, mirostat_tau=1, mirostat_eta=0.5)
    # Surprises of 1, 1.7, 3.3 and 3.3 bits; mu is 2 at first.
    logits = logits_of(0.5, 0.3, 0.1, 0.1)
    assert np.isfinite(steps.apply(logits))[0].tolist() == [True, True, False, False]
    steps.accept([3], new=False)
    assert steps.state["mirostat"]["mu"][0, 0] == 2, "the prime is not counted"
    steps.apply(logits)
    steps.accept([1])
    # Among the symbols that are left, of 5/8 and 3/8, its surprise is log2(8/3) bits.
    np.testing.assert_allclose(steps.state["mirostat"]["mu"], [[2 - 0.5 * (math.log2(8 / 3) - 1)]], atol=1e-6)
    steps.state["mirostat"]["mu"][:] = -1
    assert np.isfinite(steps.apply(logits_of(0.2, 0.4, 0.4, 0)))[0].tolist() == [False, True, False, False]

    # Probabilities as 1/r**2: s = 2, so k = sqrt(2**mu / (1 - 1/4)); of two symbols t and b have one element.
    steps = Steps("mirostat", vocab_size=4, mirostat=1, mirostat_tau=1.2)
    assert np.isfinite(steps.apply(logits_of(1 / 16, 1 / 9, 1 / 4, 1)))[0].tolist() == [False, False, True, True]
    assert math.floor(math.sqrt(2**2.4 / 0.75)) == 2
    steps = Steps("mirostat", vocab_size=4, mirostat=1, mirostat_tau=20)
    assert np.isfinite(steps.apply(logits_of(0, 0.5, 0, 0.5)))[0].tolist() == [False, True, False, True]


@examples(200)
@given(
    st.integers(0, 2**32), st.sampled_from([1, 2]), st.sampled_from([3, 83, 130]), st.floats(0, 8), st.floats(0.01, 8)
)
def test_mirostat_follows_its_definition(seed: int, version: int, vocab_size: int, tau: float, spread: float) -> None:
    rng = np.random.default_rng(seed)
    steps = Steps("mirostat", vocab_size=vocab_size, mirostat=version, mirostat_tau=tau, mirostat_eta=0.3)
    mu = 2 * tau
    for _ in range(5):
        logits = rng.normal(0, spread, (1, vocab_size)).astype(np.float32)
        logits[0, 1:][rng.random(vocab_size - 1) < 0.3] = -np.inf
        probabilities = softmax(logits)[0]
        kept = np.isfinite(steps.apply(logits)[0])
        order = np.argsort(-probabilities, kind="stable")
        if version == 1:
            count = count_of_version_1(probabilities, mu)
            nearest = round(count)
            counts = {math.floor(count)} | ({nearest - 1, nearest} if abs(count - nearest) < 1e-3 * count else set())
            possible = [
                set(order[: min(max(k, 1), vocab_size)].tolist()) & set(np.flatnonzero(probabilities > 0).tolist())
                for k in counts
            ]
        else:
            with np.errstate(divide="ignore"):
                surprise = -np.log2(probabilities)
            possible = [
                set(np.flatnonzero(surprise <= mu + edge).tolist()) | {int(order[0])} for edge in (-1e-4, 0, 1e-4)
            ]
        assert set(np.flatnonzero(kept).tolist()) in possible
        token = int(rng.choice(np.flatnonzero(kept)))
        steps.accept([token])
        mu -= 0.3 * (-math.log2(probabilities[token] / probabilities[kept].sum()) - tau)
        np.testing.assert_allclose(steps.state["mirostat"]["mu"], [[mu]], atol=1e-3)


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_comes_near_its_target(version: int) -> None:
    """With the draws of the chain, the mean surprise of a text of a fixed distribution is near tau."""
    rng = np.random.default_rng(0)
    logits = logits_of(*1 / np.arange(1, 84) ** 1.1)
    rows = np.repeat(logits, 64, axis=0)
    steps = Steps("mirostat", rows=64, vocab_size=83, mirostat=version, mirostat_tau=2.5)
    surprises = []
    for _ in range(300):
        out = steps.apply(rows)
        tokens = draw_tokens(out, rng.random((64, 1), np.float32))[0]
        steps.accept(tokens.tolist())
        surprises.append([-math.log2(softmax(out[row : row + 1])[0, token]) for row, token in enumerate(tokens)])
    assert abs(np.mean(surprises[100:]) - 2.5) < 0.1


def test_rows_may_follow_different_versions() -> None:
    logits = np.random.default_rng(1).normal(0, 2, (3, 20)).astype(np.float32)
    steps = Steps("mirostat", rows=3, vocab_size=20, mirostat_tau=1)
    steps.params["mirostat"]["mirostat"] = np.array([[0], [1], [2]])
    out = steps.apply(logits)
    assert np.array_equal(out[0], logits[0])
    for row, version in ((1, 1), (2, 2)):
        alone = Steps("mirostat", vocab_size=20, mirostat=version, mirostat_tau=1)
        assert np.array_equal(alone.apply(logits[row : row + 1])[0], out[row])


# -- every symbol masked, and compiled --------------------------------------------------------


@pytest.mark.parametrize("name", ["dry", "no_repeat_ngram", "adaptive_p", "mirostat"])
def test_nothing_to_choose_from_leaves_the_state_whole(name: str) -> None:
    numbers = {
        "dry": {"dry_multiplier": 1.0, "dry_allowed_length": 1},
        "no_repeat_ngram": {"no_repeat_ngram_size": 2},
        "adaptive_p": {"adaptive_target": 0.5},
        "mirostat": {"mirostat": 1.0},
    }
    steps = Steps(name, **numbers[name])
    steps.read([1, 2, 1])
    assert np.isneginf(steps.apply(np.full((1, V), -np.inf, np.float32))).all()
    steps.accept([0])
    assert np.isfinite(steps.apply(np.zeros((1, V), np.float32))).any()
    assert all(np.isfinite(array).all() for array in steps.state[name].values())


@pytest.mark.parametrize(
    "names",
    [
        ("dry",),
        ("no_repeat_ngram",),
        ("adaptive_p",),
        ("mirostat",),
        ("dry", "no_repeat_ngram", "top_k", "temperature", "mirostat"),
        ("no_repeat_ngram", "min_p", "adaptive_p"),
    ],
)
def test_compiled_writes_what_numpy_writes(compiled_model: CompiledModel, names: tuple[str, ...]) -> None:
    chain = compiled_model.chain(*names)
    opened = compiled_model.open(chain)
    rows = 8
    tables: LinkArraysDict = {name: {} for name in names}
    if "dry" in names:
        is_space = np.array([b" " in symbol for symbol in opened.bundle.token_bytes])
        tables["dry"] = {"breakers": is_space}
    sampling = dataclasses.replace(request(chain, rows, 150), tables=tables)
    compiled_rows = written(generate_compiled(opened.session, opened.bundle, sampling), rows)
    stepped_rows = written(generate_stepwise(opened, opened.bundle, sampling), rows)
    assert compiled_rows[:2] == stepped_rows[:2]
    if "no_repeat_ngram" in names or "dry" in names:
        free = dataclasses.replace(sampling, params=chain.param_arrays(rows))
        assert written(generate_compiled(opened.session, opened.bundle, free), rows)[0] != compiled_rows[0]


@pytest.mark.parametrize("numbers", [{}, {"top_k": {"top_k": 3}}, {"mirostat": {"mirostat": 2}}])
def test_each_loop_writes_what_numpy_writes(
    compiled_model: CompiledModel, numbers: dict[str, dict[str, float]]
) -> None:
    """A file with many links has a loop for the defaults, one for the usual links, and one for all."""
    chain = compiled_model.chain("penalties", "no_repeat_ngram", "top_n_sigma", "top_k", "temperature", "mirostat")
    opened = compiled_model.open(chain)
    sampling = dataclasses.replace(request(chain, 4, 80), params=chain.param_arrays(4, numbers))
    compiled_rows = written(generate_compiled(opened.session, opened.bundle, sampling), 4)
    assert compiled_rows[:2] == written(generate_stepwise(opened, opened.bundle, sampling), 4)[:2]
