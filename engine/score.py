"""The loss of a model on a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gentext.bundle import Bundle
from gentext.describe import tokenizer_of
from gentext.errors import CorpusError, PluginError
from gentext.interfaces import Ids, OpenSampler
from gentext.opening import open_exported
from gentext.stepping import StepModel

if TYPE_CHECKING:
    from gentext.data.corpus import Corpus

#: The notebook's evaluation: streams read side by side, and symbols of each in one window.
ROWS, LENGTH = 128, 100
#: Symbols of the single stream that the model reads in one call.
WINDOW = 512


@runtime_checkable
class ScoredModel(StepModel, Protocol):
    """An opened sampler whose loss can be measured: it gives logits step by step, and knows its tokens."""

    bundle: Bundle


def score(path: Path, corpus: Corpus, device: str) -> dict[str, Any]:
    """Return the losses of an exported model on a text: see `score_sampler`."""
    return score_sampler(open_exported(path, device), corpus)


def score_sampler(sampler: OpenSampler, corpus: Corpus) -> dict[str, Any]:
    """Return the losses of an opened sampler's model on a text, with the counts that belong to them.

    Raises CorpusError when the text is empty or has characters that the model has no symbol for,
    PluginError when the sampler gives no logits.
    """
    if not isinstance(sampler, ScoredModel):
        raise PluginError(
            f"the sampler {type(sampler).__name__} cannot measure a loss: it lacks initial(rows) and "
            f"advance(tokens, state), which give logits; open the model with another sampler"
        )
    tokenizer = tokenizer_of(sampler.bundle)
    unknown = tokenizer.unknown_at(corpus.text)
    if unknown and tokenizer.unknown is None:
        raise CorpusError(
            f"{corpus.name}: {len(unknown)} characters are not among the model's {tokenizer.vocab_size} symbols, "
            f"first {corpus.text[unknown[0]]!r} at position {unknown[0]}; leave them out of the text"
        )
    tokens = tokenizer.encode(corpus.text)
    if not len(tokens):
        raise CorpusError(f"{corpus.name}: no text to measure")
    total = stream_loss(sampler, tokens, sampler.bundle.start)
    formula = notebook_loss(sampler, tokens)
    return {
        "characters": len(corpus.text),
        "symbols": len(tokens),
        "nats_per_character": total / len(corpus.text),
        "bits_per_character": total / len(corpus.text) / float(np.log(2)),
        "perplexity": float(np.exp(total / len(corpus.text))),
        "unknown": len(unknown),
        "notebook_formula": None if formula is None else formula * len(tokens) / len(corpus.text),
    }


def stream_loss(model: StepModel, tokens: Ids, start: int) -> float:
    """Return the summed loss in nats of all tokens, read as one stream after the start token."""
    state = model.initial(1)
    inputs = np.concatenate([[start], tokens[:-1]]).astype(np.int64)
    total = 0.0
    for begin in range(0, len(tokens), WINDOW):
        logits, state = model.advance(inputs[None, begin : begin + WINDOW], state)
        total += float(_losses(logits[0], tokens[begin : begin + WINDOW].astype(np.int64)).sum())
    return total


def notebook_loss(model: StepModel, tokens: Ids) -> float | None:
    """Return the notebook's validation loss in nats a symbol; None where the text is too short for one batch.

    The text is cut into 128 streams, which are read in windows of 100 symbols from an initial state,
    and the losses of the windows are averaged. The last target of a stream is the stream's own first
    symbol. (The notebook's code drops the whole text when its length is a multiple of the batch;
    this does not.)
    """
    batches = len(tokens) // (ROWS * LENGTH)
    if not batches:
        return None
    x = tokens[: batches * ROWS * LENGTH].reshape(ROWS, -1).astype(np.int64)
    y = np.roll(x, -1, axis=1)
    state = model.initial(ROWS)
    losses = []
    for begin in range(0, x.shape[1], LENGTH):
        logits, state = model.advance(x[:, begin : begin + LENGTH], state)
        targets = y[:, begin : begin + LENGTH].reshape(-1)
        losses.append(float(_losses(logits.reshape(len(targets), -1), targets).mean()))
    return float(np.mean(losses))


def _losses(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the cross-entropy in nats of each row of logits [N, V] at targets [N], computed in float64."""
    wide = logits.astype(np.float64)
    largest = wide.max(axis=1)
    log_total = largest + np.log(np.exp(wide - largest[:, None]).sum(axis=1))
    losses: NDArray[np.float64] = log_total - wide[np.arange(len(targets)), targets]
    return losses
