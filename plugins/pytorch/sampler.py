"""The sampler torch: writes text with a run's best checkpoint, in PyTorch. (torch)"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gentext.config import NoConfig
from gentext.errors import RunError
from gentext.exported.metadata import Bundle
from gentext.interfaces import Chunk, Model, Request
from gentext.manager import host
from gentext.plugins.pytorch.checkpoint import build_model, load_best_checkpoint
from gentext.plugins.pytorch.device import choose_device, one_thread
from gentext.run import Run, open_run
from gentext.runs.model_description import describe
from gentext.sampling.chain import Chain
from gentext.sampling.configured_chain import chain_of
from gentext.stepping import ModelState, generate_stepwise


class TorchSampler:
    """Opens the best checkpoint of a run."""

    Config = NoConfig
    opens = ("run",)

    def __init__(self, config: NoConfig) -> None:
        self.config = config

    def open(self, source: Path, device: str) -> TorchModel:
        """Open a run; raises RunError for anything else."""
        if source.suffix == ".onnx":
            raise RunError(f"{source}: the torch sampler reads a run folder; the sampler onnx opens files")
        run = open_run(source)
        model = build_model(run, load_best_checkpoint(run)).to(choose_device(device))
        return TorchModel(model, describe(run, model), device=str(next(model.parameters()).device))


class TorchReader:
    """Gives the logits of a PyTorch model as NumPy arrays; see `StepModel`."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def initial(self, rows: int) -> ModelState:
        return tuple(self.model.initial_state(rows))

    def advance(self, tokens: NDArray[np.int64], state: ModelState) -> tuple[NDArray[np.float32], ModelState]:
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            tensors = tuple(
                torch.as_tensor(array, device=device) for array in state
            )  # a search copies states as arrays
            logits, new_state = self.model(torch.from_numpy(tokens).to(device), tensors)
        return logits.float().cpu().numpy(), tuple(new_state)


class TorchModel(TorchReader):
    """An opened sampler that runs a PyTorch model."""

    def __init__(self, model: Model, bundle: Bundle, device: str) -> None:
        super().__init__(model)
        self.bundle = bundle
        self.device = f"PyTorch on {device}"

    def generate(self, request: Request) -> Iterator[Chunk]:
        return generate_stepwise(self, self.bundle, request)


def preview(model: Model, run: Run, length: int) -> str:
    """Return ``length`` characters that a model writes with its current weights, always from the same seed.

    A model of records writes some, one a line, until they have about so many characters. The model is in the same mode
    afterwards, training or evaluation.
    """
    was_training = model.training
    model.eval()
    bundle = describe(run, model)
    torch_model = TorchModel(model, bundle, "")
    chain = chain_of(bundle, host().registry)
    with one_thread():
        texts = [_write(torch_model, chain, length, 0)]
        while bundle.records is not None and (written := sum(len(text) + 1 for text in texts)) < length:
            texts.append(_write(torch_model, chain, length - written, len(texts)))
    model.train(was_training)
    return "\n".join(texts)


def _write(torch_model: TorchModel, chain: Chain, length: int, stream: int) -> str:
    """Return one text of ``length`` characters, or one record of at most so many."""
    from gentext.generation.generate import generate

    no_prime = np.empty(0, np.int64)
    [text], pieces = generate(torch_model, chain, primes=[no_prime], seed=0, streams=[stream], length=length)
    for _ in pieces:  # the text grows as they are read
        pass
    return text.text
