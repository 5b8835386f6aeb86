"""The most probable symbols at each position, and the log-probabilities of primes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from compiled_model import EVERY_LINK, CompiledModel, call_feeds, request
from numpy.typing import NDArray

import gentext
from gentext.errors import FileFormatError, PluginError, UsageError
from gentext.export.generator.outputs import find_top_symbols
from gentext.export.proto import serialize_model
from gentext.generation.compiled import generate_compiled
from gentext.generation.generate import generate
from gentext.interfaces import Chunk, Request, TopSymbols
from gentext.plugins.samplers.cpu_generator import ParallelGenerator
from gentext.plugins.samplers.cuda_generator import UnrolledGenerator
from gentext.plugins.samplers.session import open_unrolled
from gentext.sampling.chain import Chain
from gentext.stepping import _find_top_symbols, generate_stepwise
from gentext.stop import StopAutomaton


def join(chunks: Iterator[Chunk]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], list[str]]:
    """Return all positions: tokens, log-probabilities, the most probable tokens and theirs; and how the rows ended."""
    parts, finish = [], []
    for chunk in chunks:
        assert chunk.top_symbols is not None
        parts.append((chunk.tokens, chunk.logprobs, chunk.top_symbols.tokens, chunk.top_symbols.logprobs))
        finish = list(chunk.finish)
    tokens, logprobs, top_tokens, top_logprobs = (np.concatenate(part) for part in zip(*parts, strict=True))
    return tokens, logprobs, top_tokens, top_logprobs, finish


def by_row(tokens: NDArray[Any], *arrays: NDArray[Any]) -> list[tuple[NDArray[Any], ...]]:
    """Return what stands at each row's tokens."""
    is_token = tokens >= 0
    return [tuple(array[is_token[:, row], row] for array in (tokens, *arrays)) for row in range(tokens.shape[1])]


def assert_equal(actual: Iterator[Chunk], expected: Iterator[Chunk]) -> list[tuple[NDArray[Any], ...]]:
    """Compare the rows of two ways to write; return those of the first."""
    tokens, *arrays, finish = join(actual)
    expected_tokens, *expected_arrays, expected_finish = join(expected)
    assert finish == expected_finish
    rows = by_row(tokens, *arrays)
    for row, expected_row in zip(rows, by_row(expected_tokens, *expected_arrays), strict=True):
        np.testing.assert_array_equal(row[0], expected_row[0])
        np.testing.assert_allclose(row[1], expected_row[1], atol=1e-4)
        np.testing.assert_array_equal(row[2], expected_row[2])
        np.testing.assert_allclose(row[3], expected_row[3], atol=1e-4)
    is_token = tokens >= 0
    assert (arrays[1][~is_token] == -1).all() and np.isnan(arrays[2][~is_token]).all()
    return rows


@pytest.mark.parametrize(("names", "rows"), [((), 3), (EVERY_LINK, 1), (EVERY_LINK, 16)])
@pytest.mark.parametrize("count", [1, 10, 100])
@pytest.mark.parametrize("echo", [False, True])
def test_compiled_gives_what_numpy_gives(
    compiled_model: CompiledModel, names: tuple[str, ...], rows: int, count: int, echo: bool
) -> None:
    chain = compiled_model.chain(*names)
    opened = compiled_model.open(chain)
    sampling = request(chain, rows, 40, top_count=count, echo=echo, stop=StopAutomaton(["ab"]))
    parallel = ParallelGenerator(opened.session, 2)
    written = assert_equal(
        generate_compiled(parallel, opened.bundle, sampling), generate_stepwise(opened, opened.bundle, sampling)
    )
    vocab_size = opened.bundle.vocab_size
    for prime, (tokens, logprobs, top_tokens, top_logprobs) in zip(sampling.primes, written, strict=True):
        assert top_tokens.shape == (len(tokens), min(count, vocab_size))
        assert (np.diff(top_logprobs) <= 0).all()
        if echo:
            assert tokens[: len(prime)].tolist() == prime.tolist()
        if count > vocab_size:
            assert (np.sort(top_tokens) == np.arange(vocab_size)).all()
            np.testing.assert_allclose(np.exp(top_logprobs).sum(axis=1), 1, atol=1e-5)
            place = top_tokens == tokens[:, None]
            np.testing.assert_array_equal(top_logprobs[place], logprobs)


def test_asking_changes_no_text(compiled_model: CompiledModel) -> None:
    chain = compiled_model.chain(*EVERY_LINK)
    opened = compiled_model.open(chain)
    asked = request(chain, 5, 60, top_count=10, echo=True)
    plain = dataclasses.replace(asked, top_count=0, echo=False)
    tokens, logprobs, *_ = join(opened.generate(asked))
    chunks = list(opened.generate(plain))
    assert {chunk.top_symbols for chunk in chunks} == {None}
    plain_rows = by_row(
        *(np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("tokens", "logprobs"))
    )
    for prime, row, plain_row in zip(asked.primes, by_row(tokens, logprobs), plain_rows, strict=True):
        for array, plain_array in zip(row, plain_row, strict=True):
            np.testing.assert_array_equal(array[len(prime) :], plain_array)


