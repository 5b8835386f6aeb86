"""Mutual information between units and features: planted units are found, and figures are those of the formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gentext.inspection.text_features import is_measurable, text_features
from gentext.inspection.unit_information import BINS, measure_information

COUNT = 20_000


def entropy(*shares: float) -> float:
    return float(-sum(share * np.log2(share) for share in shares if share))


def spans(rng: np.random.Generator, length: int) -> NDArray[np.int64]:
    """Return a feature that changes seldom, as quotes do: neighbours are alike."""
    return np.repeat(rng.integers(0, 2, COUNT // length + 1), length)[:COUNT]


def test_planted_units_are_found() -> None:
    rng = np.random.default_rng(0)
    slow, fast, depth = spans(rng, 50), rng.integers(0, 2, COUNT), rng.integers(0, 4, COUNT)
    units = rng.normal(size=(COUNT, 300)).astype(np.float32)
    units[:, 7] = np.where(rng.random(COUNT) < 0.1, 1 - slow, slow)  # says the opposite one time in ten
    units[:, 260] = fast * 2 - 1 + rng.normal(scale=0.01, size=COUNT)
    units[:, 31] = depth
    units[:, 5] = 3  # never changes
    slow_one, fast_one, depth_one, none = measure_information(units, [slow, fast, depth, rng.integers(0, 2, COUNT)])
    assert slow_one.best_units(3)[0] == 7 and slow_one.bits[7] == pytest.approx(1 - entropy(0.1, 0.9), abs=0.02)
    assert fast_one.best_units(3)[0] == 260 and fast_one.bits[260] == pytest.approx(1, abs=0.02)
    assert depth_one.best_units(3)[0] == 31 and depth_one.bits[31] == pytest.approx(2, abs=0.02)
    assert none.chance < 0.003 and none.bits.max() < 0.003 and len(none.best_units(9)) < 3
    assert [one.entropy for one in (slow_one, fast_one, depth_one)] == pytest.approx([1, 1, 2], abs=0.02)
    assert fast_one.bits[5] == 0


def test_the_bias_is_subtracted() -> None:
    rng = np.random.default_rng(1)
    units = rng.normal(size=(500, 2000)).astype(np.float32)
    [measured] = measure_information(units, [rng.integers(0, 4, 500)])
    bias = (BINS - 1) * 3 / (2 * 500 * np.log(2))
    assert bias > 0.03 and abs(measured.bits.mean()) < 0.003


def test_chance_is_higher_where_neighbours_are_alike() -> None:
    """Units and features that change seldom agree by chance; the shift knows, and nothing is found."""
    rng = np.random.default_rng(2)
    units = np.stack([spans(rng, 400) + rng.normal(scale=0.1, size=COUNT) for _ in range(100)], axis=1)
    slow, fast = measure_information(units.astype(np.float32), [spans(rng, 400), rng.integers(0, 2, COUNT)])
    assert slow.chance > 10 * fast.chance and slow.bits.max() > 0.02
    assert len(slow.best_units(100)) < 10


@given(st.text(alphabet='ab N\n".,([{)]}“”1世', max_size=60))
def test_each_character_has_its_classes(text: str) -> None:
    for feature in text_features(text):
        assert len(feature.classes) == len(text) and feature.name and feature.meaning
        assert not len(text) or feature.classes.min() >= 0


def test_features() -> None:
    text = 'He said "No (not [now])".\n\n"Open\n\nEND 12'
    classes = {feature.name: feature.classes.tolist() for feature in text_features(text)}
    quoted = "".join(character for character, inside in zip(text, classes["quotes"], strict=True) if inside)
    assert quoted == '"No (not [now])"Open\n'
    assert classes["brackets"][text.index("now")] == 2 and classes["brackets"][-1] == 0
    assert [at for at, inside in enumerate(classes["line end"]) if inside] == [
        at - 1 for at, character in enumerate(text) if character == "\n"
    ]
    assert sum(classes["capital"]) == 6 and sum(classes["digit"]) == 2 and sum(classes["word end"]) == 7
    assert classes["place in the line"][20] == 2 and classes["place in the line"][27] == 0
    assert not is_measurable(np.zeros(99, np.int64)) and is_measurable(np.arange(99) % 2)
