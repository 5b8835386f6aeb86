"""The text on the screen, coloured by how much it surprised the model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable

import numpy as np
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples

from gentext.sessions.text_tree import TextTree

#: Nats of surprise from which a character has a colour: probabilities below 0.37, 0.1 and 0.02.
LEVELS = (1.0, 2.3, 4.0)
SURPRISE_STYLES = {"surprise1": "#b58900", "surprise2": "#cb4b16", "surprise3": "#dc322f"}
#: Characters that turn the direction of writing would disturb the lines around them.
_TURNING = dict.fromkeys(
    [0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\N{REPLACEMENT CHARACTER}"
)


class SurpriseLexer:
    """Gives each line of the text its colours. A `Lexer` of prompt_toolkit."""

    def __init__(self, tree: TextTree) -> None:
        self._tree = tree

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        """Return a function from the number of a line to its fragments."""
        surprise = -self._tree.character_logprobs(document.text)
        classes = np.searchsorted(LEVELS, surprise, side="right")  # NaN comes last
        classes[np.isnan(surprise)] = -1
        names = {-1: "class:typed", 0: "", **{level: f"class:surprise{level}" for level in (1, 2, 3)}}
        begins = np.cumsum([0, *(len(line) + 1 for line in document.lines)])

        def fragments_of_line(number: int) -> StyleAndTextTuples:
            if number >= len(document.lines):
                return []
            line = document.lines[number].translate(_TURNING)
            levels = classes[begins[number] : begins[number] + len(line)]
            cuts = [0, *(np.flatnonzero(np.diff(levels)) + 1).tolist(), len(line)]
            return [
                (names[int(levels[begin])], line[begin:end]) for begin, end in itertools.pairwise(cuts) if begin < end
            ]

        return fragments_of_line

    def invalidation_hash(self) -> Hashable:
        """Return what changes with the colours of an equal text: it was typed, and then read by the model."""
        return self._tree.version
