"""The loss of a model on a text."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gentext.components.samplers import describe_sampler
from gentext.components.tokenizers import check_ids
from gentext.console import progress
from gentext.describe import tokenizer_of
from gentext.errors import CorpusError, FileFormatError, PluginError, refuse_exit
from gentext.exported.metadata import Bundle, readable_symbol
from gentext.interfaces import Ids, OpenSampler, Tokenizer
from gentext.notebooks import surprise_html
from gentext.scoring.unknown_characters import UnknownCharacters
from gentext.stepping import ModelState, StepModel

__all__ = ["Score"]

#: The notebook's evaluation: streams read side by side, and symbols of each in one window.
NOTEBOOK_ROWS, NOTEBOOK_LENGTH = 128, 100
#: Symbols of the single stream that the model reads in one call.
WINDOW_LENGTH = 512
#: Bytes of the logits, in float32, that are in memory at a time.
LOGITS_BYTES = 1 << 26
#: Numbers that are converted to float64 at a time.
CONVERTED_NUMBERS = 1 << 20


@runtime_checkable
class ScoredModel(StepModel, Protocol):
    """An opened sampler whose loss can be measured: it returns logits for given tokens, and has a bundle."""

    bundle: Bundle


@runtime_checkable
class LossReader(Protocol):
    """An opened sampler that computes the losses of given tokens itself, many in one call."""

    def read_losses(self, token: int, targets: Ids, state: ModelState) -> tuple[NDArray[np.float64], ModelState]:
        """Read ``token`` and all ``targets`` [T] but the last.

        Return the loss in nats of each target [T], and the state after what was read.
        """
        ...


@dataclasses.dataclass(frozen=True)
class TextLoss:
    """How well a model predicts a text that it reads from beginning to end, always knowing the true text so far."""

    characters: int
    """How many characters the text has that the model reads; those that were left out do not count."""
    symbol_count: int
    """How many symbols it consists of; with most models, one for each character."""
    nats: float
    """The loss of the whole text, summed."""
    unknown: int
    """How many characters the model does not know: they were left out, or its unknown symbol stands for them."""

    @property
    def nats_per_symbol(self) -> float:
        return self.nats / self.symbol_count

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


@dataclasses.dataclass(frozen=True)
class Score(TextLoss):
    """The loss of a text, and what the model thought of each of its symbols."""

    text: str = dataclasses.field(repr=False)
    """The text as it was given, with the characters that were left out."""
    symbols: list[str] = dataclasses.field(repr=False)
    """The symbols that the model reads, in order."""
    logprobs: NDArray[np.float64] = dataclasses.field(repr=False)
    """Natural logarithm of the probability that the model gave to each symbol: float64 [len(symbols)]."""

    def _repr_html_(self) -> str:
        summary = f"{self.symbol_count:,} symbols, {self.bits_per_character:.3f} bits a character"
        return surprise_html(summary, self.symbols, self.logprobs.tolist())


def score_text(
    sampler: OpenSampler, text: str, name: str = "the text", characters: UnknownCharacters | None = None
) -> Score:
    """Measure the loss of an opened sampler's model on a text; ``name`` stands for the text in messages.

    ``characters`` counts those that the model does not know, and decides about them; by default they are an error,
    unless the model has an unknown symbol.

    Raises CorpusError when there is no text or an unknown character is an error, FileFormatError when the loss is not
    a number, PluginError when the sampler gives no logits.
    """
    reader = TextReader(sampler, [text], name, characters)
    windows = list(reader.windows(len(text.encode("utf-8", "surrogatepass"))))
    vocabulary = [readable_symbol(symbol) for symbol in reader.model.bundle.token_bytes]
    symbols = [vocabulary[token] for tokens, _ in windows for token in tokens.tolist()]
    figures = dataclasses.asdict(reader.loss())
    reader.unknown.report(name)
    return Score(**figures, text=text, symbols=symbols, logprobs=-np.concatenate([losses for _, losses in windows]))


class TextReader:
    """Reads a text piece by piece, and sums what `TextLoss` holds."""

    def __init__(
        self, sampler: OpenSampler, pieces: Iterable[str], name: str, characters: UnknownCharacters | None = None
    ) -> None:
        """``characters`` is that of `score_text`."""
        self.model = as_scored_model(sampler)
        self.unknown = characters or UnknownCharacters([self.model.bundle])
        self._sampler, self._pieces, self._name = sampler, pieces, name
        self._tokenizer = tokenizer_of(self.model.bundle)
        self._characters = self._bytes = self._symbol_count = 0
        self._nats = 0.0
        self._unmeasured: Ids = np.empty(0, np.int64)
        """The ids that were encoded, and whose losses are not known yet."""

    def windows(self, size: int | None) -> Iterator[tuple[Ids, NDArray[np.float64]]]:
        """Yield the ids of all symbols and their losses, a window at a time, and show how far of ``size`` bytes it is.

        Raises CorpusError for an empty text.
        """
        bundle = self.model.bundle
        with refuse_exit(describe_sampler(self._sampler)), progress("measuring the loss", None, "symbols") as bar:
            for losses in stream_losses(self.model, self._encode_pieces(), bundle.start, bundle.vocab_size):
                self._nats += float(losses.sum())
                tokens, self._unmeasured = np.split(self._unmeasured, [len(losses)])
                yield tokens, losses
                bar.total = None if size is None else size * self._symbol_count / self._bytes
                bar.advance(len(losses))
        if not self._symbol_count:
            raise CorpusError(f"{self._name}: no text to measure")

    def loss(self) -> TextLoss:
        """Return the figures of all that was read. Raises FileFormatError where the loss is not a number."""
        if math.isnan(self._nats):
            raise FileFormatError(
                "the model's loss is not a number (NaN): its weights are damaged; export or train it again"
            )
        return TextLoss(self._characters, self._symbol_count, self._nats, self.unknown.count)

    def _encode_pieces(self) -> Iterator[Ids]:
        for piece in self._pieces:
            self._bytes += len(piece.encode("utf-8", "surrogatepass"))
            text = self.unknown.leave_out(piece)
            with refuse_exit(f"the tokenizer {self.model.bundle.tokenizer.name!r}"):
                self.unknown.count_replaced(text, self._tokenizer, f"{self._name}: ", self._characters)
            self._characters += len(text)
            tokens = encode_text(self.model.bundle, self._tokenizer, text)
            self._symbol_count += len(tokens)
            self._unmeasured = np.append(self._unmeasured, tokens)
            yield tokens


def notebook_score(sampler: OpenSampler, text: str, unknown: str = "error") -> float | None:
    """Return the notebook's validation loss (see `notebook_loss`) on a text, in nats a character.

    ``unknown`` is the policy of `UnknownCharacters`.
    """
    model = as_scored_model(sampler)
    text = UnknownCharacters([model.bundle], unknown).leave_out(text)
    tokens = encode_text(model.bundle, tokenizer_of(model.bundle), text)
    with refuse_exit(describe_sampler(sampler)):
        loss = notebook_loss(model, tokens, model.bundle.vocab_size)
    return None if loss is None else loss * len(tokens) / len(text)


def encode_text(bundle: Bundle, tokenizer: Tokenizer, text: str) -> Ids:
    """Return a text as the ids of a file's tokenizer. Raises PluginError where these are none."""
    name = bundle.tokenizer.name
    with refuse_exit(f"the tokenizer {name!r}"):
        return check_ids(name, tokenizer.encode(text), bundle.vocab_size)


