"""Muon: an optimizer for the weight matrices between hidden units. (torch)

K. Jordan and others, "Muon: An optimizer for hidden layers in neural networks", 2024; scaled as in J. Liu and others,
"Muon is scalable for LLM training", 2025. In blocks of rows and two rounds: a thirteenth of the products of whole
matrices of 512 x 512 in five, and in long runs no worse a loss (docs/recipe.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter, functional

MOMENTUM = 0.95
#: Root mean square of the elements of an update at a rate of 1: about Adam's, so that both can share a rate.
ADAM_RMS = 0.2
#: Most rows of a block: each block of a matrix is made orthogonal for itself.
BLOCK = 128
#: Factors of x, x^3 and x^5 in each round. In two rounds no others bring all of 0.02 to 1 as near to 1 (0.49 to 1.51):
#: found as in N. Amsel and others, "The Polar Express", 2025.
ROUNDS = ((7.7110, -22.1138, 16.2487), (3.2153, -2.4112, 0.5013))


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
            update = orthogonalize(ahead.view(group["stacked"], rows, columns).to(self.dtype)).reshape_as(weight)
            weight.mul_(1 - group["lr"] * self.weight_decay)
            size = group["lr"] * self.scale * ADAM_RMS * math.sqrt(max(rows, columns))
            weight.add_(update.to(weight.dtype), alpha=-size)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Return [n, rows, columns] with the singular values of each block brought near 1, by Newton-Schulz rounds.

    A block has at most ``BLOCK`` of the rows, or of the columns where there are fewer of them. A value comes to 0.49 to
    1.51 where it is at least 0.02 of its block's Schatten norm (the fourth root of the sum of all to the power of 4).
    """
    n, rows, columns = matrices.shape
    if rows > columns:  # the smaller square is the cheaper one
        return orthogonalize(matrices.mT).mT
    blocks = math.ceil(rows / BLOCK)
    block = math.ceil(rows / blocks)
    padded = functional.pad(matrices, (0, 0, 0, blocks * block - rows))  # a row of zeros stays one, and disturbs none
    x = padded.reshape(n * blocks, block, columns)
    square = x @ x.mT
    # Never below the largest value and nearer to it than Frobenius' norm; free, for the square is needed anyway.
    norm = (square.norm(dim=(1, 2), keepdim=True) * 1.01).clamp_min(1e-30)
    x, square = x / norm.sqrt(), square / norm
    for index, (a, b, c) in enumerate(ROUNDS):
        square = x @ x.mT if index else square
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.view(n, blocks * block, columns)[:, :rows]