def test_on_a_gpu_the_loop_answers(compiled_model: CompiledModel) -> None:
    chain = compiled_model.chain("top_k")
    opened = compiled_model.open(chain)
    path = opened.session.path.with_name(f"{opened.session.path.stem}-unrolled.onnx")
    path.write_bytes(serialize_model(compiled_model.compiler(chain).compile_unrolled(8)))
    model = UnrolledGenerator(opened.session, open_unrolled(opened.session, "cpu"), "cpu")
    sampling = request(chain, 3, 50, top_count=4, echo=True)
    assert_equal(generate_compiled(model, opened.bundle, sampling), opened.generate(sampling))
    assert model.positions == 8, "it did not fall back"
    plain = dataclasses.replace(sampling, top_count=0)
    assert all(chunk.top_symbols is None for chunk in generate_compiled(model, opened.bundle, plain))


@pytest.mark.parametrize("rows", [1, 4])
def test_reading_without_writing(compiled_model: CompiledModel, rows: int) -> None:
    chain = compiled_model.chain("top_k")
    opened = compiled_model.open(chain)
    sampling = request(chain, rows, 0, top_count=3, echo=True)
    written = assert_equal(opened.generate(sampling), generate_stepwise(opened, opened.bundle, sampling))
    for prime, (tokens, *_) in zip(sampling.primes, written, strict=True):
        assert tokens.tolist() == prime.tolist()
    assert {finish for chunk in opened.generate(sampling) for finish in chunk.finish} <= {"running", "length"}


def test_ties_go_to_the_lower_token() -> None:
    """In the graph's operators as in NumPy, also where several logits are minus infinity."""
    import spox
    from spox import Tensor

    logits = np.array([[1, 3, 3, -np.inf, 1, 3, -np.inf, 0.0, -0.0]], np.float32)
    inputs = {
        "logits": spox.argument(Tensor(np.float32, ("K", "N", 9))),
        "count": spox.argument(Tensor(np.int64, ())),
    }
    model = spox.build(inputs, find_top_symbols(inputs["logits"], inputs["logits"], inputs["count"], 9))
    model.ir_version = 10
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for count in range(12):
        tokens, values = session.run(None, {"logits": logits[None], "count": np.array(count)})
        expected = _find_top_symbols(logits, np.ones(1, np.bool_), count)
        assert tokens.shape == values.shape == ((1, 1, min(count, 9)) if count else (0, 0, 0))
        assert tokens.ravel().tolist() == expected.tokens.ravel().tolist()
    assert expected.tokens.ravel().tolist() == [1, 2, 5, 0, 4, 7, 8, 3, 6]


def test_without_a_count_the_file_gives_none(compiled_model: CompiledModel) -> None:
    chain = compiled_model.chain("top_k")
    opened = compiled_model.open(chain)
    feeds = call_feeds(opened, request(chain, 2, 1), 5)
    names = [port.name for port in opened.session.signature.outputs]
    results = dict(zip(names, opened.session.session.run(names, feeds), strict=True))
    assert results["top_tokens"].size == results["top_logprobs"].size == 0
    asked = opened.session.call(feeds | {"top_count": np.array(3)})
    assert asked["top_tokens"].shape == (5, 2, 3)
    for name, array in opened.session.call(feeds).items():
        np.testing.assert_array_equal(results[name], array)
        np.testing.assert_array_equal(results[name], asked[name])


