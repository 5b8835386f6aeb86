"""A text is cut into pieces by itself alone, however it was read."""

from __future__ import annotations

import itertools

from helpers import examples
from hypothesis import given
from hypothesis import strategies as st

from gentext.data import stream

ALPHABET = st.text("ab \n\u00e9\U0001f642", min_size=1, max_size=300)


@examples()
@given(ALPHABET, st.integers(1, 50), st.lists(st.integers(0, 300)))
def test_pieces_depend_on_the_text_alone(text: str, size: int, cuts: list[int]) -> None:
    pieces = list(stream.cut_pieces([text], size))
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= size for piece in pieces)
    for piece, after in itertools.pairwise(pieces):
        window = (piece + after)[:size]
        assert piece.endswith("\n") or "\n" not in window
        assert piece.endswith(("\n", " ")) or (len(piece) == size and " " not in piece)
    ends = [0, *sorted(cuts), len(text)]
    blocks = [text[begin:end] for begin, end in itertools.pairwise(ends)]
    assert list(stream.cut_pieces(blocks, size)) == pieces
