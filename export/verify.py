"""An export is not done before it agrees with the model it came from. (torch)"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gentext.bundle import Bundle
from gentext.chain import Chain, LinkArraysDict
from gentext.compiled import GeneratorModel, compiled
from gentext.describe import load_tokenizer
from gentext.errors import ExportError
from gentext.interfaces import Chunk, Request
from gentext.plugins.samplers.cuda_generator import UnrolledGenerator
from gentext.plugins.samplers.onnx import OnnxGenerator, OnnxSampler
from gentext.plugins.samplers.session import open_model, open_unrolled
from gentext.run import GENERATOR, UNROLLED
from gentext.stepping import stepped

#: Largest difference of a logit or a state that rounding explains, relative to values of about 1.
TOLERANCE = 2e-3
STEPS = 12
#: Rows that an export is checked with, and symbols that each of them writes.
BATCHES = (1, 3)
WRITTEN = 40


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
        session = open_model(path, "cpu")
    rng = np.random.default_rng(0)
    largest, checked = 0.0, 0
    for rows in BATCHES:
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
    if np.issubdtype(dtype, np.floating):
        return np.tanh(rng.normal(size=shape)).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)  # small: it may be a symbol, or an index


def _difference(name: str, mine: Any, other: Any, rows: int, length: int) -> float:
    where = f"{name} at batch {rows}, {length} positions"
    if mine.shape != other.shape:
        raise ExportError(f"{where}: the file gives the shape {mine.shape}, PyTorch {other.shape}")
    scale = max(1.0, float(np.abs(other).max(initial=0)))
    largest = float(np.abs(mine.astype(np.float64) - other.astype(np.float64)).max(initial=0)) / scale
    if not largest <= TOLERANCE:
        raise ExportError(f"{where}: the file differs from PyTorch by {largest:.3g}; {TOLERANCE:g} is allowed")
    return largest


def verify_generator(data: bytes, model: Any, chain: Chain, *, close: bool) -> str:
    """Check that a compiled generator writes what its chain does in NumPy, on the file's own logits.

    With ``close`` those logits must also agree with PyTorch; a lower precision is judged by its loss.
    Raises ExportError. Returns what was checked, in words.
    """
    with tempfile.TemporaryDirectory() as folder:
        generator = _open(Path(folder), data)
    written = _same_text(generator, generator.session, chain)
    rng = np.random.default_rng(0)
    for rows in BATCHES if close else ():
        state = tuple(_random(rng, one.spec.with_batch(rows), one.dtype) for one in generator.bundle.states)
        tokens = rng.integers(0, generator.bundle.vocab_size, (rows, STEPS))
        found, _ = generator.advance(tokens, state)
        wanted, _ = model(torch.from_numpy(tokens), tuple(torch.from_numpy(one) for one in state))
        _difference("logits of the generator", found, wanted.float().numpy(), rows, STEPS)
    return written


def verify_unrolled(data: bytes, unrolled: bytes, chain: Chain) -> str:
    """Check the same of a generator and its unrolled file together, in the buffers that a GPU would use."""
    with tempfile.TemporaryDirectory() as folder:
        generator = _open(Path(folder), data)
        (Path(folder) / UNROLLED).write_bytes(unrolled)
        beside = open_unrolled(generator.session, "cpu")
    model = UnrolledGenerator(generator.session, beside, "cpu")
    written = _same_text(generator, model, chain)
    if model.positions is None:
        raise ExportError(f"{UNROLLED} does not run")
    return written


def _open(folder: Path, data: bytes) -> OnnxGenerator:
    (folder / GENERATOR).write_bytes(data)
    generator = OnnxSampler().open(folder / GENERATOR, "cpu")
    assert isinstance(generator, OnnxGenerator)
    return generator


def _same_text(generator: OnnxGenerator, model: GeneratorModel, chain: Chain) -> str:
    """Compare what ``model`` writes with what the chain writes in NumPy, on the generator's logits."""
    bundle = generator.bundle
    prime = np.random.default_rng(0).integers(0, bundle.vocab_size, 5)
    for rows in BATCHES:
        request = Request(
            primes=[prime[: 5 - row] for row in range(rows)],
            seeds=[(1, row) for row in range(rows)],
            chain=chain,
            params=chain.param_arrays(rows),
            tables=_tables(bundle, chain),
            max_tokens=WRITTEN,
        )
        inside = _tokens(compiled(model, bundle, request), rows)
        outside = _tokens(stepped(generator, bundle, request), rows)
        if inside != outside:
            raise ExportError("the compiled chain does not write what the same chain writes in NumPy")
    return f"writes what its chain writes in NumPy, over {sum(BATCHES) * WRITTEN} symbols"


def _tables(bundle: Bundle, chain: Chain) -> LinkArraysDict:
    return chain.table_arrays(load_tokenizer(bundle.tokenizer.name, bundle.tokenizer.state))


def _tokens(chunks: Iterator[Chunk], rows: int) -> list[list[int]]:
    """Return the new tokens of each row."""
    written: list[list[int]] = [[] for _ in range(rows)]
    for chunk in chunks:
        for row in range(rows):
            written[row] += [int(token) for token in chunk.tokens[:, row] if token >= 0]
    return written
