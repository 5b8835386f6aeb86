"""The pieces of a text that a user and a model write in turns: see `gentext.sessions.text_tree`."""

from __future__ import annotations

import codecs
import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gentext.exported.metadata import Bundle
from gentext.generation.rows import RowState
from gentext.requests.declaration import WritingOptions


class Content(NamedTuple):
    """The text of a piece, and the symbols that it consists of."""

    text: str
    tokens: NDArray[np.int64]
    ends: NDArray[np.int64]
    """For each token the number of characters up to its end; -1 where it ends within a character."""
    logprobs: NDArray[np.float32]
    """The log-probability of each token."""

    def join(self, other: Content) -> Content:
        """Return this content and then the other one."""
        ends = np.where(other.ends < 0, -1, other.ends + len(self.text))
        return Content(
            self.text + other.text,
            np.append(self.tokens, other.tokens),
            np.append(self.ends, ends),
            np.append(self.logprobs, other.logprobs),
        )

    def cut(self, limit: int) -> tuple[Content, Content]:
        """Cut between two symbols, at most ``limit`` characters from the beginning."""
        [cuts] = np.nonzero((self.ends >= 0) & (self.ends <= limit))
        count = int(cuts[-1]) + 1 if len(cuts) else 0
        length = int(self.ends[count - 1]) if count else 0
        tail_ends = self.ends[count:]
        return (
            Content(self.text[:length], self.tokens[:count], self.ends[:count], self.logprobs[:count]),
            Content(
                self.text[length:],
                self.tokens[count:],
                np.where(tail_ends < 0, -1, tail_ends - length),
                self.logprobs[count:],
            ),
        )

    def character_logprobs(self) -> NDArray[np.float32]:
        """Return the log-probability of the symbol that each character ends, NaN where its symbols are not known."""
        logprobs = np.full(len(self.text), np.nan, np.float32)
        if len(self.ends) and self.ends[-1] == len(self.text):
            is_complete = self.ends >= 0
            sums = np.diff(
                np.cumsum(self.logprobs)[is_complete], prepend=0
            )  # a character of several symbols has their sum
            lengths = np.diff(self.ends[is_complete], prepend=0)
            logprobs[:] = np.repeat(sums, lengths)
        return logprobs


NO_CONTENT = Content("", np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


class ContentDecoder:
    """Turns tokens into content, a few at a time. Bytes that are no UTF-8 become the replacement character."""

    def __init__(self, bundle: Bundle) -> None:
        self._symbols = bundle.token_bytes
        self._unfinished = NO_CONTENT
        """The last tokens, behind none of which a character ends."""

    def decode(self, tokens: Sequence[int], logprobs: Sequence[float]) -> Content:
        """Take tokens, and return the content up to the last one that ends with a character."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        text, ends = "", []
        all_tokens = np.append(self._unfinished.tokens, np.array(tokens, np.int64))
        for token in all_tokens.tolist():
            text += decoder.decode(self._symbols[token])
            ends.append(-1 if decoder.getstate()[0] else len(text))
        all_logprobs = np.append(self._unfinished.logprobs, np.array(logprobs, np.float32))
        content, self._unfinished = Content(text, all_tokens, np.array(ends, np.int64), all_logprobs).cut(len(text))
        return content

    @property
    def is_unfinished(self) -> bool:
        """Whether the last token ends within a character."""
        return bool(len(self._unfinished.tokens))


@dataclasses.dataclass(eq=False)
class Piece:
    """A stretch of text behind another one, typed by the user or written by the model."""

    parent: Piece | None
    """None for the root, which has no text."""
    options: WritingOptions
    seed: int | None = None
    """The seed that it was written with; None: it was typed."""
    call: int = 0
    """The number of the `TextTree.write` that has made it."""
    content: Content = NO_CONTENT
    """Replaced as a whole where the piece grows, so that other threads may read it."""
    state: RowState | None = None
    """The model's state behind it; None where it has to be computed again, and for the root."""
    children: list[Piece] = dataclasses.field(default_factory=list)
    """The pieces that were put behind it, the last one that was used at the end."""

    @property
    def text(self) -> str:
        return self.content.text

    def use(self) -> None:
        """Be the last one that was used, of all pieces behind its parent."""
        if self.parent is not None and self in self.parent.children:
            self.parent.children.remove(self)
            self.parent.children.append(self)


class PlacedPiece(NamedTuple):
    """A piece, and the number of characters before it."""

    piece: Piece
    begin: int

    @property
    def parent(self) -> Piece:
        """The piece before it, which all but the root have."""
        assert self.piece.parent is not None
        return self.piece.parent


def find_pieces(root: Piece, text: str) -> tuple[list[PlacedPiece], int]:
    """Return the pieces that have the longest common beginning with a text, and how long that is.

    The last one may agree in its beginning only. The root is always the first.
    """
    best_end, best_is_whole = 0, True
    best = PlacedPiece(root, 0)
    stack = [best]
    while stack:
        piece, begin = stack.pop()
        begin += len(piece.text)
        for child in piece.children:
            common = _common_length(child.text, text, begin)
            is_whole = common == len(child.text)
            # Of equal ones the last that was used, but rather a whole piece than the beginning of one.
            if common and (begin + common, is_whole) >= (best_end, best_is_whole):
                best, best_end, best_is_whole = PlacedPiece(child, begin), begin + common, is_whole
            if is_whole:
                stack.append(PlacedPiece(child, begin))
    path = [best]
    while (parent := path[-1].piece.parent) is not None:
        path.append(PlacedPiece(parent, path[-1].begin - len(parent.text)))
    return path[::-1], best_end


def divide_piece(piece: Piece, limit: int) -> Piece:
    """Divide a piece that has a parent, at most ``limit`` characters from its beginning; return the first part.

    Where no symbol ends there, that is the parent.
    """
    parent = piece.parent
    assert parent is not None
    head, tail = piece.content.cut(limit)
    if not len(head.tokens):
        return parent
    first = dataclasses.replace(piece, content=head, state=None, children=[piece])
    parent.children[parent.children.index(piece)] = first
    piece.parent, piece.content = first, tail
    return first


def sort_branches(place: Piece) -> list[Piece]:
    """Return the pieces that were put behind a piece, in the order in which they began."""
    return sorted(place.children, key=lambda piece: piece.call)


def newest_text(piece: Piece) -> str:
    """Return what stands behind a piece, by the branches that were used last."""
    texts = []
    while piece.children:
        piece = piece.children[-1]
        texts.append(piece.text)
    return "".join(texts)


def _common_length(beginning: str, text: str, begin: int) -> int:
    """Return how many characters a text has, from a position on, in common with another one."""
    if text.startswith(beginning, begin):
        return len(beginning)
    pairs = zip(beginning, text[begin : begin + len(beginning)], strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
