"""Reads a text symbol by symbol, and keeps probabilities, the most probable symbols and the hidden units.

A model's states are outputs of its file, so they are read symbol by symbol: no part of the network is taken apart.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from gentext.components.samplers import describe_sampler
from gentext.console import progress
from gentext.errors import CorpusError, FileFormatError, PluginError, refuse_exit
from gentext.exported.metadata import Bundle
from gentext.interfaces import Ids, OpenSampler
from gentext.scoring.score import ScoredModel

#: Activations that are in memory, at most: 256 MB of float32.
MAX_ACTIVATIONS = 2**26


@dataclasses.dataclass(frozen=True)
class Reading:
    """A text of N symbols as a model reads it. Position i is that of symbol i."""

    tokens: Ids
    """[N]."""
    logprobs: NDArray[np.float64]
    """[N] the log-probability of each symbol behind those before it, in nats."""
    top_tokens: NDArray[np.int64]
    """[N, T] the most probable symbols in place of each, the most probable first."""
    top_logprobs: NDArray[np.float64]
    """[N, T]."""
    activations: NDArray[np.float32]
    """[N, U] each hidden unit after the symbol was read."""
    unit_names: list[str]
    """The name of each unit: that of the state, and the indices in it without the axis of rows, as ``c.1.37``."""


def unit_names(bundle: Bundle) -> list[str]:
    """Return the names of all hidden units that are real numbers, in the order of the states."""
    names = []
    for state in bundle.states:
        if state.dtype.startswith("float"):
            sizes = [size for size in state.shape if size is not None]
            names += [".".join([state.name, *map(str, index)]) for index in np.ndindex(*sizes)]
    return names


def most_symbols(bundle: Bundle) -> int:
    """Return how many symbols `read_tokens` can read at most."""
    return MAX_ACTIVATIONS // max(1, len(unit_names(bundle)))


def read_tokens(sampler: OpenSampler, tokens: Ids, top_count: int) -> Reading:
    """Read the symbols of a text, behind the model's start symbol.

    Raises CorpusError for none or for more than `most_symbols`, PluginError for a sampler without logits,
    FileFormatError where a probability is not a number.
    """
    if not isinstance(sampler, ScoredModel):
        raise PluginError(
            f"the sampler {type(sampler).__name__} gives no logits and states; open the model with another sampler"
        )
    bundle, count = sampler.bundle, len(tokens)
    names = unit_names(bundle)
    if not 0 < count <= most_symbols(bundle):
        raise CorpusError(
            f"a text of {count:,} symbols; expected 1 to {most_symbols(bundle):,} for a model of this size"
        )
    top_count = min(top_count, bundle.vocab_size)
    logprobs = np.empty(count)
    top_tokens, top_logprobs = np.empty((count, top_count), np.int64), np.empty((count, top_count))
    activations = np.empty((count, len(names)), np.float32)
    is_unit = [state.dtype.startswith("float") for state in bundle.states]
    states = sampler.initial(1)
    last_token = np.array([[bundle.start]], np.int64)
    with refuse_exit(describe_sampler(sampler)), progress("reading", count, "symbols") as bar:
        for position in range(count + 1):
            logits, states = sampler.advance(last_token, states)
            if position:
                parts = [np.ravel(state) for state, counts in zip(states, is_unit, strict=True) if counts]
                activations[position - 1] = np.concatenate(parts) if parts else []
            if position == count:
                break
            all_logprobs = _log_softmax(logits[0, 0])
            logprobs[position] = all_logprobs[tokens[position]]
            top_tokens[position] = np.argsort(-all_logprobs, kind="stable")[:top_count]
            top_logprobs[position] = all_logprobs[top_tokens[position]]
            last_token[0, 0] = tokens[position]
            bar.advance()
    if math.isnan(logprobs.sum()) or np.isnan(activations).any():
        raise FileFormatError("a probability or a state is not a number (NaN): the weights are damaged; export again")
    return Reading(tokens, logprobs, top_tokens, top_logprobs, activations, names)


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the log-probabilities [V] of logits [V], computed in float64."""
    shifted = logits.astype(np.float64) - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))
