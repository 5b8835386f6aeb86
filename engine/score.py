"""The loss of an opened sampler's model on a text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gentext.describe import tokenizer_of
from gentext.errors import CorpusError
from gentext.interfaces import Ids
from gentext.opening import open_exported

if TYPE_CHECKING:
    from gentext.data.corpus import Corpus

#: The notebook's evaluation: streams and window.
ROWS, LENGTH = 128, 100
WINDOW = 512

Advance = Callable[[NDArray[np.int64], Any], tuple[NDArray[np.float32], Any]]


def score(path: Path, corpus: Corpus, device: str) -> dict[str, Any]:
    """Return the losses of an exported model on a text.

    Raises CorpusError when the text has characters that the model has no symbol for.
    """
    opened: Any = open_exported(path, device)
    bundle = opened.bundle
    tokenizer = tokenizer_of(bundle)
    strange = tokenizer.unknown_at(corpus.text)
    if strange and tokenizer.unknown is None:
        raise CorpusError(
            f"{corpus.name}: {len(strange)} characters are not among the model's {tokenizer.vocab_size} symbols, "
            f"first {corpus.text[strange[0]]!r} at position {strange[0]}; leave them out of the text"
        )
    tokens = tokenizer.encode(corpus.text)
    if not len(tokens):
        raise CorpusError(f"{corpus.name}: no text to measure")
    total = stream_loss(opened.advance, opened.initial, tokens, bundle.start)
    formula = notebook_loss(opened.advance, opened.initial, tokens)
    return {
        "characters": len(corpus.text),
        "symbols": len(tokens),
        "nats_per_character": total / len(corpus.text),
        "bits_per_character": total / len(corpus.text) / float(np.log(2)),
        "perplexity": float(np.exp(total / len(corpus.text))),
        "unknown": len(strange),
        "notebook_formula": None if formula is None else formula * len(tokens) / len(corpus.text),
    }


def stream_loss(advance: Advance, initial: Callable[[int], Any], tokens: Ids, start: int) -> float:
    """Return the summed loss of a text read as one stream behind the start symbol, in nats."""
    state = initial(1)
    inputs = np.concatenate([[start], tokens[:-1]]).astype(np.int64)
    total = 0.0
    for begin in range(0, len(tokens), WINDOW):
        logits, state = advance(inputs[None, begin : begin + WINDOW], state)
        total += float(_losses(logits[0], tokens[begin : begin + WINDOW].astype(np.int64)).sum())
    return total


def notebook_loss(advance: Advance, initial: Callable[[int], Any], tokens: Ids) -> float | None:
    """Return the notebook's validation loss, nats a symbol; None where the text is too short for one batch.

    128 streams of 100, zero state at the start, the mean over windows; the last target of a
    stream is its own first symbol. (The notebook loses the whole text when it divides evenly;
    this does not.)
    """
    batches = len(tokens) // (ROWS * LENGTH)
    if not batches:
        return None
    x = tokens[: batches * ROWS * LENGTH].reshape(ROWS, -1).astype(np.int64)
    y = np.roll(x, -1, axis=1)
    state = initial(ROWS)
    losses = []
    for begin in range(0, x.shape[1], LENGTH):
        logits, state = advance(x[:, begin : begin + LENGTH], state)
        target = y[:, begin : begin + LENGTH].reshape(-1)
        losses.append(float(_losses(logits.reshape(len(target), -1), target).mean()))
    return float(np.mean(losses))


def _losses(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the loss of each row of logits [N, V] at targets [N]."""
    wide = logits.astype(np.float64)
    top = wide.max(axis=1)
    total = top + np.log(np.exp(wide - top[:, None]).sum(axis=1))
    losses: NDArray[np.float64] = total - wide[np.arange(len(targets)), targets]
    return losses
