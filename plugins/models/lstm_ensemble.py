"""The model lstm_ensemble: several LSTM networks side by side, which learn alone and predict together. (torch)"""

from __future__ import annotations

import dataclasses
from typing import Annotated, cast

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gentext.plugins.models.lstm import BYTES_PER_WEIGHT, LSTMConfig, LSTMModel, count_parameters, describe_state
from gentext.plugins.pytorch.device import check_memory
from gentext.plugins.pytorch.recurrent import RecurrentModel, TorchState


@dataclasses.dataclass(frozen=True)
class LSTMEnsembleConfig(LSTMConfig):
    """Options of the model ``lstm_ensemble``: those of each of its networks, and how many there are."""

    members: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    """Number of networks; each has all the layers and units."""


class LSTMEnsemble(RecurrentModel):
    """L. K. Hansen and P. Salamon, "Neural network ensembles", 1990: networks with different errors, averaged.

    The members differ in nothing but their random initial weights and what dropout draws. The logits are the means of
    theirs. In training each member has a loss of its own (`member_logits`): networks that are trained by the loss of
    their mean become parts of one network, which learns the text by heart as a large one does.

    State: that of `LSTMModel`, with the first axis of ``h`` and ``c`` ``members`` times as long; the first member is
    first. All members choose the rows of their n-grams by the same hashes.
    """

    Config = LSTMEnsembleConfig

    def __init__(self, config: LSTMEnsembleConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        parameters = config.members * count_parameters(config, vocab_size)
        check_memory(parameters, BYTES_PER_WEIGHT, torch.device("cpu"), "to hold")
        self.members = nn.ModuleList(LSTMModel(config, vocab_size) for _ in range(config.members))
        for member in self._networks():
            member.ngram_hash = self._networks()[0].ngram_hash
        self.state_spec = describe_state(config, config.members)

    def prepare(self, counts: NDArray[np.int64]) -> None:
        """Prepare each member; see `LSTMModel.prepare`."""
        for member in self._networks():
            member.prepare(counts)

    def symbol_axes(self) -> dict[str, int]:
        """Return the axis of the symbols in each tensor that has a row for each; see `SupportsSymbolAxes`."""
        return self._by_full_name([member.symbol_axes() for member in self._networks()])

    def hidden_matrices(self) -> dict[str, int]:
        """Return the weights between hidden units; see `SupportsHiddenMatrices`."""
        return self._by_full_name([member.hidden_matrices() for member in self._networks()])

    def scale_logits(self, factor: float) -> None:
        """Multiply the logits of each member by a factor from now on; see `SupportsLogitScale`."""
        for member in self._networks():
            member.scale_logits(factor)

    def member_logits(self, tokens: Tensor, state: TorchState) -> tuple[Tensor, TorchState]:
        """tokens [B, T] give the logits of each member [members, B, T, V] and the new state."""
        outputs = [
            member(tokens, member_state)
            for member, member_state in zip(self._networks(), self._split_state(state), strict=True)
        ]
        return torch.stack([logits for logits, _ in outputs]), _join_states([new_state for _, new_state in outputs])

    def forward(self, tokens: Tensor, state: TorchState) -> tuple[Tensor, TorchState]:
        """tokens [B, T] and the state give logits [B, T, V] and the new state."""
        logits, new_state = self.member_logits(tokens, state)
        return logits.mean(0), new_state

    def step(self, tokens: Tensor, state: TorchState) -> tuple[Tensor, TorchState]:
        """One position: the members' steps up to their heads, all of which are one product."""
        rows, hashes = self._networks()[0].step_hashes(tokens, list(state[2:]))
        outputs, new_states = [], []
        for member, (h, c, *_) in zip(self._networks(), self._split_state(state), strict=True):
            output, new_h, new_c = member.step_layers(tokens, rows, h, c)
            outputs.append(output)
            new_states.append((new_h, new_c, *hashes))
        heads = [member.head for member in self._networks()]
        weight = torch.cat([head.weight for head in heads], dim=1) / len(heads)
        bias = torch.stack([head.bias for head in heads]).mean(0)
        return functional.linear(torch.cat(outputs, dim=1), weight, bias), _join_states(new_states)

    def _networks(self) -> list[LSTMModel]:
        return [cast(LSTMModel, member) for member in self.members]

    def _split_state(self, state: TorchState) -> list[TorchState]:
        """Return the state of each member."""
        h, c, *hashes = state
        chunks = zip(h.chunk(self.config.members), c.chunk(self.config.members), strict=True)
        return [(member_h, member_c, *hashes) for member_h, member_c in chunks]

    def _by_full_name(self, mappings: list[dict[str, int]]) -> dict[str, int]:
        """Return what the members say of their tensors, under the names that these have in the ensemble."""
        return {
            f"members.{number}.{name}": value
            for number, mapping in enumerate(mappings)
            for name, value in mapping.items()
        }


def _join_states(states: list[TorchState]) -> TorchState:
    """Return the state of all members from that of each."""
    h, c, *hashes = zip(*states, strict=True)
    return (torch.cat(h), torch.cat(c), *(member_hashes[0] for member_hashes in hashes))
