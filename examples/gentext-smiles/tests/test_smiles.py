"""The filter keeps gentext's rules, tells molecules from other texts, prints nothing, and is found by gen."""

import subprocess
import sys
from importlib import metadata

import pytest

pytest.importorskip("rdkit", reason="RDKit is not installed; try pip install rdkit")

from gentext_smiles.filter import SmilesConfig, SmilesFilter

from gentext.testing import check_filter

ASPIRIN, BENZENE, SALT = "CC(=O)Oc1ccccc1C(=O)O", "c1ccccc1", "[Na+].[Cl-]"
#: A ring that is not closed, five bonds at a carbon atom, a ring that cannot be aromatic, two names, and no atom.
BROKEN = ["C1CC", "C(C)(C)(C)(C)C", "c1cccc1", "CCO ethanol", "CC\nCC", " C", "C\x00C", "molecule", ""]


@pytest.mark.parametrize(
    ("config", "accepted", "refused"),
    [
        (SmilesConfig(), [ASPIRIN, BENZENE, SALT, "C1=CC=CC=C1"], BROKEN),
        (SmilesConfig(min_heavy_atoms=6), [ASPIRIN, BENZENE], [*BROKEN, SALT, "[H][H]"]),
        (SmilesConfig(max_heavy_atoms=6), [BENZENE, SALT, "[H][H]"], [*BROKEN, ASPIRIN]),
        (SmilesConfig(canonical=True), [ASPIRIN, BENZENE], [*BROKEN, "C1=CC=CC=C1", "OCC"]),
    ],
)
def test_molecules_are_told_from_other_texts(
    config: SmilesConfig, accepted: list[str], refused: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    check_filter(SmilesFilter, config, accepted, refused)
    assert capfd.readouterr() == ("", "")  # also of what RDKit itself prints


def test_impossible_range_is_refused() -> None:
    with pytest.raises(ValueError, match="max_heavy_atoms = 3 is below min_heavy_atoms"):
        SmilesConfig(min_heavy_atoms=4, max_heavy_atoms=3)


def test_gen_finds_it() -> None:
    try:
        metadata.distribution("gentext-smiles")
    except metadata.PackageNotFoundError:
        pytest.skip("gentext-smiles is not installed; try pip install -e examples/gentext-smiles")
    command = [sys.executable, "-m", "gentext", "plugins", "smiles"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("filter smiles (gentext-smiles 0.1.0): ")
    assert "filter.smiles.canonical = False" in process.stdout
