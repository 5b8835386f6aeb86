"""The matrix of exports, benchmarks/export_matrix.py: every pair of values of its factors."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from gentext.manager import host
from gentext.plugins.models.lstm_ensemble import LSTMEnsembleConfig
from gentext.sampling.configured_chain import builtin_strategies

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from export_matrix import check_case
from matrix_cases import CHAINS, PRECISIONS, Case, pair_cases
from matrix_networks import LARGEST, Network, build_network

CASES = pair_cases()
#: Each network is traced once for all of its cases.
build_once = functools.cache(build_network)


def factor_values() -> dict[str, list[Any]]:
    return {name: list(values) for name, values in Network.FACTORS.items()} | {
        "chain": list(CHAINS),
        "precision": list(PRECISIONS),
    }


def test_every_pair_of_values_has_a_case() -> None:
    pairs = {pair for case in CASES for pair in itertools.combinations(case.values().items(), 2)}
    for (first, first_values), (second, second_values) in itertools.combinations(factor_values().items(), 2):
        for values in itertools.product(first_values, second_values):
            assert tuple(zip((first, second), values, strict=True)) in pairs


def test_the_matrix_has_every_option_and_every_link() -> None:
    assert sorted(name for links in CHAINS.values() for name in links) == sorted(builtin_strategies(host().registry))
    configs = [dataclasses.asdict(case.network.config()) for case in CASES]
    for option in dataclasses.fields(LSTMEnsembleConfig):
        assert len({config.get(option.name) for config in configs}) > 1, option.name


def cover_values() -> list[Case]:
    """Return the notebook's network, and a few cases among which every value of each factor stands."""
    chosen = CASES[:1]
    missing = {value for case in CASES for value in case.values().items()} - chosen[0].values().items()
    while missing:
        chosen.append(max(CASES, key=lambda case: len(missing & case.values().items())))
        missing -= chosen[-1].values().items()
    return chosen


QUICK = cover_values()


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=str(case), marks=[pytest.mark.slow] * (case not in QUICK)) for case in CASES]
)
def test_export(case: Case) -> None:
    check_case(case, build_once(case.network))


@pytest.mark.parametrize("table", LARGEST)
def test_tables_are_as_large_as_their_name_says(table: str) -> None:
    network = next(case.network for case in CASES if case.network.table == table and case.network.members == 1)
    graph = build_once(network).step.graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    lookups = [node for node in graph.node if node.op_type == "Gather" and node.input[1] == "tokens"]
    [largest] = [abs(constants[node.input[0]]).max() for node in lookups if constants[node.input[0]].dtype == "float32"]
    assert largest == pytest.approx(LARGEST[table])
