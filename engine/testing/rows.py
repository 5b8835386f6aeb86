"""An opened sampler and the rows that it writes, for `check_sampler`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from gentext.components.samplers import checked_chunks
from gentext.exported.metadata import Bundle
from gentext.interfaces import Chunk, Ids, OpenSampler, Request
from gentext.manager import host
from gentext.sampling.chain import Chain, Link
from gentext.sampling.configured_chain import chain_of, make_tables
from gentext.strategy import Param, State, Strategy
from gentext.testing.rules import report_broken_rules, require

#: New tokens of a row.
NEW_TOKENS = 24


class Only(Strategy):
    """Masks all symbols but some, for which alone the logits stay: those from ``first`` to ``last``."""

    params: Mapping[str, Param] = {
        "first": Param(0, "first symbol that is left", dtype="int64", low=0),
        "last": Param(2**31, "last symbol that is left", dtype="int64", low=-1),
    }

    def apply(self, xp: Any, logits: Any, params: Any, state: Any, noise: Any, tables: Any) -> Any:
        symbols = xp.arange(self.vocab_size)[None, :]
        return xp.where((symbols >= params["first"]) & (symbols <= params["last"]), logits, -xp.inf), state


class EndsAfter(Strategy):
    """Ends a row after some new symbols: the next token is no part of its text."""

    params: Mapping[str, Param] = {"symbols": Param(2**31, "symbols of the text", dtype="int64", low=0)}
    state: Mapping[str, State] = {"left": State((), "int64"), "ended": State((), "bool")}
    ends = "ended"

    def start(self, xp: Any, params: Any) -> Any:
        return {"left": xp.reshape(params["symbols"], (-1,))}

    def apply(self, xp: Any, logits: Any, params: Any, state: Any, noise: Any, tables: Any) -> Any:
        return logits, state

    def accept(self, xp: Any, token: Any, logits: Any, params: Any, state: Any, tables: Any, new: Any) -> Any:
        is_new = new[:, 0]
        is_over = (state["left"] == 0) & is_new
        return {"left": state["left"] - xp.astype(is_new & ~is_over, xp.int64), "ended": state["ended"] | is_over}


class Row(NamedTuple):
    """What a sampler wrote in one row."""

    tokens: list[int]
    logprobs: list[float]
    finish: str


class OpenedSampler:
    """An opened sampler, and requests for it."""

    def __init__(self, name: str, sampler: OpenSampler, seed: int) -> None:
        self.name, self.sampler, self.seed = name, sampler, seed
        self.bundle: Bundle = sampler.bundle
        never_drawn = (self.bundle.tokenizer.unknown, self.bundle.boundary)
        self.tokens = [token for token in range(self.bundle.vocab_size) if token not in never_drawn]
        """The symbols of a text."""
        rng = np.random.default_rng(seed)
        self.primes: list[Ids] = [rng.choice(np.array(self.tokens), size) for size in (0, 3, 7, 1)]

    def request(
        self,
        rows: list[int],
        *,
        only: tuple[int, int] | None = None,
        symbols: list[int] | None = None,
        **fields: Any,
    ) -> Request:
        """Return a request for some of four rows, with the file's own chain.

        Behind it a link masks the boundary symbol of a model of records, so that rows have the length that is asked
        for. With ``only`` the chain masks all symbols but those from the first to the last instead. With ``symbols``
        one more link ends each row after so many.
        """
        vocab_size, boundary = self.bundle.vocab_size, self.bundle.boundary
        links = [] if only is not None else [*chain_of(self.bundle, host().registry)]
        if only is None and boundary is not None:
            only = (0, boundary - 1)
        if only is not None:
            links.append(Link("only", Only(None, vocab_size), {"first": only[0], "last": only[1]}))
        if symbols is not None:
            links.append(Link("ends_after", EndsAfter(None, vocab_size), {"symbols": 0}))
        chain = Chain(links)
        defaults: dict[str, Any] = {
            "primes": [self.primes[row] for row in rows],
            "seeds": [(self.seed, row) for row in rows],
            "params": chain.param_arrays(len(rows)),
            "tables": make_tables(chain, self.bundle),
            "max_tokens": NEW_TOKENS,
        }
        if symbols is not None:
            defaults["params"]["ends_after"] = {"symbols": np.array(symbols, np.int64)[:, None]}
        return Request(chain=chain, **defaults | fields)

    def write(self, request: Request) -> list[Row]:
        """Return what the sampler writes for a request, with every chunk checked."""
        chunks = list(self.chunks(request))
        require(chunks, f"{self.name}: generate gives no chunk")
        return [self._read_row(chunks, row) for row in range(len(request.primes))]

    def chunks(self, request: Request) -> Iterator[Chunk]:
        with report_broken_rules():
            yield from checked_chunks(self.sampler, request)

    def _read_row(self, chunks: list[Chunk], row: int) -> Row:
        tokens = np.concatenate([chunk.tokens[:, row] for chunk in chunks])
        logprobs = np.concatenate([chunk.logprobs[:, row] for chunk in chunks])
        is_token = tokens >= 0
        written = np.flatnonzero(is_token)
        is_unbroken = not len(written) or bool(is_token[written[0] : written[-1] + 1].all())
        require(is_unbroken, f"{self.name}: row {row} has -1 between two of its tokens")
        is_number = np.isfinite(logprobs) & (logprobs <= 1e-6)
        require(
            bool(is_number[is_token].all()),
            f"{self.name}: row {row} has tokens with the log-probability {logprobs[is_token & ~is_number][:1]}; "
            f"expected numbers up to 0",
        )
        has_nan = bool(np.isnan(logprobs[~is_token]).all())
        require(has_nan, f"{self.name}: row {row} has a log-probability where it has no token; expected NaN")
        finishes = [chunk.finish[row] for chunk in chunks]
        require(
            finishes[-1] != "running", f"{self.name}: generate ends while row {row} is running; expected why it ended"
        )
        end = [finish == "running" for finish in finishes].index(False)
        is_final = len(set(finishes[end:])) == 1 and all(
            (chunk.tokens[:, row] < 0).all() for chunk in chunks[end + 1 :]
        )
        require(is_final, f"{self.name}: row {row} goes on after it has ended with {finishes[end]!r}")
        return Row(tokens[is_token].tolist(), logprobs[is_token].tolist(), finishes[-1])
