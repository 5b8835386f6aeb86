"""The loss of a model on a text, in evaluation mode. (torch)"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from gentext.exported.metadata import Bundle
from gentext.interfaces import Ids, Model, World
from gentext.plugins.pytorch.device import one_thread
from gentext.plugins.pytorch.distributed import ProcessGroup
from gentext.plugins.pytorch.sampler import TorchReader
from gentext.scoring.score import positions_in_memory, stream_losses
from gentext.token_corpus import TokenCorpus

#: Streams that are read side by side, and symbols of each that the model reads at a time.
MAX_ROWS, WINDOW_LENGTH = 128, 100
#: Windows of a stream at least, where there are `MIN_ROWS` streams: the first symbols of a stream cost more than the
#: others, because the model has not read what stands before them.
MIN_WINDOWS, MIN_ROWS = 5, 8
#: The target of a position that counts for nothing, see `TokenCorpus.cut`.
NO_TARGET = -1
#: Positions that are timed in a single stream, together and each by itself.
TIMED_POSITIONS, TIMED_SINGLY = 256, 16


@dataclasses.dataclass(frozen=True)
class TextLoss:
    """The loss of a model on a text."""

    mean: float
    """Nats a symbol."""
    error: float
    """Standard error of the mean, from the differences between the streams; NaN for a single stream."""


def windows(
    tokens: Ids,
    rows: int = MAX_ROWS,
    length: int = WINDOW_LENGTH,
    symbols: int | None = None,
    vocab_size: int = 1,
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Cut a text into parallel streams; yield x [R, T] and the true next symbols y [R, T].

    The streams have about so many ``symbols`` together, by default as many as the text, and are spread evenly over it,
    from its beginning to its end. Fewer rows where they would be short; the last window may be shorter, and so are all
    where the logits of a large vocabulary would fill the memory.
    """
    symbols = min(len(tokens) - 1, symbols or len(tokens))
    rows = max(1, min(rows, max(symbols // (length * MIN_WINDOWS), min(MIN_ROWS, symbols // length))))
    stride = symbols // rows
    last_begin = len(tokens) - 1 - stride
    begins = [row * last_begin // max(1, rows - 1) for row in range(rows)]
    streams = np.stack([tokens[begin : begin + stride + 1] for begin in begins]).astype(np.int64)
    length = positions_in_memory(rows, vocab_size, length)
    for begin in range(0, stride, length):
        end = min(begin + length, stride)
        yield streams[:, begin:end], streams[:, begin + 1 : end + 1]


def mean_loss(
    model: Model,
    corpus: TokenCorpus,
    autocast: contextlib.AbstractContextManager[Any] | None = None,
    group: ProcessGroup = ProcessGroup(World()),  # noqa: B008
    symbols: int | None = None,
) -> float:
    """Return nats a symbol over a corpus: a text as up to 128 streams with carried state, or each record by itself.

    The processes of a group share the rows: all must call, and all get the same loss. NaN for a text of one symbol, and
    where there are no records. With ``symbols``, about so many of them are read, spread evenly over the corpus.
    """
    return measure_loss(model, corpus, autocast, group, symbols).mean


def measure_loss(
    model: Model,
    corpus: TokenCorpus,
    autocast: contextlib.AbstractContextManager[Any] | None = None,
    group: ProcessGroup = ProcessGroup(World()),  # noqa: B008
    symbols: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> TextLoss:
    """Return the loss as `mean_loss` does, and its standard error.

    With ``symbols``, about so many of them are read, in streams or records that are spread evenly over the corpus.
    ``advance`` is called with the number of symbols after each batch.
    """
    if corpus.symbols < 2:
        return TextLoss(math.nan, math.nan)
    was_training = model.training
    model.eval()
    with torch.no_grad(), autocast or contextlib.nullcontext():
        measure = _measure_records if corpus.is_records else _measure_streams
        loss = measure(model, corpus, group, symbols, advance)
    model.train(was_training)
    return loss


def _measure_streams(
    model: Model, corpus: TokenCorpus, group: ProcessGroup, symbols: int | None, advance: Callable[[int], None]
) -> TextLoss:
    """Return the loss of one text, read as parallel streams."""
    device = next(model.parameters()).device
    row_losses, symbol_count = np.zeros(0), 0
    state: tuple[torch.Tensor, ...] | None = None
    for x, y in windows(corpus.tokens, symbols=symbols, vocab_size=count_logits(model)):
        advance(x.size)
        rows = group.local_rows(len(x))
        x, y = x[rows], y[rows]
        if not len(x):  # a text so short that there are fewer streams than processes
            break
        if state is None:
            state, row_losses = model.initial_state(len(x)), np.zeros(len(x))
        losses, state = _read_losses(model, x, y, state, device)
        row_losses += losses.sum(1)
        symbol_count += y.shape[1]
    return _mean_of_rows(row_losses / max(1, symbol_count), group)


def _measure_records(
    model: Model, corpus: TokenCorpus, group: ProcessGroup, symbols: int | None, advance: Callable[[int], None]
) -> TextLoss:
    """Return the loss of records, each of which is read from a fresh state; those of like length side by side."""
    device = next(model.parameters()).device
    count = corpus.records if symbols is None else math.ceil(symbols * corpus.records / corpus.symbols)
    records = np.linspace(0, corpus.records - 1, min(corpus.records, max(1, count))).astype(np.int64)
    records = records[np.argsort(corpus.lengths[records], kind="stable")]
    repeats = np.ones(len(records)) if corpus.repeats is None else corpus.repeats[records].astype(np.float64)
    nats, length = np.zeros(len(records)), positions_in_memory(MAX_ROWS, count_logits(model), WINDOW_LENGTH)
    for first in range(0, len(records), MAX_ROWS):
        batch = records[first : first + MAX_ROWS]
        local = group.local_rows(len(batch))
        longest = int(corpus.lengths[batch[local]].max(initial=0))
        state = model.initial_state(local.stop - local.start)
        for begin in range(0, longest, length):
            x, y = corpus.cut(batch[local], begin, begin + length)
            losses, state = _read_losses(model, x, y, state, device)
            nats[first + local.start : first + local.stop] += losses.sum(1)
        advance(int(corpus.lengths[batch].sum()))
    nats = np.array(group.sum(*nats))
    return _mean_of_records(nats * repeats, corpus.lengths[records] * repeats)


def read_logits(model: Model, corpus: TokenCorpus) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the logits [N, V] at some positions after others of a corpus and their targets [N], `NO_TARGET` for none.

    A text is read as streams, as `measure_loss` does, and each record from a fresh state.
    """
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        state: tuple[torch.Tensor, ...] | None = None
        for x, y, is_fresh in _cut_records(model, corpus) if corpus.is_records else _cut_text(model, corpus):
            if state is None or is_fresh:
                state = model.initial_state(len(x))
            logits, state = model(torch.from_numpy(x).to(device), state)
            yield logits.float().flatten(0, 1), torch.from_numpy(np.ascontiguousarray(y)).to(device).flatten()
    model.train(was_training)


_Window = tuple[NDArray[np.int64], NDArray[np.int64], bool]


def _cut_text(model: Model, corpus: TokenCorpus) -> Iterator[_Window]:
    for x, y in windows(corpus.tokens, vocab_size=count_logits(model)):
        yield x, y, False


def _cut_records(model: Model, corpus: TokenCorpus) -> Iterator[_Window]:
    length = positions_in_memory(MAX_ROWS, count_logits(model), WINDOW_LENGTH)
    for first in range(0, corpus.records, MAX_ROWS):
        batch = np.arange(first, min(first + MAX_ROWS, corpus.records))
        for begin in range(0, int(corpus.lengths[batch].max()), length):
            yield *corpus.cut(batch, begin, begin + length), begin == 0


def _read_losses(
    model: Model, x: NDArray[np.int64], y: NDArray[np.int64], state: tuple[torch.Tensor, ...], device: torch.device
) -> tuple[NDArray[np.float64], tuple[torch.Tensor, ...]]:
    """Return the losses at targets y [B, T] in nats, 0 where there is no target, and the new state."""
    logits, state = model(torch.from_numpy(x).to(device), state)
    targets = torch.from_numpy(np.ascontiguousarray(y)).to(device)
    losses = functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), reduction="none", ignore_index=NO_TARGET
    )
    return losses.view(y.shape).double().cpu().numpy(), state


def _mean_of_records(nats: NDArray[np.float64], symbols: NDArray[np.float64]) -> TextLoss:
    """Return the mean loss of records a symbol, and its standard error, from the losses and symbols of each: [R]."""
    mean, count = float(nats.sum() / symbols.sum()), len(nats)
    if count < 2:
        return TextLoss(mean, math.nan)
    deviations = nats - mean * symbols
    return TextLoss(mean, math.sqrt(float((deviations**2).sum()) * count / (count - 1)) / float(symbols.sum()))


def stream_loss(
    model: Model,
    bundle: Bundle,
    corpus: TokenCorpus,
    group: ProcessGroup,
    advance: Callable[[int], None] = lambda count: None,
) -> float:
    """Return nats a symbol over a text, read as a single stream after the start symbol: the figure of `gen eval`.

    Rank 0 reads it, in one thread, since a single row gains nothing from two; all must call, and all get the loss.
    """
    total_loss, tokens = 0.0, corpus.tokens
    was_training = model.training
    model.eval()
    with one_thread():
        losses_by_window = stream_losses(TorchReader(model), [tokens], bundle.start, bundle.vocab_size)
        length = positions_in_memory(1, bundle.vocab_size)
        for begin in range(0, len(tokens), length):
            [loss] = group.sum(float(next(losses_by_window).sum()) if group.rank == 0 else 0.0)
            total_loss += loss
            advance(min(length, len(tokens) - begin))
    model.train(was_training)
    return total_loss / len(tokens)


def count_logits(model: Model) -> int:
    """Return the size of a model's vocabulary."""
    device = next(model.parameters()).device
    with torch.no_grad():
        logits, _ = model(torch.zeros(1, 1, dtype=torch.int64, device=device), model.initial_state(1))
    return int(logits.shape[-1])


@dataclasses.dataclass(frozen=True)
class ReadingTime:
    """Seconds that a model needs to read."""

    symbol: float
    """A symbol of parallel streams."""
    stream_symbol: float
    """A symbol of a single stream, in one thread."""
    position: float
    """A symbol of a single stream where each is read by itself, as a sample is written."""


def time_reading(
    model: Model, corpus: TokenCorpus, autocast: contextlib.AbstractContextManager[Any], group: ProcessGroup
) -> ReadingTime:
    """Time the ways to read a text. All processes must call.

    Each is timed twice, and the faster time counts: the first time allocates memory, and another program may disturb
    either.
    """
    was_training = model.training
    model.eval()
    reader = TorchReader(model)
    count = min(corpus.symbols - 1, MAX_ROWS * WINDOW_LENGTH)
    symbol = stream_symbol = position = math.inf
    for _ in range(2):
        began_at = time.perf_counter()
        measure_loss(model, corpus, autocast, group, count)
        measured_at = time.perf_counter()
        with one_thread():
            state = reader.initial(1)
            x = corpus.tokens[None, :TIMED_POSITIONS].astype(np.int64)
            reader.advance(x, state)
            read_at = time.perf_counter()
            for index in range(TIMED_SINGLY):
                reader.advance(x[:, index % x.shape[1], None], state)
        written_at = time.perf_counter()
        symbol = min(symbol, (measured_at - began_at) / count)
        stream_symbol = min(stream_symbol, (read_at - measured_at) / x.size)
        position = min(position, (written_at - read_at) / TIMED_SINGLY)
    model.train(was_training)
    # Records are never read as a single stream.
    return ReadingTime(symbol, symbol if corpus.is_records else stream_symbol, position)


def _mean_of_rows(row_means: NDArray[np.float64], group: ProcessGroup) -> TextLoss:
    """Return the mean over the rows of all processes, which are equally long, and its standard error."""
    row_count, total = group.sum(len(row_means), float(row_means.sum()))
    mean = total / row_count
    [squares] = group.sum(float(((row_means - mean) ** 2).sum()))
    return TextLoss(mean, math.sqrt(squares / (row_count - 1) / row_count) if row_count > 1 else math.nan)
