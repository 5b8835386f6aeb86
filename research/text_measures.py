"""Measures of written texts, each a pure function: real words, repetition, novelty, distance to another text."""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
import pydivsufsort
from numpy.typing import NDArray

#: A word is a run of letters.
WORD = re.compile(r"[^\W\d_]+")


class Novelty(NamedTuple):
    """How much of a text is not in another one."""

    share: float
    """Share of its n-grams that do not occur there."""
    longest_copy: int
    """Characters of the longest span that occurs in both."""


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, in their order."""
    return WORD.findall(text.lower())


def real_word_share(text: str, vocabulary: Collection[str]) -> float:
    """Return the share of a text's words that are in a vocabulary of words in lower case; 1 without any word."""
    text_words = words(text)
    return sum(word in vocabulary for word in text_words) / len(text_words) if text_words else 1.0


def count_ngrams(text: str, n: int) -> collections.Counter[str]:
    """Return how often each run of n characters occurs in a text."""
    return collections.Counter(text[start : start + n] for start in range(len(text) - n + 1))


def repeated_share(text: str, n: int) -> float:
    """Return the share of a text's n-grams that occur earlier in it, too; 0 for a text that is shorter."""
    counts = count_ngrams(text, n)
    return (counts.total() - len(counts)) / counts.total() if counts else 0.0


def jensen_shannon_distance(a: Mapping[str, int], b: Mapping[str, int]) -> float:
    """Return the distance of two distributions, given as counts: 0 where they are equal, 1 where they share nothing.

    It is the square root of the Jensen-Shannon divergence in bits, H((P + Q) / 2) - (H(P) + H(Q)) / 2: Endres and
    Schindelin, "A new metric for probability distributions", IEEE Transactions on Information Theory, 2003.
    """
    total_a, total_b = sum(a.values()), sum(b.values())
    divergence = 0.0
    for ngram in a.keys() | b.keys():
        p, q = a.get(ngram, 0) / total_a, b.get(ngram, 0) / total_b
        mean = (p + q) / 2
        divergence += sum(share * math.log2(share / mean) for share in (p, q) if share) / 2
    return math.sqrt(min(max(divergence, 0.0), 1.0))


def compare_with_source(text: str, source: str, n: int) -> Novelty:
    """Return how much of a text is not in its source, by the suffix array of both texts.

    Suffixes that begin with the same n characters stand side by side in it, and so do those two suffixes of different
    texts that have the longest common beginning. Raises ValueError for a text that is shorter than n.
    """
    if len(text) < n:
        raise ValueError(f"the text has {len(text)} characters; expected at least {n}")
    symbols = _joined_symbols(source, text)
    text_start = len(source) + 1
    suffixes = pydivsufsort.divsufsort(symbols)
    # Element i is the length of the common beginning of the suffixes i and i + 1; the last one is 0.
    common_lengths = pydivsufsort.kasai(symbols, suffixes)
    is_source = suffixes < len(source)
    is_ngram = is_source & (suffixes <= len(source) - n) | (suffixes >= text_start) & (suffixes <= len(symbols) - n)
    group = np.concatenate([[0], np.cumsum(common_lengths[:-1] < n)])
    is_source_group = np.zeros(group[-1] + 1, bool)
    is_source_group[group[is_source & is_ngram]] = True
    is_new = ~is_source_group[group[~is_source & is_ngram]]
    is_border = is_source[:-1] != is_source[1:]
    return Novelty(float(is_new.mean()), int(common_lengths[:-1][is_border].max(initial=0)))


def _joined_symbols(source: str, text: str) -> NDArray[np.unsignedinteger]:
    """Return both texts as one array of small numbers, with a symbol between them that neither of them has."""
    codes = np.frombuffer((source + text).encode("utf-32-le"), np.uint32)
    symbols = np.unique(codes, return_inverse=True)[1] + 1
    joined = np.insert(symbols, len(source), 0)
    return joined.astype(np.uint8 if joined.max() < 256 else np.uint16 if joined.max() < 65_536 else np.uint32)
