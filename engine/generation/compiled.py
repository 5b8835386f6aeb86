"""Generation with a compiled file: K positions in one call, with the chain and the draw inside the graph.

It gives the same results as `gentext.stepping`, which runs one position at a time in NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gentext.exported.metadata import Bundle
from gentext.exported.signature import FINISH_BY_CODE, flat_arrays
from gentext.generation.model_calls import MAX_POSITIONS, DrawnRows, GeneratorModel, first_feeds, forced_tokens
from gentext.generation.row_table import RowTable
from gentext.interfaces import Chunk, Finish, Request, TopSymbols

#: Positions of the first calls that draw: few, so that the first characters come at once.
FIRST_CALLS = (1, 4, 16, 64)


def generate_compiled(model: GeneratorModel, bundle: Bundle, request: Request) -> Iterator[Chunk]:
    """Generate the rows of a request, in chunks that grow from one position to MAX_POSITIONS.

    Raises ConfigError for parameters of another shape or out of range, FileFormatError when the graph of a file returns
    what no generator returns.
    """
    rows = _CompiledRows(model, bundle, request)

    # Read the primes. The stop automaton of a row starts after its prime, so no call crosses the end of one.
    for end in sorted(set(rows.prime_lengths.tolist())):
        while rows.position < end:
            yield from rows.advance(rows.table.call_size(end - rows.position, rows.count, reads=True))
        rows.set_stop_states(end)

    # Draw in every row.
    call_sizes = iter(FIRST_CALLS)
    while any(finish == "running" for finish in rows.finish):
        call_size = next(call_sizes, MAX_POSITIONS)
        if request.max_tokens is not None:
            call_size = min(call_size, max(1, rows.most_tokens_left(request.max_tokens)))
        yield from rows.advance(rows.table.call_size(call_size, rows.count))


class _CompiledRows:
    """The rows of one request: what is known of them between two calls of the graph.

    Positions count from the first token of the primes, which all rows begin together.
    """

    def __init__(self, model: GeneratorModel, bundle: Bundle, request: Request) -> None:
        self.bundle, self.request = bundle, request
        self.count = len(request.primes)
        request.chain.check_params(request.params, self.count)
        self.prime_lengths = np.array([len(prime) for prime in request.primes])
        self.position = 0
        """The first position of the next call."""
        self.finish: list[Finish] = ["running"] * self.count
        self.drawn_counts = np.zeros(self.count, np.int64)
        """Tokens that each row has drawn."""
        self.table = RowTable(model, bundle, checks_tokens=False)  # `gentext.components.samplers` does
        self.table.top_count = min(request.top_count, bundle.vocab_size)
        self.table.set_active_links(request.chain.active(request.params, {}).names)
        self.table.shared_feeds = flat_arrays(request.params) | flat_arrays(request.tables)
        if (stop := request.stop) is not None:
            stop_feeds = {"stop_table": stop.token_table(bundle.token_bytes), "stop_final": stop.matched > 0}
            self.table.shared_feeds |= stop_feeds
        keys = np.array(request.seeds, np.uint64)
        self.table.add(first_feeds(model.signature, self.count), keys, -self.prime_lengths)

    def most_tokens_left(self, max_tokens: int) -> int:
        """Return the largest number of tokens that a running row still has to draw."""
        running = [finish == "running" for finish in self.finish]
        return int((max_tokens - self.drawn_counts)[running].max())

    def set_stop_states(self, end: int) -> None:
        """Set the stop automaton of the rows whose prime ends at this position to its state after the prime."""
        stop, token_bytes = self.request.stop, self.bundle.token_bytes
        if stop is None:
            return
        stop_states = np.array(self.table.arrays["stop_state"])
        # With an empty prime this is the automaton's start state, to which the graph resets a fresh row.
        for row in np.flatnonzero(self.prime_lengths == end):
            prime = b"".join(token_bytes[int(token)] for token in self.request.primes[int(row)])
            stop_states[row] = stop.state_after_prime(prime)
        self.table.replace({"stop_state": stop_states})

    def advance(self, size: int) -> Iterator[Chunk]:
        """Run ``size`` positions; yield a chunk unless all rows were still reading primes that nobody asked for."""
        unread = [(row, prime[self.position :]) for row, prime in enumerate(self.request.primes)]
        forced = forced_tokens(size, self.count, unread)
        drawn = self.table.call(forced)
        self.position += size
        is_new = forced < 0
        if is_new.any() or self.request.echo:
            tokens = self._record_tokens(np.where(is_new, drawn.tokens, -1), drawn.ended)
            if self.request.echo:
                tokens = np.where(is_new, tokens, forced)
            yield self._make_chunk(tokens, drawn)

    def _record_tokens(self, tokens: NDArray[np.int64], ended: NDArray[np.int64]) -> NDArray[np.int64]:
        """Record new tokens [K, N], and return them without those after the end of a row or its limit."""
        limit = self.request.max_tokens
        for row in range(self.count):
            if self.finish[row] != "running":
                tokens[:, row] = -1
                continue
            new_positions = np.flatnonzero(tokens[:, row] >= 0)
            new_count = len(new_positions)
            tokens_left = new_count if limit is None else limit - int(self.drawn_counts[row])
            tokens[new_positions[tokens_left:], row] = -1
            # If the row drew more than its limit, `ended` may be due to a token that is cut off here.
            if new_count <= tokens_left and FINISH_BY_CODE[ended[row]] in ("stop", "end"):
                self.finish[row] = FINISH_BY_CODE[ended[row]]
            elif limit is not None and new_count >= tokens_left:
                self.finish[row] = "length"
            else:
                self.finish[row] = FINISH_BY_CODE[ended[row]]
            self.drawn_counts[row] += min(new_count, tokens_left)
        return tokens

    def _make_chunk(self, tokens: NDArray[np.int64], drawn: DrawnRows) -> Chunk:
        """Return the chunk of tokens [K, N] with their log-probabilities."""
        is_token, top_symbols = tokens >= 0, drawn.top_symbols
        if top_symbols is not None:
            is_top = is_token[:, :, None]
            top_logprobs = np.where(is_top, top_symbols.logprobs, np.nan).astype(np.float32)
            top_symbols = TopSymbols(np.where(is_top, top_symbols.tokens, -1), top_logprobs)
        logprobs = np.where(is_token, drawn.logprobs, np.nan).astype(np.float32)
        return Chunk(tokens, logprobs, tuple(self.finish), top_symbols)
