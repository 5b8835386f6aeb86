"""The noise behind every draw: a Philox written from the paper must give the same bits."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st

from gentext.errors import UsageError
from gentext.manager import host
from gentext.noise import DRAW, check_seed, counter_plane, row_uniforms, uniforms
from gentext.sampling.chain import DEFAULT_CHAIN, Chain, Link, build_chain
from gentext.strategy import Strategy

SEED_LIMIT = 2**64
WORDS = st.integers(0, SEED_LIMIT - 1)
NAMES = st.sampled_from([DRAW, "top_k", "a plugin's"])


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64-10 as "Parallel random numbers: as easy as 1, 2, 3" defines it, in plain integers."""
    a, b, c, d = counter
    k, m = key
    for _ in range(10):
        high_a, low_a = divmod(0xD2E7470EE14C6C93 * a, SEED_LIMIT)
        high_c, low_c = divmod(0xCA5A826395121157 * c, SEED_LIMIT)
        a, b, c, d = high_c ^ b ^ k, low_c, high_a ^ d ^ m, low_a
        k, m = (k + 0x9E3779B97F4A7C15) % SEED_LIMIT, (m + 0xBB67AE8584CAA73B) % SEED_LIMIT
    return [a, b, c, d]


def by_the_book(seed: int, stream: int, name: str, position: int, column: int, columns: int) -> float:
    """One number, as the docstring of gentext.noise tells another language to make it."""
    words = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    index = position * columns + column
    word = philox([index // 4 + 1, 0, words, 0], [seed, stream])[index % 4]
    return (word >> 40) * 2.0**-24


@examples(60)
@given(WORDS, WORDS, NAMES, st.integers(0, 10**9), st.integers(1, 7), st.integers(1, 5))
def test_agrees_with_the_paper_to_the_bit(
    seed: int, stream: int, name: str, position: int, count: int, columns: int
) -> None:
    numbers = uniforms(seed, stream, name, position, count, columns)
    expected = [
        [by_the_book(seed, stream, name, position + row, column, columns) for column in range(columns)]
        for row in range(count)
    ]
    assert numbers.dtype == np.float32
    assert numbers.tolist() == expected


@examples(60)
@given(WORDS, st.integers(0, 1000), st.integers(1, 5), st.lists(st.integers(0, 9), min_size=1, max_size=8))
def test_any_split_gives_the_whole(seed: int, position: int, columns: int, parts: list[int]) -> None:
    ends = [position + sum(parts[:n]) for n in range(len(parts))]
    pieces = [uniforms(seed, 0, DRAW, start, count, columns) for start, count in zip(ends, parts, strict=True)]
    assert np.array_equal(np.concatenate(pieces), uniforms(seed, 0, DRAW, position, sum(parts), columns))


@examples(60)
@given(st.data(), NAMES, st.sampled_from([1, 31, 32, 70]), st.integers(0, 9), st.integers(1, 5))
def test_all_rows_at_once_have_the_noise_of_each(
    data: st.DataObject, name: str, rows: int, count: int, columns: int
) -> None:
    keys = data.draw(st.lists(st.tuples(WORDS, WORDS), min_size=rows, max_size=rows))
    positions = data.draw(st.lists(st.integers(0, 10**9), min_size=rows, max_size=rows))
    noise = row_uniforms(np.array(keys, np.uint64), name, np.array(positions, np.int64), count, columns)
    assert (noise.shape, noise.dtype) == ((count, rows, columns), np.float32)
    for row, ((seed, stream), position) in enumerate(zip(keys, positions, strict=True)):
        assert np.array_equal(noise[:, row], uniforms(seed, stream, name, position, count, columns))


def test_numbers_are_below_one_and_exact() -> None:
    u = uniforms(1, 2, DRAW, 0, 100_000)
    integers = u.astype(np.float64) * 2.0**24
    assert (integers == np.floor(integers)).all()
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 0.005  # five standard errors
    assert len(np.unique(u)) > 99_000


def test_seeds_streams_and_names_have_noise_of_their_own() -> None:
    blocks = [uniforms(seed, stream, name, 0, 50) for seed in (0, 1) for stream in (0, 1) for name in (DRAW, "x")]
    assert len({block.tobytes() for block in blocks}) == len(blocks)
    assert counter_plane(DRAW) != counter_plane("x")


def test_adding_a_link_moves_no_other_noise() -> None:
    class Asks(Strategy):
        uniforms = 2

    links = [Link(name, Asks(None, 5), {}) for name in ("first", "second")]
    chain = build_chain(host().registry, DEFAULT_CHAIN, 5)
    before = chain.noise(7, 3, 100, 20)
    after = Chain([*chain.links[:1], links[0], *chain.links[1:], links[1]]).noise(7, 3, 100, 20)
    assert sorted(before) == [DRAW]
    assert sorted(after) == [DRAW, "first", "second"]
    assert np.array_equal(after[DRAW], before[DRAW])
    assert after["first"].shape == (20, 2)
    assert not np.array_equal(after["first"], after["second"])


@pytest.mark.parametrize("seed", [-1, SEED_LIMIT])
def test_seeds_outside_64_bits_are_refused(seed: int) -> None:
    with pytest.raises(UsageError, match=rf"seed {seed}: expected a whole number from 0 to {SEED_LIMIT - 1}"):
        check_seed(seed)
    assert check_seed(SEED_LIMIT - 1) == SEED_LIMIT - 1
