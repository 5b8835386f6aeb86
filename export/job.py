"""What an export is asked for, and what its files are built from: a run's model, tokenizer and chain. (torch, onnx)"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from gentext.console import progress
from gentext.corpus.held_out import held_out_path, read_held_out
from gentext.describe import load_run_tokenizer
from gentext.errors import ExportError, RunError, UsageError
from gentext.export.generator.compiler import Compiler
from gentext.export.network.step import count_weight_bytes, step_graph
from gentext.export.precision import (
    AUTO_LIMIT,
    CUDA_PRECISIONS,
    NAMED_LIMIT,
    PRECISIONS,
    LossReport,
    count_measured_symbols,
    measure_loss,
)
from gentext.export.proto import serialize_model
from gentext.exported.metadata import Bundle
from gentext.interfaces import Model, Tokenizer
from gentext.manager import host
from gentext.plugins.pytorch.checkpoint import build_model, load_best_checkpoint
from gentext.plugins.pytorch.device import choose_device
from gentext.run import Run
from gentext.runs.model_description import describe_model
from gentext.sampling.chain import Chain, LinkArrays
from gentext.sampling.configured_chain import chain_of, configured_chain
from gentext.settings import Settings
from gentext.token_corpus import TokenCorpus

#: Positions of the unrolled generator that is exported at the end of a training on a GPU.
UNROLLED_POSITIONS = 32


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """The options of ``gen export``. Raises UsageError for an unknown precision."""

    precision: str = "auto"
    """Arithmetic of the matrix products: one of PRECISIONS or CUDA_PRECISIONS; auto for int8 unless its loss is above
    the limit; fastest for what is fastest here within the limit."""
    chain: Sequence[str] | None = None
    """Links of the generator's chain; None: the run's."""
    limit: float | None = None
    """How many nats a symbol a lower precision may cost; None: AUTO_LIMIT with auto, else NAMED_LIMIT."""
    generator_required: bool = True
    """Whether a generator that cannot be made is an error; at the end of training it is a warning."""
    unroll: int = 0
    """Positions of an unrolled generator beside it, for CUDA; 0: none."""
    card: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Entries that the cards of the files have beside their own."""

    def __post_init__(self) -> None:
        choices = ("auto", *PRECISIONS, *CUDA_PRECISIONS, "fastest")
        if self.precision not in choices:
            raise UsageError(f"precision = {self.precision!r}: expected {', '.join(choices[:-1])} or {choices[-1]}")

    @property
    def cost_limit(self) -> float:
        """The limit, or its default."""
        default_limit = AUTO_LIMIT if self.precision == "auto" else NAMED_LIMIT
        return default_limit if self.limit is None else self.limit


def options_of_run(settings: Settings, unroll: int = 0) -> ExportOptions:
    """Return the options of an export that names no precision: they follow from the settings of the run.

    int8 is for CPUs: what is exported with an unrolled generator stays in fp32, and so does a run that trains on CUDA
    unless its settings name int8. int8 has no limit then.
    """
    is_for_cuda = settings.device == "cuda" or choose_device(settings.device).type == "cuda"
    precision = "fp32" if unroll or (is_for_cuda and settings.export_precision == "auto") else settings.export_precision
    return ExportOptions(precision, limit=math.inf if precision == "int8" else None, unroll=unroll)


@dataclasses.dataclass(frozen=True)
class ExportJob:
    """A run's best checkpoint and everything else that its files are built from, loaded once."""

    run: Run
    options: ExportOptions
    model: Model
    bundle: Bundle
    """Its card has a random id in ``export``, by which files that were written together are recognized."""
    tokenizer: Tokenizer
    chain: Chain
    """The chain that is compiled into the generator."""

    @classmethod
    def load(cls, run: Run, options: ExportOptions) -> ExportJob:
        """Load the model, the tokenizer and the chain of a run. Raises RunError, ConfigError or PluginError."""
        checkpoint = load_best_checkpoint(run)
        tokenizer = load_run_tokenizer(run)
        model = build_model(run, checkpoint, tokenizer.vocab_size)
        registry = host().registry
        run_chain = configured_chain(registry, run.config.get("chain", {}), tokenizer.vocab_size)
        bundle = describe_model(run, model, tokenizer, run_chain)
        card = {**bundle.card, "export": os.urandom(8).hex(), **options.card}
        bundle = dataclasses.replace(bundle, card=card)
        chain = run_chain if options.chain is None else chain_of(bundle, registry, options.chain)
        return cls(run, options, model, bundle, tokenizer, chain)

    @functools.cached_property
    def step(self) -> onnx.ModelProto:
        """The graph of one step of the model, in fp32. Raises ExportError."""
        return step_graph(self.model, self.bundle)

    @functools.cached_property
    def tables(self) -> LinkArrays:
        """The tables of the chain's links. Raises PluginError."""
        return self.chain.table_arrays(self.tokenizer)

    def compiler(self, step: onnx.ModelProto, card_entries: dict[str, Any]) -> Compiler:
        """Return the compiler of a step and the job's chain; ``card_entries`` are added to the card of the file."""
        card = self.bundle.card | {"weight_bytes": count_weight_bytes(step)} | card_entries
        bundle = dataclasses.replace(self.bundle, card=card)
        return Compiler(step, bundle, self.chain, self.tables)

    def measure(self, precision: str, step: onnx.ModelProto) -> LossReport:
        """Measure the loss of a step in a lower precision, and that of fp32. Raises ExportError without a text."""
        held_out = self.read_held_out()
        symbols = count_measured_symbols(held_out.symbols, self.bundle.card["parameters"])
        measured = held_out.beginning(symbols)
        # The loss is that of the logits before the chain, so the chain is left out.
        compilers = [Compiler(measured_step, self.bundle, Chain([]), {}) for measured_step in (step, self.step)]
        generators = [serialize_model(compiler.compile_loop()) for compiler in compilers]
        with progress(f"measuring {precision} and fp32", 2 * measured.symbols, "symbols") as bar:
            loss, fp32_loss = (measure_loss(file, measured, bar) for file in generators)
        return LossReport(precision, loss, fp32_loss, measured.symbols, held_out.symbols)

    def read_held_out(self) -> TokenCorpus:
        """Return what the run holds out, or raise ExportError where it cannot be read."""
        path = held_out_path(self.run.path)
        try:
            texts = read_held_out(path)
        except RunError as error:
            raise ExportError(f"{error}; a lower precision is measured on it") from None
        if not any(texts):
            raise ExportError(f"{path}: empty; a lower precision is measured on it: export in fp32")
        if self.bundle.boundary is None:
            return TokenCorpus(self.tokenizer.encode(texts[0]))
        records = [np.append(self.tokenizer.encode(text), self.bundle.boundary) for text in texts]
        return TokenCorpus.of_records(np.concatenate(records), self.bundle.boundary)
