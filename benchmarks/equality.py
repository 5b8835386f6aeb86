"""Whether every way to run a chain writes the same text, and how often PyTorch would draw differently.

    python benchmarks/equality.py RUN [--characters 20000] [--count 2000] [--links NAME...] [--json]

For each built-in link, the default chain and all links together, in fp32 and int8, and in batches of 1, 3 and 64
rows: the reference is the file run one position at a time with the chain in NumPy. Its own loop in calls of 1, 7
and 64 positions, and the unrolled file, must write the same symbols. The logits of PyTorch, model.onnx and the
generator differ in their last bits: on the held-out text, the share of uniform numbers is computed for which the
draw differs.

Of a run of records, rows end where the model ends them, so there are as many requests as it takes. Then a table for
the default chain and all links together has records in other slots, in batches and in two processes that write a shard
each, against those that are written one after another.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from numpy.typing import NDArray

from gentext.corpus.held_out import held_out_path, read_held_out
from gentext.describe import tokenizer_of
from gentext.exported.metadata import Bundle
from gentext.generation.compiled import generate_compiled
from gentext.generation.model_calls import GeneratorModel
from gentext.plugins.pytorch import build_model, load_best_checkpoint
from gentext.plugins.samplers.onnx import OnnxSampler
from gentext.plugins.samplers.session import GeneratorSession, open_unrolled
from gentext.records.record_batches import RecordBatches
from gentext.records.record_plan import WrittenRecord
from gentext.records.record_requests import RecordRequest, prepare_records
from gentext.records.record_writing import RecordStream
from gentext.requests.options import writing_options
from gentext.requests.spelling import KeywordSpelling
from gentext.run import GENERATOR_FILE, HELD_OUT_RECORDS_FILE, MODEL_FILE, Run
from gentext.sampling.configured_chain import make_tables
from gentext.stepping import generate_stepwise
from gentext.token_corpus import TokenCorpus

#: Rows of a batch, positions of a call, and positions of the unrolled file.
BATCHES, CALLS, UNROLLED = (1, 3, 64), (1, 7, 64), 32
#: Records side by side, and processes.
SLOTS, PROCESSES = (3, 64, 256), 2


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
    tables = make_tables(chain, generator.bundle)
    differences = dict.fromkeys(models, 0)
    compared = 0
    for rows in BATCHES:
        params, length = common.varied_params(chain, rows), characters // rows
        seed, end = 0, compared + length * rows
        while compared < end:  # records end before they have that length
            seed += 1
            request = dataclasses.replace(common.request(chain, rows, params, length, seed), tables=tables)
            reference = common.tokens_by_row(generate_stepwise(generator, generator.bundle, request), rows)
            compared += sum(map(len, reference))
            for name, model in models.items():
                tokens = common.tokens_by_row(generate_compiled(model, generator.bundle, request), rows)
                assert [len(row) for row in tokens] == [len(row) for row in reference]
                differences[name] += sum(int((a != b).sum()) for a, b in zip(tokens, reference, strict=True))
    return {"precision": precision, "chain": ", ".join(links), "symbols": compared, **differences}


def compare_records(run: Path, folder: Path, precision: str, links: list[str], count: int) -> Mapping[str, Any]:
    """Return how many of so many records differ from those that are written one after another."""
    generator = common.generator(run, folder, precision, links)
    file = folder / GENERATOR_FILE
    numbers = {
        (link.name, name): number
        for link in generator.bundle.chain
        for name, number in common.LINKS.get(link.name, {}).items()
    }
    options = writing_options(seed=1, parameters={f"{link}.{name}": number for (link, name), number in numbers.items()})

    def prepare(slots: int) -> tuple[RecordStream, RecordBatches]:
        request = RecordRequest(count, options=options, slots=slots, keeps_tokens=True)
        stream, writing = prepare_records(generator, file, request, KeywordSpelling())
        return stream, RecordBatches(writing, [writing.chosen_chain.param_values], slots)

    reference = list(prepare(1)[0])
    row: dict[str, Any] = {"precision": precision, "chain": ", ".join(links), "records": len(reference)}
    row["symbols"] = sum(len(record.tokens) for record in reference)
    for slots in SLOTS:
        stream, batches = prepare(slots)
        row[f"{slots} slots"] = count_differences(stream, reference)
        row[f"batches of {slots}"] = count_differences(RecordStream(stream.plan, batches, slots), reference)
    flags = [f"--{link}-{name}".replace("_", "-") for link, name in numbers]
    words = [word for flag, number in zip(flags, numbers.values(), strict=True) for word in (flag, str(number))]
    row[f"{PROCESSES} processes"] = count_process_differences(file, words, reference)
    return row


def count_differences(records: Iterable[WrittenRecord], reference: list[WrittenRecord]) -> int:
    """Return how many records differ in their symbols, log-probabilities, or anything else."""
    return sum(a != b for a, b in zip(records, reference, strict=True))


def count_process_differences(file: Path, words: list[str], reference: list[WrittenRecord]) -> int:
    """Return how many records of `gen sample`, of which each process writes a shard, differ in what it prints."""
    command = [sys.executable, "-m", "gentext", "sample", str(file), *words, "--count", str(len(reference))]
    command += ["--seed", "1", "--format", "jsonl", "--fields", "number,stream,logprob", "--shard"]
    processes = [
        subprocess.Popen([*command, f"{shard}/{PROCESSES}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for shard in range(PROCESSES)
    ]
    rows = [json.loads(line) for process in processes for line in process.communicate()[0].splitlines()]
    assert not any(process.returncode for process in processes)
    rows.sort(key=lambda row: row["number"])
    expected = [
        {"text": record.text, "number": record.number, "logprob": round(record.logprob, 6), "stream": record.stream}
        for record in reference
    ]
    return sum(a != b for a, b in zip(rows, expected, strict=True))


def cut_held_out(run: Path, bundle: Bundle, characters: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return tokens of what a run holds out, int64 [N, T], and where they count: a text, or a record in each row."""
    texts, tokenizer = read_held_out(held_out_path(run)), tokenizer_of(bundle)
    if bundle.boundary is None:
        tokens = tokenizer.encode(texts[0][:characters]).astype(np.int64)[None]
        return tokens, np.ones(tokens.shape, np.bool_)
    records = texts[: max(1, characters * len(texts) // sum(map(len, texts)))]
    parts = [np.append(tokenizer.encode(record), bundle.boundary) for record in records]
    corpus = TokenCorpus.of_records(np.concatenate(parts), bundle.boundary)
    inputs, targets = corpus.cut(np.arange(corpus.records), 0, int(corpus.lengths.max()))
    return inputs, targets >= 0


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
    tokens, counts = cut_held_out(run, bundle, characters)
    network = build_model(Run(run), load_best_checkpoint(Run(run))).eval()
    with torch.no_grad():
        state = network.initial_state(len(tokens))
        logits = {"PyTorch": network(torch.from_numpy(tokens), state)[0].numpy()[counts]}
    for name, file in (("model.onnx", model_file), ("generator.onnx", generator)):
        logits[name] = file.advance(tokens, file.initial(len(tokens)))[0][counts]
    pairs = [("PyTorch", "generator.onnx"), ("PyTorch", "model.onnx"), ("model.onnx", "generator.onnx")]
    return [
        {
            "pair": f"{first} and {second}",
            "positions": int(counts.sum()),
            "differ of 100,000, top_k 5": draw_differences(logits[first], logits[second], 5),
            "all symbols": draw_differences(logits[first], logits[second], bundle.vocab_size),
        }
        for first, second in pairs
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--characters", type=int, default=20_000, help="of each chain and number of rows")
    parser.add_argument("--count", type=int, default=2_000, help="records of each chain")
    parser.add_argument("--links", nargs="*", help="chains of one link to compare. Default: each built-in link")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    names = common.LINKS if options.links is None else options.links
    chains = [[name] for name in names] + [common.DEFAULT, ["all"]]
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            compare(options.run, Path(folder) / precision, precision, links, options.characters)
            for precision in ("fp32", "int8")
            for links in chains
        ]
        common.print_table("symbols that differ from the chain in NumPy", rows, options.json)
        if held_out_path(options.run).name == HELD_OUT_RECORDS_FILE:
            records = [
                compare_records(options.run, Path(folder) / f"records {precision}", precision, links, options.count)
                for precision in ("fp32", "int8")
                for links in (common.DEFAULT, ["all"])
            ]
            common.print_table("records that differ from those written one after another", records, options.json)
        draws = against_torch(options.run, Path(folder) / "torch", options.characters)
        common.print_table("draws that differ", draws, options.json)


if __name__ == "__main__":
    main()
