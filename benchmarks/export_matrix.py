"""Whether every kind of network is exported with every kind of chain in every precision.

    python benchmarks/export_matrix.py [--pairs] [--every N] [--json]

All networks are untrained and small, but for one that has the notebook's 512 units, and no losses are measured. What
`gen export` builds, it also checks: onnx infers all shapes of each graph, and onnxruntime opens it. Here the loop and
the unrolled file must also write what the chain writes in NumPy, with parameters that differ from row to row, and the
logits must be near those of PyTorch.

There are two tables. In the first, the factors that shape the graph are crossed fully: the number of networks side by
side, layers, input, norm, skip and symbols. Each of these networks is exported in all precisions, with other values of
all other factors; of these networks, every N-th is tried. In the second, all chains and all precisions are crossed with
the networks among which every pair of values stands. ``--pairs`` tries what the tests try: so few files that every pair
of values of all factors stands in one of them.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import io
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import common
import numpy as np
import torch
from matrix_cases import (
    CHAINS,
    INT8_PRECISIONS,
    MORE_CHAINS,
    PRECISIONS,
    Case,
    chain_cases,
    network_cases,
    pair_cases,
)
from matrix_networks import BuiltNetwork, Network, build_network

from gentext.console import progress
from gentext.errors import GenError
from gentext.export.building import build_generator
from gentext.export.job import ExportJob, ExportOptions
from gentext.export.network.model import export_model
from gentext.export.precision import BuiltGenerator, LossReport
from gentext.generation.compiled import generate_compiled
from gentext.generation.model_calls import GeneratorModel
from gentext.interfaces import Request
from gentext.manager import host
from gentext.matching.constraints import build_matches, read_constraints
from gentext.matching.match_tables import MATCH_LINK
from gentext.plugins.samplers.cuda_generator import UnrolledGenerator
from gentext.plugins.samplers.onnx import OnnxGenerator
from gentext.plugins.samplers.session import open_unrolled
from gentext.requests.spelling import KEYWORD_SPELLING
from gentext.run import GENERATOR_FILE, UNROLLED_FILE, Run
from gentext.sampling.chain import Chain
from gentext.sampling.configured_chain import configured_chain, make_tables
from gentext.stepping import generate_stepwise

#: Largest mean difference of a logit from PyTorch's, in standard deviations of the logits of a position.
TOLERANCES = {"fp32": 1e-5, "int8": 0.06, "fp16": 2e-3}
#: Characters a second by which ``fastest`` chooses.
RATES = {"fp32": 1.0, "int8": 2.0, "fp16": 0.5}
ROWS, LENGTH = 3, 24
#: What the texts of the rows match where the chain has the link; None: anything.
EXPRESSIONS = ["[a-f]{3}( [g-p]+)?\\.", None, "([a-p]+ ){2,}"]


class UnmeasuredJob(ExportJob):
    """A job without a run. The losses of an untrained network say nothing, so none is measured."""

    def measure(self, precision: str, step: object) -> LossReport:
        return LossReport(precision, 1.0, 1.0, 1, 1)


# -- one case -----------------------------------------------------------------------------------


def check_case(case: Case, built: BuiltNetwork) -> dict[str, Any]:
    """Export a network as the case says, and return what was compared. Raises GenError or AssertionError."""
    generator = export_case(case, built)
    with tempfile.TemporaryDirectory() as folder:
        for name, file in generator.files.items():
            (Path(folder) / name).write_bytes(file.file_bytes)
        opened = common.open_generator(Path(folder) / GENERATOR_FILE, threads=1)
        models: dict[str, GeneratorModel] = {GENERATOR_FILE: opened.session}
        if UNROLLED_FILE in generator.files:
            models[UNROLLED_FILE] = UnrolledGenerator(opened.session, open_unrolled(opened.session, "cpu"), "cpu")
    symbols = check_texts(opened, models, build_chain(case, built))
    difference = compare_logits(opened, built)
    assert difference <= TOLERANCES[generator.precision], f"the logits differ from PyTorch's by {difference:.2g}"
    return {"written": generator.precision, "compared": symbols, "difference": difference}


def export_case(case: Case, built: BuiltNetwork) -> BuiltGenerator:
    """Return the files that `gen export` would write; a warning of a defect, as of ``auto``, is an error here."""
    options = ExportOptions(**PRECISIONS[case.precision])
    chain = build_chain(case, built)
    job = UnmeasuredJob(Run(Path()), options, built.model, built.bundle, built.tokenizer, chain)
    vars(job)["step"] = built.step  # it was traced before
    warnings = io.StringIO()
    rate = mock.patch("gentext.export.precision._measure_rate", lambda generator: (1, RATES[generator.precision]))
    with contextlib.redirect_stderr(warnings), rate:
        generator, _ = build_generator(job)
    assert "a defect of gentext" not in warnings.getvalue(), warnings.getvalue()
    expected = "fp16" if case.precision == "fp16" else "fp32"
    if case.precision in INT8_PRECISIONS and case.network.has_int8_products:
        expected = "int8"
    assert generator.precision == expected, f"the file is in {generator.precision}, expected {expected}"
    return generator


def build_chain(case: Case, built: BuiltNetwork) -> Chain:
    """Return the chain of a case, with options of its links with which they have an effect."""
    links = {**CHAINS, **MORE_CHAINS}[case.chain]
    options = {name: table for name, table in common.OPTIONS.items() if name in links or "all" in links}
    return configured_chain(host().registry, {"links": list(links), **options}, built.bundle.vocab_size)


def check_texts(opened: OnnxGenerator, models: Mapping[str, GeneratorModel], chain: Chain) -> int:
    """Check that the files write what the chain writes in NumPy, and return how many symbols were compared."""
    request = make_request(opened, chain)
    expected = common.tokens_by_row(generate_stepwise(opened, opened.bundle, request), ROWS)
    for name, model in models.items():
        tokens = common.tokens_by_row(generate_compiled(model, opened.bundle, request), ROWS)
        assert all(map(np.array_equal, tokens, expected)), f"{name} does not write what the chain writes in NumPy"
        assert not isinstance(model, UnrolledGenerator) or model.positions is not None, f"{name} does not run"
    return len(models) * sum(map(len, expected))


def make_request(opened: OnnxGenerator, chain: Chain) -> Request:
    """Return a request of rows with different primes, parameters and, if the chain has the link, expressions."""
    bundle, rng = opened.bundle, np.random.default_rng(1)
    params = common.varied_params(chain, ROWS)
    tables = dict(make_tables(chain, bundle))
    if MATCH_LINK in chain.names:
        constraints = read_constraints(EXPRESSIONS, None, ROWS, KEYWORD_SPELLING)
        nothing_banned = np.zeros(bundle.vocab_size, np.bool_)
        nothing_banned[list(bundle.token_bytes).index(b"e")] = "ban" in chain.names
        matches = build_matches(constraints, [b""] * ROWS, bundle, nothing_banned, LENGTH, KEYWORD_SPELLING)
        tables[MATCH_LINK] = matches.tables
        params[MATCH_LINK] = {"first_state": matches.first_states[:, None], "budget": matches.budgets[:, None]}
    request = common.request(chain, ROWS, params, LENGTH)
    primes = [rng.integers(0, 20, length) for length in range(ROWS)]
    return dataclasses.replace(request, primes=primes, tables=tables)


def compare_logits(opened: OnnxGenerator, built: BuiltNetwork) -> float:
    """Return the mean difference of a file's logits from PyTorch's, in standard deviations of those of a position."""
    tokens = np.random.default_rng(2).integers(0, opened.bundle.vocab_size, (ROWS, LENGTH))
    logits, _ = opened.advance(tokens, opened.initial(ROWS))
    reference = built.logits(tokens)
    difference = logits - reference
    difference -= difference.mean(axis=2, keepdims=True)  # it changes no probability
    return float(np.abs(difference).mean() / reference.std(axis=2).mean())


# -- the program --------------------------------------------------------------------------------


def try_cases(cases: Iterable[Case], count: int) -> Iterator[dict[str, Any]]:
    """Yield what came of each case, and of model.onnx of each network; cases of one network follow each other."""
    with progress("exporting", count, "files") as bar:
        for network, group in itertools.groupby(cases, key=lambda case: case.network):
            built = build_network(network)
            yield try_file({**network.values(), "precision": "model.onnx"}, functools.partial(check_model, built))
            for case in group:
                yield try_file(case.values(), functools.partial(check_case, case, built))
                bar.advance()


def check_model(built: BuiltNetwork) -> dict[str, Any]:
    """Export model.onnx, which is compared with PyTorch."""
    with torch.no_grad():
        difference = export_model(built.model, built.bundle).difference
    return {"compared": 0, "difference": difference.largest}


def try_file(values: Mapping[str, Any], check: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return the values of a file's factors and what ``check`` returned, or why it failed."""
    begin = time.monotonic()
    try:
        result = {"failure": None, **check()}
    except (GenError, AssertionError) as error:
        result = {"failure": str(error), "compared": 0, "difference": 0.0}
    return {**values, **result, "seconds": time.monotonic() - begin}


