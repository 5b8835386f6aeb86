"""Texts that match expressions: five kinds in mixed batches, each near its least length, and the time that it takes.

    python benchmarks/match.py RUN [--texts 10000] [--rows 1000] [--repeats 20] [--threads 0] [--json]

RUN is an exported run whose generator holds the link match, and whose symbols include those of ASCII. Writes so many
texts of each kind, and checks each with `re`, or with `json` and `jsonschema`. Then it compares the time of a batch
with that of the same chain without expressions, for as many positions: the median of interleaved pairs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import common
import jsonschema
import numpy as np

from gentext.generation.generate import generate
from gentext.matching.constraints import TextMatches, build_matches, read_constraints
from gentext.plugins.samplers.onnx import OnnxGenerator
from gentext.requests.spelling import KEYWORD_SPELLING
from gentext.sampling.chain import Chain
from gentext.sampling.decoder import GeneratedText

OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
EXPRESSIONS = {
    "dates": r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])",
    "IPv4 addresses": rf"{OCTET}(\.{OCTET}){{3}}",
    "lines of 80 columns": r"[^\n]{80}",
    "licence plates": "[A-Z]{1,3}-[A-Z]{1,2} [1-9][0-9]{0,3}",
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer"},
        "score": {"type": "number"},
        "active": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 6}, "maxItems": 3},
    },
    "required": ["name", "age", "score", "active", "tags"],
    "additionalProperties": False,
}
SCHEMA_TITLE = "JSON objects"
#: A text may have up to this many characters more than the shortest text of its kind.
MOST_EXTRA = 4


class Kind(NamedTuple):
    """Texts of one kind."""

    title: str
    is_right: Callable[[str], bool]


def is_valid(text: str) -> bool:
    try:
        jsonschema.validate(json.loads(text), SCHEMA)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def make_kinds() -> list[Kind]:
    patterns = {title: re.compile(expression) for title, expression in EXPRESSIONS.items()}
    kinds = [
        Kind(title, lambda text, pattern=pattern: pattern.fullmatch(text) is not None)  # type: ignore[misc]
        for title, pattern in patterns.items()
    ]
    return [*kinds, Kind(SCHEMA_TITLE, is_valid)]


def make_matches(generator: OnnxGenerator, rows: int) -> TextMatches:
    """Return what the rows of a batch match: one kind after the other, with budgets near the least length of each."""
    vocab_size = generator.bundle.vocab_size
    constraints = [
        *read_constraints(list(EXPRESSIONS.values()), None, len(EXPRESSIONS), KEYWORD_SPELLING),
        *read_constraints(None, SCHEMA, 1, KEYWORD_SPELLING),
    ]
    row_constraints = [constraints[row % len(constraints)] for row in range(rows)]
    nothing_banned = np.zeros(vocab_size, np.bool_)
    matches = build_matches(row_constraints, [b""] * rows, generator.bundle, nothing_banned, None, KEYWORD_SPELLING)
    least = matches.tables["need"][matches.first_states].min(axis=1).astype(np.int64)
    extra = np.arange(rows) // len(constraints) % (MOST_EXTRA + 1)
    return dataclasses.replace(matches, budgets=least + extra)


def write(generator: OnnxGenerator, chain: Chain, rows: int, seed: int, **options: Any) -> list[GeneratedText]:
    texts, pieces = generate(generator, chain, primes=[np.empty(0, np.int64)] * rows, seed=seed, tables={}, **options)
    for _ in pieces:
        pass
    return texts


def check_texts(generator: OnnxGenerator, chain: Chain, matches: TextMatches, texts: int, rows: int) -> list[Any]:
    """Write so many texts of each kind, and return a table of how many are right."""
    kinds = make_kinds()
    right, cut, lengths = [0] * len(kinds), [0] * len(kinds), [0] * len(kinds)
    batches = texts * len(kinds) // rows
    for batch in range(batches):
        for row, text in enumerate(write(generator, chain, rows, batch, length=None, matches=matches)):
            number = row % len(kinds)
            right[number] += kinds[number].is_right(text.text)
            cut[number] += text.finish != "match" or len(text.text) > matches.budgets[row]
            lengths[number] += len(text.text)
    count = batches * rows // len(kinds)
    return [
        {
            "kind": kind.title,
            "least length": int(matches.budgets[number]),
            "mean length": lengths[number] / count,
            "texts": count,
            "match": right[number],
            "cut": cut[number],
        }
        for number, kind in enumerate(kinds)
    ]


def measure(generator: OnnxGenerator, chain: Chain, matches: TextMatches, rows: int, repeats: int) -> dict[str, Any]:
    """Return the time of a batch with expressions beside that of a batch without, of as many positions."""
    positions = int(matches.budgets.max())
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(repeats + 1):
        for with_matches in (False, True):
            options = {"matches": matches} if with_matches else {}
            started_at = time.process_time()
            write(generator, chain, rows, turn, length=positions, **options)
            seconds[with_matches].append(time.process_time() - started_at)
    ratios = [a / b for a, b in zip(seconds[True][1:], seconds[False][1:], strict=True)]  # the first is a warm-up
    return {
        "texts at once": rows,
        "positions": positions,
        "without, s": statistics.median(seconds[False][1:]),
        "with, s": statistics.median(seconds[True][1:]),
        "ratio": statistics.median(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    generator = common.open_generator(options.run / "generator.onnx", options.threads)
    chain = common.chain(generator)
    matches = make_matches(generator, options.rows)
    if options.texts:
        table = check_texts(generator, chain, matches, options.texts, options.rows)
        common.print_table(f"texts that match, {len(matches.tables['need'])} states", table, options.json)
    times = [
        measure(generator, chain, make_matches(generator, rows), rows, options.repeats)
        for rows in (5, 64, options.rows)
    ]
    common.print_table("what it costs, processor time", times, options.json)


if __name__ == "__main__":
    main()
