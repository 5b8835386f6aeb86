"""Whether every way to run a chain writes the same text, and how often PyTorch would draw differently.

    python benchmarks/equality.py RUN [--characters 20000] [--json]

For each built-in link, the default chain and all links together, in fp32 and int8: the file stepped with the
chain in NumPy is the reference; its own loop in calls of 1, 7 and 64 positions, and the unrolled file, must write
the same symbols, in batches of 1, 3 and 64 rows. Across PyTorch, model.onnx and the generator the logits differ in
their last bits: the share of uniform numbers for which the draw differs is computed on the held-out text.
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

from gentext.compiled import GeneratorModel, compiled
from gentext.describe import load_tokenizer
from gentext.plugins.pytorch import checkpoint as ckpt
from gentext.plugins.samplers.onnx import OnnxSampler
from gentext.plugins.samplers.session import open_unrolled
from gentext.run import HELD_OUT, MODEL, Run
from gentext.stepping import stepped

BATCHES, CALLS, UNROLLED = (1, 3, 64), (1, 7, 64), 32


class Calls:
    """A generator whose calls all have the same number of positions."""

    def __init__(self, session: Any, positions: int) -> None:
        self.signature, self.positions, self.call = session.signature, positions, session.call


def compare(run: Path, folder: Path, precision: str, links: list[str], characters: int) -> Mapping[str, Any]:
    """Return how many symbols were compared and how many differ from the reference."""
    opened = common.generator(run, folder, precision, links, unroll=UNROLLED)
    ways: dict[str, GeneratorModel] = {f"calls of {size}": Calls(opened.session, size) for size in CALLS}
    ways |= {"as gen sample runs it": opened.model, "unrolled": open_unrolled(opened.session, "cpu")}
    chain = common.chain(opened)
    differ = dict.fromkeys(ways, 0)
    compared = 0
    for rows in BATCHES:
        asked = common.request(chain, rows, common.varied_params(chain, rows), characters // rows)
        reference = common.tokens_by_row(stepped(opened, opened.bundle, asked), rows)
        compared += sum(map(len, reference))
        for name, model in ways.items():
            found = common.tokens_by_row(compiled(model, opened.bundle, asked), rows)
            assert [len(one) for one in found] == [len(one) for one in reference]
            differ[name] += sum(int((a != b).sum()) for a, b in zip(found, reference, strict=True))
    return {"precision": precision, "chain": ", ".join(links), "symbols": compared, **differ}


def overlap(one: NDArray[np.float32], other: NDArray[np.float32], k: int) -> float:
    """Return for how many uniform numbers in 100,000 the draws of two sets of logits [T, V] differ."""
    lower, upper = [], []
    for logits in (one, other):
        kept = np.where(logits >= np.sort(logits, axis=1)[:, -k][:, None], logits, -np.inf)
        weights = np.exp(kept - kept.max(axis=1, keepdims=True)).astype(np.float64)
        running = np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True)
        upper.append(running)
        lower.append(np.concatenate([np.zeros((len(running), 1)), running[:, :-1]], axis=1))
    common_share = np.maximum(0, np.minimum(*upper) - np.maximum(*lower)).sum(axis=1)
    return float(1e5 * (1 - common_share).mean())


def against_torch(run: Path, folder: Path, characters: int) -> list[Mapping[str, Any]]:
    """Return the differences of PyTorch, model.onnx and the generator on teacher-forced text."""
    opened = common.generator(run, folder, "fp32", common.DEFAULT)
    model_file = OnnxSampler().open(folder / MODEL, "cpu")
    bundle = opened.bundle
    text = (run / HELD_OUT).read_text(encoding="utf-8")[:characters]
    tokens = load_tokenizer(bundle.tokenizer.name, bundle.tokenizer.state).encode(text).astype(np.int64)[None]
    network = ckpt.build_model(Run(run), ckpt.load_best(Run(run))).eval()
    with torch.no_grad():
        state = network.initial_state(1)
        logits = {"PyTorch": network(torch.from_numpy(tokens), state)[0][0].numpy()}
    for name, other in (("model.onnx", model_file), ("generator.onnx", opened)):
        logits[name] = other.advance(tokens, other.initial(1))[0][0]
    pairs = [("PyTorch", "generator.onnx"), ("PyTorch", "model.onnx"), ("model.onnx", "generator.onnx")]
    return [
        {
            "pair": f"{one} and {other}",
            "positions": tokens.shape[1],
            "differ of 100,000, top_k 5": overlap(logits[one], logits[other], 5),
            "all symbols": overlap(logits[one], logits[other], bundle.vocab_size),
        }
        for one, other in pairs
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--characters", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    chains = [[name] for name in common.LINKS] + [common.DEFAULT, list(common.LINKS)]
    with tempfile.TemporaryDirectory() as place:
        rows = [
            compare(options.run, Path(place) / precision, precision, links, options.characters)
            for precision in ("fp32", "int8")
            for links in chains
        ]
        common.print_table("symbols that differ from the chain in NumPy", rows, options.json)
        draws = against_torch(options.run, Path(place) / "torch", options.characters)
        common.print_table("draws that differ", draws, options.json)


if __name__ == "__main__":
    main()
