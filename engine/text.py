"""Reads a corpus as ids, split into the part to learn from and the part that is held out."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gentext.config import ConfigTable
from gentext.console import Bar, progress
from gentext.describe import load_run_tokenizer
from gentext.errors import CorpusError, PrimeError, RunError, refuse_exit
from gentext.handover import check_ids, check_tokenizer
from gentext.interfaces import Ids, Tokenizer, TokenizerClass
from gentext.manager import host
from gentext.resolve import ConfiguredComponent
from gentext.run import Run
from gentext.settings import HELD_OUT_LIMIT

if TYPE_CHECKING:
    from gentext.data.stream import CorpusStream


@dataclasses.dataclass(frozen=True)
class SplitText:
    """A corpus as ids, split into the part to learn from and the part that is held out."""

    tokenizer: Tokenizer
    train: Ids
    """Mapped from a file, read-only, of the smallest unsigned type."""
    val: Ids
    """The symbols of ``held_out``."""
    counts: NDArray[np.int64]
    """How often each symbol occurs in ``train``: int64 [V]."""
    characters: int
    """Number of characters to learn from; a symbol may be several characters, or a part of one."""
    held_out: str
    """The held-out part: of its last characters, `HELD_OUT_LIMIT` at most, the first ones that are measured."""
    corpus: ConfigTable
    """The config's table ``[corpus]``."""

    def cut_held_out(self, characters: int) -> SplitText:
        """Return the text with so many characters of the held-out part, from its beginning."""
        if characters >= len(self.held_out):
            return self
        held_out = self.held_out[:characters]
        name = type(self.tokenizer).__name__
        val = check_ids(name, self.tokenizer.encode(held_out), self.tokenizer.vocab_size)
        return dataclasses.replace(self, held_out=held_out, val=val)


@dataclasses.dataclass(frozen=True)
class ResumedRun:
    """A run that is resumed."""

    run: Run
    corpus: ConfigTable
    """The table ``[corpus]`` of its config."""


def read_text(source: str, tokenizer: ConfiguredComponent, val_frac: float, resumed: ResumedRun | None) -> SplitText:
    """Read a text, and turn it into ids.

    The text is read twice, since it may be larger than memory: once for the tokenizer, once to encode it. A new run's
    tokenizer learns its symbols from the whole text; the tokenizer of a run that is resumed is loaded. Raises
    CorpusError when the text cannot be read or is too short, RunError when it is not the text of the run, PluginError
    when the tokenizer breaks its contract.
    """
    from gentext.data.stream import open_corpus

    with open_corpus(source, HELD_OUT_LIMIT) as stream, refuse_exit(f"the tokenizer {tokenizer.name!r}"):
        learned = _load_tokenizer(stream, resumed) if resumed else _build_tokenizer(stream, tokenizer)
        if not stream.sha256:  # the tokenizer did not read the text, so its hash is not known yet
            stream.read_through()
        check_tokenizer(tokenizer.name, learned)
        return _split_and_encode(stream, tokenizer.name, learned, val_frac)


def _build_tokenizer(stream: CorpusStream, tokenizer: ConfiguredComponent) -> Tokenizer:
    cls: TokenizerClass = tokenizer.target
    return cls.build(stream, tokenizer.options)


def _load_tokenizer(stream: CorpusStream, resumed: ResumedRun) -> Tokenizer:
    """Read the text to its end, and return the run's tokenizer when it is the run's text."""
    run, corpus = resumed.run, resumed.corpus
    try:
        stream.read_through()
    except CorpusError as error:
        raise CorpusError(f"{error} If it moved, say where it is: gen train TEXT --resume --run {run.path}") from None
    if stream.sha256 != corpus.get("sha256"):
        raise RunError(
            f"{run.path} was trained on another text: {corpus.get('name')!r} with sha256 "
            f"{str(corpus.get('sha256'))[:12]}..., this is {stream.name!r} with {stream.sha256[:12]}...; "
            f"give it the same text, or start a new run"
        )
    return load_run_tokenizer(run)


