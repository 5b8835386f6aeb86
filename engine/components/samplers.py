"""Checks what a sampler hands over: the opened model, its logits and its chunks of tokens."""

from __future__ import annotations

import contextlib
import typing
from collections.abc import Generator, Iterable
from typing import Protocol, runtime_checkable

import numpy as np

from gentext.components.arrays import FLOAT32, has_type, type_of
from gentext.errors import PluginError, exit_error
from gentext.interfaces import Chunk, Finish, OpenSampler, Request, TopSymbols

SEQUENCE_TYPES = (tuple, list, np.ndarray)

FINISHES = typing.get_args(Finish)


@runtime_checkable
class _Closable(Protocol):
    """An iterator that releases what it holds when it is closed, as a generator does."""

    def close(self) -> None: ...


def describe_sampler(sampler: object) -> str:
    """Return how messages name an opened sampler: by its class, since it does not know its component's name."""
    return f"the sampler {type(sampler).__module__}.{type(sampler).__qualname__}"


def checked_chunks(sampler: OpenSampler, request: Request) -> Generator[Chunk, None, None]:
    """Yield the chunks that a sampler generates for a request, each of them checked."""
    name = describe_sampler(sampler)
    rows, vocab_size = len(request.primes), len(sampler.bundle.token_bytes)
    with contextlib.ExitStack() as stack:
        try:
            chunks: object = sampler.generate(request)
            if not isinstance(chunks, Iterable):
                raise PluginError(f"{name}: generate must return an iterator over chunks, not {type(chunks).__name__}")
            if isinstance(chunks, _Closable):  # a plugin may return another iterator than a generator
                stack.callback(chunks.close)
            iterator = iter(chunks)
        except SystemExit as error:
            raise exit_error(name, error) from error
        while True:
            try:
                chunk = next(iterator)
            except StopIteration:
                return
            except SystemExit as error:
                raise exit_error(name, error) from error
            problem = _chunk_problem(chunk, rows, vocab_size, min(request.top_count, vocab_size))
            if problem:
                raise PluginError(f"{name}: {problem}")
            yield chunk


def check_model_logits(sampler: object, logits: object, shape: tuple[int, ...]) -> None:
    """Check the logits [N, T, V] that a sampler's ``advance`` returned, before the links of the chain get them."""
    if not has_type(logits, shape, FLOAT32):
        raise PluginError(
            f"{describe_sampler(sampler)}: advance must return float32 logits of shape {shape}, not {type_of(logits)}"
        )


def _chunk_problem(chunk: object, rows: int, vocab_size: int, top_count: int) -> str | None:
    """Return what is wrong with a chunk of so many rows and most probable symbols, or None."""
    if not isinstance(chunk, Chunk):
        return f"generate must give chunks, not {type(chunk).__name__}"
    tokens: object = chunk.tokens
    logprobs: object = chunk.logprobs
    finish: object = chunk.finish
    if not (isinstance(tokens, np.ndarray) and tokens.dtype.kind in "iu" and tokens.shape == (len(tokens), rows)):
        return f"the tokens of a chunk must be whole numbers [K, {rows}], not {type_of(tokens)}"
    ids = tokens.ravel().tolist()  # of one position, as most chunks are, a list is read faster than an array
    if ids and not (min(ids) >= -1 and max(ids) < vocab_size):
        return f"a chunk has tokens from {min(ids)} to {max(ids)}; expected -1, or 0 to {vocab_size - 1}"
    if not (isinstance(logprobs, np.ndarray) and logprobs.dtype.kind == "f" and logprobs.shape == tokens.shape):
        return f"the logprobs of a chunk must be floats of shape {tokens.shape}, not {type_of(logprobs)}"
    if not (isinstance(finish, SEQUENCE_TYPES) and len(finish) == rows):
        return f"finish of a chunk must have a word for each of the {rows} rows"
    for word in finish:
        if word not in FINISHES:
            return f"a chunk has the finish {word!r}; expected one of {', '.join(FINISHES)}"
    return _top_symbols_problem(chunk.top_symbols, (*tokens.shape, top_count), vocab_size) if top_count else None


def _top_symbols_problem(top_symbols: object, shape: tuple[int, ...], vocab_size: int) -> str | None:
    """Return what is wrong with the most probable symbols of a chunk, or None."""
    if not isinstance(top_symbols, TopSymbols):
        return f"a chunk has no top_symbols, and {shape[-1]} were asked for; another sampler may have them"
    tokens: object = top_symbols.tokens
    logprobs: object = top_symbols.logprobs
    if not (isinstance(tokens, np.ndarray) and tokens.dtype.kind in "iu" and tokens.shape == shape):
        return f"the tokens of top_symbols must be whole numbers of shape {shape}, not {type_of(tokens)}"
    if not (isinstance(logprobs, np.ndarray) and logprobs.dtype.kind == "f" and logprobs.shape == shape):
        return f"the logprobs of top_symbols must be floats of shape {shape}, not {type_of(logprobs)}"
    if tokens.size and not (tokens.min() >= -1 and tokens.max() < vocab_size):
        return f"top_symbols has tokens from {tokens.min()} to {tokens.max()}; expected -1, or 0 to {vocab_size - 1}"
    return None


def check_opened(name: str, opened: object) -> OpenSampler:
    """Return what the ``open`` of a sampler returned."""
    if not isinstance(opened, OpenSampler):
        raise PluginError(
            f"the sampler {name!r}: open() returned {type(opened).__name__}, expected an object with a bundle, a "
            f"device and generate()"
        )
    return opened
