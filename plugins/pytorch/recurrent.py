"""A base class for recurrent models, which a plugin's model may use, and the reset of their states. (torch)"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gentext.interfaces import StateSpec

#: The tensors that a model carries from symbol to symbol, in the order of its ``state_spec``.
TorchState = tuple[Tensor, ...]


class RecurrentModel(nn.Module):
    """Defaults for a model: a state of zeros, and a step that is `forward` with T = 1."""

    state_spec: Sequence[StateSpec] = ()

    def initial_state(self, rows: int) -> TorchState:
        """Return the state of rows that have read nothing."""
        device = next(self.parameters()).device
        return tuple(
            torch.zeros(spec.with_batch(rows), dtype=getattr(torch, spec.dtype), device=device)
            for spec in self.state_spec
        )

    def step(self, tokens: Tensor, state: TorchState) -> tuple[Tensor, TorchState]:
        """tokens [B] and the state give logits [B, V] and the new state."""
        logits, state = self(tokens[:, None], state)
        return logits[:, 0], state


def reset_rows(state: TorchState, fresh: Tensor, initial: TorchState, spec: Sequence[StateSpec]) -> TorchState:
    """Return the state with the rows of ``initial`` where ``fresh`` [B] is true."""
    if not bool(fresh.any()):
        return state
    tensors = []
    for tensor, initial_tensor, tensor_spec in zip(state, initial, spec, strict=True):
        mask_shape = [1] * tensor.dim()
        mask_shape[tensor_spec.batch_axis] = -1
        tensors.append(torch.where(fresh.view(mask_shape), initial_tensor, tensor))
    return tuple(tensors)
