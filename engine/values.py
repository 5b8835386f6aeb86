"""What components and gentext exchange: ids, states, losses, chunks of tokens; and tokenizers and models.

`gentext.interfaces` offers all of these to plugins, with the components that know a run, a file or a chain. This module
imports no torch at run time.

Shapes: N or B rows of a batch, T positions in time, V symbols of the vocabulary, K positions that were generated in one
call.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gentext.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Ids = NDArray[np.integer[Any]]
#: Why a row has ended: a stop string was complete, no symbol was left to draw, it has all its symbols, a link has ended
#: it, or it drew the boundary symbol, which ends a record.
Finish = Literal["running", "stop", "masked", "length", "match", "end"]


@runtime_checkable
class Tokenizer(Protocol):
    """Turns text into ids. Decoding needs no plugin: gentext joins the `token_bytes` and reads them as UTF-8.

    The class also has ``build(chunks, config)``, which learns a vocabulary from pieces of text,
    and ``from_state(state)``, the inverse of `state`; see `TokenizerClass`.
    """

    @property
    def vocab_size(self) -> int: ...

    @property
    def unknown(self) -> int | None:
        """The id that stands for every unknown character, or None. It is never drawn."""
        ...

    def encode(self, text: str) -> Ids:
        """Return ids [len]; raises PrimeError naming the first character that has none.

        A text to train on comes in pieces of up to a million characters, each of which is encoded by itself:
        no symbol spans two pieces. Pieces depend only on the text, and end after a line end, or after a space
        where there is none, or else anywhere.
        """
        ...

    def unknown_at(self, text: str) -> list[int]:
        """Return the positions of the characters that have no symbol of their own."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of the symbol with that id."""
        ...

    def state(self) -> dict[str, Any]:
        """Return the tokenizer's state as JSON data, from which ``from_state`` builds it again."""
        ...


class TokenizerClass(Protocol):
    """The class that a plugin registers as a tokenizer."""

    def build(self, chunks: Iterable[str], config: Any) -> Tokenizer:
        """Learn a vocabulary from a text, in the pieces in which `Tokenizer.encode` will get it.

        ``chunks`` may be iterated over more than once: each time the text is read anew.
        """
        ...

    def from_state(self, state: Mapping[str, Any]) -> Tokenizer:
        """Build the tokenizer whose `Tokenizer.state` that is."""
        ...


