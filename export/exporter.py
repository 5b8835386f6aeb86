"""A run to its files: model.onnx for anybody's loop, generator.onnx that writes by itself. (torch, onnx)"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch

from gentext.bundle import Bundle
from gentext.chain import Chain
from gentext.console import warn
from gentext.describe import chain_of, configured_chain, describe, load_tokenizer
from gentext.errors import ExportError, PluginError
from gentext.export.fastest import Built, Files, fastest_precision
from gentext.export.generator.compiler import Compiler
from gentext.export.loss import LossReport, measure
from gentext.export.network.fp16 import halve
from gentext.export.network.int8 import quantise
from gentext.export.network.model import build
from gentext.export.network.step import step_graph
from gentext.export.verify import verify_generator, verify_unrolled
from gentext.manager import host
from gentext.plugins.pytorch import checkpoint as ckpt
from gentext.plugins.samplers.runtime import cuda_problem
from gentext.run import GENERATOR, HELD_OUT, MODEL, UNROLLED, Run, write_bytes

#: Of the generator: those that are fast on a CPU, and those that are meant for a GPU.
PRECISIONS, FOR_CUDA = ("fp32", "int8"), ("fp16",)
#: Positions of the unrolled generator that training on a GPU leaves behind.
UNROLL = 32


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """What ``gen export`` may be asked for."""

    precision: str = "fp32"
    """Arithmetic of the generator's matrix products: one of PRECISIONS or FOR_CUDA, or auto for the fastest here."""
    chain: Sequence[str] | None = None
    """Links of the generator's chain; None: the run's."""
    limit: float = 0.005
    """How many nats a symbol a lower precision may cost."""
    generator_required: bool = True
    """Whether a generator that cannot be made is an error; at the end of training it is a warning."""
    unroll: int = 0
    """Positions of an unrolled generator beside it, for CUDA; 0: none."""


def export_run(run: Run, folder: Path, options: ExportOptions = ExportOptions()) -> list[str]:
    """Export a run's best checkpoint to ``folder``: model.onnx, and the files of its generator, each checked.

    Returns what to tell the user. Raises ExportError or PluginError where a file cannot be made or does not
    agree with PyTorch, and leaves the files that are there as they were.
    """
    model = ckpt.build_model(run, ckpt.load_best(run))
    bundle = describe(run, model)
    chain = _chain(run, bundle, options.chain)
    with torch.no_grad():
        data, difference, how = build(model, bundle)
        lines = [f"exported {folder / MODEL} ({len(data) / 1e6:.1f} MB, {how}): {difference}"]
        try:
            files, table = _generator(run, model, bundle, chain, options)
            lines += table
        except (ExportError, PluginError) as error:
            if options.generator_required:
                raise
            warn(f"no {GENERATOR}: {error}; gen sample takes {MODEL}, which is slower")
            files = {}
    write_bytes(folder / MODEL, data)
    for name in (GENERATOR, UNROLLED):
        if name in files:
            data, facts = files[name]
            write_bytes(folder / name, data)
            lines.append(f"exported {folder / name} ({len(data) / 1e6:.1f} MB): {'; '.join(facts)}")
        else:
            (folder / name).unlink(missing_ok=True)  # no older file beside a newer model
    return lines


def _generator(run: Run, model: Any, bundle: Bundle, chain: Chain, options: ExportOptions) -> tuple[Files, list[str]]:
    """Return the generator's files and what there is to tell about the choice of its precision."""
    step = step_graph(model, bundle)

    def build(precision: str, limit: float = math.inf) -> Built:
        return _build(run, model, bundle, chain, step, dataclasses.replace(options, precision=precision, limit=limit))

    if options.precision != "auto":
        return build(options.precision, options.limit).files, []
    known = [one for one in PRECISIONS if one == "fp32" or not options.unroll]
    known += FOR_CUDA if cuda_problem() is None else ()
    built, table = fastest_precision(build, known, options.limit)
    return built.files, table


def _build(run: Run, model: Any, bundle: Bundle, chain: Chain, step: onnx.ModelProto, options: ExportOptions) -> Built:
    """Return the generator's files in one precision, checked, each with what was found out about it."""
    plain = _compiler(step, bundle, chain, {"precision": "fp32"})
    if options.precision == "fp32":
        return Built("fp32", _checked(plain, model, options, ["fp32"]))
    try:
        smaller = halve(step) if options.precision == "fp16" else quantise(step, bundle)
    except ExportError as error:
        warn(f"{error}; the generator stays in fp32")
        return Built("fp32", _checked(plain, model, dataclasses.replace(options, precision="fp32"), ["fp32"]))
    other = _compiler(smaller, bundle, chain, {})
    report = measure(plain.looped().SerializeToString(), other.looped().SerializeToString(), run.path / HELD_OUT)
    _check_limit(report, options)
    compiler = _compiler(smaller, bundle, chain, {"precision": options.precision, **report.card()})
    name = f"{options.precision}{', meant for CUDA' if options.precision in FOR_CUDA else ''}"
    return Built(options.precision, _checked(compiler, model, options, [name, str(report)]), report.cost)


def _checked(compiler: Compiler, model: Any, options: ExportOptions, facts: list[str]) -> Files:
    """Return the files of a compiler once they are checked; the first fact is the precision."""
    chain = compiler.chain
    data = compiler.looped().SerializeToString()
    agreement = verify_generator(data, model, chain, close=options.precision == "fp32")
    files: Files = {GENERATOR: (data, [f"{facts[0]}, chain {', '.join(chain.names)}", *facts[1:], agreement])}
    if not options.unroll:
        return files
    try:
        unrolled = compiler.unrolled(options.unroll).SerializeToString()
        agreement = verify_unrolled(data, unrolled, chain)
    except ExportError as error:
        if options.generator_required:
            raise
        warn(f"no {UNROLLED}: {error}; on CUDA gen sample takes {GENERATOR}, which is slower")
        return files
    return files | {UNROLLED: (unrolled, [f"for CUDA, {options.unroll} positions without control flow", agreement])}


def _chain(run: Run, bundle: Bundle, names: Sequence[str] | None) -> Chain:
    if names is None:
        return configured_chain(host().registry, run.config.get("chain", {}), bundle.vocab_size)
    return chain_of(bundle, host().registry, names)


def _compiler(step: onnx.ModelProto, bundle: Bundle, chain: Chain, facts: dict[str, Any]) -> Compiler:
    described = dataclasses.replace(bundle, card=bundle.card | facts)
    tables = chain.table_arrays(load_tokenizer(bundle.tokenizer.name, bundle.tokenizer.state))
    return Compiler(step, described, chain, tables)


def _check_limit(report: LossReport, options: ExportOptions) -> None:
    if report.cost > options.limit:
        raise ExportError(
            f"{options.precision} costs {report.cost:+.4f} nats a symbol, {options.limit:+.4f} is allowed; "
            f"keep fp32, take --precision auto, or allow more with --limit"
        )
