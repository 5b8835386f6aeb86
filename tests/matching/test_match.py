"""--match and --json-schema: every text matches, whole, in every way to write it."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest
from compiled_model import CompiledModel, request, written
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_match_automaton import random_expression

from gentext.errors import UsageError
from gentext.export.proto import serialize_model
from gentext.exported.metadata import Bundle, TokenizerMeta
from gentext.generation.compiled import generate_compiled
from gentext.generation.generate import generate
from gentext.interfaces import Chunk, Request
from gentext.manager import host
from gentext.matching.byte_automaton import ByteAutomaton, compile_bytes, read_automaton
from gentext.matching.constraints import TextMatches, banned_symbols, build_matches, read_constraints
from gentext.matching.expression import NOTHING
from gentext.matching.expression_child import compile_expression
from gentext.matching.match_tables import FREE_STATE, MATCH_LINK
from gentext.plugins.samplers.cpu_generator import ParallelGenerator
from gentext.plugins.samplers.cuda_generator import UnrolledGenerator
from gentext.plugins.samplers.session import open_unrolled
from gentext.requests.spelling import KEYWORD_SPELLING
from gentext.sampling.chain import Chain, build_chain
from gentext.sampling.configured_chain import builtin_strategies, configured_chain, describe_links, make_tables
from gentext.sampling.stored import stored_chain
from gentext.stepping import generate_stepwise


def matches(
    bundle: Bundle, expressions: Sequence[str | None], length: int | None, primes: Sequence[bytes] | None = None
) -> TextMatches:
    """Return what texts must match, for expressions one by one."""
    constraints = read_constraints(list(expressions), None, len(expressions), KEYWORD_SPELLING)
    nothing_banned = np.zeros(bundle.vocab_size, np.bool_)
    primes = primes or [b""] * len(expressions)
    return build_matches(constraints, primes, bundle, nothing_banned, length, KEYWORD_SPELLING)


# -- a model of random logits, in NumPy alone ----------------------------------------------------


class RandomModel:
    """Gives logits that depend on the last tokens alone, and so are the same in every run."""

    device = "cpu"

    def __init__(self, symbols: Sequence[bytes], unknown: int | None = None, sharpness: float = 2.0) -> None:
        tokenizer = TokenizerMeta("none", {}, unknown)
        self.bundle = Bundle("model", tokenizer, list(symbols), [], 0, [], {})
        rng = np.random.default_rng(len(symbols))
        self._table = (sharpness * rng.normal(size=(64, len(symbols)))).astype(np.float32)

    def initial(self, rows: int) -> tuple[NDArray[np.int64]]:
        return (np.zeros(rows, np.int64),)

    def advance(self, tokens: Any, state: Any) -> Any:
        codes, logits = state[0], []
        for token in tokens.T:
            codes = (codes * 7 + token) % len(self._table)
            logits.append(self._table[codes])
        return np.stack(logits, axis=1), (codes,)

    def generate(self, request: Request) -> Iterator[Chunk]:
        return generate_stepwise(self, self.bundle, request)

    def write(self, links: Sequence[str], length: int | None, rows: int = 1, **fields: Any) -> list[Any]:
        chain = build_chain(host().registry, list(links), self.bundle.vocab_size)
        primes = [np.empty(0, np.int64)] * rows
        texts, pieces = generate(self, chain, primes=primes, seed=1, length=length, tables={}, **fields)
        for _ in pieces:
            pass
        return texts


CHARACTERS = [b"\n", *(letter.encode() for letter in "aé1b ")]
#: One symbol of several characters, parts of a character, one without bytes, and the unknown one.
PIECES = [b"\n", b"a", b"\xc3", b"\xa9", b"1", b"a1", b"", b"1\xc3", b"\xa9a", b"b", b" ", b"?"]


@functools.cache
def compile_here(expression: str, seconds: float = 0) -> ByteAutomaton:
    """Compile an expression in this process, which is faster than in one of its own."""
    if expression == NOTHING:
        return compile_bytes(expression)
    return read_automaton(*compile_expression(expression))


@mock.patch("gentext.matching.constraints.compile_bytes", compile_here)
@examples(40)
@given(st.randoms(use_true_random=False), st.integers(0, 12), st.sampled_from([CHARACTERS, PIECES]))
def test_with_any_budget_a_text_is_whole(rng: Any, extra: int, symbols: list[bytes]) -> None:
    """The shortest text fits into the budget, and then all do; less is an error that says how many are needed."""
    model = RandomModel(symbols, unknown=len(symbols) - 1 if symbols is PIECES else None)
    expressions = [random_expression(rng) for _ in range(3)]
    try:
        found = matches(model.bundle, expressions, None)
    except UsageError as error:
        assert "match" in str(error)
        return
    for expression in expressions:
        for budget in range(8):
            try:
                least = budget
                matches(model.bundle, [expression], budget)
                break
            except UsageError as error:
                assert f"length = {budget}: the shortest text" in str(error)
        else:
            return
        length = max(least + extra, 1)
        rows = matches(model.bundle, [expression] * 3, length)
        for text in model.write([MATCH_LINK, "top_k"], length, 3, matches=rows):
            assert text.finish == "match"
            assert re.fullmatch(expression, text.text) and len(text.text) <= length, (expression, text)
    assert (found.first_states != FREE_STATE).all()


def test_a_text_ends_where_the_chain_alone_would_leave_the_expression() -> None:
    """Where every state is final, the text is the one without the expression, up to the first forbidden symbol."""
    model = RandomModel(CHARACTERS)
    free = [text.text for text in model.write(["top_k", "temperature"], 40, 8)]
    rows = matches(model.bundle, ["[aé1]*"] * 8, 40)
    for text, unconstrained in zip(
        model.write([MATCH_LINK, "top_k", "temperature"], 40, 8, matches=rows), free, strict=True
    ):
        expected = re.match("[aé1]*", unconstrained)
        assert expected is not None and text.text == expected[0] and text.finish == "match"
        assert len(text.tokens) == len(text.logprobs) == len(text.text), "the token that ended it is no part of it"


def test_rows_without_an_expression_are_free_beside_others() -> None:
    model = RandomModel(CHARACTERS)
    free = model.write(["top_k"], 30, 3)
    mixed = model.write([MATCH_LINK, "top_k"], 30, 3, matches=matches(model.bundle, [None, "(a1)*b{2}", None], 30))
    assert [mixed[row].text for row in (0, 2)] == [free[row].text for row in (0, 2)]
    assert [text.finish for text in mixed] == ["length", "match", "length"]
    assert re.fullmatch("(a1)*b{2}", mixed[1].text)


def test_without_a_limit_a_text_ends_where_the_model_ends_it() -> None:
    model = RandomModel(CHARACTERS)
    for text in model.write([MATCH_LINK], None, 4, matches=matches(model.bundle, ["(a|é|1|b)+ "] * 4, None)):
        assert text.finish == "match" and re.fullmatch("(a|é|1|b)+ ", text.text)


def test_a_table_is_as_large_as_a_power_of_two() -> None:
    """On a GPU, expressions of about one size share their buffers."""
    tables = matches(RandomModel(CHARACTERS).bundle, ["a{9}"], 9).tables
    assert {len(tables[name]) for name in ("next_state", "need", "least_need")} == {16}
    assert tables["states"].tolist() == [16]


# -- compiled ------------------------------------------------------------------------------------

EXPRESSIONS = ["[a-f]{3}( [g-p]+)?\\.", None, "([a-p]+ ){2,}", "(ab|cd)*", "[^.]{12}\n", ""]


def matched_request(model: CompiledModel, chain: Chain, rows: int, length: int, mixed: bool = True) -> Request:
    """Return a request of rows with different expressions, budgets, primes and, with ``mixed``, parameters."""
    expressions = [EXPRESSIONS[row % len(EXPRESSIONS)] for row in range(rows)]
    found = matches(model.bundle, expressions, length)
    sampling = request(
        chain, rows, length, mixed=mixed, tables={**make_tables(chain, model.bundle), MATCH_LINK: found.tables}
    )
    params = {link: dict(arrays) for link, arrays in sampling.params.items()}
    budgets = np.where(found.first_states == FREE_STATE, 0, found.budgets - np.arange(rows) % 7)
    params[MATCH_LINK] = {"first_state": found.first_states[:, None], "budget": budgets[:, None]}
    return dataclasses.replace(sampling, params=params)


@pytest.mark.parametrize(
    "names",
    [
        ("match",),
        pytest.param(
            ("match", "ban", "penalties", "top_k", "min_p", "temperature", "mirostat"), marks=pytest.mark.slow
        ),
    ],
)
def test_compiled_writes_what_numpy_writes(compiled_model: CompiledModel, names: tuple[str, ...]) -> None:
    """In one loop, in shares of the rows, unrolled, and one position after the other."""
    chain = compiled_model.chain(*names)
    opened = compiled_model.open(chain)
    sampling = matched_request(compiled_model, chain, 18, 40)
    expected = written(generate_stepwise(opened, opened.bundle, sampling), 18)
    assert set(expected[1]) == {"length", "match"}
    models = [opened.session, ParallelGenerator(opened.session, 2)]
    unrolled = opened.session.path.with_name(f"{opened.session.path.stem}-unrolled.onnx")
    unrolled.write_bytes(serialize_model(compiled_model.compiler(chain).compile_unrolled(4)))
    models.append(UnrolledGenerator(opened.session, open_unrolled(opened.session, "cpu"), "cpu"))
    for model in models:
        actual = written(generate_compiled(model, opened.bundle, sampling), 18)
        assert actual[:2] == expected[:2]


def test_every_loop_of_a_file_with_all_links_ends_rows(compiled_model: CompiledModel) -> None:
    """Whether other links are active beside `match` or not."""
    names = [name for name in builtin_strategies(host().registry) if name not in ("adaptive_p", "schedule")]
    chain = compiled_model.chain(*names)
    opened = compiled_model.open(chain)
    for mixed in (False, True):
        sampling = matched_request(compiled_model, chain, 12, 30, mixed)
        expected = written(generate_stepwise(opened, opened.bundle, sampling), 12)
        assert set(expected[1]) == {"length", "match"}
        assert written(generate_compiled(opened.session, opened.bundle, sampling), 12)[:2] == expected[:2]


def test_a_file_with_the_link_writes_as_one_without(compiled_model: CompiledModel) -> None:
    """While no row follows an expression, the link changes nothing."""
    texts = []
    for names in (("top_k", "temperature"), ("match", "top_k", "temperature")):
        chain = compiled_model.chain(*names)
        opened = compiled_model.open(chain)
        texts.append(written(generate_compiled(opened.session, opened.bundle, request(chain, 5, 60)), 5))
    assert texts[0] == texts[1]


def test_a_state_that_the_tables_lack_is_free(compiled_model: CompiledModel) -> None:
    """Whoever feeds the file can choose any first state: it must not read behind the end of a table."""
    chain = compiled_model.chain("match", "top_k")
    opened = compiled_model.open(chain)
    sampling = request(chain, 2, 20, tables=chain.table_arrays(None))
    params = {**sampling.params, MATCH_LINK: {**sampling.params[MATCH_LINK], "first_state": np.full((2, 1), 2**40)}}
    sampling = dataclasses.replace(sampling, params=params)
    compiled_rows = written(generate_compiled(opened.session, opened.bundle, sampling), 2)
    assert compiled_rows[:2] == written(generate_stepwise(opened, opened.bundle, sampling), 2)[:2]
    assert compiled_rows[1] == ["length"] * 2


def test_symbols_that_the_file_bans_leave_the_expression(compiled_model: CompiledModel) -> None:
    """The tables of a compiled chain are in the file alone, so the installed link makes them again."""
    chain = configured_chain(host().registry, {"links": ["match", "ban"], "ban": {"ban": "ab"}}, 19)
    bundle = dataclasses.replace(compiled_model.bundle, kind="generator", chain=describe_links(chain))
    is_banned = banned_symbols(stored_chain(bundle), {}, bundle)
    assert [bundle.token_bytes[token] for token in np.flatnonzero(is_banned)] == [b"a", b"b"]
