"""A corpus as tokens, split into the part to learn from and the part that is held out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gentext.components.creation import create_component
from gentext.components.tokenizers import check_ids
from gentext.config import ConfigTable
from gentext.errors import CorpusError, PrimeError, RunError
from gentext.exported.boundary import RecordsMeta
from gentext.interfaces import Ids, Tokenizer, TokenizerClass
from gentext.run import Run
from gentext.runs.resolve import ConfiguredComponent
from gentext.token_corpus import TokenCorpus


@dataclasses.dataclass(frozen=True)
class SplitCorpus:
    """A corpus as tokens, split into the part to learn from and the part that is held out."""

    tokenizer: Tokenizer
    """Of records, with the boundary as its last symbol."""
    train: TokenCorpus
    val: TokenCorpus
    """The tokens of ``held_out``."""
    counts: NDArray[np.int64]
    """How often each symbol is to be predicted in one pass over ``train``: int64 [V]."""
    characters: int
    """Number of characters to learn from; a symbol may be several characters, or a part of one."""
    held_out: Sequence[str]
    """What is held out, as far as it is measured: the end of a text, or records; empty for nothing."""
    table: ConfigTable
    """The config's table ``[corpus]``."""
    records: RecordsMeta | None = None
    """What exported files say of the records; None for one text."""
    hashes: NDArray[np.uint64] | None = None
    """The hashes of the records to learn from, sorted and each once; None for one text."""

    @property
    def held_out_characters(self) -> int:
        """How many characters are measured."""
        return sum(map(len, self.held_out))

    def cut_held_out(self, characters: int) -> SplitCorpus:
        """Return the corpus with so many characters held out: of a text its beginning, else whole records."""
        if characters >= self.held_out_characters:
            return self
        if self.val.is_records:
            ends = np.cumsum([len(text) for text in self.held_out])
            count = max(1, int(np.searchsorted(ends, characters, "right")))
            assert self.val.offsets is not None
            val = self.val.beginning(int(self.val.offsets[count]))
            return dataclasses.replace(self, held_out=self.held_out[:count], val=val)
        [text] = self.held_out
        name, held_out = type(self.tokenizer).__name__, text[:characters]
        val_tokens = check_ids(name, self.tokenizer.encode(held_out), self.tokenizer.vocab_size)
        return dataclasses.replace(self, held_out=[held_out], val=TokenCorpus(val_tokens))

    def unigram_loss(self) -> float:
        """Return the held-out loss, in nats a symbol, of a model that knows only how often each symbol was counted.

        Each is counted once more than it occurs, so that one that never occurs has a probability too. NaN where
        nothing is held out.
        """
        if not self.val.symbols:
            return math.nan
        losses = math.log(self.counts.sum() + len(self.counts)) - np.log(self.counts + 1)
        return float(losses[self.val.tokens].mean())


@dataclasses.dataclass(frozen=True)
class ResumedRun:
    """A run that is resumed."""

    run: Run
    corpus: ConfigTable
    """The table ``[corpus]`` of its config."""

    def check_text(self, name: str, sha256: str) -> None:
        """Raise RunError for another text than the run's."""
        if sha256 != self.corpus.get("sha256"):
            raise RunError(
                f"{self.run.path} was trained on another text: {self.corpus.get('name')!r} with sha256 "
                f"{str(self.corpus.get('sha256'))[:12]}..., this is {name!r} with {sha256[:12]}...; "
                f"give it the same text, or start a new run"
            )


def corpus_source(run: Run, table: Mapping[str, Any]) -> Any:
    """Return where the text of a run is: a file in its folder, which may have moved, or what the user has named.

    ``table`` is the table ``[corpus]`` of its config.
    """
    return str(run.path / str(table["file"])) if "file" in table else table.get("origin")


class ReadText(Protocol):
    """A text that was read to its end."""

    origin: str
    name: str
    characters: int
    sha256: str


def describe_text(text: ReadText) -> ConfigTable:
    """Return the table ``[corpus]`` of a text."""
    return {"name": text.name, "origin": text.origin, "sha256": text.sha256, "characters": text.characters}


def build_tokenizer(component: ConfiguredComponent, chunks: Iterable[str]) -> Tokenizer:
    """Return a new tokenizer that has learned the symbols of a text, which may be iterated over more than once."""
    cls: TokenizerClass = component.target
    tokenizer: Tokenizer = create_component(component.registered, lambda: cls.build(chunks, component.options))
    return tokenizer


def encode_piece(tokenizer: Tokenizer, tokenizer_name: str, text: str, corpus_name: str, begin: int) -> Ids:
    """Return the tokens of a piece that begins at character ``begin`` of a corpus.

    Raises CorpusError for a character without a symbol, PluginError for tokens that are none.
    """
    try:
        ids = tokenizer.encode(text)
    except PrimeError as error:
        position = next(iter(tokenizer.unknown_at(text)), None)
        if position is None:
            raise
        raise CorpusError(
            f"{corpus_name}: {text[position]!r} at character {begin + position} is not among the "
            f"{tokenizer.vocab_size} symbols; leave such characters out of the text"
        ) from error
    return check_ids(tokenizer_name, ids, tokenizer.vocab_size)
