"""The measures of MOSES on SMILES: Polykovskiy et al., "Molecular Sets (MOSES)", Frontiers in Pharmacology, 2020.

They follow the package molsets 0.3.1, whose own code needs versions of other packages that no longer install. Needs
rdkit and fcd-torch, whose file of weights is the pretrained network ChemNet.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from fcd_torch import utils as chemnet
from gaussians import Gaussian, Moments
from numpy.typing import NDArray
from rdkit import Chem, RDLogger
from rdkit.Chem import rdFingerprintGenerator

#: Atoms that a molecule of the data set may have.
ATOMS = frozenset({"C", "N", "S", "O", "F", "Cl", "Br", "H"})
#: Rings of this many atoms or more are not in the data set.
LARGE_RING = 8
#: Molecules, or fingerprints, that are computed at once.
BLOCK = 512
#: The length of ChemNet's input, in symbols of SMILES.
CHEMNET_LENGTH = 350
#: Bits of a fingerprint.
BITS = 1024

RDLogger.DisableLog("rdApp.*")  # otherwise each string that is no molecule writes lines to standard error


def to_canonical(smiles: str) -> str | None:
    """Return the canonical SMILES of a molecule, or None for what is none."""
    molecule = Chem.MolFromSmiles(smiles) if smiles else None
    return None if molecule is None else Chem.MolToSmiles(molecule)


def unique_share(molecules: Sequence[str], count: int) -> float:
    """Return the share of different ones among the first ``count`` molecules, canonical SMILES."""
    first = molecules[:count]
    return len(set(first)) / len(first)


def novel_share(molecules: Sequence[str], training: Collection[str]) -> float:
    """Return the share of different molecules that are not in the training set; both are canonical SMILES."""
    different = set(molecules)
    return len(different.difference(training)) / len(different)


class StructureFilters:
    """The medicinal chemistry filters (MCF) and PAINS that all molecules of MOSES pass."""

    def __init__(self, mcf: Path, pains: Path) -> None:
        """Read the patterns from two files of molsets, mcf.csv and wehi_pains.csv."""
        with mcf.open(encoding="utf-8", newline="") as file:
            patterns = [row["smarts"] for row in csv.DictReader(file)]
        with pains.open(encoding="utf-8", newline="") as file:
            patterns += [row[0].strip() for row in csv.reader(file)]
        self.patterns = [Chem.MolFromSmarts(pattern) for pattern in patterns]

    def passes(self, smiles: str) -> bool:
        """Return whether a valid molecule has no pattern, no large ring, no charge and no other atom."""
        molecule = Chem.MolFromSmiles(smiles)
        if any(len(ring) >= LARGE_RING for ring in molecule.GetRingInfo().AtomRings()):
            return False
        if any(atom.GetFormalCharge() or atom.GetSymbol() not in ATOMS for atom in molecule.GetAtoms()):
            return False
        with_hydrogens = Chem.AddHs(molecule)
        return not any(with_hydrogens.HasSubstructMatch(pattern) for pattern in self.patterns)

    def share(self, molecules: Sequence[str]) -> float:
        """Return the share of molecules that pass."""
        return sum(map(self.passes, molecules)) / len(molecules)


def fingerprints(molecules: Sequence[str]) -> NDArray[np.uint8]:
    """Return Morgan fingerprints of radius 2 [N, 128], eight bits a byte."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=BITS)
    packed = np.empty((len(molecules), BITS // 8), np.uint8)
    for i, smiles in enumerate(molecules):
        packed[i] = np.packbits(generator.GetFingerprintAsNumPy(Chem.MolFromSmiles(smiles)))
    return packed


def nearest_similarity(queries: NDArray[np.uint8], references: NDArray[np.uint8]) -> float:
    """Return the mean over the queries of the Tanimoto similarity to the nearest reference; both are fingerprints."""
    similarities = []
    for block in slices(len(queries)):
        bits = np.unpackbits(queries[block], axis=1).astype(np.float32)
        nearest = np.zeros(len(bits), np.float32)
        for other in slices(len(references), 8 * BLOCK):
            reference_bits = np.unpackbits(references[other], axis=1).astype(np.float32)
            common = reference_bits @ bits.T
            union = reference_bits.sum(axis=1)[:, None] + bits.sum(axis=1) - common
            nearest = np.maximum(nearest, (common / union).max(axis=0))
        similarities.append(nearest)
    return float(np.concatenate(similarities).mean())


def slices(count: int, size: int = BLOCK) -> Iterator[slice]:
    """Yield the slices that divide ``count`` rows into blocks."""
    return (slice(start, start + size) for start in range(0, count, size))


class ChemNet:
    """The network whose activations FCD compares: Preuer et al., "Fréchet ChemNet Distance", 2018."""

    def __init__(self) -> None:
        path = resources.files("fcd_torch").joinpath("ChemNet_v0.13_pretrained.pt")
        with resources.as_file(path) as file:
            # The file is a pickle, of which weights_only reads tensors and plain Python values, and nothing else.
            self.network = chemnet.load_imported_model(torch.load(file, weights_only=True)).eval()

    @torch.inference_mode()
    def activations(self, molecules: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """Yield the activations [N, 512] of canonical SMILES in blocks."""
        for block in slices(len(molecules)):
            one_hot = np.stack([chemnet.get_one_hot(smiles, CHEMNET_LENGTH) for smiles in molecules[block]])
            inputs = torch.from_numpy(one_hot / one_hot.shape[-1]).float()
            yield self.network(inputs.transpose(1, 2)).numpy()

    def fit(self, molecules: Sequence[str]) -> Gaussian:
        """Return the Gaussian of the activations of canonical SMILES."""
        moments = Moments()
        for block in self.activations(molecules):
            moments.add(block)
        return moments.gaussian()
