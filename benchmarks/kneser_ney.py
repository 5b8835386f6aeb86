"""Interpolated modified Kneser-Ney over the characters of records, each of which ends with a boundary symbol.

Chen and Goodman, "An empirical study of smoothing techniques for language modeling", Computer Speech and Language,
1999.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

#: The id of the boundary symbol, which is read before the first character and written behind the last one.
BOUNDARY = 0
#: What is subtracted from counts of 0, 1, 2, and 3 or more where counts are too few to estimate it: KenLM's numbers.
DISCOUNTS = np.array([0.0, 0.5, 1.0, 1.5])


@dataclasses.dataclass
class Windows:
    """Positions of records, each with the symbols before it."""

    symbols: NDArray[np.int64]
    """[N, order]: ids, the last one of which is that of the position; what lies before the record is arbitrary."""
    depths: NDArray[np.int64]
    """[N]: how many symbols of the record are before the position, with the boundary symbol."""

    def codes(self, n: int, base: int) -> NDArray[np.int64]:
        """Return the last ``n`` symbols of each position as one number."""
        return self.symbols[:, -n:] @ base ** np.arange(n - 1, -1, -1)

    def select(self, positions: NDArray[np.bool_]) -> Windows:
        """Return some of the positions."""
        return Windows(self.symbols[positions], self.depths[positions])


@dataclasses.dataclass
class Counts:
    """The n-grams of one order; the context of each is its first n - 1 symbols."""

    ngrams: NDArray[np.int64]
    """Codes of the n-grams, ascending."""
    discounted: NDArray[np.float64]
    """The count of each n-gram, less its discount."""
    contexts: NDArray[np.int64]
    """Codes of the contexts, ascending."""
    totals: NDArray[np.float64]
    """The sum of the counts of each context, before the discounts."""
    removed: NDArray[np.float64]
    """The sum of the discounts of each context."""

    @classmethod
    def collect(cls, ngrams: NDArray[np.int64], counts: NDArray[np.int64], base: int) -> Counts:
        """Discount the counts of n-grams, which are ascending, and add them up over the n-grams of each context."""
        discounts = estimate_discounts(counts)[np.minimum(counts, 3)]
        contexts, group = np.unique(ngrams // base, return_inverse=True)
        return cls(
            ngrams=ngrams,
            discounted=counts - discounts,
            contexts=contexts,
            totals=np.bincount(group, counts),
            removed=np.bincount(group, discounts),
        )

    def interpolate(self, codes: NDArray[np.int64], lower: NDArray[np.float64], base: int) -> NDArray[np.float64]:
        """Return the probability of the last symbol of each n-gram, from those by the next lower order."""
        if not len(self.ngrams):  # no record is so long
            return lower
        ngram, context = find(self.ngrams, codes), find(self.contexts, codes // base)
        own = np.where(ngram < 0, 0.0, self.discounted[ngram])
        mixed = (own + self.removed[context] * lower) / self.totals[context]
        return np.where(context < 0, lower, mixed)


class KneserNey:
    """The probability of a symbol after the ``order`` - 1 symbols before it.

    The highest order, and n-grams that begin with the boundary symbol, count occurrences; all others count the
    different symbols before them. The lowest order is interpolated with equal probabilities for all symbols.
    """

    def __init__(self, records: Sequence[str], order: int) -> None:
        self.order = order
        self.symbols = {character: i for i, character in enumerate(sorted(set().union(*records)), BOUNDARY + 1)}
        self.base = len(self.symbols) + 1
        if self.base**order >= 2**63:
            raise ValueError(f"{self.base} symbols: n-grams of {order} of them do not fit into 63 bits")
        windows = self.windows(records)
        ngrams: list[NDArray[np.int64]] = []
        counts: list[NDArray[np.int64]] = []
        for n in range(1, order + 1):
            codes = windows.select(windows.depths >= n - 1).codes(n, self.base)
            unique, occurrences = np.unique(codes, return_counts=True)
            ngrams.append(unique)
            counts.append(occurrences)
        for n in range(1, order):
            suffixes, different = np.unique(ngrams[n] % self.base**n, return_counts=True)
            counts[n - 1][find(ngrams[n - 1], suffixes)] = different
        self.counts = [Counts.collect(*pair, self.base) for pair in zip(ngrams, counts, strict=True)]

    def windows(self, records: Iterable[str]) -> Windows:
        """Return a window for each character and each end of the records.

        Raises KeyError for a character that no training record has.
        """
        ids = [[BOUNDARY, *(self.symbols[character] for character in record), BOUNDARY] for record in records]
        symbols = np.concatenate([np.zeros(self.order - 1, np.int64), *ids])
        depths = np.concatenate([np.arange(len(record)) for record in ids])
        return Windows(np.lib.stride_tricks.sliding_window_view(symbols, self.order), depths).select(depths > 0)

    def probabilities(self, windows: Windows) -> NDArray[np.float64]:
        """Return the probability of the last symbol of each window."""
        probabilities = np.full(len(windows.depths), 1 / self.base)
        for n, counts in enumerate(self.counts, 1):
            # Nearer to the start of a record than n - 1 symbols there is no context of this order.
            has_context = windows.depths >= n - 1
            codes = windows.select(has_context).codes(n, self.base)
            probabilities[has_context] = counts.interpolate(codes, probabilities[has_context], self.base)
        return probabilities

    def distributions(self, windows: Windows) -> NDArray[np.float64]:
        """Return the probability [N, symbols] of each symbol in the place of the last one of each window."""
        symbols = np.repeat(windows.symbols, self.base, axis=0)
        symbols[:, -1] = np.tile(np.arange(self.base), len(windows.depths))
        depths = np.repeat(windows.depths, self.base)
        return self.probabilities(Windows(symbols, depths)).reshape(-1, self.base)

    def bits(self, records: Sequence[str]) -> float:
        """Return the mean of minus the binary logarithm of the probability of a record, its end included."""
        return -float(np.log2(self.probabilities(self.windows(records))).sum()) / len(records)

    def write(self, count: int, seed: int) -> list[str]:
        """Draw records."""
        random = np.random.default_rng(seed)
        characters = ["", *self.symbols]
        records = [""] * count
        rows = np.arange(count)
        windows = Windows(np.zeros((count, self.order), np.int64), np.ones(count, np.int64))
        while len(rows):
            sums = self.distributions(windows).cumsum(axis=1)
            drawn = (random.random((len(rows), 1)) * sums[:, -1:] < sums).argmax(axis=1)
            for row, symbol in zip(rows, drawn, strict=True):
                records[row] += characters[symbol]
            windows.symbols[:, -1] = drawn
            is_open = drawn != BOUNDARY
            rows = rows[is_open]
            windows = Windows(np.roll(windows.symbols[is_open], -1, axis=1), windows.depths[is_open] + 1)
        return records


def find(ascending: NDArray[np.int64], codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the index of each code in an ascending array, or -1."""
    if not len(ascending):
        return np.full(codes.shape, -1)
    index = np.minimum(np.searchsorted(ascending, codes), len(ascending) - 1)
    return np.where(ascending[index] == codes, index, -1)


def estimate_discounts(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return what is subtracted from a count of 0, 1, 2, and 3 or more: equation 26 of Chen and Goodman."""
    n1, n2, n3, n4 = np.bincount(np.minimum(counts, 5), minlength=6)[1:5]
    if min(n1, n2, n3) == 0:
        return DISCOUNTS
    share = n1 / (n1 + 2 * n2)
    discounts = np.array([0.0, 1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3])
    return discounts if discounts.min() >= 0 else DISCOUNTS
