"""The uniform random numbers from which tokens are drawn, reproducible in any language.

Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) with
key = (seed, stream). A link that needs n uniforms at each position owns the counter plane
H = the first eight bytes of SHA-256 of its name, read little-endian. Its number j at position p
has the index i = p * n + j: it is the top 24 bits of output word i mod 4 of the block at counter
(i div 4 + 1, 0, H, 0), times 2**-24, so that it is exact in float32 and below 1. Position 0 is
the row's first new token. The draw is a link of its own, called "draw", with n = 1.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from gentext.errors import UsageError

__all__ = ["DRAW", "check_seed", "counter_plane", "uniforms"]

#: The name under which the draw takes its noise.
DRAW = "draw"
SEED_LIMIT = 2**64


def check_seed(seed: int) -> int:
    """Return a seed as it is, or raise UsageError when it does not fit 64 bits."""
    if not 0 <= seed < SEED_LIMIT:
        raise UsageError(f"seed {seed}: expected a whole number from 0 to {SEED_LIMIT - 1}")
    return seed


def counter_plane(name: str) -> int:
    """Return the counter word that belongs to a link's name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def uniforms(seed: int, stream: int, name: str, position: int, count: int, columns: int = 1) -> NDArray[np.float32]:
    """Return float32 [count, columns] in [0, 1) for the positions from ``position`` on."""
    first_index = position * columns
    end_index = first_index + count * columns
    first_block = first_index // 4
    generator = np.random.Philox(
        key=np.array([seed, stream], dtype=np.uint64),
        # NumPy steps the counter before each block, so block b comes out at counter b + 1.
        counter=np.array([first_block, 0, counter_plane(name), 0], dtype=np.uint64),
    )
    words = np.asarray(generator.random_raw(end_index - 4 * first_block), dtype=np.uint64)[
        first_index - 4 * first_block :
    ]
    return ((words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)).reshape(count, columns)
