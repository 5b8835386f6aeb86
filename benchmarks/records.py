"""Names, words and passwords: bits a record of a gentext run against modified Kneser-Ney, and the share of new records.

    python benchmarks/records.py prepare FOLDER            # FOLDER/names_train.txt, names_val.txt and so on
    python benchmarks/records.py kneser-ney FOLDER         # bits a record of each kind, by the best order
    gen train FOLDER/names_train.txt --val FOLDER/names_val.txt --records lines --preset base --minutes 10 --run RUN
    python benchmarks/records.py run FOLDER names RUN      # the same of a run

`prepare` needs the packages names and zxcvbn, and Debian's wamerican-huge. Both models learn from the lines of
`_train.txt` and are measured on those of `_val.txt`, the tenth of the records whose hash is lowest. No record occurs
twice, and those of `_val.txt` have no character that the others lack, as Kneser-Ney has no probability for it.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.resources
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from kneser_ney import KneserNey

#: Debian's word list.
WORDS_FILE = Path("/usr/share/dict/american-english-huge")
#: The orders of Kneser-Ney, of which the best one is chosen.
ORDERS = range(3, 9)
#: How many records are written.
WRITTEN = 10_000


def read_names() -> Iterator[str]:
    """Yield first and last names, from the census of the United States of 1990, which the package has in capitals."""
    for file in ("dist.female.first", "dist.male.first", "dist.all.last"):
        lines = importlib.resources.files("names").joinpath(file).read_text(encoding="ascii").splitlines()
        yield from (line.split()[0].capitalize() for line in lines)


def read_words() -> Iterator[str]:
    """Yield the words of Debian's list, without possessive forms, which repeat a noun."""
    lines = WORDS_FILE.read_text(encoding="utf-8").splitlines()
    yield from (line for line in lines if not line.endswith("'s"))


def read_passwords() -> Iterator[str]:
    """Yield the 30,000 frequent passwords that zxcvbn warns of."""
    yield from importlib.import_module("zxcvbn.frequency_lists").FREQUENCY_LISTS["passwords"]


#: Kind of records -> the function that reads them.
KINDS: dict[str, Callable[[], Iterable[str]]] = {
    "names": read_names,
    "words": read_words,
    "passwords": read_passwords,
}


def split(records: Iterable[str], salt: bytes) -> tuple[list[str], list[str]]:
    """Return nine tenths of the records, and the tenth whose hash with a salt is lowest, without duplicates.

    Records with a character that none of the nine tenths has are added to these.
    """
    parts: tuple[list[str], list[str]] = [], []
    for record in dict.fromkeys(records):
        digest = hashlib.blake2b(record.encode(), digest_size=8, salt=salt).digest()
        parts[int.from_bytes(digest, "big") < 2**64 // 10].append(record)
    characters = set().union(*parts[0])
    training = parts[0] + [record for record in parts[1] if not characters.issuperset(record)]
    return training, [record for record in parts[1] if characters.issuperset(record)]


def read_lines(folder: Path, kind: str, part: str) -> list[str]:
    """Return the prepared records of a kind, of the part train or val."""
    return (folder / f"{kind}_{part}.txt").read_text(encoding="utf-8").splitlines()


def prepare(folder: Path) -> None:
    """Write the records of each kind, one a line, in the order of their source."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, read in KINDS.items():
        for part, records in zip(("train", "val"), split(read(), salt=b""), strict=True):
            path = folder / f"{kind}_{part}.txt"
            path.write_text("".join(f"{record}\n" for record in records), encoding="utf-8")
            length = sum(map(len, records)) / len(records)
            print(f"{path}: {len(records):,} records, {length:.2f} characters each")


def choose_order(training: Sequence[str]) -> int:
    """Return the order with the fewest bits on a tenth of the training records, learned from the others."""
    learned, held_out = split(training, salt=b"order")
    return min(ORDERS, key=lambda order: KneserNey(learned, order).bits(held_out))


def check_sums(model: KneserNey, records: Sequence[str]) -> float:
    """Return how far the probabilities of all symbols are from 1 together at most, at all positions of records."""
    return float(np.abs(model.distributions(model.windows(records)).sum(axis=1) - 1).max())


def measure_kneser_ney(folder: Path) -> None:
    """Print bits a record of each kind, and how new the records are that the model writes."""
    print("| | order | bits a record, held out | new | probabilities sum to 1 within |\n|-|-|-|-|-|")
    for kind in KINDS:
        training, held_out = read_lines(folder, kind, "train"), read_lines(folder, kind, "val")
        model = KneserNey(training, choose_order(training))
        new = new_share(model.write(WRITTEN, seed=1), training)
        error = check_sums(model, held_out[:1000])
        print(f"| {kind} | {model.order} | {model.bits(held_out):.3f} | {new:.2%} | {error:.0e} |", flush=True)


def new_share(written: Sequence[str], training: Iterable[str]) -> float:
    """Return the share of written records that are no training records."""
    training = set(training)
    return sum(record not in training for record in written) / len(written)


def measure_run(folder: Path, kind: str, run: Path) -> None:
    """Print the bits a record of a run, and how new the records are that it writes at temperature 1."""
    with (run / "held_out.jsonl").open(encoding="utf-8") as file:
        if {json.loads(line)["text"] for line in file} != set(read_lines(folder, kind, "val")):
            raise SystemExit(f"{run} holds out other records; train it with --val {folder / f'{kind}_val.txt'}")
    records = str(folder / f"{kind}_val.txt")
    bits = statistics.fmean(json.loads(line)["bits"] for line in run_gen("score", str(run), records))
    written = run_gen("sample", str(run), "--count", str(WRITTEN), "--seed", "1", "--temperature", "1")
    new = new_share(written, read_lines(folder, kind, "train"))
    print("| | bits a record, held out | new |\n|-|-|-|")
    print(f"| {kind}, {run} | {bits:.3f} | {new:.2%} |")


def run_gen(*arguments: str) -> list[str]:
    """Run a command of gentext and return the lines that it prints."""
    command = [sys.executable, "-m", "gentext", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout.splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("prepare", "kneser-ney", "run"):
        commands.add_parser(name).add_argument("folder", type=Path)
    commands.choices["run"].add_argument("kind", choices=KINDS)
    commands.choices["run"].add_argument("run", type=Path)
    options = parser.parse_args()
    if options.command == "prepare":
        prepare(options.folder)
    elif options.command == "kneser-ney":
        measure_kneser_ney(options.folder)
    else:
        measure_run(options.folder, options.kind, options.run)


if __name__ == "__main__":
    main()
