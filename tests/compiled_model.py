"""A small model and files compiled from it, for the tests of the compiled generator."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from gentext.chain import Chain, build_chain
from gentext.compiled import start_states
from gentext.describe import describe
from gentext.export.generator.compiler import Compiler
from gentext.export.network.fp16 import to_fp16
from gentext.export.network.int8 import to_int8
from gentext.export.network.step import step_graph
from gentext.interfaces import Chunk, Request
from gentext.manager import host
from gentext.plugins.pytorch import checkpoint as ckpt
from gentext.plugins.samplers.onnx import OnnxGenerator, OnnxSampler
from gentext.run import open_run

EVERY_LINK = ("penalties", "top_k", "top_p", "min_p", "temperature")
#: Parameters that make every link work, different in each row.
VALUES = {
    "penalties": {"repeat_penalty": (1.0, 1.2), "frequency_penalty": (0.0, 0.3), "presence_penalty": (-0.2, 0.5)},
    "top_k": {"top_k": (0, 9)},
    "top_p": {"top_p": (0.5, 1.0)},
    "min_p": {"min_p": (0.0, 0.2)},
    "temperature": {"temperature": (0.0, 1.5)},
}


@dataclasses.dataclass
class CompiledModel:
    """One model, and files compiled from it."""

    folder: Path
    bundle: Any
    step: onnx.ModelProto

    def chain(self, *names: str) -> Chain:
        return build_chain(host().registry, names, self.bundle.vocab_size)

    def compiler(self, chain: Chain, precision: str = "fp32") -> Compiler:
        steps = {"fp32": lambda: self.step, "int8": lambda: to_int8(self.step, self.bundle)}
        steps["fp16"] = lambda: to_fp16(self.step)
        return Compiler(steps[precision](), self.bundle, chain, {})

    def open(self, chain: Chain, precision: str = "fp32") -> OnnxGenerator:
        path = self.folder / f"{'-'.join(chain.names)}-{precision}.onnx"
        if not path.exists():
            path.write_bytes(self.compiler(chain, precision).looped().SerializeToString())
        opened = OnnxSampler().open(path, "cpu")
        assert isinstance(opened, OnnxGenerator)
        return opened


def request(chain: Chain, rows: int, length: int, seed: int = 5, mixed: bool = True, **more: Any) -> Request:
    """Return a request whose rows have primes and parameters of their own."""
    rng = np.random.default_rng(seed)
    params = chain.param_arrays(rows)
    for link, ranges in VALUES.items():
        for name, (low, high) in ranges.items() if mixed and link in params else ():
            drawn = rng.uniform(low, high, (rows, 1))
            params[link][name] = drawn.astype(params[link][name].dtype)
    primes = [rng.integers(0, 19, rng.integers(0, 9)) for _ in range(rows)]
    return Request(primes, [(seed, row) for row in range(rows)], chain, params, max_tokens=length, **more)


def written(chunks: Iterator[Chunk], rows: int) -> tuple[list[list[int]], list[str], list[list[float]]]:
    """Return each row's tokens, how it ended, and its log-probabilities."""
    tokens: list[list[int]] = [[] for _ in range(rows)]
    logprobs: list[list[float]] = [[] for _ in range(rows)]
    finish: list[str] = []
    for chunk in chunks:
        finish = list(chunk.finish)
        for row in range(rows):
            real = chunk.tokens[:, row] >= 0
            tokens[row] += chunk.tokens[real, row].tolist()
            logprobs[row] += chunk.logprobs[real, row].tolist()
    return tokens, finish, logprobs


def build_compiled_model(folder: Path, run: Path) -> CompiledModel:
    """Return the compiled_model of a run."""
    opened = open_run(run)
    model = ckpt.build_model(opened, ckpt.load_best(opened))
    bundle = describe(opened, model)
    with torch.no_grad():
        return CompiledModel(folder, bundle, step_graph(model, bundle))


def call_feeds(opened: OnnxGenerator, asked: Any, size: int) -> dict[str, Any]:
    """Return what a first call of ``size`` positions is fed; a third of its symbols are forced."""
    rows, signature = len(asked.primes), opened.session.signature
    rng = np.random.default_rng(size)
    drawn = rng.integers(0, opened.bundle.vocab_size, (size, rows))
    params = {f"{link}.{name}": one for link, own in asked.params.items() for name, one in own.items()}
    return (
        start_states(signature, rows)
        | params
        | {
            "token": np.zeros(rows, np.int64),
            "fresh": np.ones(rows, np.bool_),
            "forced": np.where(rng.random((size, rows)) < 1 / 3, drawn, -1),
            "noise": rng.random((size, rows, signature.columns), np.float32),
        }
    )
