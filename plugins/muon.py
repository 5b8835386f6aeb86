"""Muon: an optimizer for the weight matrices between hidden units. (torch)

K. Jordan and others, "Muon: An optimizer for hidden layers in neural networks", 2024; scaled as in J. Liu and others,
"Muon is scalable for LLM training", 2025.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

MOMENTUM = 0.95
#: Root mean square of the elements of an update at a rate of 1: about Adam's, so that both can share a rate.
ADAM_RMS = 0.2
#: Factors of the iteration, chosen by its authors to end near 1 soon rather than at 1 exactly, and its rounds.
FACTORS, ROUNDS = (3.4445, -4.7750, 2.0315), 5


class Muon(torch.optim.Optimizer):
    """Steps along the momentum with all its singular values set to about 1: no direction drowns another.

    Its cost is that of some matrix products a step, however large the batch is.
    """

    def __init__(
        self, matrices: Mapping[Parameter, int], rate: float, scale: float, weight_decay: float, dtype: torch.dtype
    ) -> None:
        """``matrices``: each weight [n * rows, columns], and how many matrices n lie in it below one another.

        An update is ``scale`` times as large as one of Adam would be. ``dtype`` is that of the products.
        """
        groups = [{"params": [weight], "stacked": stacked} for weight, stacked in matrices.items()]
        super().__init__(groups, {"lr": rate})
        self.scale, self.weight_decay, self.dtype = scale, weight_decay, dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # nobody asks for a loss
        """Take one step. Weights without a gradient stay."""
        for group in self.param_groups:
            (weight,) = group["params"]
            gradient = weight.grad
            if gradient is None:
                continue
            momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
            momentum.lerp_(gradient, 1 - MOMENTUM)
            ahead = gradient.lerp(momentum, MOMENTUM)  # Nesterov's
            rows, columns = len(weight) // group["stacked"], weight.shape[1]
            update = orthogonalize(ahead.view(group["stacked"], rows, columns).to(self.dtype)).view_as(weight)
            weight.mul_(1 - group["lr"] * self.weight_decay)
            size = group["lr"] * self.scale * ADAM_RMS * math.sqrt(max(rows, columns))
            weight.add_(update.to(weight.dtype), alpha=-size)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Return [n, rows, columns] with the singular values brought to about 1 (0.7 to 1.2), by Newton-Schulz rounds."""
    if matrices.shape[1] > matrices.shape[2]:  # the smaller square is the cheaper one
        return orthogonalize(matrices.mT).mT.contiguous()
    a, b, c = FACTORS
    x: Tensor = matrices / (matrices.norm(dim=(1, 2), keepdim=True) * 1.01).clamp_min(1e-30)
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x
