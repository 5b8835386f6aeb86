"""Records that match an expression, and the most probable ones: the boundary symbol ends them, where they may end."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from compiled_model import build_compiled_model, written
from conftest import train_records
from helpers import examples, fails
from hypothesis import given
from hypothesis import strategies as st
from test_best import BYTES, TinyModel, assert_best, compile_expression
from test_match import CHARACTERS, PIECES, RandomModel, compile_here, matched_request
from test_match import matches as find_matches
from test_match_automaton import random_expression

import gentext
from gentext.console import Bar
from gentext.errors import UsageError
from gentext.export.proto import serialize_model
from gentext.exported.boundary import RecordsMeta
from gentext.generation.compiled import generate_compiled
from gentext.matching.match_tables import MATCH_LINK
from gentext.plugins.samplers.cpu_generator import ParallelGenerator
from gentext.plugins.samplers.cuda_generator import UnrolledGenerator
from gentext.plugins.samplers.session import open_unrolled
from gentext.search.best import TextSearch
from gentext.search.endings import TextEndings
from gentext.search.prefixes import RowStepper, log_probabilities
from gentext.stepping import StepModel, generate_stepwise
from gentext.stop import StopAutomaton

# -- texts that match -------------------------------------------------------------------------


def records_model(symbols: Sequence[bytes], model_class: Any, *, never_empty: bool = False, **arguments: Any) -> Any:
    """Return a model of the tests of texts of random weights, with a boundary symbol behind its symbols."""
    model = model_class([*symbols, b""], **arguments)
    records = RecordsMeta(len(symbols), 9, "lines", never_empty=never_empty)
    model.bundle = dataclasses.replace(model.bundle, start=len(symbols), records=records)
    return model


@mock.patch("gentext.matching.constraints.compile_bytes", compile_here)
@examples(40)
@given(st.randoms(use_true_random=False), st.integers(0, 12), st.sampled_from([CHARACTERS, PIECES]))
def test_records_that_match_end_with_the_boundary(rng: Any, extra: int, symbols: list[bytes]) -> None:
    unknown = len(symbols) - 1 if symbols is PIECES else None
    model = records_model(symbols, RandomModel, unknown=unknown)
    expression = random_expression(rng)
    if not can_match(model, expression, None):
        return
    least = next(length for length in range(100) if can_match(model, expression, length))
    length = max(least + extra, 1)
    rows = find_matches(model.bundle, [expression] * 4, length)
    for text in model.write([MATCH_LINK, "top_k"], length, 4, matches=rows):
        assert re.fullmatch(expression, text.text) and len(text.text) <= length, (expression, text)
        assert text.finish == ("end" if text.tokens[-1] == model.bundle.boundary else "match")
        assert text.finish == "end" or len(text.text) == length
    for text in model.write([MATCH_LINK], None, 2, matches=find_matches(model.bundle, ["(ab|1)*"] * 2, None)):
        assert text.finish == "end" and re.fullmatch("(ab|1)*", text.text)


def can_match(model: Any, expression: str, length: int | None) -> bool:
    try:
        find_matches(model.bundle, [expression], length)
    except UsageError:
        return False
    return True


def test_the_model_decides_where_a_record_ends() -> None:
    """Where every text matches, texts are those without the expression; else the boundary alone ends one."""
    model = records_model(CHARACTERS, RandomModel)
    free = model.write(["top_k"], 40, 100)
    everything = find_matches(model.bundle, ["(?s).*"] * 100, 40)
    assert [text.tokens for text in model.write([MATCH_LINK, "top_k"], 40, 100, matches=everything)] == [
        text.tokens for text in free
    ]
    matched = model.write([MATCH_LINK], 40, 100, matches=find_matches(model.bundle, ["[aé1]*"] * 100, 40))
    assert sum(text.finish == "end" for text in matched) > 50
    assert {text.finish for text in matched} <= {"end", "match"}


@mock.patch("test_match.EXPRESSIONS", ["[a-f]{3}( [g-p]+)?\\.", None, "([a-p]+ ){2,}", "(ab|cd)*", "[^.]{12}", ""])
def test_compiled_records_match_as_those_of_numpy(tiny_records_run: Path, tmp_path: Path) -> None:
    compiled = build_compiled_model(tmp_path, tiny_records_run)
    chain = compiled.chain("match", "penalties", "top_k", "temperature")
    opened = compiled.open(chain)
    sampling = matched_request(compiled, chain, 36, 40)
    sampling = dataclasses.replace(sampling, primes=[prime % 18 for prime in sampling.primes])
    expected = written(generate_stepwise(opened, opened.bundle, sampling), 36)
    unrolled = opened.session.path.with_name(f"{opened.session.path.stem}-unrolled.onnx")
    unrolled.write_bytes(serialize_model(compiled.compiler(chain).compile_unrolled(4)))
    unrolled_generator = UnrolledGenerator(opened.session, open_unrolled(opened.session, "cpu"), "cpu")
    for generator in (opened.session, ParallelGenerator(opened.session, 2), unrolled_generator):
        assert written(generate_compiled(generator, opened.bundle, sampling), 36)[:2] == expected[:2]
    assert {"end", "length"} <= set(expected[1]) and "match" not in expected[1]


# -- the most probable records ----------------------------------------------------------------


def all_records(model: TinyModel, length: int, stops: Sequence[str] = (), expression: str = "") -> dict[str, float]:
    """Return the log-probability of every record, by writing each and every sequence of symbols."""
    bundle, totals = model.bundle, dict[str, list[float]]()

    def write(tokens: tuple[int, ...], logprob: float) -> None:
        try:
            text = bundle.join_symbols(tokens).decode()
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                return
            text = None
        if text is not None:
            cut = [end - max(map(len, found)) for end in range(1, len(text) + 1) if (found := endings_of(text[:end]))]
            if cut or len(text) > length:
                if cut and len(text) <= length:
                    totals.setdefault(text[: cut[0]], []).append(logprob)
                return
        logits = model.advance(np.array([[bundle.start, *tokens]]), model.initial(1))[0][0, -1].astype(np.float64)
        logprobs = logits - math.log(np.exp(logits).sum())
        may_end = text is not None and (bool(text) or not bundle.never_empty)
        if text is not None and may_end and (not expression or re.fullmatch(expression, text)):
            totals.setdefault(text, []).append(logprob + logprobs[bundle.vocab_size - 1])
        for token in range(bundle.vocab_size - 1):
            write((*tokens, token), logprob + logprobs[token])

    def endings_of(text: str) -> list[str]:
        return [stop for stop in stops if text.endswith(stop)]

    write((), 0.0)
    return {text: math.log(sum(map(math.exp, logprobs))) for text, logprobs in totals.items()}


def find_best(model: TinyModel, length: int, count: int, stops: Sequence[str] = (), expression: str = "") -> Any:
    bundle, stop, match = model.bundle, StopAutomaton(stops) if stops else None, None
    if expression:
        match = compile_expression(expression, tuple(bundle.token_bytes))
    allows_empty = not bundle.never_empty
    endings = TextEndings(bundle.token_bytes, None, length, stop, match, bundle.boundary, allows_empty=allows_empty)
    position = (0, 0, match.start if match else 0, 0)
    search = TextSearch(model, bundle, endings, np.empty(0, np.int64), position, count=count)
    return list(search.find(Bar("", None, ""))), search


@examples(40)
@given(
    st.sampled_from([[b"a", b"b"], [b"a", b"b", "é".encode()], BYTES[:3]]),
    st.lists(st.text("ab", min_size=1, max_size=3), max_size=2),
    st.integers(0, 10**6),
    st.integers(1, 60),
    st.booleans(),
)
def test_best_records_equal_trying_all(
    symbols: list[bytes], stops: list[str], seed: int, count: int, never_empty: bool
) -> None:
    model = records_model(symbols, TinyModel, seed=seed, never_empty=never_empty)
    expected = all_records(model, 4, stops)
    best, search = find_best(model, 4, count, stops)
    assert_best(best, expected, count)
    assert search.is_complete and search.is_exact
    for text in best:
        assert text.finish == "end" or (stops and text.finish == "stop")
        assert (text.tokens[-1:] == (model.bundle.boundary,)) is (text.finish == "end")
    for pattern in ("a{1,3}", "(aé?)*", "[^b].*a"):
        expected = all_records(model, 4, (), pattern)
        best, _ = find_best(model, 4, count, (), pattern)
        assert_best(best, expected, count)
        assert {text.finish for text in best} <= {"end"}


def test_the_end_is_learned(tmp_path_factory: pytest.TempPathFactory) -> None:
    """At each length, the records that have ended and the beginnings that have not have a probability of 1 together."""
    rng = random.Random(0)
    lines = ["ab" * rng.randint(0, 3) + "a" * rng.randint(0, 2) for _ in range(3000)]
    model = gentext.load(train_records(tmp_path_factory.mktemp("tiny-vocabulary"), lines, 200) / "model.onnx")
    bundle, sampler = model.bundle, model._sampler
    assert isinstance(sampler, StepModel) and bundle.boundary == 2
    logits, states = RowStepper(sampler, bundle, 4096).read_prime(np.empty(0, np.int64))
    open_logprobs, ended = np.zeros(1), []
    for length in range(10):
        logprobs = open_logprobs[:, None] + log_probabilities(logits, 1.0)
        ended += logprobs[:, bundle.boundary].tolist()
        going_on = np.delete(logprobs, bundle.boundary, axis=1)
        assert np.exp(ended).sum() + np.exp(going_on).sum() == pytest.approx(1, abs=1e-5)
        best = model.best(length=max(length, 1), count=2 ** (length + 1))
        if length:
            logprobs_of_records = sorted(ended[1:], reverse=True)  # without the empty one, which is never written
            assert [text.logprob for text in best] == pytest.approx(logprobs_of_records, abs=1e-4)
        rows, tokens = np.nonzero(np.isfinite(logprobs) & (np.arange(3) != bundle.boundary))
        logits, states = RowStepper(sampler, bundle, 4096).step(tokens, [state[rows] for state in states])
        open_logprobs = logprobs[rows, tokens]
    assert {text.text for text in model.best(count=4)} <= {*lines}, "the model has learned the few records"


def test_best_command_on_records(tiny_records_run: Path, gen: Any) -> None:
    code, out, err = gen("best", tiny_records_run, "--count", 3, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["complete"] and [text["finish"] for text in found["texts"]] == ["end"] * 3
    code, out, err = gen("best", tiny_records_run, "--count", 3, "--match", "[a-c]{1,2}", "--length", 2)
    assert code == 0 and out.count(" end ") == 3, err


def test_an_expression_for_the_empty_record_alone(tiny_records_run: Path, gen: Any) -> None:
    for command in ("sample", "best"):
        fails(2, gen(command, tiny_records_run, "--match", ""), "--match '': it matches the empty text alone")
        shortest = "the shortest text that --match (abc)? matches has 3 characters"
        fails(2, gen(command, tiny_records_run, "--match", "(abc)?", "--length", 2), "--length 2: " + shortest)
    code, out, err = gen("sample", tiny_records_run, "--match", "(abc)?", "--count", 9)
    assert (code, out) == (0, "abc\n" * 9), err
    [text] = gentext.load(tiny_records_run).write_many(["a"], match="(abc){9}|", length=9)
    assert (text.text, text.finish) == ("", "end"), "behind a prime, nothing else may follow"
