"""The generators that gentext brings along, so that a base install has something to write with.

Each is a ``generator.onnx`` in the folder ``models/``, called NAME.onnx. Its card also has ``summary``, ``edition``,
``license`` and ``command``. `benchmarks/models.py` makes the files.
"""

from __future__ import annotations

from pathlib import Path

#: The one that is named where there is no run yet.
FIRST_MODEL = "shakespeare"


def shipped_models() -> dict[str, Path]:
    """Return the files of the generators by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "models").glob("*.onnx"))}
