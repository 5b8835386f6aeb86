"""The number of weights of the model lstm, computed without building it and without PyTorch."""

from __future__ import annotations


def lstm_parameters(hidden: int, layers: int, embedding: int, vocab_size: int) -> int:
    """Return how many weights an `lstm` will have, without the few of its norms."""
    input_size = embedding or vocab_size
    first_layer = 4 * hidden * (input_size + hidden + 2)
    upper_layer = 4 * hidden * (2 * hidden + 2)
    head = vocab_size * (hidden + 1)
    return first_layer + (layers - 1) * upper_layer + vocab_size * embedding + head


def ngram_parameters(length: int, rows: int, size: int, hidden: int) -> int:
    """Return how many weights more an `lstm` will have that reads n-grams of up to ``length`` symbols."""
    lengths = max(0, length - 1)
    return lengths * size * (rows + 4 * hidden)
