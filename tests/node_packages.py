"""Where the npm packages of onnxruntime and axe-core are, which are no part of gentext: tests that need them skip.

They are looked for in the folder `node_modules` of this repository, or in the one that GENTEXT_NODE_MODULES names. To
install them, in any folder:
ONNXRUNTIME_NODE_INSTALL=skip npm install onnxruntime-web@1.30.0 onnxruntime-node@1.30.0 axe-core@4
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

#: The interpreter of JavaScript, or None.
NODE = shutil.which("node")
MODULES = Path(os.environ.get("GENTEXT_NODE_MODULES", Path(__file__).parent.parent / "node_modules"))

needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")


def find_package(name: str) -> Path:
    """Return the folder of an npm package; without it, skip the test."""
    folder = MODULES / name
    if not folder.is_dir():
        pytest.skip(f"the npm package {name} is not in {MODULES}; tests/node_packages.py says how to install it")
    return folder
