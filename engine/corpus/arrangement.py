"""Notices a text whose lines are sorted or grouped, so that its held-out end is unlike the part to learn from.

The text may be larger than memory: stretches that are spread evenly over it are read, about a million symbols in all.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from gentext.interfaces import Ids

#: Stretches of the text to learn from, at most of the held-out text, and their largest and smallest length in symbols.
TRAIN_STRETCHES, VAL_STRETCHES = 64, 16
MAX_STRETCH, MIN_STRETCH = 16_384, 500
#: Pairs of neighbouring lines, at least, by which their order is judged, and the share of them that is in order in a
#: sorted text. Prose has 0.45 to 0.56.
MIN_PAIRS, SORTED_SHARE = 100, 0.95
#: How much farther the held-out text is from the rest of a grouped text than neighbouring stretches of that rest are
#: from each other, as a ratio and in nats. Novels have a ratio of 1.3, collected plays one of 2.5.
GROUPED_RATIO, GROUPED_DISTANCE = 3.5, 0.005
#: Characters at the beginning and at the end of a line where labels are looked for.
LABEL_LENGTH = 4
#: Features of a stretch are counted in so many bins.
BINS = 4096

#: What lines may be sorted by: text as it is, without regard to case, or letters and digits alone.
_SORT_KEYS: tuple[Callable[[str], str], ...] = (
    str,
    str.casefold,
    lambda line: re.sub(r"\W", "", line.casefold()),
)


def describe_arrangement(train: Ids, val: Ids, symbols: Sequence[bytes]) -> str:
    """Return a line for the user about a sorted or grouped text, empty for any other.

    ``train`` and ``val`` are the ids to learn from and those held out, ``symbols`` the bytes of each id. A text that is
    too short to tell is taken for neither.
    """
    length = min(MAX_STRETCH, len(train) // TRAIN_STRETCHES)
    if length < MIN_STRETCH or len(val) < length:
        return ""
    train_stretches = list(_cut_stretches(train, TRAIN_STRETCHES, length))
    val_stretches = list(_cut_stretches(val, min(VAL_STRETCHES, len(val) // length), length))
    train_lines = [_whole_lines(ids, symbols) for ids in train_stretches]
    if _are_sorted(train_lines):
        return (
            "the lines of the text are sorted, so the held-out end is unlike the rest, and its loss misleads. "
            "If each line stands for itself, shuffle them first: shuf TEXT > shuffled.txt"
        )
    val_lines = [_whole_lines(ids, symbols) for ids in val_stretches]
    features = [(train_stretches, val_stretches)]
    for part in (slice(LABEL_LENGTH), slice(-LABEL_LENGTH, None)):
        features.append(
            ([_hash_labels(lines, part) for lines in train_lines], [_hash_labels(lines, part) for lines in val_lines])
        )
    if any(_are_grouped(*stretches) for stretches in features):
        return (
            "the end of the text, which is held out, is unlike the rest, as where texts are grouped by kind: its loss "
            "misleads. Mix the kinds (where each line stands for itself: shuf TEXT > shuffled.txt), or cut off an end "
            "that does not belong to the text"
        )
    return ""


def _are_grouped(train: Sequence[Ids], val: Sequence[Ids]) -> bool:
    """Return whether the features of held-out stretches are much farther from the others than those from each other."""
    train_shares, val_shares = [_count(ids) for ids in train], [_count(ids) for ids in val]
    near = np.median([_distance(first, second) for first, second in itertools.pairwise(train_shares)])
    far = np.median(
        [_distance(shares, other) for shares, other in zip(train_shares, itertools.cycle(val_shares), strict=False)]
    )
    return bool(far > GROUPED_RATIO * near and far - near > GROUPED_DISTANCE)


def _cut_stretches(ids: Ids, count: int, length: int) -> Iterator[Ids]:
    """Yield so many stretches, spread evenly from the beginning of the text to its end."""
    for begin in np.linspace(0, len(ids) - length, count, dtype=np.int64):
        yield ids[begin : begin + length].astype(np.int64)


def _whole_lines(ids: Ids, symbols: Sequence[bytes]) -> list[str]:
    """Return the lines of a stretch that are not empty; without the first and the last, which may be cut off."""
    text = b"".join([symbols[token] for token in ids.tolist()]).decode(errors="replace")
    return [line for line in text.split("\n")[1:-1] if line.strip()]


def _are_sorted(stretches: Sequence[Sequence[str]]) -> bool:
    """Return whether nearly all lines of all stretches are in one order, rising or falling."""
    pairs = [pair for lines in stretches for pair in itertools.pairwise(lines)]
    for key in _SORT_KEYS:
        keys = [(key(before), key(after)) for before, after in pairs]
        different = [(before, after) for before, after in keys if before != after]
        rising = sum(before < after for before, after in different)
        if len(different) >= MIN_PAIRS and max(rising, len(different) - rising) >= SORTED_SHARE * len(different):
            return True
    return False


def _hash_labels(lines: Sequence[str], part: slice) -> NDArray[np.int64]:
    return np.array([zlib.crc32(line[part].encode()) for line in lines], np.int64)


def _count(features: Ids) -> NDArray[np.float64]:
    """Return the shares [BINS] of features that are spread over bins."""
    return np.bincount(features % BINS, minlength=BINS) / max(1, len(features))


def _distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the Jensen-Shannon divergence of two distributions, in nats: 0 for equal ones, ln 2 for disjoint ones."""
    middle = (first + second) / 2
    return float(sum(np.sum(p[p > 0] * np.log(p[p > 0] / middle[p > 0])) for p in (first, second)) / 2)
