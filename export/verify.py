"""Checks of exported files against the model that they come from, and against the chain in NumPy. (torch)"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gentext.errors import ExportError
from gentext.export.defects import describe_defect
from gentext.exported.metadata import Bundle, StateMeta
from gentext.files.folders import temporary_folder
from gentext.generation.compiled import generate_compiled
from gentext.generation.model_calls import GeneratorModel
from gentext.interfaces import Chunk, Model, Request
from gentext.manager import host
from gentext.plugins.samplers.cuda_generator import UnrolledGenerator
from gentext.plugins.samplers.onnx import OnnxGenerator, OnnxSampler
from gentext.plugins.samplers.session import open_model, open_unrolled
from gentext.run import GENERATOR_FILE, UNROLLED_FILE
from gentext.sampling.chain import Chain, LinkArrays
from gentext.sampling.configured_chain import builtin_strategies
from gentext.stepping import generate_stepwise

#: Largest difference of a logit or a state that rounding explains, relative to values of about 1.
TOLERANCE = 2e-3
#: Positions of the comparison with PyTorch.
POSITIONS = 12
#: Rows that an export is checked with, and symbols that each of them writes.
BATCH_SIZES = (1, 3)
SYMBOLS_PER_ROW = 40


@dataclasses.dataclass(frozen=True)
class Difference:
    """How much the results of a file differ from PyTorch's."""

    largest: float
    compared_count: int
    """How many were compared."""

    def __str__(self) -> str:
        return f"differs from PyTorch by {self.largest:.1e} at most, over {self.compared_count:,} values"


def verify_model(model_bytes: bytes, model: Model, bundle: Bundle) -> Difference:
    """Compare a model file with its model over fed-back steps; raise ExportError where they differ.

    Batches 1 and 3, windows of several lengths, states that are random, distinct and not zero:
    an exporter that mixed two states up would pass from zeros.
    """
    with temporary_folder() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model_bytes)
        session = open_model(path, "cpu")
    names = ["logits", *(f"{state.name}_out" for state in bundle.states)]
    rng = np.random.default_rng(0)
    largest, compared_count = 0.0, 0
    for rows in BATCH_SIZES:
        states = _random_states(rng, bundle.states, rows)
        tokens = rng.integers(0, bundle.vocab_size, (rows, 1))
        for next_length in [1] * POSITIONS + [2, 7]:
            logits, next_states = session.run(tokens, states)
            reference_arrays = _run_torch(model, tokens, states)
            for name, array, reference_array in zip(names, [logits, *next_states], reference_arrays, strict=True):
                largest = max(largest, _check_difference(name, array, reference_array, rows, tokens.shape[1]))
                compared_count += array.size
            # The next window begins with the most probable symbol, and random ones follow.
            best_tokens = logits[:, -1].argmax(axis=1)[:, None]
            tokens = np.concatenate([best_tokens, rng.integers(0, bundle.vocab_size, (rows, next_length - 1))], axis=1)
            states = next_states
    return Difference(largest, compared_count)


def verify_generator(
    generator_bytes: bytes, model: Model, chain: Chain, tables: LinkArrays, *, compare_logits: bool
) -> str:
    """Check that a compiled generator writes what its chain does in NumPy, on the file's own logits.

    With ``compare_logits`` those logits must also agree with PyTorch; a lower precision is judged by its loss.
    Raises ExportError. Returns what was checked, in words.
    """
    with temporary_folder() as folder:
        generator = _open_generator(Path(folder), generator_bytes)
    agreement = _check_text(GENERATOR_FILE, generator, generator.session, chain, tables)
    rng = np.random.default_rng(0)
    for rows in BATCH_SIZES if compare_logits else ():
        states = _random_states(rng, generator.bundle.states, rows)
        tokens = rng.integers(0, generator.bundle.vocab_size, (rows, POSITIONS))
        logits, _ = generator.advance(tokens, states)
        reference_logits = _run_torch(model, tokens, states)[0]
        _check_difference("logits of the generator", logits, reference_logits, rows, POSITIONS)
    return agreement


