"""Texts from a sampler: requests in tokens, and pieces of text from the chunks that come back."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from gentext.components.samplers import checked_chunks
from gentext.interfaces import Finish, Ids, OpenSampler, Request
from gentext.matching.match_tables import FREE_STATE, MATCH_LINK
from gentext.noise import check_seed
from gentext.sampling.chain import Chain, LinkArrays
from gentext.sampling.configured_chain import make_tables
from gentext.sampling.decoder import GeneratedText, RowDecoder
from gentext.stop import StopAutomaton

if TYPE_CHECKING:  # most requests have none
    from gentext.matching.constraints import TextMatches


class Piece(NamedTuple):
    """Some new characters of one row; ``done`` when no others will follow."""

    row: int
    text: str
    done: bool


def generate(
    sampler: OpenSampler,
    chain: Chain,
    *,
    primes: Sequence[Ids],
    seed: int,
    streams: Sequence[int] | None = None,
    length: int | None = 200,
    param_values: dict[str, dict[str, float]] | None = None,
    stops: Sequence[str] = (),
    tables: LinkArrays | None = None,
    matches: TextMatches | None = None,
    top_count: int = 0,
    echo: bool = False,
) -> tuple[list[GeneratedText], Generator[Piece, None, None]]:
    """Write one text after each prime, of exactly ``length`` new characters (None: without end; 0: read the primes).

    Row r draws with stream ``streams[r]`` of the seed, r itself by default. The text of a row depends on its prime,
    the seed and its stream alone, not on the other rows. ``param_values`` sets parameters of the chain's links, by link
    and name. ``tables`` are those of the chain's links; when None, the links make them from their own options.
    ``matches`` is what the texts must match; the chain then has the link `match`. The texts have the ``top_count`` most
    probable symbols at each token, and with ``echo`` the log-probabilities of the primes.

    Returns the texts, which grow while the iterator is consumed, and an iterator over their pieces.
    """
    check_seed(seed)
    if streams is None:
        streams = range(len(primes))
    stop = StopAutomaton(stops) if stops else None
    bundle = sampler.bundle
    tables = make_tables(chain, bundle) if tables is None else tables
    params = chain.param_arrays(len(primes), param_values)
    full_finishes: list[Finish] = ["length"] * len(primes)
    if matches is not None:
        tables = {**tables, MATCH_LINK: matches.tables}
        params[MATCH_LINK]["first_state"][:, 0] = matches.first_states
        params[MATCH_LINK]["budget"][:, 0] = matches.budgets
        # With all of its characters, a text that follows an expression matches it.
        full_finishes = ["length" if state == FREE_STATE else "match" for state in matches.first_states]
    request = Request(
        primes=primes,
        seeds=[(seed, stream) for stream in streams],
        chain=chain,
        params=params,
        tables=tables,
        stop=stop,
        max_tokens=length if length == 0 or bundle.has_one_character_symbols else None,
        top_count=top_count,
        echo=echo,
    )
    decoders = [
        RowDecoder(GeneratedText(stream), bundle, length, stop, prime, full_finish, echo)
        for stream, prime, full_finish in zip(streams, primes, full_finishes, strict=True)
    ]
    for decoder, prime in zip(decoders, primes, strict=True):
        decoder.read_prime(bundle.join_symbols(prime))
    return [decoder.result for decoder in decoders], _decode_chunks(sampler, request, decoders)


def _decode_chunks(sampler: OpenSampler, request: Request, decoders: list[RowDecoder]) -> Generator[Piece, None, None]:
    with contextlib.closing(checked_chunks(sampler, request)) as chunks:
        for chunk in chunks:
            # Lists of a whole chunk are made faster than those of its rows.
            token_rows, logprob_rows = chunk.tokens.T.tolist(), chunk.logprobs.T.tolist()
            for row, decoder in enumerate(decoders):
                if decoder.done:
                    continue
                top_symbols = None if chunk.top_symbols is None else chunk.top_symbols[:, row]
                text = decoder.feed_tokens(token_rows[row], logprob_rows[row], top_symbols)
                if not decoder.done and chunk.finish[row] != "running":
                    text += decoder.end_row(chunk.finish[row])
                if text or decoder.done:
                    yield Piece(row, text, decoder.done)
            if all(decoder.done for decoder in decoders):
                return
