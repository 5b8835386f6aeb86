"""What a model reads beside each symbol: the vectors of the n-grams that end there, from hashed tables. (torch)"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gentext.plugins.models.dropout import draw_factors

#: The hash of an n-gram is (code of its last symbol + MULTIPLIER * hash of the symbols before) modulo a prime. Both
#: are below 2**31, so that no product exceeds 63 bits.
MULTIPLIER, MODULUS = 1_540_483_477, 2**31 - 1
#: What a vector is multiplied by. Most n-grams are rare, and Adam moves each number by about the rate at a time.
GAIN = 4.0


class NgramEmbedding(nn.Module):
    """A learned vector for each n-gram of 2 symbols to ``length``: the row of a table that its hash chooses.

    A recurrent network needs many steps to learn which letters make a word; a table learns what follows "ough" from
    the few places where it stands. N-grams of the same length that share a row share its vector, of which the frequent
    ones have the most. T. Mikolov and others, "Strategies for training large scale neural network language models",
    2011, add hashed n-grams to the output of a recurrent network; here they are an input, as in A. Pagnoni and others,
    "Byte latent transformer", 2024, section 3.2.1.

    In training a position reads no n-grams with the probability ``dropout``, so that the network learns to do without
    them: those of a text that is read often would be learned by heart.

    State: the hashes of the last 1 to ``length`` - 1 symbols, int64 [length - 1, B]; 0 where nothing was read.
    """

    def __init__(self, vocab_size: int, length: int, rows: int, size: int, dropout: float) -> None:
        super().__init__()
        self.rows, self.dropout = rows, dropout
        #: The code of each symbol. It is part of the weights, so that a model can be taught a text with other symbols.
        self.codes = nn.Buffer(torch.randint(1, MODULUS, (vocab_size,)))
        #: Where the rows of each length begin.
        self.offsets = nn.Buffer(torch.arange(length - 1) * rows, persistent=False)
        self.table = nn.Embedding((length - 1) * rows, size)
        nn.init.zeros_(self.table.weight)

    def forward(self, tokens: Tensor, hashes: Tensor) -> tuple[Tensor, Tensor]:
        """tokens [B, T] give the vectors of their n-grams [B, T, (length - 1) * size], in (-1, 1), and the state."""
        codes = self.codes[tokens]
        current, rows, new_hashes = codes, [], []
        for previous, offset in zip(hashes, self.offsets, strict=True):
            before = torch.cat([previous[:, None], current[:, :-1]], dim=1)
            new_hashes.append(current[:, -1])
            current = _extend_hashes(before, codes)
            rows.append(current % self.rows + offset)
        vectors = torch.tanh(GAIN * self.table(torch.stack(rows, dim=2))).flatten(2)
        if self.training and self.dropout:
            vectors = vectors * draw_factors((*tokens.shape, 1), self.dropout, vectors)
        return vectors, torch.stack(new_hashes)

    def step(self, tokens: Tensor, hashes: Tensor) -> tuple[Tensor, Tensor]:
        """tokens [B] give the vectors of their n-grams [B, (length - 1) * size], in (-1, 1), and the new state.

        The table of the vectors themselves depends on weights alone, so an export computes it once.
        """
        codes = self.codes[tokens]
        extended = _extend_hashes(hashes, codes)
        rows = (extended % self.rows + self.offsets[:, None]).t()
        vectors = functional.embedding(rows, torch.tanh(GAIN * self.table.weight)).flatten(1)
        return vectors, torch.cat([codes[None], extended[:-1]])


def _extend_hashes(hashes: Tensor, codes: Tensor) -> Tensor:
    """Return the hashes of n-grams that are one symbol longer, by the code of that symbol."""
    return (codes + MULTIPLIER * hashes) % MODULUS
