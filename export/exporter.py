"""A run to its files: model.onnx for anybody's loop, generator.onnx that writes by itself. (torch, onnx)"""

from __future__ import annotations

import dataclasses
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
from gentext.export.generator import Compiler
from gentext.export.loss import LossReport, measure
from gentext.export.model import build
from gentext.export.quantise import quantise
from gentext.export.step import step_graph
from gentext.export.verify import verify_generator
from gentext.manager import host
from gentext.plugins import checkpoint as ckpt
from gentext.run import GENERATOR, HELD_OUT, MODEL, Run, write_bytes

PRECISIONS = ("fp32", "int8")


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """What ``gen export`` may be asked for."""

    precision: str = "fp32"
    """Arithmetic of the generator's matrix products: one of PRECISIONS."""
    chain: Sequence[str] | None = None
    """Links of the generator's chain; None: the run's."""
    limit: float = 0.005
    """How many nats a symbol a lower precision may cost."""
    generator_required: bool = True
    """Whether a generator that cannot be made is an error; at the end of training it is a warning."""


def export_run(run: Run, folder: Path, options: ExportOptions = ExportOptions()) -> list[str]:
    """Export a run's best checkpoint to ``folder``: model.onnx and generator.onnx, each checked.

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
            generator, facts = build_generator(run, model, bundle, chain, options)
        except (ExportError, PluginError) as error:
            if options.generator_required:
                raise
            warn(f"no {GENERATOR}: {error}; gen sample takes {MODEL}, which is slower")
            generator = b""
    write_bytes(folder / MODEL, data)
    if generator:
        write_bytes(folder / GENERATOR, generator)
        lines.append(f"exported {folder / GENERATOR} ({len(generator) / 1e6:.1f} MB): {'; '.join(facts)}")
    else:
        (folder / GENERATOR).unlink(missing_ok=True)  # no older generator beside a newer model
    return lines


def build_generator(
    run: Run, model: Any, bundle: Bundle, chain: Chain, options: ExportOptions
) -> tuple[bytes, list[str]]:
    """Return a checked generator file and what was found out about it."""
    step = step_graph(model, bundle)
    plain = _compile(step, bundle, chain, {"precision": "fp32"})
    if options.precision == "fp32":
        return plain, [f"fp32, chain {', '.join(chain.names)}", verify_generator(plain, model, chain, close=True)]
    try:
        quantised = quantise(step, bundle)
    except ExportError as error:
        warn(f"{error}; the generator stays in fp32")
        return build_generator(run, model, bundle, chain, dataclasses.replace(options, precision="fp32"))
    report = measure(plain, _compile(quantised, bundle, chain, {}), run.path / HELD_OUT)
    _check_limit(report, options)
    data = _compile(quantised, bundle, chain, {"precision": options.precision, **report.card()})
    agreement = verify_generator(data, model, chain, close=False)
    return data, [f"{options.precision}, chain {', '.join(chain.names)}", str(report), agreement]


def _chain(run: Run, bundle: Bundle, names: Sequence[str] | None) -> Chain:
    if names is None:
        return configured_chain(host().registry, run.config.get("chain", {}), bundle.vocab_size)
    return chain_of(bundle, host().registry, names)


def _compile(step: onnx.ModelProto, bundle: Bundle, chain: Chain, facts: dict[str, Any]) -> bytes:
    described = dataclasses.replace(bundle, card=bundle.card | facts)
    tables = chain.table_arrays(load_tokenizer(bundle.tokenizer.name, bundle.tokenizer.state))
    data: bytes = Compiler(step, described, chain, tables).looped().SerializeToString()
    return data


def _check_limit(report: LossReport, options: ExportOptions) -> None:
    if report.cost > options.limit:
        raise ExportError(
            f"{options.precision} costs {report.cost:+.4f} nats a symbol, {options.limit:+.4f} is allowed; "
            f"keep fp32, or allow more with --limit"
        )
