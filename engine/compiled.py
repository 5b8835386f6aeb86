"""Generation with a compiled file: K positions a call, chain and draw inside the graph.

What `gentext.stepping` does one position at a time in NumPy, with the same results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gentext.bundle import Bundle
from gentext.interfaces import Chunk, Finish, Request
from gentext.noise import uniforms
from gentext.signature import FINISH, Signature

#: Positions of a prime in one call.
PREFILL = 256
#: Positions of the first calls that draw: the first character at once, then fewer and fewer calls.
GROWTH = (1, 4, 16, 64)
LARGEST = 256
#: Logits of all positions of a call that the graph holds at once (32 MB): many rows get shorter calls.
LOGITS = 2**23

#: Inputs by name. A state may be anything that `numpy.asarray` reads: a backend may leave it where it is.
Feeds = dict[str, Any]


class GeneratorModel(Protocol):
    """What `compiled` needs of a backend."""

    signature: Signature

    @property
    def positions(self) -> int | None:
        """How many positions a call that draws should have; None: any number is as good."""
        ...

    def call(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run the positions that ``forced`` has; outputs by name."""
        ...


def compiled(model: GeneratorModel, bundle: Bundle, request: Request) -> Iterator[Chunk]:
    """Generate, in chunks that grow."""
    rows = _Rows(model, bundle, request)
    for end in sorted(set(rows.lengths.tolist())):
        # A row's automaton starts behind its prime, so a chunk never crosses the end of one.
        while rows.at < end:
            yield from rows.advance(min(PREFILL, rows.largest, end - rows.at))
        rows.enter_text(end)
    sizes = iter(GROWTH)
    while any(one == "running" for one in rows.finish):
        size = min(next(sizes, LARGEST), rows.largest)
        size = size if request.max_tokens is None else min(size, rows.longest_left())
        yield from rows.advance(model.positions or size)


def start_states(signature: Signature, rows: int) -> Feeds:
    """Return states for rows that begin: their values do not matter, ``fresh`` resets them."""
    return {
        one.name: np.zeros([rows if s == "N" else int(s) for s in one.shape], one.dtype) for one in signature.states
    }


def next_feeds(signature: Signature, results: Mapping[str, Any]) -> Feeds:
    """Return what a call is fed that goes on where another one ended: states, last symbols, ``fresh``."""
    last = np.asarray(results["tokens"])[-1]
    states = {one.name: results[f"{one.name}_out"] for one in signature.states}
    return states | {"token": np.maximum(last, 0), "fresh": np.zeros(len(last), np.bool_)}


class _Rows:
    """The rows of one request between calls."""

    def __init__(self, model: GeneratorModel, bundle: Bundle, request: Request) -> None:
        self.model, self.bundle, self.request = model, bundle, request
        self.count = len(request.primes)
        request.chain.check_params(request.params, self.count)
        self.lengths = np.array([len(prime) for prime in request.primes])
        self.largest = max(1, LOGITS // (self.count * bundle.vocab_size))
        """Positions of one call at most."""
        self.at = 0
        """Positions done, from the first of the longest prime on."""
        self.finish: list[Finish] = ["running"] * self.count
        self.drawn = np.zeros(self.count, np.int64)
        self._carried = start_states(model.signature, self.count)
        self._carried |= {"token": np.zeros(self.count, np.int64), "fresh": np.ones(self.count, np.bool_)}
        self._constant = self._inputs_that_stay()

    def longest_left(self) -> int:
        """Return how many positions the row with most to write still needs."""
        assert self.request.max_tokens is not None
        running = [one == "running" for one in self.finish]
        return int((self.request.max_tokens - self.drawn)[running].max())

    def enter_text(self, end: int) -> None:
        """Put the automaton of the rows whose prime ends here behind that prime."""
        stop, table = self.request.stop, self.bundle.token_bytes
        if stop is None:
            return
        for row in np.flatnonzero(self.lengths == end):
            prime = b"".join(table[int(token)] for token in self.request.primes[int(row)])
            self._carried["stop_state"] = np.array(self._carried["stop_state"])
            self._carried["stop_state"][row] = stop.behind(prime)
        # A fresh row would be reset to the automaton's start, which is where an empty prime leaves it.

    def advance(self, size: int) -> Iterator[Chunk]:
        """Run ``size`` positions; yield a chunk unless all rows were still reading their primes."""
        forced = np.full((size, self.count), -1, np.int64)
        for row, prime in enumerate(self.request.primes):
            part = prime[self.at : self.at + size]
            forced[: len(part), row] = part
        results = self.model.call({"forced": forced, "noise": self._noise(size)} | self._carried | self._constant)
        self._carried = next_feeds(self.model.signature, results)
        tokens = results["tokens"]
        self.at += size
        new = forced < 0
        if new.any():
            yield self._chunk(np.where(new, tokens, -1), results["logprobs"], results["ended_out"])

    def _chunk(self, tokens: NDArray[np.int64], logprobs: NDArray[np.float32], ended: NDArray[np.int64]) -> Chunk:
        limit = self.request.max_tokens
        for row in range(self.count):
            if self.finish[row] != "running":
                tokens[:, row] = -1
                continue
            places = np.flatnonzero(tokens[:, row] >= 0)
            left = len(places) if limit is None else limit - int(self.drawn[row])
            tokens[places[left:], row] = -1
            # What ended a row beyond its limit did not happen to it.
            if len(places) <= left and FINISH[ended[row]] == "stop":
                self.finish[row] = "stop"
            elif limit is not None and len(places) >= left:
                self.finish[row] = "length"
            else:
                self.finish[row] = FINISH[ended[row]]
            self.drawn[row] += min(len(places), left)
        return Chunk(tokens, np.where(tokens >= 0, logprobs, np.nan).astype(np.float32), tuple(self.finish))

    def _noise(self, size: int) -> NDArray[np.float32]:
        """Return [K, N, columns]: zeros while a prime is read, position 0 at a row's first new token."""
        signature = self.model.signature
        noise = np.zeros((size, self.count, signature.columns), np.float32)
        for row, (seed, stream) in enumerate(self.request.seeds):
            first = self.at - int(self.lengths[row])
            skip = max(0, -first)
            if skip >= size:
                continue
            for name, (column, columns) in signature.noise.items():
                made = uniforms(seed, stream, name, first + skip, size - skip, columns)
                noise[skip:, row, column : column + columns] = made
        return noise

    def _inputs_that_stay(self) -> Feeds:
        """Return parameters, tables and the automaton: the same at every call."""
        feeds: Feeds = {}
        for link, values in self.request.params.items():
            feeds |= {f"{link}.{name}": array for name, array in values.items()}
        for link, values in self.request.tables.items():
            feeds |= {f"{link}.{name}": array for name, array in values.items()}
        stop = self.request.stop
        if stop is not None:
            feeds["stop_table"] = stop.token_table(self.bundle.token_bytes)
            feeds["stop_final"] = stop.matched > 0
        return feeds
