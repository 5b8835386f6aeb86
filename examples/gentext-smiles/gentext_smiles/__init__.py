"""Only records that are molecules. Every gen command imports this module, so RDKit is imported when it is needed."""

from gentext import hookimpl
from gentext.registry import Register

gentext_hooks = 3


@hookimpl
def register_filters(register: Register) -> None:
    register("smiles", "gentext_smiles.filter:SmilesFilter", summary="only SMILES that RDKit reads as a molecule")
