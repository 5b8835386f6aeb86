"""Generation with a compiled file: K positions in one call, with the chain and the draw inside the graph.

It gives the same results as `gentext.stepping`, which runs one position at a time in NumPy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gentext.errors import FileFormatError
from gentext.exported.bundle import Bundle
from gentext.exported.signature import FINISH_BY_CODE, TOP_COUNT, TOP_OUTPUTS, Signature
from gentext.interfaces import Chunk, Finish, OpenSampler, Request, TopSymbols
from gentext.noise import row_uniforms

#: Positions of a prime that are read in one call, at most.
PREFILL_POSITIONS = 256
#: Positions of the first calls that draw: few, so that the first characters come at once.
FIRST_CALLS = (1, 4, 16, 64)
#: Positions of all later calls that draw.
MAX_POSITIONS = 256
#: Logits of one call, at most: rows * positions * symbols, which the graph holds in memory at once (float32, 32 MB).
MAX_LOGITS = 2**23

#: Inputs of a call by name. A state may be anything that `numpy.asarray` reads, so that it can stay on a device.
Feeds = dict[str, Any]


class GeneratorModel(Protocol):
    """A backend that runs the graph of a generator: all that `generate_compiled` needs."""

    signature: Signature
    """The inputs and outputs of the graph, with their shapes."""

    @property
    def positions(self) -> int | None:
        """The number of positions K of a call that draws tokens; None: any number."""
        ...

    def call(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run the graph for the K positions of ``forced`` [K, N], and return its outputs by name."""
        ...


@runtime_checkable
class SlotSampler(OpenSampler, Protocol):
    """An opened sampler that may have a generator for `gentext.generation.slots`."""

    @property
    def slot_model(self) -> GeneratorModel | None:
        """The generator; None where it has to prepare for each number of rows, as on a GPU."""
        ...


def generate_compiled(model: GeneratorModel, bundle: Bundle, request: Request) -> Iterator[Chunk]:
    """Generate the rows of a request, in chunks that grow from one position to MAX_POSITIONS.

    Raises ConfigError for parameters of another shape or out of range, FileFormatError when the graph of a file returns
    what no generator returns.
    """
    rows = _CompiledRows(model, bundle, request)

    # Read the primes. The stop automaton of a row starts after its prime, so no call crosses the end of one.
    for end in sorted(set(rows.prime_lengths.tolist())):
        while rows.position < end:
            yield from rows.advance(min(PREFILL_POSITIONS, rows.max_positions, end - rows.position))
        rows.set_stop_states(end)

    # Draw in every row.
    call_sizes = iter(FIRST_CALLS)
    while any(finish == "running" for finish in rows.finish):
        call_size = min(next(call_sizes, MAX_POSITIONS), rows.max_positions)
        if request.max_tokens is not None:
            call_size = min(call_size, max(1, rows.most_tokens_left(request.max_tokens)))
        yield from rows.advance(model.positions or call_size)


def start_states(signature: Signature, rows: int) -> Feeds:
    """Return states of the right shapes for the first call. The graph ignores them in rows that are ``fresh``."""
    return {
        port.name: np.zeros([rows if size == "N" else int(size) for size in port.shape], port.dtype)
        for port in signature.states
    }


def next_feeds(signature: Signature, results: Mapping[str, Any]) -> Feeds:
    """Return the states, the last tokens and ``fresh`` for the call that continues after these results."""
    last_tokens = np.asarray(results["tokens"])[-1]
    states = {port.name: results[f"{port.name}_out"] for port in signature.states}
    return states | {"token": np.maximum(last_tokens, 0), "fresh": np.zeros(len(last_tokens), np.bool_)}


def draw_noise(
    signature: Signature,
    keys: NDArray[np.uint64],
    positions: NDArray[np.int64],
    size: int,
    unused: Collection[str] = (),
) -> NDArray[np.float32]:
    """Return the noise of a call [K, N, columns] with K = ``size``; zeros for the links whose names are ``unused``.

    ``keys`` [N, 2] has the seed and the stream of each row, ``positions`` [N] its first position.
    """
    noise = np.zeros((size, len(keys), signature.columns), np.float32)
    for name, (column, columns) in signature.noise.items():
        if name not in unused:
            noise[:, :, column : column + columns] = row_uniforms(keys, name, positions, size, columns)
    return noise


def check_results(results: Mapping[str, Any], positions: int, rows: int, top_count: int = 0) -> None:
    """Raise FileFormatError when a graph returned arrays of other shapes than were asked for, or an unknown code.

    `gentext.components.samplers` checks the tokens themselves, as it does for every sampler.
    """
    shapes: dict[str, tuple[int, ...]] = {
        "tokens": (positions, rows),
        "logprobs": (positions, rows),
        "ended_out": (rows,),
    }
    if top_count:
        shapes |= dict.fromkeys(TOP_OUTPUTS, (positions, rows, top_count))
    for name, shape in shapes.items():
        if np.shape(results[name]) != shape:
            raise FileFormatError(
                f"the graph of the file returned {name} of shape {np.shape(results[name])}; expected {shape}. "
                f"The file is not as gen export writes it: export it again"
            )
    codes = np.asarray(results["ended_out"])
    if codes.min() < 0 or codes.max() >= len(FINISH_BY_CODE):
        raise FileFormatError(
            f"the graph of the file returned ended_out from {codes.min()} to {codes.max()}; expected 0 to "
            f"{len(FINISH_BY_CODE) - 1}. The file is not as gen export writes it: export it again"
        )


