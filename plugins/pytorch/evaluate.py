"""The loss of a model on a text, in evaluation mode. (torch)"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from gentext.interfaces import Ids, Model, World
from gentext.plugins.pytorch.distributed import ProcessGroup

#: Streams that are read side by side, and symbols of each that the model reads at a time.
MAX_ROWS, WINDOW_LENGTH = 128, 100


def windows(
    tokens: Ids, rows: int = MAX_ROWS, length: int = WINDOW_LENGTH
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Cut a text into parallel streams; yield x [R, T] and the true next symbols y [R, T].

    Fewer rows where the text is short; the last window may be shorter. All but the last few
    symbols of the text are covered.
    """
    rows = max(1, min(rows, (len(tokens) - 1) // length))
    stride = (len(tokens) - 1) // rows
    streams = np.stack([tokens[row * stride : row * stride + stride + 1] for row in range(rows)]).astype(np.int64)
    for begin in range(0, stride, length):
        end = min(begin + length, stride)
        yield streams[:, begin:end], streams[:, begin + 1 : end + 1]


def mean_loss(
    model: Model,
    tokens: Ids,
    autocast: contextlib.AbstractContextManager[Any] | None = None,
    group: ProcessGroup = ProcessGroup(World()),  # noqa: B008
) -> float:
    """Return nats a symbol over a text, read as up to 128 streams with carried state.

    The processes of a group share the streams: all must call, and all get the same loss. NaN for a text of one symbol.
    """
    if len(tokens) < 2:
        return float("nan")
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total_loss, symbol_count = 0.0, 0.0
    state: tuple[torch.Tensor, ...] | None = None
    with torch.no_grad(), autocast or contextlib.nullcontext():
        for x, y in windows(tokens):
            rows = group.local_rows(len(x))
            x, y = x[rows], y[rows]
            if not len(x):  # a text so short that there are fewer streams than processes
                break
            if state is None:
                state = model.initial_state(len(x))
            logits, state = model(torch.from_numpy(x).to(device), state)
            loss = functional.cross_entropy(
                logits.float().flatten(0, 1), torch.from_numpy(y).to(device).flatten(), reduction="sum"
            )
            total_loss, symbol_count = total_loss + loss.item(), symbol_count + y.size
    model.train(was_training)
    total_loss, symbol_count = group.sum(total_loss, symbol_count)
    return total_loss / symbol_count
