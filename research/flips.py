"""Whether every flipped bit of an exported file and of a checkpoint is noticed.

    python research/flips.py RUN [--weight-bits 1000] [--seed 0]

RUN is a small run: its model.onnx, generator.onnx and newest checkpoint are copied. In each copy every bit outside of
the weights is flipped, one at a time, and so many random bits of weights; each time the copy is read as gentext does
before it uses anything of it, which must raise its error.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import onnx

from gentext.errors import GenError
from gentext.export.proto import subgraphs
from gentext.exported.onnx_file import read_checked_metadata
from gentext.plugins.pytorch.checkpoint import find_checkpoints, read_checkpoint
from gentext.run import GENERATOR_FILE, MODEL_FILE, open_run

#: Bytes of a constant of a graph from which it counts as weights; smaller ones are flipped whole.
MIN_WEIGHT_BYTES = 256


def onnx_weights(content: bytes) -> list[range]:
    """Return where the weights of an .onnx file lie: the initializers and constants of the graph and its subgraphs."""
    weights = []
    for tensor in constants(onnx.load_from_string(content).graph):
        if len(tensor.raw_data) >= MIN_WEIGHT_BYTES:
            begin = content.index(tensor.raw_data)
            weights.append(range(begin, begin + len(tensor.raw_data)))
    return weights


def constants(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield all constant tensors of a graph."""
    yield from graph.initializer
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.type == onnx.AttributeProto.TENSOR)
        for inner_graph in subgraphs(node):
            yield from constants(inner_graph)


def checkpoint_weights(content: bytes) -> list[range]:
    """Return where the tensors of a safetensors file lie: after its header, whose length the first eight bytes hold."""
    return [range(8 + int.from_bytes(content[:8], "little"), len(content))]


def count_unnoticed(path: Path, read: Callable[[Path], object], bits: Iterable[int]) -> int:
    """Flip each bit of a file, and count how often reading it raises no error. The file is left as it was."""
    read(path)  # which is whole
    unnoticed = 0
    with path.open("r+b", buffering=0) as file:
        for bit in bits:
            file.seek(bit // 8)
            byte = file.read(1)[0]
            for content in (byte ^ 1 << bit % 8, byte):
                file.seek(bit // 8)
                file.write(bytes([content]))
                if content == byte:
                    continue
                try:
                    read(path)
                except GenError:
                    continue
                unnoticed += 1
    return unnoticed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--weight-bits", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    checkpoint = find_checkpoints(open_run(options.run), "last")[0]
    files: list[tuple[Path, Callable[[Path], object], Callable[[bytes], list[range]]]] = [
        (options.run / MODEL_FILE, read_checked_metadata, onnx_weights),
        (options.run / GENERATOR_FILE, read_checked_metadata, onnx_weights),
        (checkpoint, read_checkpoint, checkpoint_weights),
    ]
    generator = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        for source, read, find_weights in files:
            path = Path(shutil.copy(source, folder))
            content = path.read_bytes()
            weights = sorted({index for place in find_weights(content) for index in place})
            headers = sorted(set(range(len(content))) - set(weights))
            header_bits = [8 * index + bit for index in headers for bit in range(8)]
            weight_bits = [8 * generator.choice(weights) + generator.randrange(8) for _ in range(options.weight_bits)]
            for title, bits in (("headers and metadata", header_bits), ("weights", weight_bits)):
                started_at = time.perf_counter()
                unnoticed = count_unnoticed(path, read, bits)
                seconds = time.perf_counter() - started_at
                print(f"{source.name}, {title}: {len(bits):,} bits flipped, {unnoticed} unnoticed ({seconds:.0f} s)")
            assert path.read_bytes() == content


if __name__ == "__main__":
    main()
