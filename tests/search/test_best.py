"""The most probable texts: the same as by trying all texts, with stop strings, temperatures, bytes and bounds."""

from __future__ import annotations

import functools
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import examples, fails, one_line
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import gentext
from gentext.console import Bar
from gentext.errors import FileFormatError, PluginError, UsageError
from gentext.exported.metadata import Bundle, StateMeta, TokenizerMeta
from gentext.interfaces import Chunk, Request
from gentext.matching.byte_automaton import compile_bytes
from gentext.matching.expression import Alphabet, translate_expression
from gentext.matching.match import MatchAutomaton, build_automaton
from gentext.search.best import TextSearch
from gentext.search.endings import TextEndings, check_spelling
from gentext.search.prefixes import BestText
from gentext.stop import StopAutomaton

Gen = Callable[..., tuple[int, str, str]]

#: Symbols that spell "a", "b", "c", "é" and "€" as bytes, and texts that are no UTF-8.
BYTES = [b"a", b"\xc3", b"\xa9", b"\xe2", b"\x82", b"\xac"]


class TinyModel:
    """A recurrent network of random weights, whose next symbol depends on all that it has read."""

    def __init__(self, symbols: Sequence[bytes], seed: int, unknown: int | None = None) -> None:
        rng = np.random.default_rng(seed)
        self.hidden, self.count = 6, len(symbols)
        self.read = rng.normal(0, 1.5, (self.count, self.hidden))
        self.recur = rng.normal(0, 1, (self.hidden, self.hidden))
        self.head = rng.normal(0, 1, (self.hidden, self.count))
        self.rows = 0
        tokenizer = TokenizerMeta("char", {}, unknown)
        state = StateMeta("h", [2, None, self.hidden // 2], "float32")
        self.bundle = Bundle("model", tokenizer, list(symbols), [state], 0, [], {})

    def initial(self, rows: int) -> tuple[NDArray[np.float32], ...]:
        return (np.zeros((2, rows, self.hidden // 2), np.float32),)

    def advance(self, tokens: NDArray[np.int64], state: Any) -> tuple[NDArray[np.float32], tuple[Any, ...]]:
        hidden = np.concatenate(list(state[0]), axis=1).astype(np.float64)
        logits = []
        for column in tokens.T:
            # Row by row, since a matrix product may round otherwise in another batch.
            hidden = np.stack(
                [np.tanh(self.read[token] + row @ self.recur) for token, row in zip(column, hidden, strict=True)]
            )
            logits.append(np.stack([row @ self.head for row in hidden]))
        self.rows += tokens.size
        new_state = np.stack(np.split(hidden, 2, axis=1)).astype(np.float32)
        return np.stack(logits, axis=1).astype(np.float32), (new_state,)


def all_texts(
    model: TinyModel, prime: Sequence[int], length: int, stops: Sequence[str], temperature: float
) -> dict[str, float]:
    """Return the log-probability of every text, by writing each and every sequence of symbols."""
    bundle = model.bundle
    prime_text = b"".join(bundle.token_bytes[token] for token in prime).decode()
    totals: dict[str, list[float]] = {}

    def write(tokens: tuple[int, ...], logprob: float) -> None:
        written = b"".join(bundle.token_bytes[token] for token in tokens)
        try:
            text = ended_text(prime_text, written.decode(), length, stops)
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                return  # no text begins so
            text = None
        if text is not None:
            totals.setdefault(text, []).append(logprob)
            return
        logits = model.advance(np.array([[bundle.start, *prime, *tokens]]), model.initial(1))[0][0, -1]
        scaled = logits.astype(np.float64) / temperature
        logprobs = scaled - math.log(sum(math.exp(logit) for logit in scaled))
        for token in range(bundle.vocab_size):
            if token != bundle.tokenizer.unknown:
                write((*tokens, token), logprob + logprobs[token])

    write((), 0.0)
    return {text: math.log(sum(map(math.exp, logprobs))) for text, logprobs in totals.items()}


def ended_text(prime: str, written: str, length: int, stops: Sequence[str]) -> str | None:
    """Return the text that new characters are, if its end is among them: before a stop string, or at the length."""
    for end in range(1, len(written) + 1):
        matching = [len(stop) for stop in stops if (prime + written[:end]).endswith(stop)]
        if matching:
            return written[: max(0, end - max(matching))]
        if end == length:
            return written[:end]
    return None


def search(
    model: TinyModel, prime: Sequence[int], length: int, stops: Sequence[str] = (), **options: Any
) -> TextSearch:
    stop = StopAutomaton(stops) if stops else None
    bundle = model.bundle
    endings = TextEndings(bundle.token_bytes, bundle.tokenizer.unknown, length, stop)
    prime_bytes = b"".join(bundle.token_bytes[token] for token in prime)
    position = (0, stop.state_after_prime(prime_bytes) if stop else 0, 0, 0)
    return TextSearch(model, bundle, endings, np.array(prime, np.int64), position, **options)


def assert_best(best: Sequence[BestText], texts: dict[str, float], count: int) -> None:
    assert len({text.text for text in best}) == len(best) == min(count, len(texts))
    expected = sorted(texts.values(), reverse=True)[:count]
    assert [text.logprob for text in best] == pytest.approx(expected, abs=1e-5)
    for text in best:
        assert text.logprob == pytest.approx(texts[text.text], abs=1e-5)
    assert [text.logprob for text in best] == sorted((text.logprob for text in best), reverse=True)


ALPHABETS = st.sampled_from([[b"a", b"b"], [b"a", b"b", b"c"], [b"a", b"b", "é".encode(), b"?"], BYTES])


@examples(60)
@given(st.data(), ALPHABETS, st.integers(0, 10**6), st.integers(1, 60), st.sampled_from([1.0, 0.5, 3.0]))
def test_equals_trying_all_texts(
    data: st.DataObject, symbols: list[bytes], seed: int, count: int, temperature: float
) -> None:
    unknown = len(symbols) - 1 if symbols[-1] == b"?" else None
    model = TinyModel(symbols, seed, unknown)
    length = data.draw(st.integers(1, 5 if len(symbols) < 4 else 4 if symbols is not BYTES else 2))
    letters = st.sampled_from(["a", "é", "€"] if symbols is BYTES else ["a", "b", "c"])
    stops = data.draw(st.lists(st.text(letters, min_size=1, max_size=3), max_size=3))
    whole = [token for token, symbol in enumerate(symbols) if symbol.isascii() and token != unknown]
    prime = data.draw(st.lists(st.sampled_from(whole), max_size=4))
    texts = all_texts(model, prime, length, stops, temperature)
    found = search(model, prime, length, stops, count=count, temperature=temperature)
    best = list(found.find(Bar("", None, "")))
    assert_best(best, texts, count)
    assert found.is_complete and found.is_exact
    missing = set(texts) - {text.text for text in best}
    assert all(texts[text] <= found.bound + 1e-5 for text in missing)
    for text in best:
        assert (len(text.text) == length) == (text.finish == "length")


EXPRESSIONS = ["[ab]{1,3}", "a|ab|abc", "(ab?c?)*", "b.*a", "", "[^b]+c", "é|a€?"]


@functools.cache
def compile_expression(expression: str, symbols: tuple[bytes, ...]) -> MatchAutomaton:
    byte_automaton = compile_bytes(translate_expression(expression, Alphabet.of_symbols(symbols)))
    return build_automaton(byte_automaton, symbols, np.ones(len(symbols), np.bool_))


@examples(40)
@given(st.sampled_from([[b"a", b"b", b"c"], BYTES]), st.sampled_from(EXPRESSIONS), st.integers(0, 10**6), st.data())
def test_matches_equal_trying_all_texts(symbols: list[bytes], expression: str, seed: int, data: st.DataObject) -> None:
    model, count = TinyModel(symbols, seed), data.draw(st.integers(1, 40))
    length = data.draw(st.integers(0 if expression in ("", "(ab?c?)*") else 3, 4 if len(symbols) < 4 else 3))
    texts = {}
    for tokens in itertools.chain.from_iterable(
        itertools.product(range(len(symbols)), repeat=size) for size in range(5 if symbols is not BYTES else 6)
    ):
        text = b"".join(symbols[token] for token in tokens).decode(errors="surrogateescape")
        if len(text) <= length and text.isprintable() and re.fullmatch(expression, text):
            texts[text] = sequence_logprob(model, [0], tokens)
    automaton = compile_expression(expression, tuple(symbols))
    if automaton.start < 0 or automaton.distance[automaton.start] > length:
        assert not texts
        return
    endings = TextEndings(symbols, None, length, match=automaton)
    found = TextSearch(model, model.bundle, endings, np.array([0]), (0, 0, automaton.start, 0), count=count)
    best = list(found.find(Bar("", None, "")))
    assert_best(best, texts, count)
    assert {text.finish for text in best} <= {"match"}


def test_lengths_beyond_trying_all() -> None:
    """Ten thousand times as many texts as could be tried: each log-probability is that of `all_texts`' own model."""
    model = TinyModel([b"a", b"b", b"c", b"d"], 5)
    found = search(model, [1], 40, ["d"], count=30)
    best = list(found.find(Bar("", None, "")))
    assert len(best) == 30 and found.is_complete
    for text in best:
        tokens = [*text.tokens, *([3] if text.finish == "stop" else [])]
        assert text.logprob == pytest.approx(sequence_logprob(model, [1], tokens), abs=1e-4)
    assert model.rows < 20_000


def sequence_logprob(model: TinyModel, prime: Sequence[int], tokens: Sequence[int]) -> float:
    read = np.array([[model.bundle.start, *prime, *tokens]])
    logits = model.advance(read, model.initial(1))[0][0].astype(np.float64)
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return float(sum(logprobs[len(prime) + index, token] for index, token in enumerate(tokens)))


@pytest.mark.parametrize("count", [5, 60])
def test_at_the_bound_on_memory_all_that_is_proven_is_true(count: int) -> None:
    model = TinyModel([b"a", b"b", b"c"], 3)
    texts = all_texts(model, [], 7, ["cc"], 1.5)
    expected = sorted(texts.values(), reverse=True)
    counts = set()
    for memory in (9_000, 30_000, 100_000, 2_000_000):
        found = search(model, [], 7, ["cc"], count=count, temperature=1.5, memory=memory)
        best = list(found.find(Bar("", None, "")))
        assert [text.logprob for text in best] == pytest.approx(expected[: len(best)], abs=1e-5)
        assert found.is_complete == (len(best) == count)
        assert found.bound >= expected[len(best)] - 1e-5
        counts.add(len(best))
    assert count in counts and len(counts) > 1


def test_beam() -> None:
    model = TinyModel([b"a", b"b", b"c"], 3)
    texts = all_texts(model, [], 6, ["cc", "b"], 1.0)
    wide = search(model, [], 6, ["cc", "b"], count=10, beam=5000)
    assert_best(list(wide.find(Bar("", None, ""))), texts, 10)
    assert wide.is_exact
    narrow = search(model, [], 6, ["cc", "b"], count=10, beam=2)
    best = list(narrow.find(Bar("", None, "")))
    assert narrow.is_complete and not narrow.is_exact
    for text in best:
        assert text.logprob == pytest.approx(texts[text.text], abs=1e-5)
    missing = set(texts) - {text.text for text in best}
    assert all(texts[text] <= narrow.bound + 1e-5 for text in missing)
    single = search(model, [], 8, count=1, beam=1)
    [greedy] = single.find(Bar("", None, ""))
    assert len(greedy.tokens) == 8


@pytest.mark.parametrize(
    ("symbols", "problem"),
    [
        ([b"a", b"b", b"ab"], "'ab' is neither a character nor a byte"),
        ([b"a", b""], "'' is neither a character nor a byte"),
        ([b"a", b"b", b"a"], "'a' has several spellings"),
        (["é".encode(), b"\xc3", b"\xa9"], "'é' has several spellings"),
    ],
)
def test_several_spellings_are_refused(symbols: list[bytes], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        check_spelling(symbols, None)
    check_spelling([b"a", "é".encode(), b"\xc3", b""], 3)  # an unknown symbol is never written, so it may be anything


def test_every_character_has_one_spelling_in_bytes() -> None:
    endings = TextEndings([bytes([byte]) for byte in range(256)], None, 1)
    characters = [*"\x00a\x7f\x80é\u07ff\u0800\ud7ff\ue000\uffff", "\U00010000", "\U0010ffff"]
    written: list[bytes] = []
    beginnings = {b"": np.zeros((1, 4), np.int64)}
    for _ in range(4):
        longer = {}
        for beginning, position in beginnings.items():
            following = endings.follow(position)
            written += [beginning + bytes([token]) for token in np.flatnonzero(following.completes[0])]
            for token in np.flatnonzero(following.continues[0])[:: 1 if len(beginning) < 2 else 9]:
                longer[beginning + bytes([token])] = endings.advance(position, np.array([token]))
        beginnings = longer
    assert not beginnings
    assert all(len(text.decode()) == 1 for text in written)
    assert {character.encode() for character in characters if len(character.encode()) < 4} <= set(written)


# -- the command and the library -----------------------------------------------------------------


def test_command_and_library_agree(gen: Gen, tiny_run: Path) -> None:
    options = ("--prime", "ab", "--count", 5, "--length", 4, "--stop", ".", "--stop", " a", "--temperature", 0.5)
    code, out, err = gen("best", tiny_run, *options, "--json")
    assert code == 0, err
    report = json.loads(out)
    model = gentext.load(tiny_run)
    best = model.best("ab", count=5, length=4, stop=[".", " a"], temperature=0.5)
    assert report["texts"] == [
        {"text": text.text, "logprob": round(text.logprob, 6), "finish": text.finish, "tokens": list(text.tokens)}
        for text in best
    ]
    assert (report["complete"], report["exact"], report["prime"]) == (True, True, "ab")
    assert report["bound"] == round(best.bound, 6) == report["texts"][-1]["logprob"]
    code, out, err = gen("best", tiny_run, *options)
    assert code == 0, err
    assert [line.split(maxsplit=2)[0] for line in out.splitlines()] == [f"{text.logprob:.4f}" for text in best]


@pytest.mark.parametrize("file", ["model.onnx", "generator.onnx"])
def test_log_probabilities_are_those_of_the_files_own(file: str, tiny_run: Path) -> None:
    model = gentext.load(tiny_run / file)
    best = model.best("ab", count=8, length=3)
    assert len(best) == 8
    for text in best:
        score = model.score("ab" + text.text)
        assert text.logprob == pytest.approx(score.logprobs[2:].sum(), abs=1e-4)
    assert best[0] in best and best[:2] == (best[0], best[1])


def test_torch_sampler(tiny_run: Path) -> None:
    exported = gentext.load(tiny_run / "model.onnx").best("ab", count=4, length=3)
    trained = gentext.load(tiny_run, sampler="torch", device="cpu").best("ab", count=4, length=3)
    assert [text.text for text in trained] == [text.text for text in exported]
    assert [text.logprob for text in trained] == pytest.approx([text.logprob for text in exported], abs=1e-4)


def test_line_ends_are_shown_as_escapes(gen: Gen, tiny_run: Path) -> None:
    code, out, err = gen("best", tiny_run, "--prime", "ab.", "--count", 400, "--length", 2)
    assert code == 0, err
    assert len(out.splitlines()) == 19**2 or len(out.splitlines()) == 400
    assert "\\n" in out
    if len(out.splitlines()) < 400:
        assert f"{len(out.splitlines())} of 400: no other text is possible" in err


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--count", 0], "--count 0: expected a whole number from 1 to 100000"),
        (["--count", 10**9], "--count 1000000000: expected a whole number from 1 to 100000"),
        (["--length", 0], "--length 0: expected a whole number from 1 to 100000"),
        (["--temperature", 0], "--temperature 0.0: expected a number from 0.01 to 100"),
        (["--temperature", "nan"], "--temperature nan: expected a number from 0.01 to 100"),
        (["--beam", 0], "--beam 0: expected a whole number from 1"),
        (["--beam", 100_000, "--memory", 5], "--memory 5: expected at least"),
        (["--memory", 0], "--memory 0: expected a whole number from 1"),
        (["--stop", ""], "expected at least one character"),
        (["--unknown", "x"], "--unknown x: expected error, skip or unknown"),
        (["--device", "tpu"], "device = 'tpu': expected auto, cpu or cuda"),
        (["--threads", -1], "threads = -1: expected"),
    ],
)
def test_bad_options(options: list[Any], problem: str, gen: Gen, tiny_run: Path) -> None:
    fails(2, gen("best", tiny_run, *options), problem)


def test_unknown_characters(gen: Gen, tiny_run: Path) -> None:
    fails(1, gen("best", tiny_run, "--prime", "aZ"), "'Z' at position 1", "--unknown skip")
    code, _, err = gen("best", tiny_run, "--prime", "aZ", "--unknown", "skip", "--stop", "Z", "--length", 2)
    assert code == 0
    assert "1 characters of the prime are unknown" in err and "--stop Z is never found" in err


def test_used_up_memory_is_said(gen: Gen, tiny_run: Path) -> None:
    code, out, err = gen("best", tiny_run, "--memory", 1, "--length", 150, "--count", 3)
    assert (code, out) == (0, "")
    assert "--length 150: nothing else ends a text" in err
    assert "0 of 3 texts are proven; any other has a log-probability of at most -" in err
    code, out, _ = gen("best", tiny_run, "--memory", 1, "--length", 150, "--count", 3, "--json")
    report = json.loads(out)
    assert (code, report["texts"], report["complete"]) == (0, [], False)
    assert report["bound"] < 0
    code, out, err = gen("best", tiny_run, "--memory", 1, "--length", 150, "--count", 3, "--beam", 4)
    assert code == 0 and len(out.splitlines()) == 3
    assert "approximate: a beam of 4 may have lost texts with log-probabilities up to -" in err


def test_ctrl_c_keeps_what_is_proven(gen: Gen, tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = TextSearch._read_batch, itertools.count()

    def interrupted(search: TextSearch) -> bool:
        if next(calls) == 12:
            raise KeyboardInterrupt
        return original(search)

    arguments = ("best", tiny_run, "--prime", "ab", "--length", 4, "--count", 2000)
    _, full_out, _ = gen(*arguments)
    monkeypatch.setattr(TextSearch, "_read_batch", interrupted)
    code, out, err = gen(*arguments)
    assert code == 1
    one_line(err, "stopped by Ctrl-C")
    proven = len(out.splitlines())
    assert 0 < proven < 2000 and full_out.startswith(out)
    [bound] = re.findall(
        rf"{proven} of 2000 texts are proven; any other has a log-probability of at most (\S+)\. ", err
    )
    assert float(full_out.splitlines()[proven].split()[0]) <= float(bound) + 1e-4


def test_a_sampler_without_steps_is_refused() -> None:
    class TextOnly:
        bundle: Any = None
        device = "nowhere"

        def generate(self, request: Request) -> Iterator[Chunk]:
            raise NotImplementedError

    with pytest.raises(PluginError, match=r"TextOnly cannot search texts: it lacks initial\(rows\)"):
        gentext.TextModel(Path(), TextOnly()).best()


def test_a_state_that_is_no_array_is_refused() -> None:
    class Opaque(TinyModel):
        device = "nowhere"

        def initial(self, rows: int) -> Any:
            return [object()]

        def advance(self, tokens: NDArray[np.int64], state: Any) -> Any:
            return np.zeros((*tokens.shape, self.count), np.float32), state

        def generate(self, request: Request) -> Iterator[Chunk]:
            raise NotImplementedError

    with pytest.raises(PluginError, match="has no arrays as its state"):
        gentext.TextModel(Path(), Opaque([b"a", b"b"], 1)).best()


def test_damaged_weights_are_named() -> None:
    class Damaged(TinyModel):
        def advance(self, tokens: NDArray[np.int64], state: Any) -> Any:
            logits, new_state = super().advance(tokens, state)
            return logits * np.float32(np.nan), new_state

    with pytest.raises(FileFormatError, match="not a number"):
        list(search(Damaged([b"a", b"b"], 1), [], 3, count=1).find(Bar("", None, "")))


# -- expressions ---------------------------------------------------------------------------------


def test_texts_that_match(gen: Gen, tiny_run: Path, tmp_path: Path) -> None:
    model = gentext.load(tiny_run)
    best = model.best("ab", match="[a-c]{2}|d[ef]", count=100)
    expected = {first + last for first in "abc" for last in "abc"} | {"de", "df"}
    assert {text.text for text in best} == expected and best.is_complete and best.bound == -math.inf
    for text in best:
        assert text.logprob == pytest.approx(model.score("ab" + text.text).logprobs[2:].sum(), abs=1e-4)
    code, out, err = gen("best", tiny_run, "--prime", "ab", "--match", "[a-c]{2}|d[ef]", "--count", 3)
    assert code == 0, err
    assert [line.split() for line in out.splitlines()] == [
        [f"{text.logprob:.4f}", "match", f'"{text.text}"'] for text in best[:3]
    ]
    longer = model.best("ab", match="ab(c|de)+", match_prime=True, length=3, count=100)
    assert {text.text for text in longer} == {"c", "de", "cc", "cde", "dec", "ccc"}
    schema = tmp_path / "schema.json"
    schema.write_text('{"const": "abc"}', encoding="utf-8")
    fails(2, gen("best", tiny_run, "--json-schema", schema), "the model cannot write")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--match", "a", "--stop", "b"], "--match and --stop: expected one of them"),
        (["--match", "a", "--json-schema", "s.json"], "--match and --json-schema: expected one of them"),
        (["--match-prime"], "--match-prime: expected --match or --json-schema with it"),
        (["--match", "(a"], "--match (a:"),
        (["--match", "Z"], "the model cannot write 'Z'"),
        (
            ["--match", "a{9}", "--length", 8],
            "--length 8: the shortest text that --match a{9} matches has 9 characters",
        ),
        (["--json-schema", "missing.json"], "--json-schema missing.json: cannot be read"),
    ],
)
def test_bad_expressions(options: list[Any], problem: str, gen: Gen, tiny_run: Path) -> None:
    fails(2, gen("best", tiny_run, *options), problem)
