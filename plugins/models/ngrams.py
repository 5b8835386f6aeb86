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


class NgramHash(nn.Module):
    """Which rows of a table the n-grams of 2 symbols to ``length`` have that end at a symbol, by their hashes.

    State: the hashes of the last 1 to ``length`` - 1 symbols, int64 [1, B, length - 1]; 0 where nothing was read.
    """

    def __init__(self, vocab_size: int, length: int, rows: int) -> None:
        super().__init__()
        self.rows = rows
        #: The code of each symbol. It is part of the weights, so that a model can be taught a text with other symbols.
        self.codes = nn.Buffer(torch.randint(1, MODULUS, (vocab_size,)))
        #: Where the rows of each length begin.
        self.offsets = nn.Buffer(torch.arange(length - 1) * rows, persistent=False)

    def forward(self, tokens: Tensor, hashes: Tensor) -> tuple[Tensor, Tensor]:
        """tokens [B, T] and the state give the rows of their n-grams [B, T, length - 1] and the new state."""
        codes = self.codes[tokens]
        current, extended, new_hashes = codes, [], []
        for previous in hashes[0].t():
            before = torch.cat([previous[:, None], current[:, :-1]], dim=1)
            new_hashes.append(current[:, -1])
            current = _extend_hashes(before, codes)
            extended.append(current)
        return self._choose_rows(torch.stack(extended, dim=2)), torch.stack(new_hashes, dim=1)[None]

    def step(self, tokens: Tensor, hashes: Tensor) -> tuple[Tensor, Tensor]:
        """tokens [B] and the state give the rows of their n-grams [1, B, length - 1] and the new state."""
        codes = torch.index_select(self.codes[None, :, None], 1, tokens)
        extended = _extend_hashes(hashes, codes)
        return self._choose_rows(extended), torch.cat([codes, extended[:, :, :-1]], dim=2)

    def _choose_rows(self, hashes: Tensor) -> Tensor:
        return hashes % self.rows + self.offsets


class NgramEmbedding(nn.Module):
    """A learned vector for each n-gram of 2 symbols to ``length``: the row of a table that `NgramHash` chooses.

    A recurrent network needs many steps to learn which letters make a word; a table learns what follows "ough" from
    the few places where it stands. N-grams of the same length that share a row share its vector, of which the frequent
    ones have the most. T. Mikolov and others, "Strategies for training large scale neural network language models",
    2011, add hashed n-grams to the output of a recurrent network; here they are an input, as in A. Pagnoni and others,
    "Byte latent transformer", 2024, section 3.2.1.

    In training a position reads no n-grams with the probability ``dropout``, so that the network learns to do without
    them: those of a text that is read often would be learned by heart.
    """

    def __init__(self, length: int, rows: int, size: int, dropout: float) -> None:
        super().__init__()
        self.size, self.dropout = (length - 1) * size, dropout
        self.table = nn.Embedding((length - 1) * rows, size)
        nn.init.zeros_(self.table.weight)

    def forward(self, rows: Tensor) -> Tensor:
        """rows [B, T, length - 1] give the vectors of the n-grams [B, T, (length - 1) * size], in (-1, 1)."""
        vectors = torch.tanh(GAIN * self.table(rows)).flatten(2)
        if self.training and self.dropout:
            vectors = vectors * draw_factors((*rows.shape[:2], 1), self.dropout, vectors)
        return vectors

    def step(self, rows: Tensor) -> Tensor:
        """rows [1, B, length - 1] give the vectors of the n-grams [B, (length - 1) * size], in (-1, 1).

        The table of the vectors themselves depends on weights alone, so an export computes it once.
        """
        return functional.embedding(rows, torch.tanh(GAIN * self.table.weight)).view(-1, self.size)


def _extend_hashes(hashes: Tensor, codes: Tensor) -> Tensor:
    """Return the hashes of n-grams that are one symbol longer, by the code of that symbol."""
    return (codes + MULTIPLIER * hashes) % MODULUS
