"""Builds the generator of an export in the precision that is asked for, and checks it. (torch, onnx)"""

from __future__ import annotations

import functools
import math

import onnx

from gentext.console import warn
from gentext.errors import ExportDefect, ExportError
from gentext.export.defects import name_defects
from gentext.export.generator.compiler import Compiler
from gentext.export.job import ExportJob
from gentext.export.network.fp16 import to_fp16
from gentext.export.network.int8 import to_int8
from gentext.export.precision import (
    CUDA_PRECISIONS,
    PRECISIONS,
    BuiltGenerator,
    ExportedFile,
    LossReport,
    fastest_precision,
)
from gentext.export.proto import check_graph, serialize_model
from gentext.export.verify import verify_generator, verify_unrolled
from gentext.plugins.samplers.runtime import cuda_problem
from gentext.run import GENERATOR_FILE, UNROLLED_FILE


def build_generator(job: ExportJob) -> tuple[BuiltGenerator, list[str]]:
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
    return fastest_precision(functools.partial(_build_or_warn, job), precisions, options.cost_limit)


def _build_by_loss(job: ExportJob) -> tuple[BuiltGenerator, list[str]]:
    """Return the generator in int8 if its loss is within the limit, else in fp32, and a line with both losses.

    The losses alone decide: a choice by speed would be one by what else the machine does at the moment.
    A defect of gentext in int8 is a warning, since fp32 is as good.
    """
    if job.options.unroll:
        return _build_fp32(job), []
    try:
        step = _convert_step(job, "int8")
        report = _measure_step(job, "int8", step)
        if report.cost <= job.options.cost_limit:
            return _build_lowered(job, "int8", step, report), [f"{report}: int8 exported"]
    except ExportDefect as defect:
        warn(str(defect))
        return _build_fp32(job), ["fp32 exported; int8 failed"]
    except ExportError as error:
        return _build_fp32(job), [f"fp32 exported; {error}"]
    generator = _build_fp32(job, report)
    return generator, [f"{report}: fp32 exported, int8 may cost {job.options.cost_limit:+.4f} at most"]


def _build_or_warn(job: ExportJob, precision: str) -> BuiltGenerator:
    """Return the generator in one precision, in fp32 where its conversion has a defect, which is a warning."""
    try:
        return _build_precision(job, precision, math.inf)
    except ExportDefect as defect:
        if precision == "fp32":
            raise
        warn(str(defect))
        return _build_fp32(job)


def _build_precision(job: ExportJob, precision: str, limit: float) -> BuiltGenerator:
    """Return the generator in one precision, checked; in fp32 if the model cannot be converted to that precision.

    Raises ExportError where the precision costs more than ``limit`` nats a symbol, ExportDefect where gentext fails.
    """
    if precision == "fp32":
        return _build_fp32(job)
    try:
        step = _convert_step(job, precision)
    except ExportDefect:
        raise
    except ExportError as error:
        warn(f"{error}; the generator stays in fp32")
        return _build_fp32(job)
    report = _measure_step(job, precision, step)
    _check_limit(report, limit)
    return _build_lowered(job, precision, step, report)


def _convert_step(job: ExportJob, precision: str) -> onnx.ModelProto:
    """Return the step in a lower precision. Raises ExportError where the model has no product to convert."""
    step = job.step
    with name_defects(precision, job.bundle, job.chain):
        converted_step = to_fp16(step) if precision == "fp16" else to_int8(step, job.bundle)
        check_graph(converted_step)  # within the whole generator, the cause would be hard to read
    return converted_step


def _measure_step(job: ExportJob, precision: str, step: onnx.ModelProto) -> LossReport:
    with name_defects(precision, job.bundle, job.chain):
        return job.measure(precision, step)


def _build_fp32(job: ExportJob, report: LossReport | None = None) -> BuiltGenerator:
    step = job.step
    with name_defects("fp32", job.bundle, job.chain):
        compiler = job.compiler(step, {"precision": "fp32", **(report.card() if report else {})})
        files = _build_checked_files(job, compiler, "fp32", compare_logits=True)
    return BuiltGenerator("fp32", files, report=report)


def _build_lowered(job: ExportJob, precision: str, step: onnx.ModelProto, report: LossReport) -> BuiltGenerator:
    title = f"{precision}, meant for CUDA" if precision in CUDA_PRECISIONS else precision
    with name_defects(precision, job.bundle, job.chain):
        compiler = job.compiler(step, {"precision": precision, **report.card()})
        files = _build_checked_files(job, compiler, title, compare_logits=False)
    return BuiltGenerator(precision, files, report.cost, report)


def _build_checked_files(
    job: ExportJob, compiler: Compiler, precision_title: str, *, compare_logits: bool
) -> dict[str, ExportedFile]:
    """Return the files of a compiler once they are checked. Raises ExportError."""
    generator_bytes = serialize_model(compiler.compile_loop())
    agreement = verify_generator(generator_bytes, job.model, job.chain, job.tables, compare_logits=compare_logits)
    title = f"{precision_title}, chain {', '.join(job.chain.names)}"
    files = {GENERATOR_FILE: ExportedFile(generator_bytes, [title, agreement])}
    positions = job.options.unroll
    if not positions:
        return files
    try:
        with name_defects(f"{precision_title}, unrolled", job.bundle, job.chain):
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
            f"keep fp32, take precision auto, or allow a higher limit"
        )