def _split_and_encode(stream: CorpusStream, name: str, tokenizer: Tokenizer, val_frac: float) -> SplitText:
    """Cut a text that was read to its end into the parts to learn and to hold out, and turn both into ids.

    ``name`` is that of the tokenizer.
    """
    from gentext.data.encoded import EncodingKey, encode_cached

    if tokenizer.vocab_size < 2:
        raise CorpusError(f"{stream.name}: the text has one symbol only; there is nothing to learn")
    # Characters to learn from, and the character at which the measured end of the text begins.
    train_end = int(stream.characters * (1 - val_frac))
    val_begin = max(train_end, stream.characters - HELD_OUT_LIMIT)
    held_out = stream.tail[len(stream.tail) - (stream.characters - val_begin) :]
    pieces = _EncodedPieces(stream, name, tokenizer, train_end)
    val = pieces.encode(held_out, val_begin)
    # Everything that the ids depend on: the key of the cache.
    distribution = str(host().registry.find("tokenizer", name).distribution)
    key_parts = [stream.sha256, train_end, name, distribution, tokenizer.state()]
    first_ids = pieces.encode(stream.first_piece[:train_end], 0)
    train = encode_cached(EncodingKey(key_parts, tokenizer.vocab_size, first_ids), pieces)
    if len(train.ids) < 2 or len(val) < 2:
        raise CorpusError(
            f"{stream.name}: {stream.characters} characters are too few to learn from and to hold out "
            f"{val_frac:.0%}; use a longer text"
        )
    return SplitText(tokenizer, train.ids, val, train.counts, train_end, held_out, _corpus_table(stream))


class _EncodedPieces:
    """The ids of a text's first ``end`` characters, piece by piece, read anew for each iteration."""

    def __init__(self, stream: CorpusStream, name: str, tokenizer: Tokenizer, end: int) -> None:
        self._stream, self._tokenizer_name, self._tokenizer, self._end = stream, name, tokenizer, end

    def __iter__(self) -> Iterator[Ids]:
        with progress(f"encoding {self._stream.name}", self._end, "characters") as bar:
            yield from self._encode_pieces(bar)

    def _encode_pieces(self, bar: Bar) -> Iterator[Ids]:
        begin = 0
        pieces = iter(self._stream)
        for piece in pieces:  # to the end, where the stream raises an error if the text has changed
            if begin < self._end:
                try:
                    yield self.encode(piece[: self._end - begin], begin)
                except CorpusError:
                    # Read to the end: if the text has changed, that is the better error.
                    collections.deque(pieces, maxlen=0)
                    raise
            begin += len(piece)
            bar.advance(len(piece))

    def encode(self, text: str, begin: int) -> Ids:
        """Return the ids of a piece that begins at character ``begin`` of the text.

        Raises CorpusError for a character without a symbol, PluginError for ids that are none.
        """
        tokenizer = self._tokenizer
        try:
            ids = tokenizer.encode(text)
        except PrimeError as error:
            position = next(iter(tokenizer.unknown_at(text)), None)
            if position is None:
                raise
            raise CorpusError(
                f"{self._stream.name}: {text[position]!r} at character {begin + position} is not among the "
                f"{tokenizer.vocab_size} symbols; leave such characters out of the text"
            ) from error
        return check_ids(self._tokenizer_name, ids, tokenizer.vocab_size)


def unigram_loss(counts: NDArray[np.int64], ids: Ids) -> float:
    """Return the loss on ids, in nats a symbol, of a model that knows only how often each symbol was counted.

    Each is counted once more than it occurs, so that one that never occurs has a probability too.
    """
    losses = math.log(counts.sum() + len(counts)) - np.log(counts + 1)
    return float(losses[ids].mean())


def _corpus_table(stream: CorpusStream) -> ConfigTable:
    return {
        "name": stream.name,
        "origin": stream.origin,
        "sha256": stream.sha256,
        "characters": stream.characters,
    }


def corpus_fingerprint(source: str) -> str:
    """Return the sha256 of a text, as a run's config holds it; raises CorpusError as reading it does."""
    from gentext.data.stream import open_corpus

    with open_corpus(source, tail_length=1) as stream:
        stream.read_through()
        return stream.sha256
