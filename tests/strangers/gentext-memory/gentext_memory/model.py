"""mgu: Zhou et al., "Minimal gated unit for recurrent neural networks", arXiv 1603.09420."""

import dataclasses

import torch
from torch import nn

from gentext.config import Positive
from gentext.interfaces import StateSpec


@dataclasses.dataclass(frozen=True)
class MinimalGatedUnitConfig:
    """Options of the model ``mgu``."""

    width: Positive = 128
    """Numbers that the memory holds, and size of a symbol's vector."""


class MinimalGatedUnit(nn.Module):
    """State: ``memory``, float32 [B, width]. What it is before the first symbol is learned."""

    Config = MinimalGatedUnitConfig

    def __init__(self, config, vocab_size):
        super().__init__()
        self.state_spec = (StateSpec("memory", (None, config.width)),)
        self.initial_memory = nn.Parameter(torch.randn(config.width) * 0.1)
        self.embedding = nn.Embedding(vocab_size, config.width)
        self.gate = nn.Linear(2 * config.width, config.width)
        self.candidate = nn.Linear(2 * config.width, config.width)
        self.head = nn.Linear(config.width, vocab_size)

    def initial_state(self, rows):
        return (self.initial_memory.expand(rows, -1),)

    def forward(self, tokens, state):
        logits = []
        for position in range(tokens.shape[1]):
            position_logits, state = self.step(tokens[:, position], state)
            logits.append(position_logits)
        return torch.stack(logits, dim=1), state

    def step(self, tokens, state):
        (memory,) = state
        x = self.embedding(tokens)
        gate = torch.sigmoid(self.gate(torch.cat([x, memory], dim=1)))
        candidate = torch.tanh(self.candidate(torch.cat([x, gate * memory], dim=1)))
        memory = (1 - gate) * memory + gate * candidate
        return self.head(memory), (memory,)
