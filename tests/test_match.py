"""--match and --json-schema: every text matches, whole, in every way to write it."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jsonschema
import numpy as np
import pytest
from compiled_model import CompiledModel, request, written
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_match_automaton import random_expression

import gentext
from gentext.bundle import Bundle, TokenizerMeta
from gentext.byte_automaton import ByteAutomaton, compile_bytes, read_automaton
from gentext.chain import Chain, build_chain
from gentext.compiled import generate_compiled
from gentext.describe import configured_chain, describe_links
from gentext.errors import PrimeError, UsageError
from gentext.export.proto import serialize_model
from gentext.expression import NOTHING
from gentext.expression_child import compile_expression
from gentext.generate import generate
from gentext.interfaces import Chunk, Request
from gentext.library import KEYWORD_SPELLING
from gentext.manager import host
from gentext.match_tables import FREE_STATE, MATCH_LINK
from gentext.matching import TextMatches, banned_symbols, build_matches, read_constraints
from gentext.plugins.samplers.cpu_generator import ParallelGenerator
from gentext.plugins.samplers.cuda_generator import UnrolledGenerator
from gentext.plugins.samplers.session import open_unrolled
from gentext.stepping import generate_stepwise
from gentext.stored import stored_chain

DATE = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
ADDRESS = rf"{OCTET}(\.{OCTET}){{3}}"
LINE = "[^\n]{80}"
PLATE = "[A-Z]{1,3}-[A-Z]{1,2} [1-9][0-9]{0,3}"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 8},
        "age": {"type": "integer"},
        "score": {"type": "number"},
        "ok": {"type": "boolean"},
        "tags": {"type": "array", "items": {"enum": ["a", "b", None]}, "maxItems": 3},
    },
    "required": ["name", "age", "score", "ok", "tags"],
    "additionalProperties": False,
}


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
def compile_here(expression: str) -> ByteAutomaton:
    """Compile an expression in this process, which is faster than in one of its own."""
    if expression == NOTHING:
        return compile_bytes(expression)
    return read_automaton(*compile_expression(expression))


@mock.patch("gentext.matching.compile_bytes", compile_here)
@settings(max_examples=40, deadline=None)
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


def matched_request(model: CompiledModel, chain: Chain, rows: int, length: int) -> Request:
    """Return a request of rows with different expressions, budgets, primes and parameters."""
    expressions = [EXPRESSIONS[row % len(EXPRESSIONS)] for row in range(rows)]
    found = matches(model.bundle, expressions, length)
    sampling = request(chain, rows, length, tables={MATCH_LINK: found.tables})
    params = {link: dict(arrays) for link, arrays in sampling.params.items()}
    budgets = np.where(found.first_states == FREE_STATE, 0, found.budgets - np.arange(rows) % 7)
    params[MATCH_LINK] = {"first_state": found.first_states[:, None], "budget": budgets[:, None]}
    return dataclasses.replace(sampling, params=params)


@pytest.mark.parametrize(
    "names", [("match",), ("match", "ban", "penalties", "top_k", "min_p", "temperature", "mirostat")]
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


# -- the library and the command -----------------------------------------------------------------


@pytest.fixture(scope="module")
def printable_run(tmp_path_factory: pytest.TempPathFactory, gen: Any, tiny_options: Any, operators: None) -> Path:
    """A run of two steps whose symbols are the line end, the printable characters of ASCII, and é."""
    folder = tmp_path_factory.mktemp("match")
    characters = "".join(map(chr, range(32, 127))) + "é\n"
    (folder / "text.txt").write_text(characters * 40, encoding="utf-8")
    code, _, err = gen("train", folder / "text.txt", "--run", folder / "run", *tiny_options, "--steps", 2)
    assert code == 0, err
    return folder / "run"


def test_five_kinds_of_texts_in_one_batch(printable_run: Path) -> None:
    """Compiled and in NumPy, at the least length at which all of them are possible."""
    expressions = [DATE, ADDRESS, LINE, PLATE, None] * 4
    for path in (printable_run, printable_run / "model.onnx"):
        model = gentext.load(path)
        texts = model.write_many(count=20, length=80, seed=3, match=expressions)
        for text, expression in zip(texts, expressions, strict=True):
            assert text.finish == ("match" if expression else "length")
            assert expression is None or re.fullmatch(expression, text.text), text
        for text in model.write_many(count=20, length=60, seed=3, json_schema=SCHEMA, temperature=1.5, top_k=0):
            assert text.finish == "match"
            jsonschema.validate(json.loads(text.text), SCHEMA)
    torch_model = gentext.load(printable_run, sampler="torch")
    assert re.fullmatch(ADDRESS, torch_model.write(match=ADDRESS, length=9, seed=1))
    assert model.write(match=DATE, length=10, seed=1) == model.write(match=f"^{DATE}$", length=10, seed=1)
    pieces = model.stream(match="(ab)*", length=None, seed=1)
    assert re.fullmatch("(ab)*", "".join(pieces)) and pieces.result.finish == "match"


def test_the_prime_counts_where_it_is_asked_to(printable_run: Path) -> None:
    model = gentext.load(printable_run)
    text = model.write("2024-0", match=DATE, match_prime=True, length=4, seed=2)
    assert re.fullmatch(DATE, "2024-0" + text)
    assert re.fullmatch(DATE, model.write("2024-0", match=DATE, length=10, seed=2)), "the new text alone"
    texts = model.write_many(["1", "12.", "255.1"], count=2, match=ADDRESS, match_prime=True, length=13, seed=2)
    assert all(re.fullmatch(ADDRESS, text.prime + text.text) for text in texts)
    assert model.write("1999-12-31", match=DATE, match_prime=True, length=4, seed=2) == ""
    with pytest.raises(PrimeError, match=r"the prime has '7' at position 5"):
        model.write("2024-72", match=DATE, match_prime=True, length=9)


def test_banned_symbols_leave_the_expression(printable_run: Path) -> None:
    model = gentext.load(printable_run)
    for seed in range(5):
        assert re.fullmatch("[02-8]{4}", model.write(match="[0-9]{4}", ban="19", length=4, seed=seed))
    with pytest.raises(UsageError, match="cannot write 'e', as in 'e'"):
        model.write(match="e+", ban="e")
    assert model.write("eve", match="eve[a-d]", match_prime=True, ban="e", length=2, seed=1) in "abcd"


def test_symbols_that_the_file_bans_leave_the_expression(compiled_model: CompiledModel) -> None:
    """The tables of a compiled chain are in the file alone, so the installed link makes them again."""
    chain = configured_chain(host().registry, {"links": ["match", "ban"], "ban": {"ban": "ab"}}, 19)
    bundle = dataclasses.replace(compiled_model.bundle, kind="generator", chain=describe_links(chain))
    is_banned = banned_symbols(stored_chain(bundle), {}, bundle)
    assert [bundle.token_bytes[token] for token in np.flatnonzero(is_banned)] == [b"a", b"b"]


BAD_REQUESTS: list[tuple[list[str], str]] = [
    (["--match", "(a"], "--match (a: no regular expression of Python (missing )"),
    (["--match", "a(?=b)"], "look-ahead and look-behind cannot be used"),
    (["--match", r"(a)\1"], "references back to a group cannot be used"),
    (["--match", r"[^\s\S]"], "no text matches it"),
    (["--match", "[ßü]{3}"], "the model cannot write 'ß', as in 'ßßß'"),
    (["--match", "[ab]*a[ab]{16}"], "it needs 131,073 states; at most 65,536 are possible"),
    (["--match", "[0-9]{4}", "--length", "3"], "--length 3: the shortest text that --match [0-9]{4} matches has 4"),
    (["--match", "a", "--stop", "b"], "--match and --stop: expected one of them"),
    (["--match", "a", "--json-schema", "s.json"], "--match and --json-schema: expected one of them"),
    (["--match-prime"], "--match-prime: expected --match or --json-schema with it"),
    (["--match", "ab", "--match-prime", "--prime", "b"], "the prime has 'b' at position 0"),
    (["--json-schema", "missing.json"], "--json-schema missing.json: cannot be read"),
    (["--json-schema", "text.json"], "--json-schema text.json: no JSON"),
    (["--json-schema", "minimum.json"], ".minimum cannot be used here"),
    (["--match", "a", "--chain", "top_k,match"], "match must stand first"),
    (["--first-state", "3"], "no option --first-state"),
]


@pytest.mark.parametrize(("options", "fragment"), BAD_REQUESTS, ids=[fragment for _, fragment in BAD_REQUESTS])
def test_bad_input_is_one_clear_line(
    printable_run: Path,
    gen: Any,
    options: list[str],
    fragment: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.json").write_text("{type: string}", encoding="utf-8")
    Path("minimum.json").write_text('{"type": "integer", "minimum": 3}', encoding="utf-8")
    code, out, err = gen("sample", printable_run, "--seed", 1, *options)
    lines = [line for line in err.splitlines() if line.startswith("gen: error: ")]
    assert code in (1, 2) and out == "" and lines == err.splitlines()[-1:], err
    assert fragment in lines[0] and "Traceback" not in err


def test_the_command_says_how_a_text_ended(printable_run: Path, gen: Any, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    code, out, err = gen(
        "sample", printable_run, "--json-schema", tmp_path / "schema.json", "--count", 3, "--seed", 1, "--json"
    )
    assert code == 0, err
    for line in out.splitlines():
        text = json.loads(line)
        assert text["finish"] == "match"
        jsonschema.validate(json.loads(text["text"]), SCHEMA)
    code, out, err = gen("sample", printable_run, "--match", DATE, "--prime", "Today: ", "--seed", 1, "--length", 0)
    assert code == 0 and re.fullmatch(f"Today: {DATE}\n", out), err
