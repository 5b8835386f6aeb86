"""Faults that the matrix of exports, benchmarks/export_matrix.py, catches."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from gentext.errors import ExportError
from gentext.export.generator import unrolled
from gentext.export.generator.compiler import Compiler
from gentext.export.network import int8
from gentext.export.strategies.traced import Traced
from gentext.plugins.models.ngrams import NgramHash

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from export_matrix import check_case
from matrix_cases import pair_cases
from matrix_networks import build_network

#: Each network is traced once for all of its cases.
build_once = functools.cache(build_network)

Plant = Callable[[pytest.MonkeyPatch], None]


def take_a_bias_for_an_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product may read its activation, or its bias, in 8 bits."""
    monkeypatch.setattr(
        int8, "_is_activation", lambda name, node, weights: int8._constant_weight(node, weights) is not None
    )


def quantize_vectors_with_another_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vectors of n-grams are half as large as the product that reads them takes them for."""
    quantize = int8._quantized_table

    def quantize_halves(node: onnx.NodeProto, weights: Any) -> Any:
        if node.op_type != "Gather":
            return {}
        return quantize(node, {**weights, node.input[0]: weights[node.input[0]] / 2})

    monkeypatch.setattr(int8, "_quantized_table", quantize_halves)


def keep_states_of_fresh_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of a link is never the initial one, but what the caller feeds."""

    def read_inputs(compiler: Compiler, link: Any, inputs: Any) -> dict[str, Traced]:
        return {name: Traced(inputs[f"{link.name}.{name}"]) for name in link.strategy.state}

    monkeypatch.setattr(Compiler, "_initial_link_state", read_inputs)


def choose_the_last_of_equals(monkeypatch: pytest.MonkeyPatch) -> None:
    """The unrolled file takes the last largest element, not the first."""
    build = unrolled._first_largest_nodes

    def build_last(*arguments: Any) -> Any:
        *nodes, choice = build(*arguments)
        choice.op_type = "ReduceMax"
        return [*nodes, choice]

    monkeypatch.setattr(unrolled, "_first_largest_nodes", build_last)


def move_the_rows_of_ngrams(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step reads the row behind that of an n-gram."""
    step = NgramHash.step

    def step_moved(ngram_hash: NgramHash, *arguments: Any) -> Any:
        rows, hashes = step(ngram_hash, *arguments)
        return (rows + 1) % (2 * ngram_hash.rows), hashes

    monkeypatch.setattr(NgramHash, "step", step_moved)


@pytest.mark.parametrize(
    ("plant", "values", "message"),
    [
        (take_a_bias_for_an_activation, {"hidden": 512}, "int8: a defect of gentext.*InferenceError.*uint8"),
        (quantize_vectors_with_another_scale, {"input": "n-grams", "precision": "int8"}, "the logits differ"),
        (keep_states_of_fresh_rows, {"chain": "repetition", "precision": "int8"}, "does not write what"),
        (choose_the_last_of_equals, {"precision": "unrolled", "chain": "repetition"}, "unrolled.*a defect of gentext"),
        (move_the_rows_of_ngrams, {"input": "n-grams", "precision": "unrolled"}, "differs from PyTorch"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_planted_faults_are_caught(
    plant: Plant, values: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = next(case for case in pair_cases() if values.items() <= case.values().items())
    plant(monkeypatch)
    built = build_network(case.network) if plant is move_the_rows_of_ngrams else build_once(case.network)
    with pytest.raises((AssertionError, ExportError), match=message):
        check_case(case, built)
