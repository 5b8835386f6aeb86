"""A corpus as symbols: the part that is learned from, and the part that is held out."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from gentext.config import Table
from gentext.describe import load_tokenizer
from gentext.errors import CorpusError
from gentext.interfaces import Ids, Tokenizer
from gentext.run import Run
from gentext.settings import Settings

if TYPE_CHECKING:
    from gentext.data.corpus import Corpus


@dataclasses.dataclass(frozen=True)
class Text:
    """A corpus as symbols, cut into the part that is learned and the part that is held out."""

    tokenizer: Tokenizer
    train: Ids
    val: Ids
    characters: int
    """How many are learned from; a symbol may be several of them, or a part of one."""
    held_out: str


def prepare(tokenizer: tuple[Any, Any], corpus: Corpus, settings: Settings, run: Run | None) -> Text:
    """Learn the symbols of the whole text (or load a run's) and cut off the held-out tail."""
    cls, options = tokenizer
    learned: Tokenizer = load_tokenizer(*run.read_tokenizer()) if run else cls.build([corpus.text], options)
    if learned.vocab_size < 2:
        raise CorpusError(f"{corpus.name}: the text has one symbol only; there is nothing to learn")
    cut = int(len(corpus.text) * (1 - settings.val_frac))
    held_out = corpus.text[cut:]
    train, val = learned.encode(corpus.text[:cut]), learned.encode(held_out)
    if len(train) < 2 or len(val) < 2:
        raise CorpusError(
            f"{corpus.name}: {len(corpus.text)} characters are too few to learn from and to hold out "
            f"{settings.val_frac:.0%}; use a longer text"
        )
    return Text(learned, train, val, cut, held_out)


def corpus_table(corpus: Corpus) -> Table:
    """Return the config's table ``[corpus]``."""
    return {
        "name": corpus.name,
        "origin": corpus.origin,
        "sha256": corpus.sha256,
        "characters": len(corpus.text),
    }


def fingerprint(source: str) -> str:
    """Return the sha256 of a text, as a run's config holds it; raises CorpusError as reading it does."""
    from gentext.data.corpus import read_corpus

    return read_corpus(source).sha256
