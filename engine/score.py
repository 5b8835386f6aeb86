"""The loss of a model on a text."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gentext.bundle import Bundle, readable_symbol
from gentext.console import progress
from gentext.describe import tokenizer_of
from gentext.errors import CorpusError, FileFormatError, PluginError, refuse_exit
from gentext.handover import check_ids, describe_sampler
from gentext.interfaces import Ids, OpenSampler, Tokenizer
from gentext.stepping import StepModel

__all__ = ["Score"]

#: The notebook's evaluation: streams read side by side, and symbols of each in one window.
NOTEBOOK_ROWS, NOTEBOOK_LENGTH = 128, 100
#: Symbols of the single stream that the model reads in one call.
WINDOW_LENGTH = 512


@runtime_checkable
class ScoredModel(StepModel, Protocol):
    """An opened sampler whose loss can be measured: it returns logits for given tokens, and has a bundle."""

    bundle: Bundle


@dataclasses.dataclass(frozen=True)
class Score:
    """How well a model predicts a text that it reads from beginning to end, always knowing the true text so far."""

    text: str = dataclasses.field(repr=False)
    symbols: list[str] = dataclasses.field(repr=False)
    """The symbols that the text consists of, in order; most models have one for each character."""
    logprobs: NDArray[np.float64] = dataclasses.field(repr=False)
    """Natural logarithm of the probability that the model gave to each symbol: float64 [len(symbols)]."""
    nats: float
    """The loss of the whole text: the sum of ``-logprobs``."""
    unknown: int
    """How many characters the model does not know; its unknown symbol stands for them."""

    @property
    def characters(self) -> int:
        """How many characters the text has."""
        return len(self.text)

    @property
    def nats_per_character(self) -> float:
        return self.nats / self.characters

    @property
    def bits_per_character(self) -> float:
        return self.nats_per_character / float(np.log(2))

    @property
    def perplexity(self) -> float:
        """The number of equally probable characters among which guessing would have the same loss.

        Infinite where it is larger than any float, above 709 nats a character.
        """
        with np.errstate(over="ignore"):
            return float(np.exp(self.nats_per_character))


def score_text(sampler: OpenSampler, text: str, name: str = "the text") -> Score:
    """Measure the loss of an opened sampler's model on a text; ``name`` stands for the text in messages.

    Raises CorpusError when the text is empty or has characters that the model has no symbol for, FileFormatError when
    the loss is not a number, PluginError when the sampler gives no logits.
    """
    model = _as_scored_model(sampler)
    tokenizer = tokenizer_of(model.bundle)
    with refuse_exit(f"the tokenizer {model.bundle.tokenizer.name!r}"):
        unknown_positions = tokenizer.unknown_at(text)
    if unknown_positions and tokenizer.unknown is None:
        raise CorpusError(
            f"{name}: {len(unknown_positions)} characters are not among the model's {tokenizer.vocab_size} symbols, "
            f"first {text[unknown_positions[0]]!r} at position {unknown_positions[0]}; leave them out of the text"
        )
    tokens = encode_text(model.bundle, tokenizer, text)
    if not len(tokens):
        raise CorpusError(f"{name}: no text to measure")
    windows = []
    with refuse_exit(describe_sampler(sampler)), progress("measuring the loss", len(tokens), "symbols") as bar:
        for losses in window_losses(model, tokens, model.bundle.start):
            windows.append(losses)
            bar.advance(len(losses))
    vocabulary = [readable_symbol(symbol) for symbol in model.bundle.token_bytes]
    symbols = [vocabulary[token] for token in tokens.tolist()]
    return Score(text, symbols, -np.concatenate(windows), _sum_losses(windows), len(unknown_positions))


def notebook_score(sampler: OpenSampler, text: str) -> float | None:
    """Return the notebook's validation loss (see `notebook_loss`) on a text, in nats a character."""
    model = _as_scored_model(sampler)
    tokens = encode_text(model.bundle, tokenizer_of(model.bundle), text)
    with refuse_exit(describe_sampler(sampler)):
        loss = notebook_loss(model, tokens)
    return None if loss is None else loss * len(tokens) / len(text)


