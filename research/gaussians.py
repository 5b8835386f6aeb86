"""Gaussian distributions of activations, and their Fréchet distance."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """A mean [D] and a covariance [D, D]."""

    mean: Floats
    covariance: Floats

    def distance(self, other: Gaussian) -> float:
        """Return the Fréchet distance, squared, as FCD and FID have it: Dowson and Landau, 1982.

        It is |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). The product C1 C2 has the eigenvalues of the symmetric matrix
        C1^(1/2) C2 C1^(1/2). Rounding can make those near 0 negative.
        """
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(values.clip(0)) @ vectors.T
        eigenvalues = np.linalg.eigvalsh(root @ other.covariance @ root)
        difference = self.mean - other.mean
        spread = np.trace(self.covariance) + np.trace(other.covariance)
        return float(difference @ difference + spread - 2 * np.sqrt(eigenvalues.clip(0)).sum())


class Moments:
    """The sums of points that come in blocks, around the mean of the first block: a large mean loses no digits."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, block: NDArray[np.floating]) -> None:
        """Add points [N, D]."""
        if not self.count:
            self._origin: Floats = block.mean(axis=0, dtype=np.float64)
            self._sums = np.zeros_like(self._origin)
            self._products = np.zeros((len(self._origin), len(self._origin)))
        centred = block - self._origin
        self.count += len(block)
        self._sums += centred.sum(axis=0)
        self._products += centred.T @ centred

    def gaussian(self) -> Gaussian:
        """Return the Gaussian of all points so far; its covariance divides by one less than their number."""
        mean = self._sums / self.count
        covariance = (self._products - self.count * np.outer(mean, mean)) / (self.count - 1)
        return Gaussian(self._origin + mean, covariance)
