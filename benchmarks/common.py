"""What the benchmarks share: generators made from a run, requests, resident memory, tables."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gentext.describe import tokenizer_of
from gentext.export.exporter import export_run
from gentext.export.generator.compiler import Compiler
from gentext.export.job import ExportJob, ExportOptions
from gentext.export.network.int8 import to_int8
from gentext.export.proto import serialize_model
from gentext.interfaces import Chunk, Request, Tokenizer
from gentext.library.bench import describe_machine
from gentext.manager import host
from gentext.plugins.samplers.onnx import OnnxConfig, OnnxGenerator, OnnxSampler
from gentext.run import GENERATOR_FILE, Run
from gentext.sampling.chain import Chain, LinkArraysDict
from gentext.sampling.configured_chain import builtin_strategies, chain_of, configured_chain

#: Link -> parameter -> number.
Numbers = Mapping[str, Mapping[str, float]]

#: The built-in links with parameters, with values at which they have an effect.
LINKS: Numbers = {
    "penalties": {"repeat_penalty": 1.1, "frequency_penalty": 0.05, "presence_penalty": 0.1},
    "dry": {"dry_multiplier": 0.8, "dry_base": 1.3, "dry_allowed_length": 5},
    "no_repeat_ngram": {"no_repeat_ngram_size": 7},
    "top_k": {"top_k": 5},
    "top_p": {"top_p": 0.9},
    "min_p": {"min_p": 0.02},
    "temperature": {"temperature": 0.8},
    "top_n_sigma": {"top_n_sigma": 1.5},
    "typical": {"typical_p": 0.9},
    "top_h": {"top_h": 0.7},
    "p_less": {"p_less": 1},
    "epsilon": {"epsilon_cutoff": 0.01},
    "eta": {"eta_cutoff": 0.02},
    "xtc": {"xtc_probability": 0.5, "xtc_threshold": 0.1},
    "adaptive_p": {"adaptive_target": 0.5, "adaptive_decay": 0.9},
    "mirostat": {"mirostat": 2, "mirostat_tau": 2.0, "mirostat_eta": 0.1},
}
#: Options of the links that have tables, with which they have an effect.
OPTIONS: Mapping[str, Mapping[str, str]] = {
    "bias": {"logit_bias": "e:-1,a:0.5"},
    "ban": {"ban": "e"},
    "dry": {"dry_sequence_breakers": r"\n"},
    "schedule": {"schedule": "0:1.2,300:0.7"},
}
#: Other values of a link, with which it computes differently: title -> link and numbers.
VARIANTS: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "mirostat, version 1": ("mirostat", {"mirostat": 1, "mirostat_tau": 2.0, "mirostat_eta": 0.1}),
}
#: Values at which a link changes nothing, where the defaults are others.
NEUTRAL: Numbers = {"temperature": {"temperature": 1}}
#: The default chain.
DEFAULT = ["top_k", "top_p", "min_p", "temperature"]


def link_names() -> list[str]:
    """Return the names of the built-in links in the order of a chain; `benchmarks/match.py` measures the link match."""
    return [name for name in builtin_strategies(host().registry) if name != "match"]


def generator(run: Path, folder: Path, precision: str, links: Sequence[str], **options: Any) -> OnnxGenerator:
    """Export a run with a chain of these links into a folder, and open it."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stderr(io.StringIO()):
        export_run(Run(run), folder, ExportOptions(precision, links, limit=float("inf"), **options))
    return open_generator(folder / GENERATOR_FILE)


class GeneratorCompiler:
    """Compiles the generator of a run with any chain, in one precision and without the checks of an export."""

    def __init__(self, run: Path, folder: Path, precision: str, threads: int) -> None:
        self.folder, self.threads = folder, threads
        self.job = ExportJob.load(Run(run), ExportOptions())
        with torch.no_grad():
            step = self.job.step
        self.step = to_int8(step, self.job.bundle) if precision == "int8" else step
        self._generators: dict[str, OnnxGenerator] = {}

    def compile(self, links: Sequence[str], options: Mapping[str, Mapping[str, str]]) -> OnnxGenerator:
        """Return the opened generator of these links, whose tables are made from options: link -> field -> text."""
        key = f"{links} {options}"
        if key not in self._generators:
            chain = configured_chain(host().registry, {"links": list(links), **options}, self.job.bundle.vocab_size)
            compiler = Compiler(self.step, self.job.bundle, chain, chain.table_arrays(self.job.tokenizer))
            path = self.folder / f"{len(self._generators)}.onnx"
            path.write_bytes(serialize_model(compiler.compile_loop()))
            self._generators[key] = open_generator(path, self.threads)
        return self._generators[key]


def open_generator(path: Path, threads: int = 0) -> OnnxGenerator:
    """Open an exported file on the CPU; 0 threads: as many as onnxruntime chooses."""
    opened = OnnxSampler(OnnxConfig(threads)).open(path, "cpu")
    assert isinstance(opened, OnnxGenerator)
    return opened


def chain(opened: OnnxGenerator) -> Chain:
    """Return the chain of a file as NumPy code."""
    return chain_of(opened.bundle, host().registry, [link.name for link in opened.bundle.chain])


def tokenizer(opened: OnnxGenerator) -> Tokenizer:
    """Return the tokenizer of a file."""
    return tokenizer_of(opened.bundle)


def mask_unknown(opened: OnnxGenerator, logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return logits [N, V] of a file at which the symbol for unknown characters is never drawn."""
    if (unknown := opened.bundle.tokenizer.unknown) is not None:
        logits[:, unknown] = -np.inf
    return logits


def request(links: Chain, rows: int, params: LinkArraysDict, length: int, seed: int = 1) -> Request:
    """Return a request for ``rows`` texts of ``length`` symbols, without primes."""
    return Request(
        primes=[np.empty(0, np.int64)] * rows,
        seeds=[(seed, row) for row in range(rows)],
        chain=links,
        params=params,
        max_tokens=length,
    )


def varied_params(links: Chain, rows: int) -> LinkArraysDict:
    """Return parameters that differ from row to row, around those of LINKS."""
    params = links.param_arrays(rows, {link.name: LINKS.get(link.name, {}) for link in links})
    share = np.linspace(0.6, 1.0, rows, dtype=np.float32)[:, None]
    for link in links:
        for name, spec in link.strategy.params.items():
            array = params[link.name][name]
            low = max(spec.low, 1 if spec.dtype == "int64" else 0)
            params[link.name][name] = np.clip(array * share, low, spec.high).astype(array.dtype)
    return params


def resident_memory() -> float:
    """Return the resident memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def tokens_by_row(chunks: Iterable[Chunk], rows: int) -> list[NDArray[np.int64]]:
    """Return the tokens of each text."""
    blocks = [chunk.tokens for chunk in chunks]
    tokens = np.concatenate(blocks) if blocks else np.empty((0, rows), np.int64)
    return [tokens[:, row][tokens[:, row] >= 0] for row in range(rows)]


def print_table(title: str, rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Print a table, or JSON, with a description of this machine."""
    hardware = describe_machine()
    if as_json:
        print(json.dumps({"benchmark": title, "machine": hardware, "rows": rows}, indent=1))
        return
    print(f"{title}\n{hardware['cpu']}, {hardware['cores']} cores ({' '.join(hardware['instructions'])})")
    columns = list(rows[0])
    cells = [columns, *[[_cell(row[name]) for name in columns] for row in rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
