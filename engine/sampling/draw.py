"""The draw after the last link of every chain: chooses a token from logits and a uniform number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def draw_tokens(logits: NDArray[np.float32], u: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Choose a token for each row of logits [N, V] with uniforms [N, 1].

    A row's token is the first index where the cumulative sum (float64) of ``exp(logits - max)``
    (float32) exceeds ``u`` times the total, else the last index that is not masked. The weights are
    not divided by their total first, because rounding could then pick a masked symbol when u is
    near 1. Returns tokens [N], and a bool [N] that is true where a row has every symbol masked.
    """
    largest_logits = logits.max(axis=1, keepdims=True)
    all_masked = ~np.isfinite(largest_logits[:, 0])
    with np.errstate(invalid="ignore"):
        weights = np.exp(logits - largest_logits)
    cumulative_weights = np.cumsum(weights, axis=1, dtype=np.float64)
    exceeds_u = cumulative_weights > u.astype(np.float64) * cumulative_weights[:, -1:]
    last_unmasked = weights.shape[1] - 1 - (weights[:, ::-1] > 0).argmax(axis=1)
    tokens = np.where(exceeds_u.any(axis=1), exceeds_u.argmax(axis=1), last_unmasked)
    return tokens.astype(np.int64), all_masked
