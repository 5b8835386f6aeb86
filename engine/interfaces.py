"""What each kind of component must offer, as Protocols. This module imports no torch, onnx or onnxruntime at run time.

Shapes: N or B rows of a batch, T positions in time, V symbols of the vocabulary, K positions
that were generated in one call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gentext.values import (
    Chunk,
    Finish,
    FitResult,
    Ids,
    Measurement,
    Model,
    Speed,
    StateSpec,
    Tokenizer,
    TokenizerClass,
    TopSymbols,
    TrainingPlan,
    World,
)

if TYPE_CHECKING:
    from gentext.events import Hooks
    from gentext.exported.metadata import Bundle
    from gentext.run import Run
    from gentext.sampling.chain import Chain
    from gentext.stop import StopAutomaton
    from gentext.token_corpus import TokenCorpus

__all__ = [
    "Batcher",
    "Chunk",
    "DeclaresSources",
    "Filter",
    "Finish",
    "FitResult",
    "Ids",
    "Measurement",
    "Model",
    "OpenSampler",
    "Request",
    "Sampler",
    "SourceKind",
    "Speed",
    "StateSpec",
    "Tokenizer",
    "TokenizerClass",
    "TopSymbols",
    "Trainer",
    "TrainingPlan",
    "World",
]

#: What a sampler can open: any run folder, one with a model.onnx, an .onnx file, or a file of any kind.
SourceKind = Literal["run", "exported run", "onnx file", "any file"]


class Batcher(Protocol):
    """Cuts a corpus into batches. Pure: the same arguments give the same batch.

    The corpus's tokens are mapped from a file that may be larger than memory: read-only, and of the
    smallest unsigned type. So cut the windows first, and convert only them to int64.

    Constructed as ``Batcher(config, corpus, world)`` with a `TokenCorpus`; raises CorpusError when the corpus is too
    short for one batch. A batcher that can cut records says so, see `gentext.capabilities.ReadsRecords`; any other
    gets one text only.
    """

    steps_per_epoch: int
    """Batches of an epoch, the same for each epoch."""
    symbols_per_epoch: int
    """Symbols with a target in the batches of an epoch, over all ranks."""
    rows: int
    """Rows of the whole batch, over all ranks."""
    length: int
    """Positions of a batch, at most."""

    def batch(
        self, seed: int, epoch: int, step: int, rank: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Return inputs x [B, T], targets y [B, T], and fresh [B]: the rows whose carried state must start anew.

        T is at most ``length``. At a position whose target is -1 nothing is learned or measured; such positions
        follow all others of their row.
        """
        ...


class Trainer(Protocol):
    """Fits a model. Constructed as ``Trainer(config, settings)`` with the run's Settings.

    See `gentext.capabilities.SupportsProcesses` for training by several processes.
    """

    def start(self) -> str:
        """Choose device and precision and seed everything, before the model is built.

        Returns one line that names device and precision. Raises DeviceError.
        """
        ...

    def measure_speed(self, model: Model, batcher: Batcher, train: TokenCorpus) -> Speed:
        """Time some steps, and return how fast this machine trains and measures; the budget is planned by that.

        Leaves the model and the random state as they were. Returns the same in each of several processes.
        """
        ...

    def fit(
        self,
        model: Model,
        batcher: Batcher,
        train: TokenCorpus,
        val: TokenCorpus,
        run: Run,
        hooks: Hooks,
        plan: TrainingPlan,
        resume: bool,
    ) -> FitResult:
        """Train up to ``plan.steps``, writing checkpoints into the run and calling the hooks of its life.

        ``val`` is empty where nothing was held out: then no held-out loss is measured, and the last checkpoint is
        the best.
        The trainer calls the hooks from `run_started` to `checkpoint_saved`; `gentext.training.pipeline` calls the
        later ones. With ``resume`` it continues from the run's newest checkpoint. Raises TrainingStopped.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Request:
    """N rows for a sampler to generate. They share a chain, but each has its own prime, seed and parameters."""

    primes: Sequence[Ids]
    """Token ids of the prime of each row, without the start token, which comes before every prime."""
    seeds: Sequence[tuple[int, int]]
    """(seed, stream) of each row: the key of its noise, see `gentext.noise`."""
    chain: Chain
    """The links to run on the logits, in order, before each draw."""
    params: Mapping[str, Mapping[str, NDArray[Any]]]
    """Link -> parameter -> array [N, 1], or [N, V] for a parameter that is ``per_symbol``."""
    tables: Mapping[str, Mapping[str, NDArray[Any]]] = dataclasses.field(default_factory=dict)
    """Link -> table -> array of the declared shape, shared by all rows."""
    stop: StopAutomaton | None = None
    """The stop strings; a row ends with the token that completes one of them."""
    max_tokens: int | None = None
    """New tokens of each row; None: without end, until the iterator is closed. With 0, a row only reads its prime."""
    top_count: int = 0
    """How many of the most probable symbols the chunks have for each of their tokens."""
    echo: bool = False
    """Whether the tokens of a row's prime come in the chunks too, before its new tokens."""


@runtime_checkable
class OpenSampler(Protocol):
    """A model that is ready to generate."""

    bundle: Bundle
    """The tokens, states and default chain of the model."""
    device: str
    """The device that runs the model, in one line for the user."""

    def generate(self, request: Request) -> Iterator[Chunk]:
        """Generate the rows of a request, a chunk of positions at a time, until every row has ended.

        The iterator raises ConfigError for parameters of another shape or out of range. Several requests
        may run at a time, in several threads: nothing that belongs to a request is kept in the sampler.
        """
        ...


class Sampler(Protocol):
    """Opens a trained model for sampling. Constructed as ``Sampler(config)``.

    Optional: the class attribute ``opens`` declares what it can open, see `DeclaresSources`.
    """

    def open(self, source: Path, device: str) -> OpenSampler:
        """Open a run's folder or an exported file; ``device`` is auto, cpu or cuda.

        Raises a GenError for a source that it cannot open, DeviceError for a device that is not available.
        """
        ...


@runtime_checkable
class DeclaresSources(Protocol):
    """A sampler's class that declares what it opens. A class without ``opens`` gets any run folder and any file.

    ``opens = ("exported run", "onnx file")``: without a path, the newest exported run is taken; a run that was
    not exported, or a file of another kind, is refused with a message before the sampler sees it.
    """

    opens: Collection[SourceKind]


class Filter(Protocol):
    """Says which texts may stay. Constructed as ``Filter(config)``.

    Pure: the answer to a text depends on the text and the config alone. So a text gets the same answer in any batch, in
    any order, in any process and at any time.
    """

    def __call__(self, texts: Sequence[str]) -> Sequence[bool] | NDArray[np.bool_]:
        """Return whether each of N texts may stay: N booleans in the order of the texts, as a list, tuple or array.

        N may be 0. The texts are whole records without what separates them, and may be any text. They must not be
        changed, and nothing may be printed on stdout, where the records go. A text that the filter cannot read is
        refused: any exception ends the command, with one line that names the filter and the text.
        """
        ...
