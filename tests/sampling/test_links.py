"""Links that mask or reshape: figures of llama.cpp and transformers, float64 versions, and cases computed by hand."""

from __future__ import annotations

import collections
import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import examples
from hypothesis import HealthCheck, assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from reference_figures import TOLERANCES, Comparison, Floats, apply, comparisons, logits_of, softmax

V = 9


@pytest.mark.parametrize("comparison", list(comparisons()), ids=lambda one: f"{one.link}-{one.reference}")
def test_figures_of_references(comparison: Comparison) -> None:
    assert comparison.difference <= TOLERANCES[comparison.reference], comparison


def test_docs_count_the_figures() -> None:
    counts = collections.Counter((one.link, one.reference) for one in comparisons())
    page = (Path(__file__).parents[2] / "docs" / "links.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ((?:\w+(?:\.cpp)? \d+ of \d+(?:, )?)+) \|", page, re.MULTILINE)
    shown = {(link, *figure) for link, cell in rows for figure in re.findall(r"(\S+) (\d+) of (\d+)", cell)}
    assert shown == {(link, reference, str(count), str(count)) for (link, reference), count in counts.items()}


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
@examples(150)
@given(LOGITS, st.floats(0.01, 1))
def test_masks_against_float64(name: str, logits: Floats, fraction: float) -> None:
    param, high, margin_of = MASKS[name]
    number = float(np.float32(high * fraction)) or 1
    margins = np.array(margin_of(softmax(logits), number))
    margins[logits == -np.inf] = -1
    assume((np.abs(margins) > 1e-5).all())
    after = apply(name, logits[None], **{param: number})[0]
    assert np.array_equal(after, np.where(margins > 0, logits, -np.inf).astype(np.float32))


# Ties are frequent among the first examples, which some versions of hypothesis count as too many.
@examples(150, suppress_health_check=[HealthCheck.filter_too_much])
@given(LOGITS, st.floats(0, 1), st.floats(0, 0.6), st.floats(0, 1, exclude_max=True))
def test_xtc_against_float64(logits: Floats, probability: float, threshold: float, noise: float) -> None:
    p = softmax(logits)
    assume(np.abs(p - threshold).min() > 1e-5 and abs(noise - probability) > 1e-5)
    tops = sorted((s for s in range(V) if p[s] >= threshold and logits[s] > -np.inf), key=lambda s: (-p[s], s))
    dropped = tops[:-1] if noise < probability and threshold <= 0.5 else []
    after = apply("xtc", logits[None], noise, xtc_probability=probability, xtc_threshold=threshold)[0]
    assert np.flatnonzero((after == -np.inf) & (logits > -np.inf)).tolist() == sorted(dropped)


@examples(150)
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
