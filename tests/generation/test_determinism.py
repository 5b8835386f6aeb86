"""The promise: the same seed gives the same text, whatever runs beside it and however it is cut up."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gentext import stepping
from gentext.config import config_class
from gentext.describe import load_tokenizer
from gentext.generation import row_table
from gentext.generation.generate import generate
from gentext.manager import host
from gentext.noise import uniforms
from gentext.plugins.pytorch.sampler import TorchSampler
from gentext.plugins.samplers.onnx import OnnxConfig, OnnxSampler
from gentext.sampling.chain import Chain, build_chain
from gentext.sampling.configured_chain import chain_of
from gentext.sampling.draw import draw_tokens

LENGTH = 500
SEED = 2**40 + 7
FILES = ("model.onnx", "generator.onnx")
PENALISED = ("penalties", "top_k", "top_p", "min_p", "temperature")
#: Of model.onnx, whose steps take longest, make test has the chain of the run.
STEPPED_AND_COMPILED = [
    pytest.param("model.onnx", None, id="model.onnx-default"),
    pytest.param("model.onnx", PENALISED, id="model.onnx-penalised", marks=pytest.mark.slow),
    pytest.param("generator.onnx", None, id="generator.onnx-default"),
    pytest.param("generator.onnx", PENALISED, id="generator.onnx-penalised"),
]
VALUES = {
    "penalties": {"repeat_penalty": 1.1, "frequency_penalty": 0.05},
    "top_k": {"top_k": 7},
    "top_p": {"top_p": 0.97},
    "min_p": {"min_p": 0.01},
    "temperature": {"temperature": 0.9},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, gen: Callable[..., Any], tiny_text: Path) -> Path:
    """A model that has learned something, in both files."""
    path = tmp_path_factory.mktemp("runs") / "trained"
    options = ("model.hidden=48", "model.embedding=16", "batcher.length=40", "trainer.warmup=5", "run.threads=1")
    sets = [word for option in options for word in ("--set", option)]
    code, _, err = gen("train", tiny_text, "--run", path, *sets, "--steps", 60, "--precision", "fp32")
    assert code == 0, err
    return path


def opened(path: Path) -> Any:
    sampler = TorchSampler if path.is_dir() else OnnxSampler
    return sampler(config_class(sampler)()).open(path, "cpu")


def encode(sampler: Any, text: str) -> NDArray[Any]:
    meta = sampler.bundle.tokenizer
    return load_tokenizer(meta.name, meta.state).encode(text)


def chain_for(sampler: Any, names: Sequence[str] | None) -> tuple[Chain, dict[str, dict[str, float]]]:
    if names is None:
        return chain_of(sampler.bundle, host().registry), {}
    return build_chain(host().registry, names, sampler.bundle.vocab_size), VALUES


def write(
    sampler: Any, count: int, names: Sequence[str] | None = None, prime: str = "", length: int = LENGTH
) -> list[str]:
    """The texts, and the symbols' log-probabilities to the bit."""
    chain, values = chain_for(sampler, names)
    texts, pieces = generate(
        sampler, chain, primes=[encode(sampler, prime)] * count, seed=SEED, length=length, param_values=values
    )
    for _ in pieces:
        pass
    assert all(len(text.text) == length and text.finish == "length" for text in texts)
    return [text.text + np.array(text.logprobs, np.float32).tobytes().hex() for text in texts]


@pytest.mark.parametrize(("file", "names"), STEPPED_AND_COMPILED)
def test_text_does_not_depend_on_its_neighbours(run: Path, file: str, names: Sequence[str] | None) -> None:
    sampler = opened(run / file)
    texts = write(sampler, 16, names, "abc. ")
    assert len(set(texts)) == 16
    assert write(sampler, 3, names, "abc. ") == texts[:3]
    assert write(opened(run / file), 1, names, "abc. ") == texts[:1]


@pytest.mark.parametrize(("file", "names"), STEPPED_AND_COMPILED)
def test_text_does_not_depend_on_how_the_prime_is_cut(
    run: Path, tiny_text: Path, monkeypatch: pytest.MonkeyPatch, file: str, names: Sequence[str] | None
) -> None:
    sampler = opened(run / file)
    prime = tiny_text.read_text()[:301]
    texts = []
    for size in (1000, 256, 37, 1):
        monkeypatch.setattr(stepping, "PREFILL_POSITIONS", size)
        monkeypatch.setattr(row_table, "MAX_POSITIONS", size)
        texts += write(sampler, 2, names, prime, 60)
    assert texts == texts[:2] * 4


