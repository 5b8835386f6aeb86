"""A corpus as symbols: the part that is learned from, and the part that is held out."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gentext.config import ConfigTable
from gentext.describe import load_tokenizer
from gentext.errors import CorpusError, PluginError, PrimeError, RunError
from gentext.interfaces import Ids, Tokenizer
from gentext.manager import host
from gentext.run import Run

if TYPE_CHECKING:
    from gentext.data.stream import CorpusStream

#: Characters at the end of the held-out text on which the loss is measured, and which the run keeps.
HELD_OUT_LIMIT = 1_000_000


@dataclasses.dataclass(frozen=True)
class SplitText:
    """A corpus as symbols, cut into the part that is learned and the part that is held out."""

    tokenizer: Tokenizer
    train: Ids
    """Mapped from a file, read-only, of the smallest unsigned type."""
    val: Ids
    """The symbols of ``held_out``."""
    counts: NDArray[np.int64]
    """How often each symbol stands in ``train``: int64 [V]."""
    characters: int
    """How many are learned from; a symbol may be several of them, or a part of one."""
    held_out: str
    """The end of what is held out, `HELD_OUT_LIMIT` characters at most."""
    corpus: ConfigTable
    """The config's table ``[corpus]``."""


def read_text(
    source: str, name: str, tokenizer: tuple[Any, Any], val_frac: float, resume: tuple[Run, ConfigTable] | None
) -> SplitText:
    """Read a text, twice, and turn it into ids; ``name`` is that of the tokenizer.

    A new run's tokenizer learns its symbols from the whole text; that of a run which is resumed is
    loaded. Raises CorpusError when the text cannot be read or is too short, RunError when it is
    not the run's.
    """
    from gentext.data.stream import open_corpus

    cls, options = tokenizer
    with open_corpus(source, HELD_OUT_LIMIT) as stream:
        learned: Tokenizer = _load(stream, *resume) if resume else cls.build(stream, options)
        if not stream.sha256:  # a tokenizer need not look at the text
            stream.read_through()
        return _encoded(stream, name, learned, val_frac)


def _load(stream: CorpusStream, run: Run, stored: ConfigTable) -> Tokenizer:
    """Read the text to its end, and return the run's tokenizer when it is the run's text."""
    try:
        stream.read_through()
    except CorpusError as error:
        raise CorpusError(f"{error} If it moved, say where it is: gen train TEXT --resume --run {run.path}") from None
    if stream.sha256 != stored.get("sha256"):
        raise RunError(
            f"{run.path} was trained on another text: {stored.get('name')!r} with sha256 "
            f"{str(stored.get('sha256'))[:12]}..., this is {stream.name!r} with {stream.sha256[:12]}...; "
            f"give it the same text, or start a new run"
        )
    return load_tokenizer(*run.read_tokenizer())


def _encoded(stream: CorpusStream, name: str, tokenizer: Tokenizer, val_frac: float) -> SplitText:
    """Turn a text that was read to its end into ids, and cut off the held-out tail."""
    from gentext.data.encoded import Recipe, encoded

    if tokenizer.vocab_size < 2:
        raise CorpusError(f"{stream.name}: the text has one symbol only; there is nothing to learn")
    cut = int(stream.characters * (1 - val_frac))
    at = max(cut, stream.characters - HELD_OUT_LIMIT)
    held_out = stream.last[len(stream.last) - (stream.characters - at) :]
    pieces = _Pieces(stream, name, tokenizer, cut)
    val = pieces.encode(held_out, at)
    facts = [stream.sha256, cut, name, str(host().registry.find("tokenizer", name).provider), tokenizer.state()]
    train = encoded(Recipe(facts, tokenizer.vocab_size, pieces.encode(stream.first[:cut], 0)), pieces)
    if len(train.ids) < 2 or len(val) < 2:
        raise CorpusError(
            f"{stream.name}: {stream.characters} characters are too few to learn from and to hold out "
            f"{val_frac:.0%}; use a longer text"
        )
    return SplitText(tokenizer, train.ids, val, train.counts, cut, held_out, _corpus_table(stream))


class _Pieces:
    """The ids of a text's first ``cut`` characters, piece by piece, as often as they are asked for."""

    def __init__(self, stream: CorpusStream, name: str, tokenizer: Tokenizer, cut: int) -> None:
        self._stream, self._name, self._tokenizer, self._cut = stream, name, tokenizer, cut

    def __iter__(self) -> Iterator[Ids]:
        begin = 0
        pieces = iter(self._stream)
        for piece in pieces:  # to the end: only there the stream can tell whether the text has changed
            if begin < self._cut:
                try:
                    yield self.encode(piece[: self._cut - begin], begin)
                except CorpusError:
                    collections.deque(pieces, maxlen=0)
                    raise
            begin += len(piece)

    def encode(self, text: str, begin: int) -> Ids:
        """Return the ids of a piece that begins at a character of the text."""
        tokenizer = self._tokenizer
        try:
            ids = np.asarray(tokenizer.encode(text))
        except PrimeError as error:
            at = next(iter(tokenizer.unknown_at(text)), None)
            if at is None:
                raise
            raise CorpusError(
                f"{self._stream.name}: {text[at]!r} at character {begin + at} is not among the "
                f"{tokenizer.vocab_size} symbols; leave such characters out of the text"
            ) from error
        whole = ids.ndim == 1 and (ids.dtype.kind in "iu" or not ids.size)
        if not whole or (ids.size and not 0 <= ids.min() <= ids.max() < tokenizer.vocab_size):
            raise PluginError(
                f"the tokenizer {self._name!r} must encode a text as whole numbers from 0 to "
                f"{tokenizer.vocab_size - 1} in one row, and does not"
            )
        return ids


def _corpus_table(stream: CorpusStream) -> ConfigTable:
    return {
        "name": stream.name,
        "origin": stream.origin,
        "sha256": stream.sha256,
        "characters": stream.characters,
    }


def fingerprint(source: str) -> str:
    """Return the sha256 of a text, as a run's config holds it; raises CorpusError as reading it does."""
    from gentext.data.stream import open_corpus

    with open_corpus(source, keep=1) as stream:
        stream.read_through()
        return stream.sha256
