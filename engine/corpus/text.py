"""Reads one text as tokens, split into the part to learn from and the end that is held out."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from gentext.components.tokenizers import check_tokenizer
from gentext.console import Bar, progress
from gentext.corpus.split_corpus import ResumedRun, SplitCorpus, build_tokenizer, describe_text, encode_piece
from gentext.describe import load_run_tokenizer
from gentext.errors import CorpusError, refuse_exit
from gentext.interfaces import Ids, Tokenizer
from gentext.manager import host
from gentext.runs.resolve import ConfiguredComponent
from gentext.settings import HELD_OUT_LIMIT
from gentext.token_corpus import TokenCorpus

if TYPE_CHECKING:
    from gentext.data.in_memory import InMemoryCorpus
    from gentext.data.stream import CorpusStream


def read_text(
    source: str | InMemoryCorpus,
    tokenizer: ConfiguredComponent,
    val_frac: float,
    val: str | None,
    resumed: ResumedRun | None,
) -> SplitCorpus:
    """Read a text, and turn it into tokens.

    The text is read twice, since it may be larger than memory: once for the tokenizer, once to encode it. A new run's
    tokenizer learns its symbols from the whole text; the tokenizer of a run that is resumed is loaded. Raises
    CorpusError when the text cannot be read or is too short, RunError when it is not the text of the run, PluginError
    when the tokenizer breaks its contract.

    :param val: the text to hold out; None: the last ``val_frac`` of the text.
    """
    from gentext.data.corpus import read_corpus
    from gentext.data.stream import open_corpus

    held_out = None if val is None else read_corpus(val).text[:HELD_OUT_LIMIT]
    with open_corpus(source, HELD_OUT_LIMIT) as stream, refuse_exit(f"the tokenizer {tokenizer.name!r}"):
        if resumed:
            read_resumed(stream, resumed)
            learned = load_run_tokenizer(resumed.run)
        else:
            learned = build_tokenizer(tokenizer, _Chunks(stream, held_out))
        if not stream.sha256:  # the tokenizer did not read the text, so its hash is not known yet
            stream.read_through()
        check_tokenizer(tokenizer.name, learned)
        return _split_and_encode(stream, tokenizer.name, learned, val_frac, held_out)


def read_resumed(stream: CorpusStream, resumed: ResumedRun) -> None:
    """Read the text of a run that is resumed to its end. Raises RunError where it is another text."""
    try:
        stream.read_through()
    except CorpusError as error:
        raise CorpusError(
            f"{error} If it moved, say where it is: gen train TEXT --resume --run {resumed.run.path}"
        ) from None
    resumed.check_text(stream.name, stream.sha256)


class _Chunks:
    """The pieces of a text, and a text to hold out, for a tokenizer that learns their symbols."""

    def __init__(self, stream: CorpusStream, held_out: str | None) -> None:
        self._stream, self._held_out = stream, held_out

    def __iter__(self) -> Iterator[str]:
        yield from self._stream
        if self._held_out:
            yield self._held_out


def _split_and_encode(
    stream: CorpusStream, name: str, tokenizer: Tokenizer, val_frac: float, held_out: str | None
) -> SplitCorpus:
    """Cut a text that was read to its end into the parts to learn and to hold out, and turn both into tokens.

    ``name`` is that of the tokenizer; ``held_out`` is the text to hold out, None for the end of the text.
    """
    from gentext.data.encoded import EncodingKey, encode_cached

    if tokenizer.vocab_size < 2:
        raise CorpusError(f"{stream.name}: the text has one symbol only; there is nothing to learn")
    if held_out is None:
        # Characters to learn from, and the character at which the measured end of the text begins.
        train_end = int(stream.characters * (1 - val_frac))
        val_begin = max(train_end, stream.characters - HELD_OUT_LIMIT)
        held_out = stream.tail[len(stream.tail) - (stream.characters - val_begin) :]
    else:
        train_end, val_begin = stream.characters, 0
    pieces = _EncodedPieces(stream, name, tokenizer, train_end)
    val = pieces.encode(held_out, val_begin)
    # Everything that the tokens depend on: the key of the cache.
    distribution = str(host().registry.find("tokenizer", name).distribution)
    key_parts = [stream.sha256, train_end, name, distribution, tokenizer.state()]
    first_ids = pieces.encode(stream.first_piece[:train_end], 0)
    train = encode_cached(EncodingKey(key_parts, tokenizer.vocab_size, first_ids), pieces)
    if len(train.ids) < 2 or (val_frac and len(val) < 2):
        raise CorpusError(
            f"{stream.name}: {stream.characters} characters are too few to learn from and to hold out "
            f"{val_frac:.0%}; use a longer text, or hold nothing out with val_frac = 0"
        )
    return SplitCorpus(
        tokenizer,
        TokenCorpus(train.ids),
        TokenCorpus(val),
        train.counts,
        train_end,
        [held_out],
        describe_text(stream),
    )


class _EncodedPieces:
    """The tokens of a text's first ``end`` characters, piece by piece, read anew for each iteration."""

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
        """Return the tokens of a piece that begins at character ``begin`` of the text; see `encode_piece`."""
        if not text:
            return np.empty(0, np.uint8)
        return encode_piece(self._tokenizer, self._tokenizer_name, text, self._stream.name, begin)


def corpus_fingerprint(source: str, *, of_records: bool = False) -> str:
    """Return the sha256 of a text, or of records, as a run's config holds it; raises CorpusError as reading it does."""
    from gentext.data.stream import open_corpus

    with open_corpus(source, tail_length=1, escape_errors=of_records) as stream:
        stream.read_through()
        return stream.sha256
