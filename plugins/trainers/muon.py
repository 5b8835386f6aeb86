"""Muon: an optimizer for the weight matrices between hidden units. (torch)

K. Jordan and others, "Muon: An optimizer for hidden layers in neural networks", 2024; scaled as in J. Liu and others,
"Muon is scalable for LLM training", 2025. Here it works in blocks of rows and in two rounds. For a matrix of 512 x 512
this takes a thirteenth of the multiplications of the original, which takes five rounds over the whole matrix; in long
runs the loss is no worse (docs/recipe.md).
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
#: Largest number of rows of a block; each block of a matrix is made orthogonal separately.
MAX_BLOCK_ROWS = 128
#: Factors of x, x^3 and x^5 in each round. Minimax coefficients for two rounds: singular values in [0.02, 1] end in
#: [0.49, 1.51]. Computed as in N. Amsel and others, "The Polar Express", 2025.
ROUND_COEFFICIENTS = ((7.7110, -22.1138, 16.2487), (3.2153, -2.4112, 0.5013))


class Muon(torch.optim.Optimizer):
    """Steps along the momentum with all its singular values set to about 1, so that no direction outweighs the others.

    A step costs some matrix products more than one of Adam, however large the batch is.
    """

    def __init__(
        self, matrices: Mapping[Parameter, int], rate: float, scale: float, weight_decay: float, dtype: torch.dtype
    ) -> None:
        """``matrices`` maps each weight [n * rows, columns] to n, the number of matrices that are stacked in it.

        An update is about ``scale`` times as large as Adam's. ``dtype`` is that of the matrix products.
        """
        parameter_groups = [{"params": [weight], "stacked": stacked} for weight, stacked in matrices.items()]
        super().__init__(parameter_groups, {"lr": rate, "weight_decay": weight_decay, "decays": True})
        self.scale, self.dtype = scale, dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # returns no loss
        """Take one step. Weights without a gradient stay."""
        for parameter_group in self.param_groups:
            (weight,) = parameter_group["params"]
            gradient = weight.grad
            if gradient is None:
                continue
            momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
            momentum.lerp_(gradient, 1 - MOMENTUM)
            direction = gradient.lerp(momentum, MOMENTUM)  # Nesterov's momentum
            rows, columns = len(weight) // parameter_group["stacked"], weight.shape[1]
            matrices = direction.view(parameter_group["stacked"], rows, columns)
            update = orthogonalize(matrices.to(self.dtype)).reshape_as(weight)
            weight.mul_(1 - parameter_group["lr"] * parameter_group["weight_decay"])
            update_size = parameter_group["lr"] * self.scale * ADAM_RMS * math.sqrt(max(rows, columns))
            weight.add_(update.to(weight.dtype), alpha=-update_size)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Return [n, rows, columns] with the singular values of each block brought near 1, by Newton-Schulz rounds.

    A block has at most ``MAX_BLOCK_ROWS`` of the rows, or of the columns where there are fewer of them. A value ends in
    0.49 to 1.51 where it is at least 0.02 of its block's Schatten 4-norm (the fourth root of the sum of all values to
    the power of 4).
    """
    matrix_count, rows, columns = matrices.shape
    if rows > columns:  # the products below are rows x rows: the smaller square is the cheaper one
        return orthogonalize(matrices.mT).mT
    block_count = math.ceil(rows / MAX_BLOCK_ROWS)
    block_rows = math.ceil(rows / block_count)
    # Rows of zeros fill the last block: they stay zeros and change no other row.
    padded_matrices = functional.pad(matrices, (0, 0, 0, block_count * block_rows - rows))
    x = padded_matrices.reshape(matrix_count * block_count, block_rows, columns)
    square = x @ x.mT
    # The Schatten norm is never below the largest singular value, and nearer to it than the Frobenius norm. It costs
    # nothing: the square is needed anyway.
    norm = (square.norm(dim=(1, 2), keepdim=True) * 1.01).clamp_min(1e-30)
    x, square = x / norm.sqrt(), square / norm
    for index, (a, b, c) in enumerate(ROUND_COEFFICIENTS):
        if index > 0:
            square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.view(matrix_count, block_count * block_rows, columns)[:, :rows]
