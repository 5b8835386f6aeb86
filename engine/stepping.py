"""Generation one position at a time: the reference that every faster path must agree with.

It works with any model that maps tokens and a state to logits. Each row first reads the start token
and its prime, whose tokens are forced, and draws from then on. All rows advance together, so those
with shorter primes draw earlier.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gentext.components.links import check_nan
from gentext.components.samplers import check_model_logits
from gentext.exported.metadata import Bundle
from gentext.interfaces import Chunk, Finish, Request, TopSymbols
from gentext.noise import DRAW
from gentext.sampling.draw import draw_tokens

__all__ = ["ModelState", "StepModel", "fresh_states", "generate_stepwise"]

#: Positions of a prime that are fed to the model in one call.
PREFILL_POSITIONS = 256
#: The first positions, at which all logits are searched for NaN. Later on only NaN that reaches the draw is noticed,
#: because searching costs more than a hundredth of the time of a small model.
NAN_CHECKED_POSITIONS = 16
#: Positions whose noise is computed in one piece.
NOISE_POSITIONS = 256

#: The state of N rows. Built-in models have an array for each state of the bundle, in its order; any objects will do.
ModelState = tuple[Any, ...]


@runtime_checkable
class StepModel(Protocol):
    """A model that maps tokens and a state to logits: all that `generate_stepwise` needs."""

    def initial(self, rows: int) -> ModelState:
        """Return the state of ``rows`` rows that have read nothing yet."""
        ...

    def advance(self, tokens: NDArray[np.int64], state: ModelState) -> tuple[NDArray[np.float32], ModelState]:
        """Feed tokens [N, T] at T positions; return logits [N, T, V] after each of them, and the new state."""
        ...


def generate_stepwise(model: StepModel, bundle: Bundle, request: Request) -> Iterator[Chunk]:
    """Generate the rows of a request, in chunks of one position.

    Raises ConfigError for parameters of another shape or out of range, PluginError for logits or states of another
    shape or type than declared.
    """
    rows = _SteppedRows(bundle, request)
    state = model.initial(rows.count)

    # Read the positions that are forced in every row, many in one call.
    common_length = min(len(forced_tokens) for forced_tokens in rows.forced_tokens)
    logits = np.empty((rows.count, 0), np.float32)
    for begin in range(0, common_length, PREFILL_POSITIONS):
        end = min(begin + PREFILL_POSITIONS, common_length)
        tokens = np.stack([forced_tokens[begin:end] for forced_tokens in rows.forced_tokens])
        block_logits, state = model.advance(tokens, state)
        check_model_logits(model, block_logits, (*tokens.shape, bundle.vocab_size))
        logits = block_logits[:, -1]
        if rows.chain.follows_text or request.echo:
            # The logits after the token at index - 1 are those of the token at index. Those of the token
            # at index `common_length` are left to the loop below.
            for index in range(begin + 1, min(end + 1, common_length)):
                _, chunk = rows.choose_tokens(block_logits[:, index - 1 - begin], index)
                if chunk is not None:
                    yield chunk

    # Draw in at least one row at each position.
    for index in range(common_length, 2**62):
        tokens, chunk = rows.choose_tokens(logits, index)
        if chunk is not None:
            yield chunk
            if all(finish != "running" for finish in chunk.finish):
                return
        block_logits, state = model.advance(np.maximum(tokens, 0)[:, None], state)
        check_model_logits(model, block_logits, (rows.count, 1, bundle.vocab_size))
        logits = block_logits[:, -1]


class _SteppedRows:
    """The rows of one request: what is known of them between two positions.

    An index counts the tokens of a row from its start token, which has index 0.
    """

    def __init__(self, bundle: Bundle, request: Request) -> None:
        self.request = request
        self.count = len(request.primes)
        request.chain.check_params(request.params, self.count)
        start = np.array([bundle.start], np.int64)
        self.forced_tokens = [np.concatenate([start, np.asarray(prime, np.int64)]) for prime in request.primes]
        """The forced tokens of each row: the start token and its prime."""
        self._unknown, self._boundary, self._never_empty = bundle.tokenizer.unknown, bundle.boundary, bundle.never_empty
        self.chain = request.chain.active(request.params, request.tables)
        self.link_states = self.chain.initial_state(self.count, request.params)
        self.finish: list[Finish] = ["running"] * self.count
        self.drawn_counts = np.zeros(self.count, np.int64)
        """Tokens that each row has drawn."""
        self._noise_blocks = [(0, self.chain.noise(*seed, 0, NOISE_POSITIONS)) for seed in request.seeds]
        """For each row the first position of its block of noise, and the block."""
        stop = request.stop
        self._stop_table = stop.token_table(bundle.token_bytes) if stop else None
        self._stop_state = np.zeros(self.count, np.int64)
        if stop:
            for row, prime in enumerate(request.primes):
                prime_bytes = b"".join(bundle.token_bytes[int(token)] for token in prime)
                self._stop_state[row] = stop.state_after_prime(prime_bytes)

    def choose_tokens(self, logits: NDArray[np.float32], index: int) -> tuple[NDArray[np.int64], Chunk | None]:
        """Choose the token at ``index`` of each row, forced or drawn from logits [N, V], and update the rows.

        Returns the tokens [N], and the chunk of this position, or None when no row drew and nobody asked for primes.
        """
        request, chain = self.request, self.chain
        model_logits = logits
        logits = self._mask_symbols(logits, index)
        forced_tokens = np.array(
            [tokens[index] if index < len(tokens) else -1 for tokens in self.forced_tokens], np.int64
        )
        is_new = forced_tokens < 0
        chain_logits = logits
        noise = self._noise_at(index)
        logits, link_states, link_logits = chain.apply(logits, request.params, self.link_states, noise, request.tables)
        drawn_tokens, all_masked = draw_tokens(logits, noise[DRAW])
        tokens = np.where(is_new, drawn_tokens, forced_tokens)
        self.link_states = chain.accept(
            tokens, link_logits, request.params, link_states, request.tables, is_new[:, None]
        )
        if not is_new.any() and not request.echo:
            return tokens, None
        ended = self._ended_rows()
        emitted_tokens = self._record_tokens(tokens, all_masked, is_new, ended)
        if request.echo:
            emitted_tokens = np.where(is_new, emitted_tokens, forced_tokens)
        # A row in which NaN reached the draw ends as masked.
        if index < NAN_CHECKED_POSITIONS or "masked" in self.finish:
            check_nan(chain_logits, link_logits)
        is_emitted = emitted_tokens >= 0
        logprobs = _log_probabilities(model_logits, np.maximum(emitted_tokens, 0)[:, None], is_emitted)[:, 0]
        top_symbols = _find_top_symbols(model_logits, is_emitted, request.top_count) if request.top_count else None
        return tokens, Chunk(emitted_tokens[None], logprobs[None], tuple(self.finish), top_symbols)

    def _mask_symbols(self, logits: NDArray[np.float32], index: int) -> NDArray[np.float32]:
        """Return logits [N, V] at which the unknown symbol is never drawn, nor the end of a record that is empty."""
        end = self._boundary if self._never_empty and index == 1 else None
        never_drawn = [token for token in (self._unknown, end) if token is not None]
        if never_drawn:
            logits = logits.copy()
            logits[:, never_drawn] = -np.inf
        return logits

    def _ended_rows(self) -> NDArray[np.bool_]:
        """Return which rows a link has ended [N]: see `Strategy.ends`."""
        ended = np.zeros(self.count, np.bool_)
        for link in self.chain:
            if link.strategy.ends is not None:
                ended |= self.link_states[link.name][link.strategy.ends]
        return ended

    def _record_tokens(
        self,
        tokens: NDArray[np.int64],
        all_masked: NDArray[np.bool_],
        is_new: NDArray[np.bool_],
        ended: NDArray[np.bool_],
    ) -> NDArray[np.int64]:
        """Record new tokens, and return those of the chunk: -1 where a row has ended or still reads its prime.

        ``ended`` is which rows a link has ended: their token is no part of the text.
        """
        emitted_tokens = np.full(self.count, -1, np.int64)
        stop, limit = self.request.stop, self.request.max_tokens
        for row in np.flatnonzero(is_new):
            if self.finish[row] != "running":
                continue
            if limit == 0:
                self.finish[row] = "length"
                continue
            if ended[row] or all_masked[row]:
                self.finish[row] = "match" if ended[row] else "masked"
                continue
            emitted_tokens[row] = tokens[row]
            self.drawn_counts[row] += 1
            if tokens[row] == self._boundary:
                self.finish[row] = "end"
                continue
            if stop is not None and self._stop_table is not None:
                self._stop_state[row] = self._stop_table[self._stop_state[row], tokens[row]]
                if stop.matched[self._stop_state[row]]:
                    self.finish[row] = "stop"
                    continue
            if limit is not None and self.drawn_counts[row] >= limit:
                self.finish[row] = "length"
        return emitted_tokens

    def _noise_at(self, index: int) -> dict[str, NDArray[np.float32]]:
        """Return [N, columns] for each link that needs noise and for the draw; zeros in rows that read their prime.

        A row's block of noise is replaced when the index leaves it.
        """
        row_noise: list[dict[str, NDArray[np.float32]]] = []
        for row in range(self.count):
            position = index - len(self.forced_tokens[row])
            first_position, noise_block = self._noise_blocks[row]
            if position >= first_position + NOISE_POSITIONS:
                first_position = position // NOISE_POSITIONS * NOISE_POSITIONS
                noise_block = self.chain.noise(*self.request.seeds[row], first_position, NOISE_POSITIONS)
                self._noise_blocks[row] = (first_position, noise_block)
            offset = position - first_position
            row_noise.append(
                {name: noise[offset] if offset >= 0 else np.zeros_like(noise[0]) for name, noise in noise_block.items()}
            )
        return {name: np.stack([noise[name] for noise in row_noise]) for name in row_noise[0]}


def _log_probabilities(
    logits: NDArray[np.float32], tokens: NDArray[np.int64], has_token: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the log-softmax of logits [N, V] at tokens [N, T]; NaN in rows without a token."""
    with np.errstate(all="ignore"):  # in a row without a token, all logits may be -inf
        largest_logits = logits.max(axis=1, keepdims=True)
        log_total = largest_logits + np.log(np.exp(logits - largest_logits).sum(axis=1, keepdims=True))
        logprobs = np.take_along_axis(logits, tokens, axis=1) - log_total
    return np.where(has_token[:, None], logprobs, np.nan).astype(np.float32)


def _find_top_symbols(logits: NDArray[np.float32], has_token: NDArray[np.bool_], count: int) -> TopSymbols:
    """Return the symbols with the largest of logits [N, V] at one position; of equal ones, the lower token first."""
    tokens = np.argsort(-logits, axis=1, kind="stable")[:, :count]
    logprobs = _log_probabilities(logits, tokens, has_token)
    return TopSymbols(np.where(has_token[:, None], tokens, -1)[None], logprobs[None])


def fresh_states(bundle: Bundle, rows: int) -> tuple[NDArray[Any], ...]:
    """Return the initial state of ``rows`` rows, one array for each state tensor of the bundle."""
    return tuple(state.initial_rows(rows) for state in bundle.states)
