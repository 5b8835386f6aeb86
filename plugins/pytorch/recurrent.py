"""What every recurrent model shares. A base class that plugin authors may use, or not. (torch)"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gentext.interfaces import StateSpec

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
    """Return the state with the rows where ``fresh`` [B] is true taken from ``initial``."""
    if not bool(fresh.any()):
        return state
    parts = []
    for one, begin, shape in zip(state, initial, spec, strict=True):
        where = fresh.view([-1 if axis == shape.batch_axis else 1 for axis in range(one.dim())])
        parts.append(torch.where(where, begin, one))
    return tuple(parts)
