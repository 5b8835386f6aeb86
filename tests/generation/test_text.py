"""Text in and out: tokenizers, the stop automaton, and the loop that turns symbols into characters."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from helpers import examples
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gentext.errors import CorpusError, PrimeError, RunError, UsageError
from gentext.exported.metadata import Bundle, TokenizerMeta
from gentext.generation.generate import generate
from gentext.interfaces import Chunk, Finish, Request
from gentext.manager import host
from gentext.plugins.tokenizers.byte import ByteTokenizer
from gentext.plugins.tokenizers.char import CharConfig, CharTokenizer
from gentext.requests.primes import encode_prime
from gentext.sampling.chain import Chain, build_chain
from gentext.sampling.decoder import GeneratedText, RowDecoder
from gentext.stepping import generate_stepwise
from gentext.stop import StopAutomaton

TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)
FEW = "abé🙂\n"  # one, two and four bytes
SHORT = st.text("abé", max_size=25) | st.text(FEW, max_size=25)
#: Few letters, so that stop strings overlap and stand inside each other.
STOPS = st.lists(st.text("abé", min_size=1, max_size=4), min_size=1, max_size=3)
WIDE = "".join(chr(0x100 + n) for n in range(300))

# -- tokenizers -------------------------------------------------------------------------------


@examples(50)
@given(st.lists(TEXTS, min_size=1, max_size=4).filter(any), st.sampled_from([CharTokenizer, ByteTokenizer]))
def test_every_text_survives(chunks: list[str], cls: Any) -> None:
    text = "".join(chunks)
    tokenizer = cls.build(chunks, cls.Config())
    for one in (tokenizer, cls.from_state(json.loads(json.dumps(tokenizer.state())))):
        ids = one.encode(text)
        assert b"".join(one.token_bytes(int(token)) for token in ids).decode() == text
        assert ids.max(initial=0) < one.vocab_size == tokenizer.vocab_size
        assert one.unknown_at(text) == []
    assert cls.build([*text[::-1]], cls.Config()).state() == tokenizer.state()


@examples(30)
@given(st.text("abcdeé", min_size=1, max_size=40), st.integers(1, 5), TEXTS)
def test_rare_characters_share_the_unknown_symbol(text: str, min_count: int, other: str) -> None:
    counts = collections.Counter(text)
    kept = sorted(char for char, count in counts.items() if count >= min_count)
    if not kept:
        with pytest.raises(CorpusError, match=r"lower tokenizer\.min_count"):
            CharTokenizer.build([text], CharConfig(min_count))
        return
    tokenizer = CharTokenizer.build([text], CharConfig(min_count))
    assert [tokenizer.token_bytes(token).decode() for token in range(len(kept))] == kept
    assert tokenizer.unknown == (len(kept) if len(kept) < len(counts) else None)
    strange = [at for at, char in enumerate(other) if char not in kept]
    assert tokenizer.unknown_at(other) == strange
    if tokenizer.unknown is None and strange:
        with pytest.raises(PrimeError, match=f"first .* at position {strange[0]}$"):
            tokenizer.encode(other)
    else:
        wanted = [kept.index(char) if char in kept else tokenizer.unknown for char in other]
        assert tokenizer.encode(other).tolist() == wanted


def test_more_symbols_than_a_byte_holds() -> None:
    tokenizer = CharTokenizer.build([WIDE], CharConfig())
    assert tokenizer.encode(WIDE).tolist() == list(range(300))


@pytest.mark.parametrize("symbols", [None, "", 5, "ba", "aa", ["a"], "a\ud800"])
def test_damaged_state_is_refused(symbols: Any) -> None:
    with pytest.raises(RunError, match="char tokenizer's state is damaged"):
        CharTokenizer.from_state({"symbols": symbols})


def test_unknown_characters_of_a_prime() -> None:
    plain, lossy = CharTokenizer("abc", False), CharTokenizer("abc", True)
    for policy in ("error", "skip", "unknown"):
        ids, note = encode_prime(plain, "cab", policy)
        assert (ids.tolist(), note) == ([2, 0, 1], None)
    with pytest.raises(PrimeError, match="'x' at position 1, which the model's 3 symbols do not include"):
        encode_prime(plain, "axbx", "error")
    with pytest.raises(PrimeError, match="has no unknown symbol; use unknown = 'skip'"):
        encode_prime(plain, "axbx", "unknown")
    ids, note = encode_prime(plain, "axbx", "skip")
    assert (ids.tolist(), note) == (
        [0, 1],
        "2 characters of the prime are unknown and left out, first 'x' at position 1",
    )
    ids, note = encode_prime(lossy, "axbx", "unknown")
    assert (ids.tolist(), note) == ([0, 3, 1, 3], "2 characters of the prime are unknown, first 'x' at position 1")


# -- the stop automaton -----------------------------------------------------------------------


def first_stop(prime: str, text: str, stops: Sequence[str]) -> tuple[int, int]:
    """How many new characters there are when a stop string ends, and how long that is; without one, 0."""
    for end in range(1, len(text) + 1):
        found = [len(stop) for stop in stops if (prime + text[:end]).endswith(stop)]
        if found:
            return end, max(found)
    return len(text), 0


@examples(200)
@given(SHORT, SHORT, STOPS, st.integers(1, 5))
@example("", "abéb", ["abéa", "bé"], 1)
@example("ab", "a", ["aba", "ab"], 2)
def test_stops_are_found_where_a_naive_search_finds_them(prime: str, text: str, stops: list[str], size: int) -> None:
    automaton = StopAutomaton(stops)
    data, end = text.encode(), 0
    state = automaton.state_after_prime(prime.encode())
    while end < len(data) and not (end and automaton.matched[state]):
        state = automaton.advance(state, data[end : end + size])  # pieces cut characters in two
        end += size
    characters, matched = first_stop(prime, text, stops)
    assert (automaton.matched[state] if end else 0) == matched
    if matched:
        needed = len(text[:characters].encode())
        assert end - size < needed <= end


@examples(50)
@given(STOPS, st.lists(st.binary(max_size=3), min_size=1, max_size=5))
def test_table_of_symbols_is_the_automaton(stops: list[str], symbols: list[bytes]) -> None:
    automaton = StopAutomaton(stops)
    table = automaton.token_table(symbols)
    for state, row in enumerate(table):
        for data, target in zip(symbols, row, strict=True):
            assert target == automaton.advance(state, data) if data else not automaton.matched[target]


def test_empty_stop_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one character"):
        StopAutomaton(["a", ""])


# -- symbols to text --------------------------------------------------------------------------


def bundle_of(symbols: Sequence[bytes], unknown: int | None = None) -> Bundle:
    return Bundle("model", TokenizerMeta("fake", {}, unknown), list(symbols), [], 0, [], {})


BYTES = bundle_of([bytes([value]) for value in range(256)])
CHARS = bundle_of([char.encode() for char in FEW])


@dataclasses.dataclass
class Scripted:
    """A sampler whose rows emit given symbols, ``size`` positions at a time, and then end."""

    bundle: Bundle
    scripts: Sequence[Sequence[int]]
    last: Finish = "masked"
    size: int = 1
    device: str = "a script"
    closed: bool = False

    def generate(self, request: Request) -> Iterator[Chunk]:
        try:
            for begin in range(0, max(map(len, self.scripts)) + 1, self.size):
                rows = [[*script[begin : begin + self.size], *[-1] * self.size][: self.size] for script in self.scripts]
                tokens = np.array(rows, np.int64).T
                over = [begin + self.size > len(script) for script in self.scripts]
                logprobs = np.where(tokens < 0, np.nan, -tokens).astype(np.float32)
                yield Chunk(tokens, logprobs, [self.last if done else "running" for done in over])
        finally:
            self.closed = True


def write(sampler: Scripted, prime: str = "", **options: Any) -> tuple[list[GeneratedText], list[str]]:
    """Run to the end; return the texts, and what was handed out on the way, joined, for each row."""
    symbols = sampler.bundle.token_bytes
    ids = prime.encode() if len(symbols) == 256 else [symbols.index(char.encode()) for char in prime]
    primes = [np.array([*ids], np.int64)] * len(sampler.scripts)
    texts, pieces = generate(sampler, Chain([]), primes=primes, **{"seed": 0, **options})
    parts = [""] * len(texts)
    over = [False] * len(texts)
    for piece in pieces:
        assert not over[piece.row]
        parts[piece.row] += piece.text
        over[piece.row] = piece.done
        assert parts[piece.row] == texts[piece.row].text
    assert all(over)
    assert sampler.closed
    return texts, parts


@examples(150)
@given(
    SHORT, st.lists(SHORT, min_size=1, max_size=3), STOPS | st.just([]), st.integers(1, 30), st.booleans(), st.data()
)
def test_text_is_exact(prime: str, wanted: list[str], stops: list[str], length: int, bytewise: bool, data: Any) -> None:
    scripts = [[*text.encode()] if bytewise else [FEW.index(char) for char in text] for text in wanted]
    sampler = Scripted(BYTES if bytewise else CHARS, scripts, size=data.draw(st.integers(1, 4)))
    texts, parts = write(sampler, prime, length=length, stops=stops)
    for text, part, full, script in zip(texts, parts, wanted, scripts, strict=True):
        end, matched = first_stop(prime, full[:length], stops)
        reason = "stop" if matched else "length" if len(full) >= length else "masked"
        assert (text.text, text.finish) == (full[: max(0, end - matched)], reason)
        assert part == text.text
        assert text.tokens == script[: len(text.tokens)]
        assert text.logprobs == [-token for token in text.tokens]
        assert len(text.tokens) == len(full[:end].encode() if bytewise else full[:end])


def test_what_may_become_a_stop_is_held_back() -> None:
    sampler = Scripted(CHARS, [[FEW.index(char) for char in "bbabaab"]])
    texts, pieces = generate(sampler, Chain([]), primes=[np.empty(0, np.int64)], seed=0, length=7, stops=["aab"])
    assert [piece.text for piece in pieces] == ["b", "b", "ab", ""]
    assert (texts[0].text, texts[0].finish) == ("bbab", "stop")


@examples(100)
@given(st.binary(max_size=20))
def test_invalid_utf8_is_replaced(data: bytes) -> None:
    [text], _ = write(Scripted(BYTES, [[*data]]), length=None)
    assert text.text == data.decode("utf-8", "replace")


def test_iterator_that_is_dropped_closes_the_sampler() -> None:
    sampler = Scripted(CHARS, [[0] * 9])
    [text], pieces = generate(sampler, Chain([]), primes=[np.empty(0, np.int64)], seed=0, length=None)
    assert next(pieces).text == "a"
    pieces.close()  # type: ignore[attr-defined]
    assert sampler.closed
    assert (text.text, text.finish) == ("a", "running")


# -- rows of unequal primes -------------------------------------------------------------------


class Sums:
    """A model whose logits depend on all that a row has read, computed for each row alone."""

    def initial(self, rows: int) -> tuple[Any, ...]:
        return (np.zeros(rows, np.int64),)

    def advance(self, tokens: NDArray[np.int64], state: tuple[Any, ...]) -> tuple[NDArray[np.float32], tuple[Any, ...]]:
        (read,) = state
        logits = []
        for token in tokens.T:
            read = (read * 31 + token + 1) % 1009
            logits.append(np.sin(read[:, None] * np.arange(1, 6)) * 4)
        return np.stack(logits, axis=1).astype(np.float32), (read,)


@examples(40)
@given(st.lists(st.lists(st.integers(0, 4), max_size=9), min_size=1, max_size=4), st.lists(st.text("aé", min_size=2)))
def test_rows_with_unequal_primes_write_as_if_alone(primes: list[list[int]], stops: list[str]) -> None:
    chain = build_chain(host().registry, ["penalties", "top_k"], 5, {"penalties": {"presence_penalty": 0.7}})

    def run(rows: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any], Sequence[Finish]]:
        given = [np.array(primes[row], np.int64) for row in rows]
        stop = StopAutomaton(stops) if stops else None
        request = Request(given, [(3, row) for row in rows], chain, chain.param_arrays(len(rows)), {}, stop, 12)
        chunks = list(generate_stepwise(Sums(), CHARS, request))
        tokens, logprobs = (np.concatenate([getattr(c, name) for c in chunks]) for name in ("tokens", "logprobs"))
        return tokens, logprobs, chunks[-1].finish

    together = run(range(len(primes)))
    for row in range(len(primes)):
        alone = run([row])
        drawn = together[0][:, row] >= 0
        assert together[0][drawn, row].tolist() == alone[0][:, 0].tolist()
        assert np.array_equal(together[1][drawn, row], alone[1][:, 0])
        assert together[2][row] == alone[2][0]


@examples(200)
@given(
    tokens=st.lists(st.integers(0, 8), max_size=30),
    cuts=st.sets(st.integers(0, 30)),
    stops=st.lists(st.sampled_from(["ab", "é", "ba", "aéa", "\ufffd"]), max_size=2),
    length=st.none() | st.integers(1, 25),
)
def test_many_symbols_at_once_are_decoded_as_one_by_one(
    tokens: list[int], cuts: set[int], stops: list[str], length: int | None
) -> None:
    symbols = [b"a", b"b", "é".encode(), b"", b"ab", b"\xc3", b"\xa9", b"\xff", b"a\xc3"]
    bundle = Bundle("model", TokenizerMeta("fake", {}), symbols, [], 0, [], {})
    stop = StopAutomaton(stops) if stops else None

    def decode(ends: set[int]) -> tuple[GeneratedText, list[str]]:
        text, released = GeneratedText(0), []
        decoder = RowDecoder(text, bundle, length, stop, np.empty(0, np.int64), "length")
        for begin, end in itertools.pairwise(sorted(ends)):
            block = tokens[begin:end]
            released.append(decoder.feed_tokens(block, [-float(token) for token in block]))
        if not decoder.done:
            released.append(decoder.end_row("masked"))
        return text, released

    ends = {0, len(tokens)}
    text, released = decode({*range(len(tokens)), *ends})
    assert "".join(released) == text.text
    text_of_blocks, blocks = decode({cut for cut in cuts if cut <= len(tokens)} | ends)
    assert (text_of_blocks, text_of_blocks.text, "".join(blocks)) == (text, text.text, text.text)