def summarize(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return a row for each value of each factor, with the files that have it."""
    rows = []
    for factor in ("precision", "chain", *Network.FACTORS):
        for value in dict.fromkeys(result[factor] for result in results if factor in result):
            files = [result for result in results if result.get(factor) == value]
            rows.append(
                {
                    "factor": factor,
                    "value": str(value),
                    "files": len(files),
                    "failed": sum(file["failure"] is not None for file in files),
                    "symbols compared": sum(file["compared"] for file in files),
                    "largest difference of logits": max(file["difference"] for file in files),
                    "seconds a file": sum(file["seconds"] for file in files) / len(files),
                }
            )
    return rows


def print_cases(title: str, cases: Sequence[Case], as_json: bool) -> None:
    """Try cases and print their table, and a line for each that failed."""
    begin = time.monotonic()
    results = list(try_cases(cases, len(cases)))
    networks = len({case.network for case in cases})
    seconds = time.monotonic() - begin
    common.print_table(
        f"{title}: {networks} networks, {len(cases)} exports, {seconds:.0f} s", summarize(results), as_json
    )
    for result in results:
        if result["failure"] is not None:
            print(f"failed: {' '.join(map(str, result.values()))}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", action="store_true", help="the cases of the tests alone")
    parser.add_argument("--every", type=int, default=1, help="of the first table, try each N-th network")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.pairs:
        print_cases("every pair of values", pair_cases(), options.json)
        return
    print_cases("factors of the graph, crossed fully", list(network_cases(options.every)), options.json)
    print_cases("chains and precisions, crossed fully", list(chain_cases()), options.json)


if __name__ == "__main__":
    main()
