"""The probabilities of a row's symbols and their entropy, for the links that compare them with a threshold.

In float64: NumPy and a compiled file round float32 differently, which would move symbols over a threshold where many
are nearly equally probable.
"""

from __future__ import annotations

from typing import Any

from gentext.strategy import Array


def log_probabilities(xp: Any, logits: Array) -> Array:
    """Return the log-softmax of logits [N, V] as float64: -inf where a symbol is masked, even if all of a row are."""
    distances = distances_to_largest(xp, logits)
    total = xp.sum(xp.exp(distances), axis=1, keepdims=True)
    return distances - xp.log(xp.where(total > 0.0, total, 1.0))


def distances_to_largest(xp: Any, logits: Array) -> Array:
    """Return logits [N, V] minus the largest of their row, as float64: 0 or less, and -inf where a symbol is masked."""
    largest = xp.max(logits, axis=1, keepdims=True)
    return xp.astype(logits, xp.float64) - xp.astype(xp.where(largest > -xp.inf, largest, 0.0), xp.float64)


def surprises(xp: Any, log_probabilities: Array) -> Array:
    """Return -p log p of each symbol, float64 [N, V], in nats: 0 where p is 0."""
    probabilities = xp.exp(log_probabilities)
    return xp.where(probabilities > 0.0, -probabilities * log_probabilities, 0.0)


def entropy(xp: Any, log_probabilities: Array) -> Array:
    """Return the entropy of each row, float64 [N, 1], in nats."""
    return xp.sum(surprises(xp, log_probabilities), axis=1, keepdims=True)
