"""gentext: train small text models, export them to ONNX, write text anywhere onnxruntime runs.

This package is the engine: contracts and wiring. `gentext.plugins`, `gentext.export`,
`gentext.data` and `gentext.cli` are its rooms. Importing it imports no machine-learning library.
"""

from gentext.config import NoConfig, per_run
from gentext.errors import GenError
from gentext.hookspecs import hookimpl
from gentext.strategy import Param, State, Strategy, Table, keep_largest

__all__ = ["GenError", "NoConfig", "Param", "State", "Strategy", "Table", "hookimpl", "keep_largest", "per_run"]