class _CompiledRows:
    """The rows of one request: what is known of them between two calls of the graph.

    Positions count from the first token of the primes, which all rows begin together.
    """

    def __init__(self, model: GeneratorModel, bundle: Bundle, request: Request) -> None:
        self.model, self.bundle, self.request = model, bundle, request
        self.count = len(request.primes)
        request.chain.check_params(request.params, self.count)
        self.prime_lengths = np.array([len(prime) for prime in request.primes])
        self.max_positions = max(1, MAX_LOGITS // (self.count * bundle.vocab_size))
        """Positions of one call at most."""
        self.position = 0
        """The first position of the next call."""
        self.finish: list[Finish] = ["running"] * self.count
        self.drawn_counts = np.zeros(self.count, np.int64)
        """Tokens that each row has drawn."""
        self._top_count = min(request.top_count, bundle.vocab_size)
        # Links with tables alone are not among them: their tables may be those of the file, which are not known here.
        active_names = request.chain.active(request.params, {}).names
        self._unused_noise = {
            link.name for link in request.chain if link.strategy.params and link.name not in active_names
        }
        """Links that no row uses, whose noise need not be computed."""
        self._keys = np.array(request.seeds, np.uint64)
        self._state_feeds = start_states(model.signature, self.count)
        self._state_feeds |= {"token": np.zeros(self.count, np.int64), "fresh": np.ones(self.count, np.bool_)}
        self._constant_feeds = self._build_constant_feeds()

    def most_tokens_left(self, max_tokens: int) -> int:
        """Return the largest number of tokens that a running row still has to draw."""
        running = [finish == "running" for finish in self.finish]
        return int((max_tokens - self.drawn_counts)[running].max())

    def set_stop_states(self, end: int) -> None:
        """Set the stop automaton of the rows whose prime ends at this position to its state after the prime."""
        stop, token_bytes = self.request.stop, self.bundle.token_bytes
        if stop is None:
            return
        # With an empty prime this is the automaton's start state, to which the graph resets a fresh row.
        for row in np.flatnonzero(self.prime_lengths == end):
            prime = b"".join(token_bytes[int(token)] for token in self.request.primes[int(row)])
            self._state_feeds["stop_state"] = np.array(self._state_feeds["stop_state"])
            self._state_feeds["stop_state"][row] = stop.state_after_prime(prime)

    def advance(self, size: int) -> Iterator[Chunk]:
        """Run ``size`` positions; yield a chunk unless all rows were still reading primes that nobody asked for."""
        forced = np.full((size, self.count), -1, np.int64)
        for row, prime in enumerate(self.request.primes):
            prime_block = prime[self.position : self.position + size]
            forced[: len(prime_block), row] = prime_block
        feeds = {"forced": forced, "noise": self._compute_noise(size)}
        results = self.model.call(feeds | self._state_feeds | self._constant_feeds)
        check_results(results, size, self.count, self._top_count)
        self._state_feeds = next_feeds(self.model.signature, results)
        self.position += size
        is_new = forced < 0
        if is_new.any() or self.request.echo:
            tokens = self._record_tokens(np.where(is_new, results["tokens"], -1), results["ended_out"])
            if self.request.echo:
                tokens = np.where(is_new, tokens, forced)
            yield self._make_chunk(tokens, results)

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

    def _make_chunk(self, tokens: NDArray[np.int64], results: Mapping[str, Any]) -> Chunk:
        """Return the chunk of tokens [K, N] with their log-probabilities."""
        is_token = tokens >= 0
        logprobs = np.where(is_token, results["logprobs"], np.nan).astype(np.float32)
        top_symbols = None
        if self._top_count:
            is_token = is_token[:, :, None]
            top_tokens = np.where(is_token, results["top_tokens"], -1)
            top_logprobs = np.where(is_token, results["top_logprobs"], np.nan).astype(np.float32)
            top_symbols = TopSymbols(top_tokens, top_logprobs)
        return Chunk(tokens, logprobs, tuple(self.finish), top_symbols)

    def _compute_noise(self, size: int) -> NDArray[np.float32]:
        """Return [K, N, columns]: zeros while a row reads its prime, then its noise from position 0 on."""
        positions = self.position - self.prime_lengths  # below 0 while a row reads its prime
        if positions.max() + size <= 0:
            return np.zeros((size, self.count, self.model.signature.columns), np.float32)
        noise = draw_noise(self.model.signature, self._keys, positions, size, self._unused_noise)
        noise[positions + np.arange(size)[:, None] < 0] = 0
        return noise

    def _build_constant_feeds(self) -> Feeds:
        """Return the inputs that are the same in every call: parameters, tables, stop automaton, and `TOP_COUNT`."""
        feeds: Feeds = {TOP_COUNT: np.array(self._top_count, np.int64)} if self._top_count else {}
        for arrays_by_link in (self.request.params, self.request.tables):
            for link, arrays in arrays_by_link.items():
                feeds |= {f"{link}.{name}": array for name, array in arrays.items()}
        stop = self.request.stop
        if stop is not None:
            feeds["stop_table"] = stop.token_table(self.bundle.token_bytes)
            feeds["stop_final"] = stop.matched > 0
        return feeds
