"""What records are measured with, kneser_ney.py and gaussians.py, on cases by hand and by properties."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

sys.path[:0] = [str(Path(__file__).parents[2] / folder) for folder in ("benchmarks", "research")]
gaussians = importlib.import_module("gaussians")
kneser_ney = importlib.import_module("kneser_ney")

RECORDS = st.lists(st.text("abcdé", max_size=6), min_size=1, max_size=40)


@example([""], ["aaaaaa"], 8)  # no record of the training is so long
@given(RECORDS, RECORDS, st.integers(1, 8))
def test_the_probabilities_of_all_symbols_sum_to_1_at_every_position(
    training: list[str], records: list[str], order: int
) -> None:
    model = kneser_ney.KneserNey([*training, "abcdé"], order)
    distributions = model.distributions(model.windows(records))
    assert distributions.min() > 0
    assert distributions.sum(axis=1) == pytest.approx(np.ones(len(distributions)), abs=1e-12)


def test_a_model_of_two_records_by_hand() -> None:
    """Bigrams: ^a twice, a$, ab and b$ once. Symbols before a: ^; before b: a; before $: a and b."""
    model = kneser_ney.KneserNey(["a", "ab"], 2)
    a = b = (1 - 0.5) / 4 + (0.5 + 0.5 + 1) / 4 / 3
    end = (2 - 1) / 4 + (0.5 + 0.5 + 1) / 4 / 3
    start_to_a = (2 - 1) / 2 + 1 / 2 * a
    a_to_end, a_to_b = ((1 - 0.5) / 2 + (0.5 + 0.5) / 2 * lower for lower in (end, b))
    b_to_end = (1 - 0.5) / 1 + 0.5 / 1 * end
    assert model.bits(["a"]) == pytest.approx(-math.log2(start_to_a * a_to_end))
    assert model.bits(["ab"]) == pytest.approx(-math.log2(start_to_a * a_to_b * b_to_end))


def test_discounts_follow_from_how_many_ngrams_occur_once_to_four_times() -> None:
    counts = np.repeat([1, 2, 3, 4, 9], [40, 20, 10, 5, 7])
    share = 40 / (40 + 2 * 20)
    expected = [0, 1 - 2 * share * 20 / 40, 2 - 3 * share * 10 / 20, 3 - 4 * share * 5 / 10]
    assert kneser_ney.estimate_discounts(counts) == pytest.approx(expected)


def test_written_records_are_as_frequent_as_probable() -> None:
    model = kneser_ney.KneserNey(["ab", "ab", "b", "ba", "abba"], 3)
    written = model.write(20_000, seed=1)
    for record in ("ab", "b", "ba", "abba"):
        probability = 2 ** -model.bits([record])
        deviation = math.sqrt(probability * (1 - probability) / len(written))
        assert written.count(record) / len(written) == pytest.approx(probability, abs=5 * deviation)


@given(st.integers(0, 2**32 - 1))
def test_the_distance_of_gaussians_with_the_same_axes(seed: int) -> None:
    """There (C1 C2)^(1/2) has the roots of the products of the variances."""
    random = np.random.default_rng(seed)
    axes = np.linalg.qr(random.normal(size=(5, 5)))[0]
    variances = random.exponential(size=(2, 5)) * [1, 1, 1, 1, 0]
    means = random.normal(size=(2, 5))
    one, two = (
        gaussians.Gaussian(mean, axes * variance @ axes.T) for mean, variance in zip(means, variances, strict=True)
    )
    expected = ((means[0] - means[1]) ** 2).sum() + (np.diff(np.sqrt(variances), axis=0) ** 2).sum()
    assert one.distance(two) == pytest.approx(expected, abs=1e-6)


def test_moments_are_the_mean_and_the_covariance() -> None:
    points = np.random.default_rng(1).normal(1e6, 1, (1000, 3))
    moments = gaussians.Moments()
    for block in np.split(points, [7, 300]):
        moments.add(block)
    gaussian = moments.gaussian()
    assert gaussian.mean == pytest.approx(points.mean(axis=0))
    assert gaussian.covariance == pytest.approx(np.cov(points.T), rel=1e-6, abs=1e-9)
