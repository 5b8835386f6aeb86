"""Texts from a sampler: requests in tokens, and pieces of text from the chunks that come back."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gentext.describe import tokenizer_of
from gentext.errors import PrimeError
from gentext.exported.bundle import Bundle
from gentext.handover import checked_chunks
from gentext.interfaces import Finish, Ids, OpenSampler, Request, Tokenizer
from gentext.matching.match_tables import FREE_STATE, MATCH_LINK
from gentext.noise import check_seed
from gentext.sampling.chain import Chain, LinkArrays
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
        max_tokens=length if length == 0 or has_one_character_symbols(bundle) else None,
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


def make_tables(chain: Chain, bundle: Bundle) -> LinkArrays:
    """Return the tables of a chain's links.

    Only links that make tables need the tokenizer, whose plugin may not be installed. The links of a compiled file
    keep the tables that they were compiled with.
    """
    if not any(link.strategy.makes_tables for link in chain):
        return {}
    return chain.table_arrays(tokenizer_of(bundle))


def leave_out(text: str, positions: Sequence[int]) -> str:
    """Return a text without the characters at these positions."""
    is_kept = np.ones(len(text), np.bool_)
    is_kept[list(positions)] = False
    return "".join(itertools.compress(text, is_kept))


def encode_prime(
    tokenizer: Tokenizer, text: str, policy: str, skip_option: str = "unknown = 'skip'"
) -> tuple[Ids, str | None]:
    """Encode a prime. ``policy`` decides about characters that the model does not know.

    error: raise PrimeError naming the first one; skip: leave them out; unknown: use the unknown
    symbol. ``skip_option`` is how messages spell the advice to leave them out. Returns the ids, and a line to show
    when something was left out or replaced.
    """
    unknown_positions = tokenizer.unknown_at(text)
    if not unknown_positions:
        return tokenizer.encode(text), None
    first_unknown = f"{text[unknown_positions[0]]!r} at position {unknown_positions[0]}"
    if policy == "skip":
        known_text = leave_out(text, unknown_positions)
        note = f"{len(unknown_positions)} characters of the prime are unknown and left out, first {first_unknown}"
        return tokenizer.encode(known_text), note
    if policy == "unknown" and tokenizer.unknown is not None:
        return tokenizer.encode(
            text
        ), f"{len(unknown_positions)} characters of the prime are unknown, first {first_unknown}"
    if policy == "unknown":
        raise PrimeError(f"the prime has {first_unknown}, and this model has no unknown symbol; use {skip_option}")
    raise PrimeError(
        f"the prime has {first_unknown}, which the model's {tokenizer.vocab_size} symbols do not include; "
        f"leave it out, or use {skip_option}"
    )


def has_one_character_symbols(bundle: Bundle) -> bool:
    """Return whether every symbol is exactly one character; the boundary symbol, which has none, does not count."""
    characters = bundle.characters_by_token
    return characters is not None and all(len(each) == 1 for each in characters[: bundle.boundary])
