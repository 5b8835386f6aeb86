"""unigram: draw symbols by how often they stand in a run's held-out text, whatever came before."""

import dataclasses

import numpy as np

from gentext.config import PositiveFloat
from gentext.describe import tokenizer_of
from gentext.errors import RunError
from gentext.plugins.samplers import open_model
from gentext.stepping import generate_stepwise


@dataclasses.dataclass(frozen=True)
class UnigramConfig:
    """Options of the sampler ``unigram``."""

    smoothing: PositiveFloat = 0.01
    """What is added to every symbol's count."""


class Unigram:
    """Opens an exported run: its symbols come from the file, their counts from the text."""

    Config = UnigramConfig
    opens = ("exported run",)

    def __init__(self, config):
        self.config = config

    def open(self, source, device):
        held_out = source / "held_out.txt"
        if not held_out.is_file():
            raise RunError(f"{source}: the sampler unigram needs the run's held-out text")
        bundle = open_model(source / "model.onnx", "cpu").bundle
        tokens = tokenizer_of(bundle).encode(held_out.read_text(encoding="utf-8"))
        counts = np.bincount(tokens, minlength=bundle.vocab_size) + self.config.smoothing
        return Frequencies(np.log(counts / counts.sum()).astype(np.float32), bundle)


class Frequencies:
    """A model without a memory."""

    device = "NumPy"

    def __init__(self, logits, bundle):
        self._logits, self.bundle = logits, bundle

    def generate(self, request):
        return generate_stepwise(self, self.bundle, request)

    def initial(self, rows):
        return ()

    def advance(self, tokens, state):
        return np.tile(self._logits, (*tokens.shape, 1)), state
