"""A small model and files compiled from it, for the tests of the compiled generator."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from gentext.export.generator.compiler import Compiler
from gentext.export.network.fp16 import to_fp16
from gentext.export.network.int8 import to_int8
from gentext.export.network.step import step_graph
from gentext.export.proto import serialize_model
from gentext.exported.metadata import Bundle
from gentext.generation.model_calls import first_feeds
from gentext.interfaces import Chunk, Request
from gentext.manager import host
from gentext.plugins.pytorch import build_model, load_best_checkpoint
from gentext.plugins.samplers.onnx import OnnxGenerator, OnnxSampler
from gentext.run import open_run
from gentext.runs.model_description import describe
from gentext.sampling.chain import Chain, build_chain

EVERY_LINK = ("penalties", "top_k", "top_p", "min_p", "temperature")
#: Ranges of parameters at which every link has an effect; each row gets its own.
VALUES = {
    "penalties": {"repeat_penalty": (1.0, 1.2), "frequency_penalty": (0.0, 0.3), "presence_penalty": (-0.2, 0.5)},
    "top_k": {"top_k": (0, 9)},
    "top_p": {"top_p": (0.5, 1.0)},
    "min_p": {"min_p": (0.0, 0.2)},
    "temperature": {"temperature": (0.0, 1.5)},
    "dry": {"dry_multiplier": (0.0, 2.0), "dry_base": (1.0, 2.0), "dry_allowed_length": (1, 4)},
    "no_repeat_ngram": {"no_repeat_ngram_size": (0, 5)},
    "adaptive_p": {"adaptive_target": (-0.2, 1.0), "adaptive_decay": (0.0, 0.99)},
    "mirostat": {"mirostat": (0, 3), "mirostat_tau": (0.5, 3.0), "mirostat_eta": (0.0, 0.5)},
}


@dataclasses.dataclass
class CompiledModel:
    """One model, and files compiled from it."""

    folder: Path
    bundle: Bundle
    step: onnx.ModelProto

    def chain(self, *names: str) -> Chain:
        return build_chain(host().registry, names, self.bundle.vocab_size)

    def compiler(self, chain: Chain, precision: str = "fp32") -> Compiler:
        step = self.step
        if precision == "int8":
            step = to_int8(step, self.bundle)
        elif precision == "fp16":
            step = to_fp16(step)
        return Compiler(step, self.bundle, chain, {})

    def open(self, chain: Chain, precision: str = "fp32") -> OnnxGenerator:
        path = self.folder / f"{'-'.join(chain.names)}-{precision}.onnx"
        if not path.exists():
            path.write_bytes(serialize_model(self.compiler(chain, precision).compile_loop()))
        opened = OnnxSampler().open(path, "cpu")
        assert isinstance(opened, OnnxGenerator)
        return opened


def request(chain: Chain, rows: int, length: int, seed: int = 5, mixed: bool = True, **fields: Any) -> Request:
    """Return a request for rows with different primes and, with ``mixed``, different parameters."""
    rng = np.random.default_rng(seed)
    params = chain.param_arrays(rows)
    for link, ranges in VALUES.items():
        for name, (low, high) in ranges.items() if mixed and link in params else ():
            drawn = rng.uniform(low, high, (rows, 1))
            params[link][name] = drawn.astype(params[link][name].dtype)
    primes = [rng.integers(0, 19, rng.integers(0, 9)) for _ in range(rows)]
    return Request(primes, [(seed, row) for row in range(rows)], chain, params, max_tokens=length, **fields)


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
    """Return the model of a run, ready to be compiled with any chain."""
    opened = open_run(run)
    model = build_model(opened, load_best_checkpoint(opened))
    bundle = describe(opened, model)
    with torch.no_grad():
        return CompiledModel(folder, bundle, step_graph(model, bundle))


def call_feeds(opened: OnnxGenerator, request: Request, size: int) -> dict[str, Any]:
    """Return the inputs of a first call of ``size`` positions; a third of its symbols are forced."""
    rows, signature = len(request.primes), opened.session.signature
    rng = np.random.default_rng(size)
    drawn = rng.integers(0, opened.bundle.vocab_size, (size, rows))
    params = {f"{link}.{name}": array for link, arrays in request.params.items() for name, array in arrays.items()}
    return (
        first_feeds(signature, rows)
        | params
        | {
            "forced": np.where(rng.random((size, rows)) < 1 / 3, drawn, -1),
            "noise": rng.random((size, rows, signature.columns), np.float32),
        }
    )
