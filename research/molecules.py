"""MOSES: how good the molecules are that a gentext model writes, by the measures of that benchmark.

    python research/molecules.py prepare FOLDER [--molsets molsets-0.3.1-py3-none-any.whl]
    python research/molecules.py check FOLDER             # training molecules, against the published row
    gen train FOLDER/train.txt --val FOLDER/test.txt --records lines --preset base --minutes 60 --run RUN
    gen sample RUN --count 30000 --seed 1 --temperature 1 > molecules.txt
    python research/molecules.py measure FOLDER molecules.txt   # against the published CharRNN

Needs molsets (installed without its dependencies, or the path of its wheel), rdkit, fcd-torch, and PyTorch. A virtual
environment of their own is best: nothing of gentext is imported here. What is computed once of the training and test
molecules is kept in the folder, under the version of RDKit, as canonical SMILES differ between versions.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import molecule_measures as measures
import numpy as np
import rdkit
from gaussians import Gaussian, Moments
from numpy.typing import NDArray

#: The splits of MOSES.
SPLITS = ("train", "test", "test_scaffolds")
#: The files of structures that no molecule of MOSES has.
MCF, PAINS = "mcf.csv", "wehi_pains.csv"
#: The table of MOSES: molecularsets/moses, README. CharRNN is the mean of three trainings.
PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "Train": {"FCD/Test": 0.008, "SNN/Test": 0.642},
    "CharRNN": {
        "valid": 0.9748,
        "unique@10k": 0.9994,
        "FCD/Test": 0.0732,
        "SNN/Test": 0.6015,
        "filters": 0.9943,
        "novelty": 0.8419,
    },
}
#: How many molecules of a model MOSES measures.
SAMPLE = 30_000


class Data:
    """The folder of prepared files, and of what was computed once of the molecules of MOSES."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def canonical(self, split: str) -> list[str]:
        """Return the canonical SMILES of a split by this version of RDKit."""
        path = self._computed(f"{split}_canonical", ".txt")
        if not path.exists():
            smiles = (self.folder / f"{split}.txt").read_text(encoding="ascii").splitlines()
            path.write_text("".join(f"{measures.to_canonical(line)}\n" for line in smiles), encoding="ascii")
        return path.read_text(encoding="ascii").splitlines()

    def fingerprints(self, split: str) -> NDArray[np.uint8]:
        """Return the fingerprints [N, 128] of a split."""
        path = self._computed(f"{split}_fingerprints", ".npz")
        if not path.exists():
            np.savez(path, fingerprints=measures.fingerprints(self.canonical(split)))
        with np.load(path) as stored:
            return stored["fingerprints"]

    def gaussian(self, split: str, network: measures.ChemNet) -> Gaussian:
        """Return the Gaussian of ChemNet's activations on a split."""
        path = self._computed(f"{split}_activations", ".npz")
        if not path.exists():
            fitted = network.fit(self.canonical(split))
            np.savez(path, mean=fitted.mean, covariance=fitted.covariance)
        with np.load(path) as stored:
            return Gaussian(stored["mean"], stored["covariance"])

    def filters(self) -> measures.StructureFilters:
        """Return the filters that all molecules of MOSES pass."""
        return measures.StructureFilters(self.folder / MCF, self.folder / PAINS)

    def _computed(self, name: str, suffix: str) -> Path:
        path = self.folder / f"{name}-rdkit-{rdkit.__version__}{suffix}"
        if not path.exists():
            print(f"{path} is computed, once", file=sys.stderr)
        return path


def prepare(folder: Path, molsets: Path | None) -> None:
    """Write the three splits as lines, and the filters, from the package molsets or from its wheel."""
    package = zipfile.Path(molsets, "moses/") if molsets else find_package("moses")
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        with package.joinpath(f"dataset/data/{split}.csv.gz").open("rb") as file:
            _, *smiles = gzip.decompress(file.read()).decode("ascii").splitlines()
        path = folder / f"{split}.txt"
        path.write_text("".join(f"{line}\n" for line in smiles), encoding="ascii")
        print(f"{path}: {len(smiles):,} molecules, the longest has {max(map(len, smiles))} characters")
    for name in (MCF, PAINS):
        (folder / name).write_bytes(package.joinpath(f"metrics/{name}").read_bytes())


