"""Dropout whose mask is cheap on a CPU. (torch)"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Random bits of each element: the share that is dropped is exact to 1 / 65536.
BITS = 16
WORD = 64


class Dropout(nn.Dropout):
    """torch.nn.Dropout, with a faster mask in training on a CPU.

    There PyTorch draws the mask element by element on one core, a tenth of a training step of the notebook's
    network and more. Here four elements share one 64-bit number of the same generator.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return ``input`` of any shape with a share ``p`` of it set to 0 and the rest scaled by 1 / (1 - p)."""
        if not self.training or self.p == 0 or input.device.type != "cpu":
            return super().forward(input)
        return input * _kept(input.numel(), self.p).view_as(input).to(input.dtype).mul_(1 / (1 - self.p))


def _kept(count: int, p: float) -> Tensor:
    """Return int16 [count]: 0 with probability ``p``, otherwise 1."""
    each = WORD // BITS
    words = torch.empty(-(-count // each), dtype=torch.int64).random_(-(1 << 63), None)
    most = (1 << BITS - 1) - 1
    return words.view(torch.int16)[:count].ge_(min(most, round(p * (1 << BITS)) - most - 1))