@dataclasses.dataclass(frozen=True)
class World:
    """The processes that train together. Of N rows of a batch, this one has N / size, from row rank * N / size on."""

    rank: int = 0
    """Number of this process, from 0."""
    size: int = 1
    """Number of processes."""

    @classmethod
    def of_process(cls) -> World:
        """Return this process's rank among those that torchrun, or another launcher, has started together."""
        # A scheduler may set one or two of these for its own purposes.
        if not all(os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")):
            return cls()
        rank, size = os.environ["RANK"], os.environ["WORLD_SIZE"]
        if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
            raise UsageError(
                f"RANK={rank}, WORLD_SIZE={size}: expected a process and their number, as torchrun sets it"
            )
        return cls(int(rank), int(size))


#: The element types that a model's state may have.
STATE_DTYPES = ("float32", "float16", "int64", "bool")


@dataclasses.dataclass(frozen=True)
class StateSpec:
    """One tensor of a model's recurrent state."""

    name: str
    shape: tuple[int | None, ...]
    """None marks the batch axis."""
    dtype: str = "float32"
    """One of STATE_DTYPES."""

    @property
    def batch_axis(self) -> int:
        return self.shape.index(None)

    def with_batch(self, rows: int) -> tuple[int, ...]:
        """Return the shape of the state of this many rows."""
        return tuple(rows if size is None else size for size in self.shape)


class Model(Protocol):
    """A ``torch.nn.Module``, constructed as ``Model(config, vocab_size)``.

    A plugin writes the first four members. The others, which gentext uses too, come from ``torch.nn.Module``.
    Optional methods are in `gentext.capabilities`.
    """

    state_spec: Sequence[StateSpec]
    """The arrays of the state, in the order of `initial_state`."""

    def forward(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """tokens [B, T] and the state give logits [B, T, V] and the new state."""
        ...

    def step(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """tokens [B] and the state give logits [B, V] and the new state, in plain matrix products."""
        ...

    def initial_state(self, rows: int) -> tuple[Tensor, ...]:
        """Return the state of rows that have read nothing."""
        ...

    training: bool
    """Whether dropout is on."""

    def __call__(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Call `forward`."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return all weights."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Return all weights with their names."""
        ...

    def get_parameter(self, target: str) -> nn.Parameter:
        """Return the weights of this name."""
        ...

    def buffers(self) -> Iterator[Tensor]:
        """Return the arrays that are no weights."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return weights and buffers by name."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Set weights and buffers by name."""
        ...

    def zero_grad(self) -> None:
        """Forget the gradients."""
        ...

    def train(self, mode: bool = True) -> Self:
        """Turn dropout on, or off."""
        ...

    def eval(self) -> Self:
        """Turn dropout off."""
        ...

    def to(self, device: torch.device) -> Self:
        """Move the model to a device."""
        ...


@dataclasses.dataclass(frozen=True)
class Speed:
    """How many seconds a trainer needs on this machine, as it has measured. The first one is enough."""

    step: float
    """Of an optimizer step."""
    symbol: float = 0.0
    """Of a symbol whose loss is measured in parallel streams; 0: not known, taken as a symbol of a step."""
    stream_symbol: float = 0.0
    """Of a symbol whose loss is measured in a single stream; 0: not known, taken as ``symbol``."""
    measurement: float = 0.0
    """Of a measurement in addition, whatever it reads: for a sample, a picture and a checkpoint."""
    measured_every: int = 0
    """Steps from a measurement to the next where the trainer's own options say so; 0: they do not."""
    threads: int = 0
    """The threads that the trainer trains with, which the run stores to resume with them; 0: it stores none."""
    device: str = ""
    """The line that `Trainer.start` returned, where measuring has changed what it says; empty: it has not."""


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """The budget in steps, and the measurements on the way."""

    steps: int
    measured_at: Sequence[int]
    """The steps after which the losses are measured, rising; in addition to the last step."""
    measured_symbols: int
    """Symbols that each of these measurements reads of the held-out text, and of the training text."""
    held_out: int
    """Characters of the held-out text: the last measurement reads all of them as one stream."""
    seconds: float
    """About how long training and measuring take."""
    step_seconds: float
    """About how long one step takes."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The losses at one step, in nats a symbol, in evaluation mode: without dropout."""

    step: int
    """Optimizer steps done."""
    symbols: int
    """Symbols of the training text read so far, all passes together."""
    val_loss: float
    """Loss on the held-out text; NaN where nothing is held out."""
    train_loss: float = math.nan
    """Loss on stretches spread evenly over the training text, together as long; NaN where it was not measured."""
    val_error: float = math.nan
    """Standard error of ``val_loss``, from the differences between the stretches; NaN where it is not known."""
    train_error: float = math.nan
    """The same of ``train_loss``."""


@dataclasses.dataclass(frozen=True)
class FitResult:
    """The result of training."""

    steps: int
    val_loss: float
    """Nats a symbol on the held-out text, of the best checkpoint; NaN when it was never measured."""
    train_loss: float
    """The same model on stretches of the training text, together as long, without dropout."""
    best_step: int
    symbols_per_second: float
    curve: tuple[Measurement, ...] = ()
    """The measurements of the whole run, also of the parts before a resume, in the order of steps."""


@dataclasses.dataclass(frozen=True)
class TopSymbols:
    """The T most probable symbols at each of some positions, as the model gives them before the chain.

    The most probable symbol comes first; of equally probable ones, that with the lower token. The symbol for unknown
    characters, which is never drawn, may be among them.
    """

    tokens: NDArray[np.int64]
    """[..., T] token ids; -1 at a position without a token."""
    logprobs: NDArray[np.float32]
    """[..., T] their log-probabilities in nats; NaN at a position without a token."""

    def __getitem__(self, index: Any) -> TopSymbols:
        """Return those at some of the positions."""
        return TopSymbols(self.tokens[index], self.logprobs[index])

    @classmethod
    def concatenate(cls, blocks: Sequence[TopSymbols]) -> TopSymbols:
        """Return the positions of all blocks, one after another along the first axis."""
        tokens, logprobs = [block.tokens for block in blocks], [block.logprobs for block in blocks]
        return cls(np.concatenate(tokens), np.concatenate(logprobs))


@dataclasses.dataclass(frozen=True)
class Chunk:
    """The tokens that N rows generated at K positions."""

    tokens: NDArray[np.int64]
    """[K, N] token ids; -1 where a row has ended, or still reads its prime in a request without ``echo``."""
    logprobs: NDArray[np.float32]
    """[K, N] log-probabilities of the tokens in nats, from the logits before the chain; NaN where the token is -1."""
    finish: Sequence[Finish]
    """[N]: "running", or why the row has ended, after this chunk."""
    top_symbols: TopSymbols | None = None
    """[K, N, T] the T = min(top_count, V) most probable symbols in place of each token; None where T is 0."""