def encode_text(bundle: Bundle, tokenizer: Tokenizer, text: str) -> Ids:
    """Return a text as the ids of a file's tokenizer. Raises PluginError where these are none."""
    name = bundle.tokenizer.name
    with refuse_exit(f"the tokenizer {name!r}"):
        return check_ids(name, tokenizer.encode(text), bundle.vocab_size)


def _as_scored_model(sampler: OpenSampler) -> ScoredModel:
    if not isinstance(sampler, ScoredModel):
        raise PluginError(
            f"the sampler {type(sampler).__name__} cannot measure a loss: it lacks initial(rows) and "
            f"advance(tokens, state), which give logits; open the model with another sampler"
        )
    return sampler


def window_losses(model: StepModel, tokens: Ids, start: int) -> Iterator[NDArray[np.float64]]:
    """Yield the losses in nats of all tokens, read as one stream after the start token, a window at a time."""
    state = model.initial(1)
    input_tokens = np.concatenate([[start], tokens[:-1]]).astype(np.int64)
    for begin in range(0, len(tokens), WINDOW_LENGTH):
        logits, state = model.advance(input_tokens[None, begin : begin + WINDOW_LENGTH], state)
        yield _token_losses(logits[0], tokens[begin : begin + WINDOW_LENGTH].astype(np.int64))


def stream_loss(model: StepModel, tokens: Ids, start: int) -> float:
    """Return the summed loss in nats of all tokens, read as one stream after the start token."""
    return _sum_losses(window_losses(model, tokens, start))


def _sum_losses(losses_by_window: Iterable[NDArray[np.float64]]) -> float:
    total_loss = 0.0
    for losses in losses_by_window:
        total_loss += float(losses.sum())
    if math.isnan(total_loss):
        raise FileFormatError(
            "the model's loss is not a number (NaN): its weights are damaged; export or train it again"
        )
    return total_loss


def notebook_loss(model: StepModel, tokens: Ids) -> float | None:
    """Return the notebook's validation loss in nats a symbol; None where the text is too short for one batch.

    The text is cut into 128 streams, which are read in windows of 100 symbols from an initial state,
    and the losses of the windows are averaged. The last target of a stream is the stream's own first
    symbol. (The notebook's code drops the whole text when its length is a multiple of the batch;
    this does not.)
    """
    batches = len(tokens) // (NOTEBOOK_ROWS * NOTEBOOK_LENGTH)
    if not batches:
        return None
    x = tokens[: batches * NOTEBOOK_ROWS * NOTEBOOK_LENGTH].reshape(NOTEBOOK_ROWS, -1).astype(np.int64)
    y = np.roll(x, -1, axis=1)
    state = model.initial(NOTEBOOK_ROWS)
    losses = []
    with progress("measuring by the notebook's formula", x.size, "symbols") as bar:
        for begin in range(0, x.shape[1], NOTEBOOK_LENGTH):
            logits, state = model.advance(x[:, begin : begin + NOTEBOOK_LENGTH], state)
            targets = y[:, begin : begin + NOTEBOOK_LENGTH].reshape(-1)
            losses.append(float(_token_losses(logits.reshape(len(targets), -1), targets).mean()))
            bar.advance(len(targets))
    return float(np.mean(losses))


def _token_losses(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the cross-entropy in nats of each row of logits [N, V] at targets [N], computed in float64."""
    logits64 = logits.astype(np.float64)
    largest_logits = logits64.max(axis=1)
    with np.errstate(invalid="ignore"):  # infinite logits make the loss NaN, which is reported where it is summed
        log_total = largest_logits + np.log(np.exp(logits64 - largest_logits[:, None]).sum(axis=1))
        losses: NDArray[np.float64] = log_total - logits64[np.arange(len(targets)), targets]
    return losses
