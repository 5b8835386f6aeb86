"""Whether the compiled file draws each symbol as often as the chain says: chi-square of many draws.

    python benchmarks/draws.py FILE.onnx [--draws 200000] [--json]

One context, the same for all rows; five settings of the default chain. The exact probabilities come from the
chain in NumPy. Then the smallest and the largest uniform number, and numbers beyond them: no masked symbol.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from numpy.typing import NDArray

from gentext.generation.model_calls import first_feeds
from gentext.noise import DRAW, uniforms
from gentext.plugins.samplers.onnx import OnnxGenerator

SETTINGS: tuple[Mapping[str, Mapping[str, float]], ...] = (
    {},
    {"temperature": {"temperature": 1}},
    {"temperature": {"temperature": 1.5}},
    {"top_p": {"top_p": 0.9}, "temperature": {"temperature": 1}},
    {"top_k": {"top_k": 20}, "min_p": {"min_p": 0.01}, "temperature": {"temperature": 0.7}},
)
#: Rows of a call, and symbols of the context.
ROWS, CONTEXT = 4000, 40
#: The largest uniform number there is is 1 - 2**-24; a foreign one may lie beyond it.
EXTREMES = (0.0, 1 - 2.0**-24, 1.0)


class Context:
    """A file's states after a short text, for any number of rows."""

    def __init__(self, generator: OnnxGenerator) -> None:
        self.generator, self.chain = generator, common.chain(generator)
        signature = generator.session.signature
        rng = np.random.default_rng(0)
        feeds = first_feeds(signature, 1) | {
            "forced": rng.integers(0, generator.bundle.vocab_size, (CONTEXT, 1)),
            "noise": np.zeros((CONTEXT, 1, signature.columns), np.float32),
        }
        results = generator.session.call(feeds)
        self._states = {port.name: (port, results[f"{port.name}_out"]) for port in signature.states}
        self._token = feeds["forced"][-1]

    def draw(self, settings: Mapping[str, Mapping[str, float]], noise: NDArray[np.float32]) -> dict[str, Any]:
        """Draw one symbol in each row with noise [rows, columns]."""
        rows = len(noise)
        feeds: dict[str, Any] = {
            name: np.repeat(array, rows, axis=port.shape.index("N")) for name, (port, array) in self._states.items()
        }
        feeds |= {"token": np.repeat(self._token, rows), "fresh": np.zeros(rows, np.bool_)}
        feeds |= {"forced": np.full((1, rows), -1, np.int64), "noise": noise[None]}
        for link, values in self.chain.param_arrays(rows, settings).items():
            feeds |= {f"{link}.{name}": array for name, array in values.items()}
        return dict(self.generator.session.call(feeds))

    def exact(self, settings: Mapping[str, Mapping[str, float]], logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the chain's probabilities of every symbol, from logits [V]."""
        params = self.chain.param_arrays(1, settings)
        state = self.chain.initial_state(1, params)
        [masked], _, _ = self.chain.apply(logits[None], params, state, {}, {})
        weights = np.exp((masked - masked.max()).astype(np.float64))
        return np.asarray(weights / weights.sum())


def chi_square(
    context: Context, settings: Mapping[str, Mapping[str, float]], draws: int, seed: int
) -> Mapping[str, Any]:
    """Return how well many draws fit the exact probabilities, and how many masked symbols were drawn."""
    counts = np.zeros(context.generator.bundle.vocab_size, np.int64)
    for call in range(draws // ROWS):
        noise = np.stack([uniforms(seed + call, row, DRAW, 0, 1)[0] for row in range(ROWS)])
        results = context.draw(settings, noise)
        counts += np.bincount(results["tokens"][0], minlength=len(counts))
    exact = context.exact(settings, results["logits"][0])
    expected = exact * counts.sum()
    # Cells in which fewer than 5 are expected make the statistic meaningless: they are joined to one.
    large = expected >= 5
    cells = [*zip(counts[large], expected[large], strict=True), (counts[~large].sum(), expected[~large].sum())]
    terms = [(count - expectation) ** 2 / expectation for count, expectation in cells if expectation > 0]
    statistic, degrees = float(sum(terms)), len(terms) - 1
    p = float(torch.special.gammaincc(torch.tensor(degrees / 2), torch.tensor(statistic / 2))) if degrees else 1.0
    masked = 0
    for u in EXTREMES:
        token = int(context.draw(settings, np.full((1, 1), u, np.float32))["tokens"][0, 0])
        masked += int(exact[token] == 0)
    return {
        "settings": "; ".join(f"{n}={v:g}" for params in settings.values() for n, v in params.items()) or "defaults",
        "draws": int(counts.sum()),
        "symbols": int((exact > 0).sum()),
        "chi-square": statistic,
        "degrees": degrees,
        "p": p,
        "masked drawn": int(counts[exact == 0].sum()),
        "masked at extremes": masked,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--draws", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    context = Context(common.open_generator(options.file))
    rows = [chi_square(context, settings, options.draws, options.seed) for settings in SETTINGS]
    common.print_table("draws against the exact probabilities", rows, options.json)


if __name__ == "__main__":
    main()
