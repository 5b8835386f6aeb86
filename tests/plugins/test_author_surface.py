"""What authors of models and trainers import from gentext.plugins.pytorch: these names, and no others."""

from __future__ import annotations

import re
import types
from pathlib import Path

from gentext.plugins import pytorch

HOOKS_PAGE = Path(__file__).parents[2] / "docs" / "hooks.md"


def test_public_names_are_exact() -> None:
    public = {
        name
        for name, value in vars(pytorch).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public == set(pytorch.__all__)
    assert list(pytorch.__all__) == sorted(pytorch.__all__)


def test_every_name_is_documented() -> None:
    words = set(re.findall(r"\w+", HOOKS_PAGE.read_text(encoding="utf-8")))
    assert set(pytorch.__all__) - words == {"TorchState"}  # an alias for a tuple of tensors
