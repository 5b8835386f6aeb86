"""The cases of the matrix of exports: which networks are exported with which chain in which precision."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from matrix_networks import Network

#: Every link stands in one of them.
CHAINS: Mapping[str, Sequence[str]] = {
    "default": ("match", "top_k", "top_p", "min_p", "temperature"),
    "repetition": ("bias", "ban", "penalties", "dry", "no_repeat_ngram", "top_n_sigma", "schedule", "mirostat"),
    "truncation": ("typical", "top_h", "p_less", "epsilon", "eta", "xtc", "adaptive_p"),
}
#: Chains of the second table alone: the shortest one, and that of all links, whose graph takes longest to build.
MORE_CHAINS: Mapping[str, Sequence[str]] = {"temperature": ("temperature",), "all": ("all",)}
#: What `gen export` is asked for. With ``unroll`` it also writes a file for CUDA.
PRECISIONS: Mapping[str, Mapping[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "int8": {"precision": "int8"},
    "auto": {"precision": "auto"},
    "fp16": {"precision": "fp16", "unroll": 2},
    "fastest": {"precision": "fastest"},
    "unrolled": {"precision": "fp32", "unroll": 2},
}
#: Those that end in int8, if a network has products that are large enough.
INT8_PRECISIONS = ("int8", "auto", "fastest")
#: What the networks of the first table are crossed by.
CROSSED = ("members", "layers", "input", "norm", "skip", "symbols")


@dataclasses.dataclass(frozen=True)
class Case:
    """A network, and how it is exported."""

    network: Network
    chain: str
    precision: str

    def values(self) -> dict[str, Any]:
        """Return the value of each factor."""
        return {**self.network.values(), "chain": self.chain, "precision": self.precision}

    def __str__(self) -> str:
        return f"{self.network}-{self.chain}-{self.precision}"


C = TypeVar("C", Network, Case)


def cover_pairs(candidates: Iterable[C]) -> list[C]:
    """Return a few candidates among which stands every pair of values that stands among all.

    The next one is always the first of those that have the most pairs that no earlier one has.
    """
    bits: dict[tuple[Any, Any], int] = {}
    masks: dict[C, int] = {}
    for candidate in candidates:
        pairs = itertools.combinations(candidate.values().items(), 2)
        masks[candidate] = sum(1 << bits.setdefault(pair, len(bits)) for pair in pairs)
    missing, chosen = (1 << len(bits)) - 1, []
    while missing:
        best = max(masks, key=lambda candidate: (masks[candidate] & missing).bit_count())
        missing &= ~masks[best]
        chosen.append(best)
    return chosen


@functools.cache
def pair_networks() -> list[Network]:
    """Return the networks among which every pair of their values stands."""
    networks = [Network(*values) for values in itertools.product(*Network.FACTORS.values())]
    # Which ones are chosen depends on their order. After this shuffle of 250 they were traced in the shortest time.
    random.Random(38).shuffle(networks)
    return cover_pairs(networks)


def pair_cases() -> list[Case]:
    """Return the cases of the tests, those of each network together; the notebook's network comes first."""
    crossed = itertools.product(pair_networks(), CHAINS, PRECISIONS)
    cases = cover_pairs(Case(*values) for values in crossed)
    cases.sort(key=lambda case: pair_networks().index(case.network))
    return [Case(Network.NOTEBOOK, "default", "auto"), *cases]


def network_cases(every: int) -> Iterator[Case]:
    """Yield the cases of the first table."""
    rng = random.Random(0)
    crossed = list(itertools.product(*(Network.FACTORS[name] for name in CROSSED)))
    rng.shuffle(crossed)
    for values in crossed[::every]:
        drawn = {name: rng.choice(choices) for name, choices in Network.FACTORS.items()}
        network = Network(**{**drawn, **dict(zip(CROSSED, values, strict=True))})
        for precision in PRECISIONS:
            yield Case(network, rng.choice(list(CHAINS)), precision)


def chain_cases() -> Iterator[Case]:
    """Yield the cases of the second table."""
    for values in itertools.product([Network.NOTEBOOK, *pair_networks()], {**CHAINS, **MORE_CHAINS}, PRECISIONS):
        yield Case(*values)
