"""Generation one position at a time: the reference that every faster path must agree with.

Serves any model that can map tokens and a state to logits. Every row reads the start symbol and
its prime as forced symbols, and draws from then on; rows with shorter primes draw earlier.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gentext.bundle import Bundle
from gentext.chain import draw
from gentext.interfaces import Chunk, Finish, Request
from gentext.noise import DRAW

#: Positions of a prime that are fed to the model in one call.
PREFILL = 256
#: Positions for which noise is made at once.
NOISE = 256

ModelState = tuple[Any, ...]


class StepModel(Protocol):
    """What `stepped` needs of a backend."""

    def initial(self, rows: int) -> ModelState:
        """Return the state of fresh rows."""
        ...

    def advance(self, tokens: NDArray[np.int64], state: ModelState) -> tuple[NDArray[np.float32], ModelState]:
        """Feed tokens [N, T]; return logits [N, T, V] and the new state."""
        ...


def stepped(model: StepModel, bundle: Bundle, request: Request) -> Iterator[Chunk]:
    """Generate, one chunk of one position at a time."""
    rows = _Rows(bundle, request)
    state = model.initial(rows.count)
    common = min(len(prime) for prime in rows.forced)
    logits = np.empty((rows.count, 0), np.float32)
    for begin in range(0, common, PREFILL):
        tokens = np.stack([prime[begin : min(begin + PREFILL, common)] for prime in rows.forced])
        block, state = model.advance(tokens, state)
        logits = block[:, -1]
        if rows.chain.follows_text:
            for t in range(tokens.shape[1]):
                if begin + t + 1 < common:  # the last one's logits are what the loop below begins with
                    rows.position(block[:, t], begin + t + 1)
    for index in range(common, 2**62):
        tokens, chunk = rows.position(logits, index)
        if chunk is not None:
            yield chunk
            if all(one != "running" for one in chunk.finish):
                return
        block, state = model.advance(np.maximum(tokens, 0)[:, None], state)
        logits = block[:, -1]


class _Rows:
    """The rows of one request: what is forced, what was drawn, who has ended."""

    def __init__(self, bundle: Bundle, request: Request) -> None:
        self.request = request
        self.count = len(request.primes)
        request.chain.check_params(request.params, self.count)
        start = np.array([bundle.start], np.int64)
        self.forced = [np.concatenate([start, np.asarray(prime, np.int64)]) for prime in request.primes]
        self.lengths = np.array([len(one) for one in self.forced])
        self.unknown = bundle.tokenizer.unknown
        self.chain = request.chain.active(request.params)
        self.states = self.chain.initial_state(self.count, request.params)
        self.finish: list[Finish] = ["running"] * self.count
        self.drawn = np.zeros(self.count, np.int64)
        self._noise = [(0, self.chain.noise(*seed, 0, NOISE)) for seed in request.seeds]
        stop = request.stop
        self._stop_table = stop.token_table(bundle.token_bytes) if stop else None
        self._stop_state = np.zeros(self.count, np.int64)
        if stop:
            for row, prime in enumerate(request.primes):
                self._stop_state[row] = stop.behind(b"".join(bundle.token_bytes[int(token)] for token in prime))

    def position(self, logits: NDArray[np.float32], index: int) -> tuple[NDArray[np.int64], Chunk | None]:
        """Choose the token at ``index`` of each row (0 is the start symbol) from logits [N, V].

        Returns the tokens to feed and, when at least one row drew, the chunk to hand out.
        """
        request, chain = self.request, self.chain
        raw = logits
        if self.unknown is not None:
            logits = logits.copy()
            logits[:, self.unknown] = -np.inf
        forced = np.array([prime[index] if index < len(prime) else -1 for prime in self.forced], np.int64)
        is_new = forced < 0
        noise = self._noise_at(index)
        logits, states, outputs = chain.apply(logits, request.params, self.states, noise, request.tables)
        chosen, masked = draw(logits, noise[DRAW])
        tokens = np.where(is_new, chosen, forced)
        self.states = chain.accept(tokens, outputs, request.params, states, request.tables, is_new[:, None])
        if not is_new.any():
            return tokens, None
        emitted = self._emit(tokens, masked, is_new)
        chunk = Chunk(emitted[None], _logprobs(raw, emitted)[None], tuple(self.finish))
        return tokens, chunk

    def _emit(
        self, tokens: NDArray[np.int64], masked: NDArray[np.bool_], is_new: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Return the tokens to hand out: -1 where a row has ended or still reads its prime."""
        emitted = np.full(self.count, -1, np.int64)
        stop, limit = self.request.stop, self.request.max_tokens
        for row in np.flatnonzero(is_new):
            if self.finish[row] != "running":
                continue
            if masked[row]:
                self.finish[row] = "masked"
                continue
            emitted[row] = tokens[row]
            self.drawn[row] += 1
            if stop is not None and self._stop_table is not None:
                self._stop_state[row] = self._stop_table[self._stop_state[row], tokens[row]]
                if stop.matched[self._stop_state[row]]:
                    self.finish[row] = "stop"
                    continue
            if limit is not None and self.drawn[row] >= limit:
                self.finish[row] = "length"
        return emitted

    def _noise_at(self, index: int) -> dict[str, NDArray[np.float32]]:
        """Return [N, columns] of each link that asks, and of the draw; a prime's positions get zeros."""
        columns: list[dict[str, NDArray[np.float32]]] = []
        for row in range(self.count):
            position = index - int(self.lengths[row])
            first, block = self._noise[row]
            if position >= first + NOISE:
                first = position // NOISE * NOISE
                block = self.chain.noise(*self.request.seeds[row], first, NOISE)
                self._noise[row] = (first, block)
            at = position - first
            columns.append({n: one[at] if at >= 0 else np.zeros_like(one[0]) for n, one in block.items()})
        return {name: np.stack([one[name] for one in columns]) for name in columns[0]}


def _logprobs(logits: NDArray[np.float32], tokens: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return log-softmax of logits [N, V] at tokens [N]; NaN where the token is -1."""
    top = logits.max(axis=1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    picked = logits[np.arange(len(tokens)), np.maximum(tokens, 0)] - total
    return np.where(tokens >= 0, picked, np.nan).astype(np.float32)


def fresh_states(bundle: Bundle, rows: int) -> tuple[NDArray[Any], ...]:
    """Return a bundle's initial state for that many rows."""
    return tuple(state.rows(rows) for state in bundle.states)
