"""Whether every way to run a chain writes the same text, and how often PyTorch would draw differently.

    python benchmarks/equality.py RUN [--characters 20000] [--json]

For each built-in link, the default chain and all links together, in fp32 and int8, and in batches of 1, 3 and 64
rows: the reference is the file run one position at a time with the chain in NumPy. Its own loop in calls of 1, 7
and 64 positions, and the unrolled file, must write the same symbols. The logits of PyTorch, model.onnx and the
generator differ in their last bits: on the held-out text, the share of uniform numbers is computed for which the
draw differs.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from numpy.typing import NDArray

from gentext.compiled import GeneratorModel, generate_compiled
from gentext.describe import tokenizer_of
from gentext.plugins.pytorch import build_model, load_best_checkpoint
from gentext.plugins.samplers.onnx import OnnxSampler
from gentext.plugins.samplers.session import GeneratorSession, open_unrolled
from gentext.run import HELD_OUT_FILE, MODEL_FILE, Run
from gentext.stepping import generate_stepwise

#: Rows of a batch, positions of a call, and positions of the unrolled file.
BATCHES, CALLS, UNROLLED = (1, 3, 64), (1, 7, 64), 32


class FixedCalls:
    """A generator whose calls all have the same number of positions."""

    def __init__(self, session: GeneratorSession, positions: int) -> None:
        self.signature, self.positions, self.call = session.signature, positions, session.call


def compare(run: Path, folder: Path, precision: str, links: list[str], characters: int) -> Mapping[str, Any]:
    """Return how many symbols were compared and how many differ from the reference."""
    generator = common.generator(run, folder, precision, links, unroll=UNROLLED)
    models: dict[str, GeneratorModel] = {f"calls of {size}": FixedCalls(generator.session, size) for size in CALLS}
    models |= {"as gen sample runs it": generator.model, "unrolled": open_unrolled(generator.session, "cpu")}
    chain = common.chain(generator)
    differences = dict.fromkeys(models, 0)
    compared = 0
    for rows in BATCHES:
        request = common.request(chain, rows, common.varied_params(chain, rows), characters // rows)
        reference = common.tokens_by_row(generate_stepwise(generator, generator.bundle, request), rows)
        compared += sum(map(len, reference))
        for name, model in models.items():
            tokens = common.tokens_by_row(generate_compiled(model, generator.bundle, request), rows)
            assert [len(row) for row in tokens] == [len(row) for row in reference]
            differences[name] += sum(int((a != b).sum()) for a, b in zip(tokens, reference, strict=True))
    return {"precision": precision, "chain": ", ".join(links), "symbols": compared, **differences}


def draw_differences(first: NDArray[np.float32], second: NDArray[np.float32], k: int) -> float:
    """Return for how many uniform numbers in 100,000 the draws of two sets of logits [T, V] differ, after top_k."""
    lower, upper = [], []
    for logits in (first, second):
        top_logits = np.where(logits >= np.sort(logits, axis=1)[:, -k][:, None], logits, -np.inf)
        weights = np.exp(top_logits - top_logits.max(axis=1, keepdims=True)).astype(np.float64)
        running = np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True)
        upper.append(running)
        lower.append(np.concatenate([np.zeros((len(running), 1)), running[:, :-1]], axis=1))
    common_share = np.maximum(0, np.minimum(*upper) - np.maximum(*lower)).sum(axis=1)
    return float(1e5 * (1 - common_share).mean())


def against_torch(run: Path, folder: Path, characters: int) -> list[Mapping[str, Any]]:
    """Return the differences of PyTorch, model.onnx and the generator on teacher-forced text."""
    generator = common.generator(run, folder, "fp32", common.DEFAULT)
    model_file = OnnxSampler().open(folder / MODEL_FILE, "cpu")
    bundle = generator.bundle
    text = (run / HELD_OUT_FILE).read_text(encoding="utf-8")[:characters]
    tokens = tokenizer_of(bundle).encode(text).astype(np.int64)[None]
    network = build_model(Run(run), load_best_checkpoint(Run(run))).eval()
    with torch.no_grad():
        state = network.initial_state(1)
        logits = {"PyTorch": network(torch.from_numpy(tokens), state)[0][0].numpy()}
    for name, file in (("model.onnx", model_file), ("generator.onnx", generator)):
        logits[name] = file.advance(tokens, file.initial(1))[0][0]
    pairs = [("PyTorch", "generator.onnx"), ("PyTorch", "model.onnx"), ("model.onnx", "generator.onnx")]
    return [
        {
            "pair": f"{first} and {second}",
            "positions": tokens.shape[1],
            "differ of 100,000, top_k 5": draw_differences(logits[first], logits[second], 5),
            "all symbols": draw_differences(logits[first], logits[second], bundle.vocab_size),
        }
        for first, second in pairs
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--characters", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    chains = [[name] for name in common.LINKS] + [common.DEFAULT, ["all"]]
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            compare(options.run, Path(folder) / precision, precision, links, options.characters)
            for precision in ("fp32", "int8")
            for links in chains
        ]
        common.print_table("symbols that differ from the chain in NumPy", rows, options.json)
        draws = against_torch(options.run, Path(folder) / "torch", options.characters)
        common.print_table("draws that differ", draws, options.json)


if __name__ == "__main__":
    main()
