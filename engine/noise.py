"""The uniform random numbers from which tokens are drawn, reproducible in any language.

Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) with
key = (seed, stream). A link that needs n uniforms at each position owns the counter plane
H = the first eight bytes of SHA-256 of its name, read little-endian. Its number j at position p
has the index i = p * n + j: it is the top 24 bits of output word i mod 4 of the block at counter
(i div 4 + 1, 0, H, 0), times 2**-24, so that it is exact in float32 and below 1. Position 0 is
the row's first new token. The draw is a link of its own, called "draw", with n = 1.
"""

from __future__ import annotations

import functools
import hashlib

import numpy as np
from numpy.typing import NDArray

from gentext.errors import UsageError

__all__ = ["DRAW", "check_seed", "counter_plane", "row_uniforms", "uniforms"]

#: The name under which the draw takes its noise.
DRAW = "draw"
SEED_LIMIT = 2**64
#: Rows from which all rows together take less time than one after the other, which costs about 15 microseconds a row.
MIN_VECTOR_ROWS = 32
#: Words that are computed together, at most: more of them do not fit into a core's cache.
MAX_VECTOR_WORDS = 2**14
#: The multipliers of Philox4x64, and what is added to the two words of its key after each of its ten rounds.
MULTIPLIERS = np.array([0xD2E7470EE14C6C93, 0xCA5A826395121157], np.uint64)[:, None, None]
KEY_STEPS = np.array([0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B], np.uint64)[:, None, None]
ROUNDS = 10
LOW_HALF, HALF_BITS = np.uint64(2**32 - 1), np.uint64(32)

Words = NDArray[np.uint64]


def check_seed(seed: int) -> int:
    """Return a seed as it is, or raise UsageError when it does not fit 64 bits."""
    if not 0 <= seed < SEED_LIMIT:
        raise UsageError(f"seed {seed}: expected a whole number from 0 to {SEED_LIMIT - 1}")
    return seed


@functools.cache
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
        counter=np.array([first_block % SEED_LIMIT, 0, counter_plane(name), 0], dtype=np.uint64),
    )
    words = np.asarray(generator.random_raw(end_index - 4 * first_block), dtype=np.uint64)[
        first_index - 4 * first_block :
    ]
    return _fractions(words).reshape(count, columns)


def row_uniforms(
    keys: Words, name: str, positions: NDArray[np.int64], count: int, columns: int = 1
) -> NDArray[np.float32]:
    """Return float32 [count, N, columns]: for each of N rows what `uniforms` returns, from its own position on.

    ``keys`` [N, 2] has the seed and the stream of each row, ``positions`` [N] its first position. What a position below
    0 has means nothing.
    """
    rows = len(keys)
    if rows * count * columns > MAX_VECTOR_WORDS and rows > MIN_VECTOR_ROWS:
        halves = slice(rows // 2), slice(rows // 2, rows)
        return np.concatenate([row_uniforms(keys[half], name, positions[half], count, columns) for half in halves], 1)
    if rows < MIN_VECTOR_ROWS:
        noise = np.zeros((count, rows, columns), np.float32)
        for row, ((seed, stream), position) in enumerate(zip(keys.tolist(), positions.tolist(), strict=True)):
            before = min(max(-position, 0), count)  # a counter below 0 would carry into its next word
            noise[before:, row] = uniforms(seed, stream, name, position + before, count - before, columns)
        return noise
    first_index = positions * columns
    first_word = first_index % 4  # within its block
    block_count = (int(first_word.max()) + count * columns + 3) // 4
    counters = (first_index // 4 + 1)[:, None] + np.arange(block_count)
    words = _philox_blocks(counters.astype(np.uint64), counter_plane(name), keys).reshape(rows, -1)
    indices = first_word[:, None] + np.arange(count * columns)
    fractions = _fractions(np.take_along_axis(words, indices, axis=1)).reshape(rows, count, columns)
    return np.ascontiguousarray(fractions.transpose(1, 0, 2))


def _fractions(words: Words) -> NDArray[np.float32]:
    """Return the top 24 bits of words as numbers in [0, 1)."""
    return (words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def _philox_blocks(counters: Words, plane: int, keys: Words) -> Words:
    """Return the blocks [N, B, 4] at the counters (c, 0, plane, 0), c of [N, B], with the key of each row [N, 2]."""
    # The words 0 and 2 of each block, and the words 1 and 3: [2, N, B].
    even = np.stack([counters, np.full_like(counters, plane)])
    odd = np.zeros_like(even)
    round_keys = keys.T[:, :, None]
    for _ in range(ROUNDS):
        high, low = _multiply(MULTIPLIERS, even)
        even, odd = high[::-1] ^ odd ^ round_keys, low[::-1]
        round_keys = round_keys + KEY_STEPS
    return np.stack([even[0], odd[0], even[1], odd[1]], axis=-1)


def _multiply(multipliers: Words, words: Words) -> tuple[Words, Words]:
    """Return the high and the low 64 bits of products, from products of halves."""
    low, high = multipliers & LOW_HALF, multipliers >> HALF_BITS
    words_low, words_high = words & LOW_HALF, words >> HALF_BITS
    middle = high * words_low + (low * words_low >> HALF_BITS)
    carry = low * words_high + (middle & LOW_HALF)
    return high * words_high + (middle >> HALF_BITS) + (carry >> HALF_BITS), multipliers * words
