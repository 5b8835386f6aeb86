"""pairs: 256 bytes for whatever comes, and one symbol for each frequent pair of characters."""

import collections
import dataclasses
import itertools
import re

import numpy as np

from gentext.config import NonNegative


@dataclasses.dataclass(frozen=True)
class PairConfig:
    """Options of the tokenizer ``pairs``."""

    pairs: NonNegative = 64
    """How many pairs of characters get a symbol of their own."""


class PairTokenizer:
    """Ids below 256 are bytes of UTF-8, the others are pairs; so every text can be written."""

    Config = PairConfig
    unknown = None

    def __init__(self, pairs):
        self.pairs = pairs
        self.vocab_size = 256 + len(pairs)
        self._ids = {pair: 256 + index for index, pair in enumerate(pairs)}
        self._pattern = re.compile("|".join([*map(re.escape, pairs), "."]), re.DOTALL)

    @classmethod
    def build(cls, chunks, config):
        counts = collections.Counter()
        for chunk in chunks:
            counts.update(first + second for first, second in itertools.pairwise(chunk))
        return cls([pair for pair, _ in counts.most_common(config.pairs)])

    @classmethod
    def from_state(cls, state):
        return cls(list(state["pairs"]))

    def state(self):
        return {"pairs": self.pairs}

    def encode(self, text):
        ids = []
        for piece in self._pattern.findall(text):
            ids += [self._ids[piece]] if piece in self._ids else piece.encode("utf-8", "replace")
        return np.array(ids, np.int32)

    def unknown_at(self, text):
        return []

    def token_bytes(self, token):
        return bytes([token]) if token < 256 else self.pairs[token - 256].encode()