def find_package(name: str) -> Path:
    """Return the folder of an installed package without importing it, as it needs packages that are not installed."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the package {name} is not installed; give the path of its wheel with --molsets")
    return Path(spec.origin).parent


def check(data: Data, count: int) -> dict[str, float]:
    """Return the measures of training molecules, drawn at random: FCD by their number, the others of the first 30,000.

    The FCD of a sample is too large by about a constant divided by its size. So that of all training molecules, which
    the published figure is of, follows from two sizes.
    """
    training = data.canonical("train")
    drawn = [training[i] for i in np.random.default_rng(1).permutation(len(training))[:count]]
    network = measures.ChemNet()
    reference = data.gaussian("test", network)
    moments, distances = Moments(), {}
    for size in (count // 4, count // 2, count):
        for block in network.activations(drawn[moments.count : size]):
            moments.add(block)
        distances[size] = moments.gaussian().distance(reference)
    (half, distance_of_half), (_, distance) = list(distances.items())[1:]
    slope = (distance_of_half - distance) / (1 / half - 1 / count)
    fingerprints = measures.fingerprints(drawn[:SAMPLE])
    return {
        **{f"FCD/Test of {size:,}": distance for size, distance in distances.items()},
        "FCD/Test": distance + slope * (1 / len(training) - 1 / count),
        "SNN/Test": measures.nearest_similarity(fingerprints, data.fingerprints("test")),
        "filters": data.filters().share(drawn[:SAMPLE]),
    }


def measure(data: Data, written: Sequence[str]) -> dict[str, float]:
    """Return the measures of written molecules, in the order in which they were written."""
    all_canonical = [measures.to_canonical(smiles) for smiles in written]
    valid = [smiles for smiles in all_canonical if smiles is not None]
    if len(valid) < 2:
        raise SystemExit(f"{len(valid)} of {len(written)} lines are molecules; expected at least 2")
    network = measures.ChemNet()
    return {
        "valid": len(valid) / len(written),
        "unique@1k": measures.unique_share(valid, 1_000),
        "unique@10k": measures.unique_share(valid, 10_000),
        "FCD/Test": network.fit(valid).distance(data.gaussian("test", network)),
        "SNN/Test": measures.nearest_similarity(measures.fingerprints(valid), data.fingerprints("test")),
        "filters": data.filters().share(valid),
        "novelty": measures.novel_share(valid, set(data.canonical("train"))),
    }


def print_measures(title: str, measured: Mapping[str, float], row: str) -> None:
    """Print measures beside a row of the published table."""
    print(f"| {title} | measured | {row}, published |\n|-|-|-|")
    for name, number in measured.items():
        print(f"| {name} | {number:.4f} | {PUBLISHED[row].get(name, '')} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare_options = commands.add_parser("prepare", help="write the files of MOSES")
    prepare_options.add_argument("folder", type=Path)
    prepare_options.add_argument("--molsets", type=Path, metavar="WHEEL", help="by default, the installed package")
    check_options = commands.add_parser("check", help="measure training molecules")
    check_options.add_argument("folder", type=Path)
    check_options.add_argument("--count", type=int, default=240_000, help="molecules; 30,000 take a minute")
    measure_options = commands.add_parser("measure", help="measure written molecules")
    measure_options.add_argument("folder", type=Path)
    measure_options.add_argument("file", type=Path, help="one molecule a line")
    options = parser.parse_args()
    if options.command == "prepare":
        prepare(options.folder, options.molsets)
    elif options.command == "check":
        print_measures(f"{options.count:,} training molecules", check(Data(options.folder), options.count), "Train")
    else:
        written = options.file.read_text(encoding="utf-8").splitlines()
        print_measures(f"{len(written):,} molecules", measure(Data(options.folder), written), "CharRNN")


if __name__ == "__main__":
    main()
