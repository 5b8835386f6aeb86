"""How much hidden units tell about features of a text: their mutual information, in bits.

The activations of a unit are put into `BINS` bins of equal counts, and the information between bin and class is
estimated from the counts: I = sum p(b,c) log2(p(b,c) / (p(b) p(c))). This plug-in estimate is too high by about
(B - 1)(C - 1) / (2 N ln 2) bits for N independent places (Miller, "Note on the bias of information estimates", 1955),
which is subtracted, with the B bins and C classes that occur. Places of a text are not independent: neighbours are
alike, in the unit and in the feature, so that even a unit which knows nothing seems to know something. `chance` says
how much: it is the largest estimate of all units where the feature is shifted along the text, which keeps both as they
are but parts them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: Bins of a unit's activations.
BINS = 8
#: Shifts of the feature, in shares of the text, that give the level of chance.
SHIFTS = (0.2, 0.35, 0.5, 0.65, 0.8)
#: Units of which the bins are compared at a time.
BLOCK_UNITS = 256


@dataclasses.dataclass(frozen=True)
class UnitInformation:
    """What U units tell about one feature."""

    entropy: float
    """What there is to know, in bits a place."""
    bits: NDArray[np.float64]
    """[U] what each unit tells, in bits a place; the estimate may be a little below zero."""
    chance: float
    """The largest estimate among all units where there is nothing to know."""

    def best_units(self, count: int) -> list[int]:
        """Return the units that tell most, in order; only those above chance."""
        order = np.argsort(-self.bits, kind="stable")[:count]
        return [int(unit) for unit in order if self.bits[unit] > self.chance]


def measure_information(
    activations: NDArray[np.float32], features: Sequence[NDArray[np.int64]]
) -> list[UnitInformation]:
    """Return what units, activations [N, U], tell about each feature, classes [N] from 0."""
    count = len(activations)
    shifts = [0, *(int(share * count) for share in SHIFTS)]
    columns = [np.roll(classes, shift) for classes in features for shift in shifts]
    widths = [int(classes.max()) + 1 for classes in columns]
    one_hot = np.zeros((count, sum(widths)), np.float32)
    begins = np.cumsum([0, *widths])
    for classes, begin in zip(columns, begins, strict=False):
        one_hot[np.arange(count), begin + classes] = 1
    counts = np.concatenate(
        [
            _count_together(activations[:, begin : begin + BLOCK_UNITS], one_hot)
            for begin in range(0, activations.shape[1], BLOCK_UNITS)
        ],
        axis=1,
    )
    bits = [_estimate_bits(counts[:, :, begin : begin + width]) for begin, width in zip(begins, widths, strict=False)]
    results = []
    for number, classes in enumerate(features):
        own_bits, *shifted_bits = bits[number * len(shifts) : (number + 1) * len(shifts)]
        shares = np.bincount(classes) / count
        shares = shares[shares > 0]
        entropy = float(-(shares * np.log2(shares)).sum())
        results.append(UnitInformation(entropy, own_bits, float(max(each.max() for each in shifted_bits))))
    return results


def _count_together(activations: NDArray[np.float32], one_hot: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return how often each bin of a unit meets each class: [BINS, U, classes]."""
    edges = np.quantile(activations, np.arange(1, BINS) / BINS, axis=0).astype(np.float32)
    bins = (activations[None] > edges[:, None]).sum(axis=0, dtype=np.uint8)
    return np.stack([(bins == number).T.astype(np.float32) @ one_hot for number in range(BINS)]).astype(np.float64)


def _estimate_bits(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the information [U] from the counts [B, U, C], with its bias subtracted."""
    bin_counts, class_counts = counts.sum(axis=2, keepdims=True), counts.sum(axis=0, keepdims=True)
    total = counts.sum(axis=(0, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = counts * np.log2(counts * total[None, :, None] / (bin_counts * class_counts))
    information = np.where(counts > 0, terms, 0).sum(axis=(0, 2)) / total
    used_bins = (bin_counts[:, :, 0] > 0).sum(axis=0)
    used_classes = (class_counts[0] > 0).sum(axis=1)
    return np.asarray(information - (used_bins - 1) * (used_classes - 1) / (2 * total * np.log(2)))
