"""onnx: sample from an exported file with onnxruntime. Needs no PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gentext.config import NoConfig
from gentext.interfaces import Chunk, Request
from gentext.plugins.session import Session
from gentext.run import MODEL
from gentext.stepping import ModelState, fresh_states, stepped


class OnnxSampler:
    """Opens ``.onnx`` files, and the ``model.onnx`` of a run."""

    Config = NoConfig

    def __init__(self, config: NoConfig) -> None:
        self.config = config

    def open(self, source: Path, device: str) -> OnnxModel:
        return OnnxModel(Session(source / MODEL if source.is_dir() else source, device))


class OnnxModel:
    """A loaded file, called once a character, with the chain in NumPy."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.bundle, self.took = session.bundle, session.took

    def generate(self, request: Request) -> Iterator[Chunk]:
        return stepped(self, self.bundle, request)

    def initial(self, rows: int) -> ModelState:
        return fresh_states(self.bundle, rows)

    def advance(self, tokens: NDArray[np.int64], state: ModelState) -> tuple[NDArray[np.float32], ModelState]:
        logits, state = self._session.run(np.ascontiguousarray(tokens), state)
        return logits, state
