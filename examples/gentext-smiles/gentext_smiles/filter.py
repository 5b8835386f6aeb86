"""The filter smiles: only records that RDKit reads as a molecule."""

import dataclasses
from collections.abc import Sequence

from rdkit import Chem, rdBase

from gentext.config import NonNegative


@dataclasses.dataclass(frozen=True)
class SmilesConfig:
    """Options of the filter smiles."""

    min_heavy_atoms: NonNegative = 0
    """Atoms other than hydrogen, at least."""
    max_heavy_atoms: NonNegative = 0
    """Atoms other than hydrogen, at most; 0: any number."""
    canonical: bool = False
    """Only SMILES as RDKit writes them, so that no molecule comes in two spellings."""

    def __post_init__(self) -> None:
        if 0 < self.max_heavy_atoms < self.min_heavy_atoms:
            raise ValueError(f"max_heavy_atoms = {self.max_heavy_atoms} is below min_heavy_atoms")


class SmilesFilter:
    """Accepts a text that is the SMILES of a molecule with at least one atom, and nothing else.

    RDKit checks syntax, rings, aromaticity and valences, as it does for the benchmark MOSES.
    """

    Config = SmilesConfig

    def __init__(self, config: SmilesConfig) -> None:
        self.config = config

    def __call__(self, texts: Sequence[str]) -> list[bool]:
        with rdBase.BlockLogs():  # RDKit writes some lines to stderr for each text that is no molecule
            return [self._accepts(text) for text in texts]

    def _accepts(self, text: str) -> bool:
        if text.split() != [text]:  # RDKit takes what follows a space for the name of the molecule
            return False
        molecule = Chem.MolFromSmiles(text)
        if molecule is None:
            return False
        heavy_atoms = molecule.GetNumHeavyAtoms()
        if heavy_atoms < self.config.min_heavy_atoms or heavy_atoms > (self.config.max_heavy_atoms or heavy_atoms):
            return False
        return not self.config.canonical or Chem.MolToSmiles(molecule) == text
