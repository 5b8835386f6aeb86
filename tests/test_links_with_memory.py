"""Links that remember the text: dry, no_repeat_ngram, adaptive_p and mirostat, against their references.

Figures come from ggml-org/llama.cpp, tests/test-sampling.cpp (tolerance 1e-5), and huggingface/transformers,
tests/generation/test_logits_process.py. Where these have none, a plain float64 version of the definition is here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from compiled_model import CompiledModel, request, written
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gentext.chain import Chain, LinkArrays, LinkArraysDict, build_chain
from gentext.compiled import generate_compiled
from gentext.draw import draw_tokens
from gentext.errors import ConfigError
from gentext.manager import host
from gentext.plugins.tokenizers.byte import ByteTokenizer
from gentext.plugins.tokenizers.char import CharTokenizer
from gentext.stepping import generate_stepwise
from gentext.testing import check_strategy

V = 7
TOKENS = st.lists(st.integers(0, 2), max_size=40)


class Steps:
    """One link, run position by position on rows that are all alike or differ in their parameters."""

    def __init__(
        self, name: str, rows: int = 1, options: dict[str, Any] | None = None, vocab_size: int = V, **numbers: float
    ) -> None:
        self.name = name
        self.chain: Chain = build_chain(host().registry, [name], vocab_size, {name: options or {}})
        self.params: LinkArraysDict = self.chain.param_arrays(rows, {name: numbers})
        self.state: LinkArraysDict = self.chain.initial_state(rows, self.params)
        self.tables: LinkArrays = {name: {}}
        if self.chain.links[0].strategy.tables:
            self.tables = {name: {"breakers": np.zeros(vocab_size, np.bool_)}}

    def apply(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        out, self.state, self.outputs = self.chain.apply(logits, self.params, self.state, {}, self.tables)
        return out

    def accept(self, tokens: Sequence[int], new: bool = True) -> None:
        is_new = np.full((len(tokens), 1), new)
        self.state = self.chain.accept(np.array(tokens), self.outputs, self.params, self.state, self.tables, is_new)

    def read(self, tokens: Sequence[int]) -> None:
        """Read a prime in one row."""
        for token in tokens:
            self.apply(np.zeros((1, self.chain.links[0].strategy.vocab_size), np.float32))
            self.accept([token], new=False)


def log(probabilities: Sequence[float]) -> NDArray[np.float32]:
    with np.errstate(divide="ignore"):
        return np.log(np.array([probabilities], np.float32))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()


@pytest.mark.parametrize("vocab_size", [2, 13])
@pytest.mark.parametrize("name", ["dry", "no_repeat_ngram", "adaptive_p", "mirostat"])
def test_links_pass_the_kit(name: str, vocab_size: int) -> None:
    cls = host().registry.get("strategy", name)
    check_strategy(cls, vocab_size=vocab_size)
    if name in ("dry", "no_repeat_ngram"):
        check_strategy(cls, cls.Config(window=3), vocab_size=vocab_size)


# -- dry --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "tokens", "expected", "multiplier", "allowed_length", "window", "breakers"),
    [
        (4, [0, 1], [0.25, 0.25, 0.25, 0.25], 1.0, 2, 4, []),
        (4, [0, 1, 2, 0, 1], [0.296923, 0.296923, 0.109232, 0.296923], 1.0, 2, 5, []),
        (5, [0, 1, 3, 4, 0, 1], [0.2, 0.2, 0.2, 0.2, 0.2], 1.0, 2, 6, [3]),
        (5, [0, 1, 2, 0, 1], [0.241818, 0.241818, 0.032727, 0.241818, 0.241818], 2.0, 2, 5, []),
        (5, [0, 1, 2, 3, 4, 0, 1], [0.2, 0.2, 0.2, 0.2, 0.2], 1.0, 4, 7, []),
    ],
)
def test_dry_gives_the_figures_of_llama_cpp(
    count: int,
    tokens: list[int],
    expected: list[float],
    multiplier: float,
    allowed_length: int,
    window: int,
    breakers: list[int],
) -> None:
    numbers = {"dry_multiplier": multiplier, "dry_base": 1.1, "dry_allowed_length": allowed_length}
    steps = Steps("dry", options={"window": window}, vocab_size=count, **numbers)
    steps.tables["dry"]["breakers"][breakers] = True
    steps.read(tokens)
    np.testing.assert_allclose(softmax(steps.apply(log([1 / count] * count)))[0], expected, atol=1e-5)


def match_before(text: Sequence[int], index: int, breakers: Sequence[int] = ()) -> int:
    """Return how many symbols directly before an index equal the last symbols of a text."""
    length = 0
    while length < index and text[index - 1 - length] == text[-1 - length] and text[-1 - length] not in breakers:
        length += 1
    return length


@settings(max_examples=200, deadline=None)
@given(TOKENS, st.integers(1, 4), st.integers(1, 12), st.sampled_from([(), (0,), (1, 2)]))
def test_dry_penalises_like_a_search_of_the_window(
    tokens: list[int], allowed_length: int, window: int, breakers: tuple[int, ...]
) -> None:
    numbers = {"dry_multiplier": 0.5, "dry_base": 1.5, "dry_allowed_length": allowed_length}
    steps = Steps("dry", options={"window": window}, **numbers)
    steps.tables["dry"]["breakers"][list(breakers)] = True
    steps.read(tokens)
    text = tokens[-window:]
    expected = np.zeros(V)
    for index, symbol in enumerate(text):
        length = match_before(text, index, breakers)
        if length >= allowed_length and symbol not in breakers:
            expected[symbol] = min(expected[symbol], -0.5 * 1.5 ** (length - allowed_length))
    np.testing.assert_allclose(steps.apply(np.zeros((1, V), np.float32))[0], expected, rtol=1e-5)


def test_a_penalty_of_dry_never_masks() -> None:
    steps = Steps("dry", dry_multiplier=100, dry_base=100, dry_allowed_length=1)
    steps.read([1] * 100)
    out = steps.apply(log([0, 0.5, 0.25, 0.25, 0, 0, 0]))
    assert out[0, 1] < -1e37 and np.isfinite(out[0, 1])
    assert np.array_equal(np.isfinite(out), [[False, True, True, True, False, False, False]])


def test_breakers_are_characters_within_symbols() -> None:
    def breakers(tokenizer: Any, **options: str) -> list[int]:
        chain = build_chain(host().registry, ["dry"], tokenizer.vocab_size, {"dry": options})
        return np.flatnonzero(chain.table_arrays(tokenizer)["dry"]["breakers"]).tolist()

    letters = CharTokenizer("\n:abn\u00e9", with_unknown=True)
    assert breakers(letters) == [0, 1], "the default has characters that this model does not know"
    assert breakers(letters, dry_sequence_breakers="a\u00e9") == [2, 5]
    assert breakers(letters, dry_sequence_breakers=r"\n") == [0], "an escape, and not a backslash and n"
    assert breakers(letters, dry_sequence_breakers="") == []
    assert breakers(ByteTokenizer(), dry_sequence_breakers=";") == [ord(";")]
    with pytest.raises(ConfigError, match="dry_sequence_breakers has '\u00e9', which the tokenizer writes as several"):
        breakers(ByteTokenizer(), dry_sequence_breakers="\u00e9")


# -- no_repeat_ngram --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "tokens", "banned"),
    [
        (2, [1, 1, 2, 1], [1, 2]),
        (2, [0, 1, 0, 1], [0]),
        (3, [1, 1, 2, 1], []),
        (3, [0, 1, 0, 1], [0]),
        (3, [1, 2, 5, 7, 8, 5, 1, 2], [5]),
        (3, [1, 2], []),
        (1, [3, 4], [3, 4]),
    ],
)
def test_no_repeat_ngram_bans_what_transformers_bans(size: int, tokens: list[int], banned: list[int]) -> None:
    steps = Steps("no_repeat_ngram", vocab_size=10, no_repeat_ngram_size=size)
    steps.read(tokens)
    assert np.flatnonzero(np.isinf(steps.apply(np.ones((1, 10), np.float32))[0])).tolist() == banned


@settings(max_examples=200, deadline=None)
@given(TOKENS, st.integers(1, 4), st.integers(4, 12), st.sets(st.integers(0, V - 1), min_size=1))
def test_no_repeat_ngram_bans_like_a_search_of_the_window(
    tokens: list[int], size: int, window: int, unmasked: set[int]
) -> None:
    steps = Steps("no_repeat_ngram", options={"window": window}, no_repeat_ngram_size=size)
    steps.read(tokens)
    text = tuple(tokens[-window:])
    ngrams = {text[index : index + size] for index in range(len(text) - size + 1)}
    allowed = {symbol for symbol in unmasked if (*text[len(text) - size + 1 :], symbol) not in ngrams}
    logits = np.full((1, V), -np.inf, np.float32)
    logits[0, list(unmasked)] = 1
    out = steps.apply(logits)
    assert set(np.flatnonzero(np.isfinite(out[0])).tolist()) == (allowed or unmasked)


def test_an_ngram_must_fit_into_the_window() -> None:
    with pytest.raises(ConfigError, match=r"no_repeat_ngram_size = 9: expected a whole number from 0 up to 8"):
        Steps("no_repeat_ngram", options={"window": 8}, no_repeat_ngram_size=9)


# -- adaptive_p -------------------------------------------------------------------------------


def adapted(probabilities: NDArray[np.float64], target: float) -> NDArray[np.float64]:
    """Return the logits of adaptive_p in float64, -inf where a probability is 0."""
    distance = np.abs(probabilities - target) / 0.3
    return np.where(probabilities > 0, 5 - 10 * distance**2 / (1 + distance), -np.inf)


def test_adaptive_p_by_hand() -> None:
    steps = Steps("adaptive_p", vocab_size=3, adaptive_target=0.5, adaptive_decay=0.5)
    # Without the masked symbol 5/8 and 3/8, at a distance of 5/12: 5 - 10 * (25/144) / (17/12) = 5 - 125/102.
    np.testing.assert_allclose(steps.apply(log([0.5, 0.3, 0.0]) + 2)[0], [3.774510, 3.774510, -np.inf], atol=1e-5)
    steps = Steps("adaptive_p", vocab_size=3, adaptive_target=0.5, adaptive_decay=0.5)
    # Distances 0, 2/3 and 1: 5, 5 - 10 * (4/9) / (5/3) and 5 - 10 / 2.
    np.testing.assert_allclose(steps.apply(log([0.5, 0.3, 0.2]))[0], [5, 2.333333, 0], atol=1e-5)
    # The sum 0.5 / (1 - 0.5) = 1 of the weight 2 becomes 0.2 + 0.5 of 2: a mean of 0.35, and a target of 0.65.
    steps.accept([2])
    expected = adapted(np.array([0.5, 0.3, 0.2]), 0.65)
    np.testing.assert_allclose(steps.apply(log([0.5, 0.3, 0.2]))[0], expected, atol=1e-5)


@settings(max_examples=100, deadline=None)
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
    # Surprises of 1, 2, 3 and 3 bits; mu is 2 at first.
    logits = log([0.5, 0.25, 0.125, 0.125])
    assert np.isfinite(steps.apply(logits))[0].tolist() == [True, True, False, False]
    steps.accept([3], new=False)
    assert steps.state["mirostat"]["mu"][0, 0] == 2, "the prime is not counted"
    steps.apply(logits)
    steps.accept([1])
    # Among the symbols that are left, of 2/3 and 1/3, its surprise is log2(3) bits.
    np.testing.assert_allclose(steps.state["mirostat"]["mu"], [[2 - 0.5 * (math.log2(3) - 1)]], atol=1e-6)
    steps.state["mirostat"]["mu"][:] = -1
    assert np.isfinite(steps.apply(log([0.2, 0.4, 0.4, 0])))[0].tolist() == [False, True, False, False]

    # Probabilities as 1/r**2: s = 2, so k = sqrt(2**mu / (1 - 1/4)); of two symbols t and b have one element.
    steps = Steps("mirostat", vocab_size=4, mirostat=1, mirostat_tau=1.2)
    assert np.isfinite(steps.apply(log([1 / 16, 1 / 9, 1 / 4, 1])))[0].tolist() == [False, False, True, True]
    assert math.floor(math.sqrt(2**2.4 / 0.75)) == 2
    steps = Steps("mirostat", vocab_size=4, mirostat=1, mirostat_tau=20)
    assert np.isfinite(steps.apply(log([0, 0.5, 0, 0.5])))[0].tolist() == [False, True, False, True]


@settings(max_examples=200, deadline=None)
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
    logits = log(1 / np.arange(1, 84) ** 1.1)
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
