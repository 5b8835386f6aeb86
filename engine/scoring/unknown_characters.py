"""The characters of a text that a model does not know, where the text is measured."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from gentext.console import say
from gentext.describe import tokenizer_of
from gentext.errors import CorpusError, UsageError, refuse_exit
from gentext.exported.metadata import Bundle
from gentext.interfaces import Tokenizer
from gentext.requests.primes import leave_out
from gentext.requests.spelling import KEYWORD_SPELLING, Spelling


class UnknownCharacters:
    """What becomes of the characters of texts that a model does not know, and how many there were.

    By the policy ``skip`` they are left out: the model reads what is left, and all figures are those of what is left.
    By the policy ``error`` the model's unknown symbol stands for them; a model without one cannot read the text.
    """

    def __init__(self, bundles: Sequence[Bundle], policy: str = "error", spelling: Spelling = KEYWORD_SPELLING) -> None:
        """``bundles``: of several models, which all read what each of them knows.

        Raises UsageError for another policy.
        """
        if policy not in ("error", "skip"):
            raise UsageError(f"{spelling.assignment('unknown', policy)}: expected error or skip")
        self.count = 0
        """How many characters were left out, or read as the unknown symbol, since the last report."""
        self._bundles = bundles
        self._skip_option = spelling.assignment("unknown", "skip")
        self._skips = policy == "skip"

    @functools.cached_property
    def _tokenizers(self) -> list[Tokenizer]:
        return [tokenizer_of(bundle) for bundle in self._bundles]

    def leave_out(self, text: str) -> str:
        """Return a text without its unknown characters, and count these; the text as it is by the policy ``error``."""
        if not self._skips:
            return text
        for bundle, tokenizer in zip(self._bundles, self._tokenizers, strict=True):
            with refuse_exit(f"the tokenizer {bundle.tokenizer.name!r}"):
                positions = tokenizer.unknown_at(text)
            self.count += len(positions)
            text = leave_out(text, positions)
        return text

    def count_replaced(self, text: str, tokenizer: Tokenizer, place: str = "", position: int = 0) -> None:
        """Count the characters of a text for which the unknown symbol stands.

        Raises CorpusError where the tokenizer has no such symbol. Its message begins with ``place``; ``position`` is
        where the text begins in what the user gave.
        """
        positions = tokenizer.unknown_at(text)
        if positions and tokenizer.unknown is None:
            raise CorpusError(
                f"{place}{len(positions)} characters are not among the model's {tokenizer.vocab_size} symbols, first "
                f"{text[positions[0]]!r} at position {position + positions[0]}; use {self._skip_option} to leave out "
                f"these characters"
            )
        self.count += len(positions)

    def report(self, name: str) -> None:
        """Print how many characters of a text were unknown, if any, and begin anew; ``name`` stands for the text."""
        if self.count:
            treatment = "left out" if self._skips else "read as its unknown symbol"
            say(f"{self.count:,} characters of {name} are unknown to the model and {treatment}")
        self.count = 0