@pytest.mark.parametrize("file", [pytest.param("model.onnx", marks=pytest.mark.slow), "generator.onnx"])
def test_text_does_not_depend_on_the_threads(run: Path, file: str) -> None:
    texts = [
        write(OnnxSampler(OnnxConfig(threads)).open(run / file, "cpu"), 3, PENALISED, "abc. ") for threads in (1, 2, 5)
    ]
    assert texts == texts[:1] * 3


@pytest.mark.parametrize("names", [None, PENALISED], ids=["default", "penalised"])
def test_sampler_writes_what_a_plain_loop_writes(run: Path, names: Sequence[str] | None) -> None:
    sampler = opened(run / "model.onnx")
    chain, values = chain_for(sampler, names)
    params, state = chain.param_arrays(1, values), sampler.initial(1)
    links, tables = chain.initial_state(1, params), chain.table_arrays(None)
    forced = [sampler.bundle.start, *encode(sampler, "abc. ")]
    text = codecs.getincrementaldecoder("utf-8")()
    expected, read = "", len(forced)
    for index in range(read + LENGTH - 1):
        logits, state = sampler.advance(np.array([[forced[index]]], np.int64), state)
        position = index + 1 - read
        out, links, outputs = chain.apply(logits[:, 0], params, links, {}, tables)
        if position < 0:
            token = np.array([forced[index + 1]], np.int64)
        else:
            token, _ = draw_tokens(out, uniforms(SEED, 0, "draw", position, 1))
            forced.append(int(token[0]))
            expected += text.decode(sampler.bundle.token_bytes[int(token[0])])
        links = chain.accept(token, outputs, params, links, tables, np.array([[position >= 0]]))
    assert write(sampler, 1, names, "abc. ")[0][:LENGTH] == expected


def different_draws(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    """The share of uniform numbers that draw another symbol from logits ``right`` [N, V] than from ``left``.

    Each symbol owns an interval of [0, 1), as in the draw; where both intervals overlap, the draws agree.
    """

    def ends(logits: NDArray[np.float32]) -> NDArray[np.float64]:
        running = np.cumsum(np.exp(logits - logits.max(axis=1, keepdims=True)), axis=1, dtype=np.float64)
        return np.pad(running / running[:, -1:], ((0, 0), (1, 0)))

    left_ends, right_ends = ends(left), ends(right)
    overlap = np.minimum(left_ends[:, 1:], right_ends[:, 1:]) - np.maximum(left_ends[:, :-1], right_ends[:, :-1])
    return float((1 - np.maximum(overlap, 0).sum(axis=1)).mean())


def forced_distributions(sampler: Any, names: Sequence[str] | None, tokens: NDArray[Any]) -> NDArray[np.float32]:
    """The chain's last logits [T, V] at every position of a given text."""
    chain, values = chain_for(sampler, names)
    params, rows = chain.param_arrays(1, values), []
    logits, _ = sampler.advance(np.asarray(tokens, np.int64)[None], sampler.initial(1))
    states, tables = chain.initial_state(1, params), chain.table_arrays(None)
    for t, token in enumerate(tokens):
        out, states, outputs = chain.apply(logits[:, t], params, states, {}, tables)
        states = chain.accept(np.array([token], np.int64), outputs, params, states, tables, np.ones((1, 1), bool))
        rows.append(out[0])
    return np.stack(rows)


@pytest.mark.parametrize("names", [None, PENALISED], ids=["default", "penalised"])
def test_torch_draws_what_onnx_draws(run: Path, names: Sequence[str] | None) -> None:
    samplers = [opened(run / "model.onnx"), opened(run)]
    tokens = encode(samplers[0], (run / "held_out.txt").read_text())[:2000]
    onnx, torch = (forced_distributions(sampler, names, tokens) for sampler in samplers)
    assert different_draws(onnx, torch) <= 2e-5
    assert different_draws(onnx, np.roll(torch, 1, axis=0)) > 0.1  # the measure itself tells texts apart


def test_other_seeds_and_streams_write_other_texts(run: Path, gen: Callable[..., Any]) -> None:
    outs = [gen("sample", run, "--length", 80, "--seed", seed)[1] for seed in (1, 1, 2)]
    assert outs[0] == outs[1] != outs[2]
    code, two_texts, _ = gen("sample", run, "--length", 80, "--seed", 1, "--count", 2)
    assert (code, two_texts[:81]) == (0, outs[0])