def verify_unrolled(generator_bytes: bytes, unrolled_bytes: bytes, chain: Chain, tables: LinkArrays) -> str:
    """Check the same of a generator and its unrolled file together, in the buffers that a GPU would use."""
    with temporary_folder() as folder:
        generator = _open_generator(Path(folder), generator_bytes)
        (Path(folder) / UNROLLED_FILE).write_bytes(unrolled_bytes)
        session = open_unrolled(generator.session, "cpu")
    unrolled_generator = UnrolledGenerator(generator.session, session, "cpu")
    agreement = _check_text(UNROLLED_FILE, generator, unrolled_generator, chain, tables)
    if unrolled_generator.positions is None:  # it fell back to the loop
        raise ExportError(f"{UNROLLED_FILE} does not run")
    return agreement


def _open_generator(folder: Path, generator_bytes: bytes) -> OnnxGenerator:
    (folder / GENERATOR_FILE).write_bytes(generator_bytes)
    generator = OnnxSampler().open(folder / GENERATOR_FILE, "cpu")
    assert isinstance(generator, OnnxGenerator)
    return generator


def _run_torch(model: Model, tokens: NDArray[np.int64], states: tuple[Any, ...]) -> list[NDArray[Any]]:
    """Return PyTorch's logits after each of the tokens [N, T], and its states after the last."""
    with torch.no_grad():
        logits, next_states = model(torch.from_numpy(tokens), tuple(torch.from_numpy(state) for state in states))
    return [logits.float().numpy(), *(state.numpy() for state in next_states)]


def _random_states(rng: np.random.Generator, states: list[StateMeta], rows: int) -> tuple[NDArray[Any], ...]:
    return tuple(_random_array(rng, state.spec.with_batch(rows), state.dtype) for state in states)


def _random_array(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    if np.issubdtype(dtype, np.floating):
        return np.tanh(rng.normal(size=shape)).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)  # small: it may be a symbol, or an index


def _check_difference(
    name: str, array: NDArray[Any], reference_array: NDArray[Any], rows: int, positions: int
) -> float:
    """Return the largest relative difference; raise ExportError where it is more than rounding."""
    description = f"{name} at batch {rows}, {positions} positions"
    if array.shape != reference_array.shape:
        raise ExportError(f"{description}: the file gives the shape {array.shape}, PyTorch {reference_array.shape}")
    scale = max(1.0, float(np.abs(reference_array).max(initial=0)))
    largest = float(np.abs(array.astype(np.float64) - reference_array.astype(np.float64)).max(initial=0)) / scale
    if not largest <= TOLERANCE:  # NaN fails too
        raise ExportError(f"{description}: the file differs from PyTorch by {largest:.3g}; {TOLERANCE:g} is allowed")
    return largest


def _check_text(
    file_name: str, generator: OnnxGenerator, model: GeneratorModel, chain: Chain, tables: LinkArrays
) -> str:
    """Compare what ``model``, of a file, writes with what the chain writes in NumPy, on the generator's logits."""
    bundle = generator.bundle
    prime = np.random.default_rng(0).integers(0, bundle.vocab_size, 5)
    for rows in BATCH_SIZES:
        request = Request(
            primes=[prime[: 5 - row] for row in range(rows)],
            seeds=[(1, row) for row in range(rows)],
            chain=chain,
            params=chain.param_arrays(rows),
            tables=tables,
            max_tokens=SYMBOLS_PER_ROW,
        )
        compiled_tokens = _row_tokens(generate_compiled(model, bundle, request), rows)
        if compiled_tokens != _row_tokens(generate_stepwise(generator, bundle, request), rows):
            problem = "the compiled chain does not write what the same chain writes in NumPy"
            if set(chain.names) <= set(builtin_strategies(host().registry)):
                raise describe_defect(f"{file_name} in {bundle.card.get('precision')}", problem, bundle, chain)
            raise ExportError(problem)  # a link of a plugin may be the reason
    return f"writes what its chain writes in NumPy, over {sum(BATCH_SIZES) * SYMBOLS_PER_ROW} symbols"


def _row_tokens(chunks: Iterator[Chunk], rows: int) -> list[list[int]]:
    """Return the tokens of each row."""
    tokens: list[list[int]] = [[] for _ in range(rows)]
    for chunk in chunks:
        for row in range(rows):
            tokens[row] += chunk.tokens[chunk.tokens[:, row] >= 0, row].tolist()
    return tokens
