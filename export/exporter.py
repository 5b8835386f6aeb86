"""Exports a run: model.onnx, from tokens to logits, and generator.onnx, which writes text by itself. (torch, onnx)"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from gentext.atomic import atomic_write_all
from gentext.bundle import METADATA_PREFIX, Bundle
from gentext.chain import Chain, LinkArrays
from gentext.console import progress, warn
from gentext.describe import chain_of, configured_chain, describe_model, load_run_tokenizer
from gentext.errors import ExportError, PluginError, RunError, UsageError
from gentext.export.generator.compiler import Compiler
from gentext.export.network.fp16 import to_fp16
from gentext.export.network.int8 import to_int8
from gentext.export.network.model import export_model
from gentext.export.network.step import count_weight_bytes, step_graph
from gentext.export.precision import (
    AUTO_LIMIT,
    CUDA_PRECISIONS,
    NAMED_LIMIT,
    PRECISIONS,
    BuiltGenerator,
    ExportedFile,
    LossReport,
    count_measured_symbols,
    fastest_precision,
    measure_loss,
)
from gentext.export.proto import serialize_model
from gentext.export.verify import verify_generator, verify_unrolled
from gentext.held_out import held_out_path, read_held_out
from gentext.interfaces import Model, Tokenizer
from gentext.manager import host
from gentext.onnx_file import read_metadata
from gentext.plugins.pytorch.checkpoint import build_model, load_best_checkpoint
from gentext.plugins.pytorch.device import choose_device
from gentext.plugins.samplers.runtime import cuda_problem
from gentext.run import GENERATOR_FILE, MODEL_FILE, UNROLLED_FILE, Run
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
            raise UsageError(f"--precision {self.precision}: expected {', '.join(choices[:-1])} or {choices[-1]}")

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
            raise ExportError(f"{path}: empty; a lower precision is measured on it: export with --precision fp32")
        if self.bundle.boundary is None:
            return TokenCorpus(self.tokenizer.encode(texts[0]))
        records = [np.append(self.tokenizer.encode(text), self.bundle.boundary) for text in texts]
        return TokenCorpus.of_records(np.concatenate(records), self.bundle.boundary)


def export_run(run: Run, folder: Path, options: ExportOptions = ExportOptions()) -> list[str]:
    """Export a run's best checkpoint to ``folder``: model.onnx, and the files of its generator, each checked.

    Returns the lines to show to the user. Raises ExportError or PluginError where a file cannot be made or does
    not agree with PyTorch, RunError where the files cannot be written, and then leaves the files in the folder as they
    were. An export that is killed between two renames leaves files with different ids, which
    `gentext.onnx_file.check_same_export` notices.
    """
    job = ExportJob.load(run, options)
    with torch.no_grad(), progress("exporting", 2) as bar:
        bar.advance(0, MODEL_FILE)
        model_bytes, difference, method = export_model(job.model, job.bundle)
        lines = [f"exported {folder / MODEL_FILE} ({len(model_bytes) / 1e6:.1f} MB, {method}): {difference}"]
        bar.advance(1, GENERATOR_FILE)
        try:
            generator, table_lines = _build_generator(job)
        except (ExportError, PluginError) as error:
            if options.generator_required:
                raise
            warn(f"no {GENERATOR_FILE}: {error}; gen sample takes {MODEL_FILE}, which is slower")
            generator, table_lines = None, []
    lines += table_lines
    contents: dict[Path, bytes | None] = {folder / MODEL_FILE: model_bytes}
    for name in (GENERATOR_FILE, UNROLLED_FILE):
        exported_file = generator.files.get(name) if generator else None
        if exported_file is None:
            if _is_older_export(folder / name):
                contents[folder / name] = None  # a newer model must not stand beside it
            continue
        contents[folder / name] = exported_file.file_bytes
        lines.append(
            f"exported {folder / name} ({len(exported_file.file_bytes) / 1e6:.1f} MB): {'; '.join(exported_file.facts)}"
        )
    atomic_write_all(contents)
    return lines


def _is_older_export(path: Path) -> bool:
    """Return whether there is a file of an earlier export. Of a file that gentext did not make, warn that it stays."""
    if not path.is_file():
        return False
    try:
        is_own_file = any(key.startswith(METADATA_PREFIX) for key in read_metadata(path))
    except (OSError, ValueError):
        is_own_file = False
    if not is_own_file:
        warn(f"{path} stays, and does not belong to the new {MODEL_FILE}: gentext did not make it, or it is damaged")
    return is_own_file


def _build_generator(job: ExportJob) -> tuple[BuiltGenerator, list[str]]:
    """Return the generator in the precision of the options, and lines about the losses that were measured."""
    options = job.options
    if options.precision == "auto":
        return _build_by_loss(job)
    if options.precision != "fastest":
        generator = _build_precision(job, options.precision, options.cost_limit)
        return generator, [f"{generator.report}: {generator.precision} exported"] if generator.report else []
    # CUDA has no such integer products, so int8 is no choice for a generator that is unrolled for it.
    precisions = [precision for precision in PRECISIONS if precision == "fp32" or not options.unroll]
    precisions += CUDA_PRECISIONS if cuda_problem() is None else ()
    return fastest_precision(functools.partial(_build_precision, job, limit=math.inf), precisions, options.cost_limit)


def _build_by_loss(job: ExportJob) -> tuple[BuiltGenerator, list[str]]:
    """Return the generator in int8 if its loss is within the limit, else in fp32, and a line with both losses.

    The losses alone decide: a choice by speed would be one by what else the machine does at the moment.
    """
    if job.options.unroll:
        return _build_fp32(job), []
    try:
        step = to_int8(job.step, job.bundle)
        report = job.measure("int8", step)
    except ExportError as error:
        return _build_fp32(job), [f"fp32 exported; {error}"]
    if report.cost <= job.options.cost_limit:
        return _build_lowered(job, "int8", step, report), [f"{report}: int8 exported"]
    generator = _build_fp32(job, report)
    return generator, [f"{report}: fp32 exported, int8 may cost {job.options.cost_limit:+.4f} at most"]


def _build_precision(job: ExportJob, precision: str, limit: float) -> BuiltGenerator:
    """Return the generator in one precision, checked; in fp32 if the model cannot be converted to that precision.

    Raises ExportError where the precision costs more than ``limit`` nats a symbol.
    """
    if precision == "fp32":
        return _build_fp32(job)
    try:
        step = to_fp16(job.step) if precision == "fp16" else to_int8(job.step, job.bundle)
    except ExportError as error:
        warn(f"{error}; the generator stays in fp32")
        return _build_fp32(job)
    report = job.measure(precision, step)
    _check_limit(report, limit)
    return _build_lowered(job, precision, step, report)


def _build_fp32(job: ExportJob, report: LossReport | None = None) -> BuiltGenerator:
    compiler = job.compiler(job.step, {"precision": "fp32", **(report.card() if report else {})})
    return BuiltGenerator("fp32", _build_checked_files(job, compiler, "fp32", compare_logits=True), report=report)


def _build_lowered(job: ExportJob, precision: str, step: onnx.ModelProto, report: LossReport) -> BuiltGenerator:
    compiler = job.compiler(step, {"precision": precision, **report.card()})
    title = f"{precision}, meant for CUDA" if precision in CUDA_PRECISIONS else precision
    files = _build_checked_files(job, compiler, title, compare_logits=False)
    return BuiltGenerator(precision, files, report.cost, report)


def _build_checked_files(
    job: ExportJob, compiler: Compiler, precision_title: str, *, compare_logits: bool
) -> dict[str, ExportedFile]:
    """Return the files of a compiler once they are checked."""
    generator_bytes = serialize_model(compiler.compile_loop())
    agreement = verify_generator(generator_bytes, job.model, job.chain, job.tables, compare_logits=compare_logits)
    title = f"{precision_title}, chain {', '.join(job.chain.names)}"
    files = {GENERATOR_FILE: ExportedFile(generator_bytes, [title, agreement])}
    positions = job.options.unroll
    if not positions:
        return files
    try:
        unrolled_bytes = serialize_model(compiler.compile_unrolled(positions))
        agreement = verify_unrolled(generator_bytes, unrolled_bytes, job.chain, job.tables)
    except ExportError as error:
        if job.options.generator_required:
            raise
        warn(f"no {UNROLLED_FILE}: {error}; on CUDA gen sample takes {GENERATOR_FILE}, which is slower")
        return files
    title = f"for CUDA, {positions} positions without control flow"
    return files | {UNROLLED_FILE: ExportedFile(unrolled_bytes, [title, agreement])}


def _check_limit(report: LossReport, limit: float) -> None:
    if not report.cost <= limit:  # a cost that is no number is above every limit
        raise ExportError(
            f"{report.precision} costs {report.cost:+.4f} nats a symbol, {limit:+.4f} is allowed; "
            f"keep fp32, take --precision auto, or allow more with --limit"
        )
