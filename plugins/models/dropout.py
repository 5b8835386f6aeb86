"""What a model loses in training: activations, weights, symbols; with masks that are fast to draw on a CPU. (torch)

All random numbers are of PyTorch's default generator, whose state a checkpoint holds. What is left is scaled up, so
that the expectation of each number is unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Random bits of each element: the share that is dropped is exact to 1 / 65536.
BITS_PER_ELEMENT = 16
BITS_PER_NUMBER = 64


class Dropout(nn.Dropout):
    """torch.nn.Dropout, with a faster mask in training on a CPU.

    There PyTorch draws the mask element by element on one core, which takes a tenth of a training step of the
    notebook's network and more. Here four elements share one 64-bit number of the same generator.
    """

    def __init__(self, p: float, *, per_window: bool = False) -> None:
        """With ``per_window``, the positions of a window share a mask.

        Y. Gal and Z. Ghahramani, "A theoretically grounded application of dropout in recurrent neural networks", 2016.
        """
        super().__init__(p)
        self.per_window = per_window

    def forward(self, input: Tensor) -> Tensor:
        """Return ``input`` of any shape with a share ``p`` of it set to 0 and the rest scaled by 1 / (1 - p).

        With ``per_window`` its shape is [B, T, ...], and all T positions of a row lose the same elements.
        """
        if not self.training or self.p == 0:
            return super().forward(input)
        if self.per_window:
            return input * draw_factors((len(input), 1, *input.shape[2:]), self.p, input)
        if input.device.type != "cpu":
            return super().forward(input)
        return input * draw_factors(input.shape, self.p, input)


def draw_factors(shape: Sequence[int], p: float, like: Tensor) -> Tensor:
    """Return a tensor of 0, with probability ``p``, and 1 / (1 - p), of the type and on the device of ``like``."""
    if like.device.type != "cpu":
        return functional.dropout(like.new_ones(shape), p)
    mask = _draw_mask(math.prod(shape), p).view(shape)
    return mask.to(like.dtype).mul_(1 / (1 - p))


def drop_symbols(embedded: Tensor, tokens: Tensor, vocab_size: int, p: float) -> Tensor:
    """Return the input [B, T, ...] of ``tokens`` [B, T] without some symbols: in a row, one is always 0 or never.

    S. Merity and others, "Regularizing and optimizing LSTM language models", 2017, section 4.3. There the rows of a
    batch lose the same symbols; here each row loses its own, so that no batch is without a frequent symbol.
    """
    factors = draw_factors((len(tokens), vocab_size), p, embedded)
    return embedded * factors.gather(1, tokens)[:, :, None]


def replace_symbols(tokens: Tensor, share: float) -> Tensor:
    """Return ``tokens`` [B, T], a share of them replaced by tokens from random places of the same batch.

    So what replaces them is as frequent as in the text: Z. Xie and others, "Data noising as smoothing in neural network
    language models", 2017.
    """
    places = torch.randint(tokens.numel(), tokens.shape, device=tokens.device)
    is_replaced = torch.rand(tokens.shape, device=tokens.device) < share
    return torch.where(is_replaced, tokens.flatten()[places], tokens)


def _draw_mask(element_count: int, p: float) -> Tensor:
    """Return int16 [count]: 0 with probability ``p``, otherwise 1."""
    elements_per_number = BITS_PER_NUMBER // BITS_PER_ELEMENT
    numbers = torch.empty(-(-element_count // elements_per_number), dtype=torch.int64).random_(-(1 << 63), None)
    uniform_numbers = numbers.view(torch.int16)[:element_count]  # every int16 is as likely as any other
    lowest, highest = -(1 << BITS_PER_ELEMENT - 1), (1 << BITS_PER_ELEMENT - 1) - 1
    threshold = lowest + round(p * (1 << BITS_PER_ELEMENT))
    return uniform_numbers.ge_(min(highest, threshold))