def test_a_graph_that_gives_other_shapes(compiled_model: CompiledModel, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = compiled_model.chain("top_k")
    opened = compiled_model.open(chain)
    call = opened.session.call
    monkeypatch.setattr(
        opened.session, "call", lambda feeds: (results := call(feeds)) | {"top_tokens": results["top_tokens"][:, :, :2]}
    )
    with pytest.raises(FileFormatError, match=r"returned top_tokens of shape \(1, 1, 2\); expected \(1, 1, 3\)"):
        list(generate_compiled(opened.session, opened.bundle, request(chain, 1, 5, top_count=3)))


# -- the library --------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["generator.onnx", "model.onnx"])
def test_texts_have_what_was_asked_for(tiny_run: Path, file: str) -> None:
    model = gentext.load(tiny_run / file)
    texts = model.write_many(["ab", "", "abc"], count=2, length=30, seed=4, top_logprobs=3, echo=True)
    plain = model.write_many(["ab", "", "abc"], count=2, length=30, seed=4)
    for text, plain_text in zip(texts, plain, strict=True):
        assert (text.text, text.tokens, text.logprobs) == (plain_text.text, plain_text.tokens, plain_text.logprobs)
        assert plain_text.top_symbols is plain_text.prime_top_symbols is None
        assert plain_text.prime_tokens == plain_text.prime_logprobs == ()
        assert "".join(model.symbols[token] for token in text.prime_tokens) == text.prime
        assert text.top_symbols is not None and text.prime_top_symbols is not None
        assert text.top_symbols.tokens.shape == text.top_symbols.logprobs.shape == (30, 3)
        assert text.prime_top_symbols.tokens.shape == (len(text.prime), 3)
        score = model.score(text.prime + text.text)
        assert [*text.prime_logprobs, *text.logprobs] == pytest.approx(score.logprobs, abs=1e-4)
        best_logprobs = np.concatenate([text.prime_top_symbols.logprobs[:, 0], text.top_symbols.logprobs[:, 0]])
        assert (best_logprobs >= score.logprobs - 1e-4).all()


def test_a_text_that_a_stop_string_cuts(tiny_run: Path) -> None:
    model = gentext.load(tiny_run)
    [text] = model.write_many(["ab"], length=300, seed=4, stop=" ", top_logprobs=2)
    assert text.finish == "stop" and text.top_symbols is not None
    assert text.top_symbols.tokens.shape == (len(text.tokens), 2)
    assert text.prime_tokens == () and text.prime_top_symbols is not None
    assert text.prime_top_symbols.tokens.shape == (0, 2)


def test_a_stream_and_a_length_of_zero(tiny_run: Path) -> None:
    model = gentext.load(tiny_run)
    stream = model.stream("ab", length=5, seed=1, top_logprobs=1, echo=True)
    assert len(next(stream)) >= 1
    result = stream.result
    assert result.top_symbols is not None and len(result.top_symbols.tokens) == len(result.tokens)
    [read] = model.write_many(["ab"], length=0, top_logprobs=2, echo=True)
    assert (read.text, read.tokens, read.finish) == ("", (), "length")
    assert read.prime_logprobs == result.prime_logprobs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_logprobs": 11}, "top_logprobs = 11: expected a whole number from 0 to 10"),
        ({"top_logprobs": -1}, "top_logprobs = -1: expected a whole number from 0 to 10"),
        ({"top_logprobs": "3"}, "top_logprobs = '3': expected a whole number from 0 to 10"),
        ({"length": 0}, "length = 0: expected a whole number from 1"),
        ({"length": -1, "echo": True}, "length = -1: expected a whole number from 0"),
    ],
)
def test_impossible_arguments(tiny_run: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        gentext.load(tiny_run).write_many(["ab"], **options)
    assert str(error.value) == message


# -- samplers of plugins ------------------------------------------------------------------------


class Deaf:
    """A sampler that does not know what was asked for, or gives something else."""

    device = "nothing"

    def __init__(self, compiled_model: CompiledModel, top_symbols: Any = None) -> None:
        self.bundle = compiled_model.bundle
        self.top_symbols = top_symbols

    def generate(self, request: Request) -> Iterator[Chunk]:
        yield Chunk(
            np.array([[3 if request.max_tokens else -1]]), np.zeros((1, 1), np.float32), ("length",), self.top_symbols
        )


def top(tokens: Any, logprobs: Any = None) -> TopSymbols:
    return TopSymbols(tokens, np.zeros((1, 1, 2), np.float32) if logprobs is None else logprobs)


@pytest.mark.parametrize(
    ("top_symbols", "options", "message"),
    [
        (None, {"top_count": 2}, "a chunk has no top_symbols, and 2 were asked for"),
        (top(np.zeros((1, 2), int)), {"top_count": 2}, r"whole numbers of shape \(1, 1, 2\), not int64 \(1, 2\)"),
        (top(np.full((1, 1, 2), 99)), {"top_count": 2}, "top_symbols has tokens from 99 to 99; expected -1, or 0 to"),
        (top(np.zeros((1, 1, 2), int), [[0]]), {"top_count": 2}, r"floats of shape \(1, 1, 2\), not list"),
        (None, {"echo": True, "length": 0}, "does not give the log-probabilities of a prime"),
        (None, {"echo": True}, "does not give the log-probabilities of a prime"),
    ],
)
def test_a_sampler_that_gives_something_else(
    compiled_model: CompiledModel, top_symbols: Any, options: dict[str, Any], message: str
) -> None:
    sampler = Deaf(compiled_model, top_symbols)
    _, pieces = generate(sampler, Chain([]), primes=[np.array([5])], seed=0, **{"length": 1, **options})
    with pytest.raises(PluginError, match=message):
        list(pieces)
