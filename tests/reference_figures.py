"""The figures of llama.cpp and transformers that links must give, and how far they are from them.

llama.cpp: tests/test-sampling.cpp, to 1e-5. transformers: tests/generation/test_logits_process.py, to 1e-3.

    PYTHONPATH=tests python -m reference_figures

prints for each link how many figures it gives, and the largest difference: the table of docs/links.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gentext.manager import host
from gentext.sampling.chain import Chain, LinkArrays, LinkArraysDict, build_chain

Floats = NDArray[np.float32]
#: Number of symbols, where a test does not choose another.
V = 7
#: How far a probability may be from that of a reference.
TOLERANCES = {"llama.cpp": 1e-5, "transformers": 1e-3}


def apply(name: str, logits: Floats, noise: float = 0.0, **numbers: float) -> Floats:
    """Apply one link to logits [N, V]; a link that takes noise gets this number."""
    chain = build_chain(host().registry, [name], logits.shape[1])
    params = chain.param_arrays(len(logits), {name: numbers})
    uniforms = {name: np.full((len(logits), 1), noise, np.float32)}
    return chain.apply(logits, params, chain.initial_state(len(logits), params), uniforms, {})[0]


def logits_of(*probabilities: float) -> Floats:
    with np.errstate(divide="ignore"):
        return np.log(np.array([probabilities], np.float32))


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(weights / weights.sum())


class Steps:
    """One link, run position by position on rows that are all alike or differ in their parameters."""

    def __init__(
        self, name: str, rows: int = 1, options: dict[str, Any] | None = None, vocab_size: int = V, **numbers: float
    ) -> None:
        self.name = name
        self.chain: Chain = build_chain(host().registry, [name], vocab_size, {name: options or {}})
        self.params: LinkArraysDict = self.chain.param_arrays(rows, {name: numbers})
        self.state: LinkArraysDict = self.chain.initial_state(rows, self.params)
        self.tables: LinkArrays = {name: {}}
        if self.chain.links[0].strategy.tables:
            self.tables = {name: {"breakers": np.zeros(vocab_size, np.bool_)}}

    def apply(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        out, self.state, self.outputs = self.chain.apply(logits, self.params, self.state, {}, self.tables)
        return out

    def accept(self, tokens: Sequence[int], new: bool = True) -> None:
        is_new = np.full((len(tokens), 1), new)
        self.state = self.chain.accept(np.array(tokens), self.outputs, self.params, self.state, self.tables, is_new)

    def read(self, tokens: Sequence[int]) -> None:
        """Read a prime in one row."""
        for token in tokens:
            self.apply(np.zeros((1, self.chain.links[0].strategy.vocab_size), np.float32))
            self.accept([token], new=False)


#: Link, parameters, probabilities, and those that must come out: tests/test-sampling.cpp of llama.cpp.
LLAMA_CPP: list[tuple[str, dict[str, float], list[float], list[float]]] = [
    ("temperature", {"temperature": 1}, [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
    ("temperature", {"temperature": 0}, [0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1]),
    ("temperature", {"temperature": 1, "dynatemp_range": 0}, [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
    ("temperature", {"temperature": 0, "dynatemp_range": 0}, [0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1]),
    ("top_k", {"top_k": 1}, [0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1]),
    ("top_k", {"top_k": 3}, [0.1, 0.2, 0.3, 0.4], [0, 0.22222, 0.33333, 0.44444]),
    ("top_k", {"top_k": 4}, [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
    ("top_k", {"top_k": 0}, [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
    ("top_p", {"top_p": 0}, [0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1]),
    ("top_p", {"top_p": 0.7}, [0.1, 0.2, 0.3, 0.4], [0, 0, 0.428571, 0.571429]),
    ("top_p", {"top_p": 0.8}, [0.1, 0.2, 0.3, 0.4], [0, 0.22222, 0.33333, 0.44444]),
    ("top_p", {"top_p": 1}, [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
    ("min_p", {"min_p": 0}, [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
    ("min_p", {"min_p": 0.24}, [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
    ("min_p", {"min_p": 0.26}, [0.1, 0.2, 0.3, 0.4], [0, 0.2 / 0.9, 0.3 / 0.9, 0.4 / 0.9]),
    ("min_p", {"min_p": 0.49}, [0.1, 0.2, 0.3, 0.4], [0, 0.2 / 0.9, 0.3 / 0.9, 0.4 / 0.9]),
    ("min_p", {"min_p": 0.51}, [0.1, 0.2, 0.3, 0.4], [0, 0, 0.3 / 0.7, 0.4 / 0.7]),
    ("min_p", {"min_p": 0.74}, [0.1, 0.2, 0.3, 0.4], [0, 0, 0.3 / 0.7, 0.4 / 0.7]),
    ("min_p", {"min_p": 0.76}, [0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1]),
    ("min_p", {"min_p": 1}, [0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1]),
    # There the probabilities of xtc and typical are not normalised anew.
    ("xtc", {"xtc_probability": 0.99, "xtc_threshold": 0.09}, [0.4, 0.3, 0.2, 0.1], [0, 0, 0, 1]),
    ("xtc", {"xtc_probability": 0.99, "xtc_threshold": 0.19}, [0.4, 0.3, 0.2, 0.1], [0, 0, 0.2 / 0.3, 0.1 / 0.3]),
    (
        "xtc",
        {"xtc_probability": 0.99, "xtc_threshold": 0.29},
        [0.4, 0.3, 0.2, 0.1],
        [0, 0.3 / 0.6, 0.2 / 0.6, 0.1 / 0.6],
    ),
    ("xtc", {"xtc_probability": 0.99, "xtc_threshold": 0.39}, [0.4, 0.3, 0.2, 0.1], [0.4, 0.3, 0.2, 0.1]),
    ("typical", {"typical_p": 0.5}, [0.97, 0.01, 0.01, 0.01], [1, 0, 0, 0]),
    ("typical", {"typical_p": 0.5}, [0.4, 0.2, 0.2, 0.2], [0, 1 / 3, 1 / 3, 1 / 3]),
    ("top_n_sigma", {"top_n_sigma": 1}, [0.1, 0.2, 0.3, 0.4], [0, 0, 0.428571, 0.571429]),
    ("top_n_sigma", {"top_n_sigma": 0}, [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
    ("top_n_sigma", {"top_n_sigma": 3}, [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
    # Of pull request 26035.
    ("p_less", {"p_less": 1}, [0.1, 0.15, 0.2, 0.25, 0.3], [0, 0, 0, 0.45454545, 0.54545455]),
    ("p_less", {"p_less": 1}, [0.2] * 5, [0.2] * 5),
]

#: The same from tests/generation/test_logits_process.py of transformers, whose results are not normalised anew.
TRANSFORMERS: list[tuple[str, dict[str, float], list[float], list[float]]] = [
    # Not the first row for top_p: there 0.5 + 0.3 equals the share 0.8, and rounding decides.
    ("top_p", {"top_p": 0.8}, [0.15, 0.3, 0.3, 0.25], [0, 0.3, 0.3, 0.25]),
    ("min_p", {"min_p": 0.05}, [0.9, 0.0274, 0.047, 0.0274], [0.9, 0, 0.047, 0]),
    ("min_p", {"min_p": 0.05}, [0.15, 0.3, 0.3, 0.25], [0.15, 0.3, 0.3, 0.25]),
    ("min_p", {"min_p": 0.05}, [0.97, 0.01, 0.01, 0.01], [0.97, 0, 0, 0]),
    ("top_h", {"top_h": 0.3}, [0.97, 0.01, 0.01, 0.01], [0.97, 0, 0, 0]),
    ("top_h", {"top_h": 0.7}, [0.4, 0.3, 0.2, 0.1], [0.4, 0.3, 0, 0]),
    ("top_h", {"top_h": 1.0}, [0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25]),
    ("top_h", {"top_h": 0.4}, [0.75, 0.25, 0, 0], [0.75, 0, 0, 0]),
    ("typical", {"typical_p": 0.5}, [0.97, 0.01, 0.01, 0.01], [0.97, 0, 0, 0]),
    ("typical", {"typical_p": 0.5}, [0.4, 0.2, 0.2, 0.2], [0, 0.2, 0.2, 0.2]),
    ("epsilon", {"epsilon_cutoff": 0.1}, [0.87, 0.099, 0.001, 0.03], [0.87, 0, 0, 0]),
    ("epsilon", {"epsilon_cutoff": 0.1}, [0.4, 0.299, 0.101, 0.2], [0.4, 0.299, 0.101, 0.2]),
    ("eta", {"eta_cutoff": 0.0625}, [0, 0.1, 0.8, 0.1], [0, 0.1, 0.8, 0.1]),
    ("eta", {"eta_cutoff": 0.0625}, [0.01, 0.04, 0.9, 0.05], [0, 0, 0.9, 0]),
]

#: Number of symbols, the text so far, the probabilities that must come out of equal ones, then the multiplier, the
#: allowed length, the window, and the breakers; the base is 1.1. Of llama.cpp.
DRY: list[tuple[int, list[int], list[float], float, int, int, list[int]]] = [
    (4, [0, 1], [0.25, 0.25, 0.25, 0.25], 1.0, 2, 4, []),
    (4, [0, 1, 2, 0, 1], [0.296923, 0.296923, 0.109232, 0.296923], 1.0, 2, 5, []),
    (5, [0, 1, 3, 4, 0, 1], [0.2, 0.2, 0.2, 0.2, 0.2], 1.0, 2, 6, [3]),
    (5, [0, 1, 2, 0, 1], [0.241818, 0.241818, 0.032727, 0.241818, 0.241818], 2.0, 2, 5, []),
    (5, [0, 1, 2, 3, 4, 0, 1], [0.2, 0.2, 0.2, 0.2, 0.2], 1.0, 4, 7, []),
]

#: The text so far, the probabilities that must come out of five equal ones, then the repeat, frequency and presence
#: penalties. Of llama.cpp.
PENALTIES: list[tuple[list[int], list[float], tuple[float, float, float]]] = [
    ([0], [0, 0.25, 0.25, 0.25, 0.25], (50, 0, 0)),
    ([0, 1, 2], [0, 0, 0, 0.5, 0.5], (50, 0, 0)),
    ([0, 1, 2, 0, 0], [0, 0, 0, 0.5, 0.5], (50, 0, 0)),
    ([0], [0.000011, 0.249997, 0.249997, 0.249997, 0.249997], (1, 5, 5)),
    ([0, 1, 2], [0.000023, 0.000023, 0.000023, 0.499966, 0.499966], (1, 5, 5)),
    ([0, 1, 2, 0, 0], [0, 0.000023, 0.000023, 0.499977, 0.499977], (1, 5, 5)),
]

#: The size, the text so far, and the symbols that are masked: of transformers.
NO_REPEAT_NGRAM: list[tuple[int, list[int], list[int]]] = [
    (2, [1, 1, 2, 1], [1, 2]),
    (2, [0, 1, 0, 1], [0]),
    (3, [1, 1, 2, 1], []),
    (3, [0, 1, 0, 1], [0]),
    (3, [1, 2, 5, 7, 8, 5, 1, 2], [5]),
    (3, [1, 2], []),
    (1, [3, 4], [3, 4]),
]


class Comparison(NamedTuple):
    """One figure of a reference, and what a link gave."""

    link: str
    reference: str
    case: str
    difference: float
    """The largest of the probabilities."""


def comparisons() -> Iterator[Comparison]:
    """Apply the links to all figures."""
    for reference, figures in (("llama.cpp", LLAMA_CPP), ("transformers", TRANSFORMERS)):
        for name, numbers, probabilities, expected in figures:
            logits = apply(name, logits_of(*probabilities), **numbers)
            # The results of transformers are not normalised anew.
            after = softmax(logits)[0] if reference == "llama.cpp" else np.exp(logits[0])
            yield Comparison(name, reference, f"{numbers} {probabilities}", float(np.abs(after - expected).max()))
    for count, tokens, expected, multiplier, allowed_length, window, breakers in DRY:
        numbers = {"dry_multiplier": multiplier, "dry_base": 1.1, "dry_allowed_length": allowed_length}
        steps = Steps("dry", options={"window": window}, vocab_size=count, **numbers)
        steps.tables["dry"]["breakers"][breakers] = True
        steps.read(tokens)
        after = softmax(steps.apply(logits_of(*[1 / count] * count)))[0]
        yield Comparison("dry", "llama.cpp", f"{numbers} {tokens}", float(np.abs(after - expected).max()))
    for tokens, expected, (repeat, frequency, presence) in PENALTIES:
        numbers = {"repeat_penalty": repeat, "frequency_penalty": frequency, "presence_penalty": presence}
        steps = Steps("penalties", vocab_size=5, **numbers)
        steps.read(tokens)
        after = softmax(steps.apply(logits_of(*[0.2] * 5)))[0]
        yield Comparison("penalties", "llama.cpp", f"{numbers} {tokens}", float(np.abs(after - expected).max()))
    for size, tokens, masked in NO_REPEAT_NGRAM:
        steps = Steps("no_repeat_ngram", vocab_size=10, no_repeat_ngram_size=size)
        steps.read(tokens)
        is_masked = np.isinf(steps.apply(np.ones((1, 10), np.float32))[0])
        difference = float(np.flatnonzero(is_masked).tolist() != masked)
        yield Comparison("no_repeat_ngram", "transformers", f"{size} {tokens}", difference)


def main() -> None:
    differences: dict[tuple[str, str], list[float]] = {}
    for comparison in comparisons():
        differences.setdefault((comparison.link, comparison.reference), []).append(comparison.difference)
    for (link, reference), numbers in sorted(differences.items()):
        passed = sum(number <= TOLERANCES[reference] for number in numbers)
        print(f"{link:16} {reference:12} {passed} of {len(numbers)}  {max(numbers):.1e}")


if __name__ == "__main__":
    main()