def as_scored_model(sampler: OpenSampler) -> ScoredModel:
    if not isinstance(sampler, ScoredModel):
        raise PluginError(
            f"the sampler {type(sampler).__name__} cannot measure a loss: it lacks initial(rows) and "
            f"advance(tokens, state), which give logits; open the model with another sampler"
        )
    return sampler


def positions_in_memory(rows: int, vocab_size: int, length: int = WINDOW_LENGTH) -> int:
    """Return how many positions of so many rows are read at a time: ``length``, or fewer for a large vocabulary."""
    return max(1, min(length, LOGITS_BYTES // (4 * rows * vocab_size)))


def stream_losses(
    model: StepModel, pieces: Iterable[Ids], start: int, vocab_size: int = 1
) -> Iterator[NDArray[np.float64]]:
    """Yield the losses in nats of all tokens, read as one stream after the start token, a window at a time.

    The windows do not depend on the pieces in which the tokens come. Those of a large vocabulary are shorter, so that
    their logits fit into memory.
    """
    state, last_token = model.initial(1), start
    for targets in _cut_windows(pieces, positions_in_memory(1, vocab_size)):
        if isinstance(model, LossReader):
            losses, state = model.read_losses(last_token, targets, state)
        else:
            input_tokens = np.append(last_token, targets[:-1]).astype(np.int64)
            logits, state = model.advance(input_tokens[None], state)
            losses = token_losses(logits[0], targets)
        yield losses
        last_token = int(targets[-1])


def _cut_windows(pieces: Iterable[Ids], length: int) -> Iterator[NDArray[np.int64]]:
    """Cut tokens into windows of one length; only the last one may be shorter."""
    uncut: NDArray[np.int64] = np.empty(0, np.int64)
    for piece in pieces:
        uncut = np.append(uncut, piece.astype(np.int64))
        end = len(uncut) // length * length
        yield from uncut[:end].reshape(-1, length)
        uncut = uncut[end:]
    if len(uncut):
        yield uncut


def stream_loss(model: StepModel, tokens: Ids, start: int) -> float:
    """Return the summed loss in nats of all tokens, read as one stream after the start token."""
    return sum(float(losses.sum()) for losses in stream_losses(model, [tokens], start))


def notebook_loss(model: StepModel, tokens: Ids, vocab_size: int = 1) -> float | None:
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
    length = positions_in_memory(NOTEBOOK_ROWS, vocab_size, NOTEBOOK_LENGTH)
    with progress("measuring by the notebook's formula", x.size, "symbols") as bar:
        for window in range(0, x.shape[1], NOTEBOOK_LENGTH):
            parts = []
            for begin in range(window, window + NOTEBOOK_LENGTH, length):
                end = min(begin + length, window + NOTEBOOK_LENGTH)
                logits, state = model.advance(x[:, begin:end], state)
                targets = y[:, begin:end].reshape(-1)
                parts.append(token_losses(logits.reshape(len(targets), -1), targets))
                bar.advance(len(targets))
            losses.append(float(np.concatenate(parts).mean()))
    return float(np.mean(losses))


def token_losses(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the cross-entropy in nats of each row of logits [N, V] at targets [N], computed in float64."""
    losses = np.empty(len(targets))
    rows = max(1, CONVERTED_NUMBERS // logits.shape[1])
    for begin in range(0, len(targets), rows):
        logits64 = logits[begin : begin + rows].astype(np.float64)
        largest_logits = logits64.max(axis=1)
        target_logits = logits64[np.arange(len(logits64)), targets[begin : begin + rows]]
        with np.errstate(invalid="ignore"):  # infinite logits make the loss NaN, which is reported where it is summed
            log_total = largest_logits + np.log(np.exp(logits64 - largest_logits[:, None]).sum(axis=1))
            losses[begin : begin + rows] = log_total - target_logits
    return losses
