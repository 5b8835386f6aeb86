"""The sampler onnx: writes text with an exported file, in onnxruntime. Needs no PyTorch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gentext.console import say
from gentext.exported.onnx_file import check_same_export
from gentext.generation.compiled import generate_compiled
from gentext.generation.model_calls import GeneratorModel, first_feeds
from gentext.interfaces import Chunk, Ids, Request
from gentext.plugins.samplers.cpu_generator import ParallelGenerator
from gentext.plugins.samplers.runtime import default_max_threads
from gentext.plugins.samplers.session import GeneratorSession, Session, open_file
from gentext.run import GENERATOR_FILE, MODEL_FILE
from gentext.sampling.stored import is_compiled
from gentext.settings import MAX_THREADS
from gentext.stepping import ModelState, fresh_states, generate_stepwise


@dataclasses.dataclass(frozen=True)
class OnnxConfig:
    """Options of the sampler ``onnx``."""

    threads: Annotated[int, msgspec.Meta(ge=0, le=MAX_THREADS)] = 0
    """Threads at most; 0: as many as a file of that size is fastest with. The text is the same."""
    verify: bool = True
    """Whether the bytes of a file must fit its check; false for a file that was changed on purpose."""


class OnnxSampler:
    """Opens ``.onnx`` files; of a run, the compiled generator if there is one, else the model.

    Several threads may write with one opened file at a time.
    """

    Config = OnnxConfig
    opens = ("exported run", "onnx file")

    def __init__(self, config: OnnxConfig = OnnxConfig()) -> None:
        self.config = config

    def open(self, source: Path, device: str) -> OnnxModel | OnnxGenerator:
        """Open a file or a run's folder.

        Raises FileFormatError for other files and for files of two exports, DeviceError without CUDA.
        """
        if source.is_dir():
            has_generator = (source / GENERATOR_FILE).is_file()
            if has_generator:
                check_same_export(source)
            source = source / (GENERATOR_FILE if has_generator else MODEL_FILE)
        session = open_file(source, device, self.config.threads, self.config.verify)
        if isinstance(session, Session):
            return OnnxModel(session)
        if not session.on_cuda:
            return OnnxGenerator(session, ParallelGenerator(session, self.config.threads or default_max_threads()))
        from gentext.plugins.samplers.cuda_generator import open_captured

        return OnnxGenerator(session, open_captured(session))


class OnnxModel:
    """An opened ``model.onnx``: runs the model once for each position, and the chain in NumPy."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.bundle, self.device = session.bundle, session.device

    def generate(self, request: Request) -> Iterator[Chunk]:
        return generate_stepwise(self, self.bundle, request)

    def initial(self, rows: int) -> ModelState:
        return fresh_states(self.bundle, rows)

    def advance(self, tokens: NDArray[np.int64], state: ModelState) -> tuple[NDArray[np.float32], ModelState]:
        return self.session.run(np.ascontiguousarray(tokens), state)


class OnnxGenerator:
    """An opened ``generator.onnx``: runs its own chain in the graph, any other chain in NumPy on the graph's logits."""

    def __init__(self, session: GeneratorSession, model: GeneratorModel | None = None) -> None:
        """``model`` runs the graph when the chain is the file's own; None: the session does."""
        self.session, self.model = session, model or session
        self.bundle, self.device = session.bundle, session.device
        self._reported_chains: set[str] = set()
        """Chains, by the names of their links, that the user knows not to be compiled."""

    @property
    def slot_model(self) -> GeneratorModel | None:
        """The generator for rows that come and go; None on a GPU, which captures a graph for each number of rows."""
        return None if self.session.on_cuda else self.model

    def generate(self, request: Request) -> Iterator[Chunk]:
        if is_compiled(self.bundle, request.chain):
            return generate_compiled(self.model, self.bundle, request)
        names = ",".join(request.chain.names)
        if names not in self._reported_chains:  # the texts of one command may come in several requests
            self._reported_chains.add(names)
            say(
                "this chain is not compiled into the file, so it runs slower; "
                f"compile it: gen export RUN --chain {names}"
            )
        return generate_stepwise(self, self.bundle, request)

    def initial(self, rows: int) -> ModelState:
        return fresh_states(self.bundle, rows)

    def advance(self, tokens: NDArray[np.int64], state: ModelState) -> tuple[NDArray[np.float32], ModelState]:
        """Return logits [N, T, V] after each of the tokens [N, T], and the new state, in T calls of one position."""
        # The logits do not depend on the forced token.
        constant_feeds = self._forced_feeds(np.zeros((1, len(tokens)), np.int64))
        logits = []
        for token in tokens.T:
            results, state = self._call(constant_feeds | {"token": np.ascontiguousarray(token)}, state)
            logits.append(results["logits"])
        return np.stack(logits, axis=1), state

    def read_losses(self, token: int, targets: Ids, state: ModelState) -> tuple[NDArray[np.float64], ModelState]:
        """Return the losses of targets [T] after a token, and the new state; see `gentext.scoring.score.LossReader`.

        One call forces all targets: T calls would copy inputs and outputs T times. The graph returns the model's own
        log-probabilities of what it was forced to write, in float32.
        """
        feeds = self._forced_feeds(targets.astype(np.int64)[:, None]) | {"token": np.array([token], np.int64)}
        results, state = self._call(feeds, state)
        return -results["logprobs"][:, 0].astype(np.float64), state

    def _forced_feeds(self, forced: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Return what a call of the graph needs beside token and state, to write ``forced`` [K, N] without a draw."""
        signature, rows = self.session.signature, forced.shape[1]
        return first_feeds(signature, rows) | {
            "fresh": np.zeros(rows, np.bool_),
            "noise": np.zeros((len(forced), rows, signature.columns), np.float32),
            "forced": forced,
        }

    def _call(self, feeds: dict[str, NDArray[Any]], state: ModelState) -> tuple[dict[str, Any], ModelState]:
        """Run the graph from a state of the model; return the outputs and the new state."""
        names = [state_meta.name for state_meta in self.bundle.states]
        results = self.session.call(feeds | dict(zip(names, state, strict=True)))
        return results, tuple(results[f"{name}_out"] for name in names)
