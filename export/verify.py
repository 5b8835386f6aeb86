"""An export is not done before it agrees with the model it came from. (torch)"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gentext.bundle import Bundle
from gentext.errors import ExportError
from gentext.plugins.session import Session

#: Largest difference of a logit or a state that rounding explains, relative to values of about 1.
TOLERANCE = 2e-3
STEPS = 12


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far a file is from PyTorch."""

    largest: float
    checked: int

    def __str__(self) -> str:
        return f"differs from PyTorch by {self.largest:.1e} at most, over {self.checked:,} values"


def verify(data: bytes, model: Any, bundle: Bundle) -> Difference:
    """Compare a file with its model over fed-back steps; raise ExportError where they differ.

    Batches 1 and 3, windows of several lengths, states that are random, distinct and not zero:
    an exporter that mixed two states up would pass from zeros.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(data)
        session = Session(path, "cpu")
    rng = np.random.default_rng(0)
    largest, checked = 0.0, 0
    for rows in (1, 3):
        state = tuple(_random(rng, one.spec.with_batch(rows), one.dtype) for one in bundle.states)
        tokens = rng.integers(0, bundle.vocab_size, (rows, 1))
        for length in [1] * STEPS + [2, 7]:
            found, found_state = session.run(tokens, state)
            with torch.no_grad():
                wanted, wanted_state = model(torch.from_numpy(tokens), tuple(torch.from_numpy(one) for one in state))
            pairs = [("logits", found, wanted.float().numpy())]
            pairs += [
                (f"{one.name}_out", mine, other.numpy())
                for one, mine, other in zip(bundle.states, found_state, wanted_state, strict=True)
            ]
            for name, mine, other in pairs:
                largest = max(largest, _difference(name, mine, other, rows, tokens.shape[1]))
                checked += mine.size
            state = found_state
            last = found[:, -1].argmax(axis=1)[:, None]
            tokens = np.concatenate([last, rng.integers(0, bundle.vocab_size, (rows, length - 1))], axis=1)
    return Difference(largest, checked)


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Any:
    return np.tanh(rng.normal(size=shape)).astype(dtype)


def _difference(name: str, mine: Any, other: Any, rows: int, length: int) -> float:
    where = f"{name} at batch {rows}, {length} positions"
    if mine.shape != other.shape:
        raise ExportError(f"{where}: the file gives the shape {mine.shape}, PyTorch {other.shape}")
    scale = max(1.0, float(np.abs(other).max(initial=0)))
    largest = float(np.abs(mine.astype(np.float64) - other.astype(np.float64)).max(initial=0)) / scale
    if not largest <= TOLERANCE:
        raise ExportError(f"{where}: the file differs from PyTorch by {largest:.3g}; {TOLERANCE:g} is allowed")
    return largest
