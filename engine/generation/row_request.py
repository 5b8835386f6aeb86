"""One text for a row of a compiled generator to write."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from gentext.generation.stacking import Arrays, Automaton
from gentext.interfaces import Finish, Ids
from gentext.stop import StopAutomaton


@dataclasses.dataclass(frozen=True)
class RowRequest:
    """One text for a row of a compiled generator to write. Arrays have the names of the generator's inputs."""

    prime: Ids
    """Token ids [P] to read first."""
    seed: int
    stream: int
    length: int | None
    """New characters; None: without end."""
    params: Arrays
    """Parameters of the links, each [1, 1] or [1, V]."""
    tables: Arrays
    """Tables of the links but `match`. Rows of one call must have the same."""
    tables_key: str
    """The same for rows that have the same tables."""
    automata: Mapping[str, Automaton]
    """Stop strings and expressions, by the name of the state that a row has in them."""
    active_links: frozenset[str] = frozenset()
    """The links that its parameters turn on. A call runs each link that is on in one of its rows, for all of them."""
    stop: StopAutomaton | None = None
    most_symbols: int | None = None
    """Symbols that are drawn at most, where that is known; the text may end earlier."""
    full_finish: Finish = "length"
    """How the text ends when it has ``length`` characters."""
    top_count: int = 0
    """How many of the most probable symbols the text has for each of its tokens."""
    echo: bool = False
    """Whether the text has the log-probabilities of its prime; ``length`` may then be 0."""
    keeps_state: bool = False
    """Whether the state after the last symbol is needed, for which a text that ends within a call is drawn again."""
    keeps_tokens: bool = True
    """Whether anybody needs the tokens and their log-probabilities, besides the number of tokens."""
    streams: bool = False
    """Whether pieces alone have the text and its tokens, so that a text of any length takes no memory."""
