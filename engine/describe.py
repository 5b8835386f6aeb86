"""From a run to the Bundle that describes its model, and from a Bundle to its tokenizer and chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gentext.components.creation import create_component
from gentext.components.tokenizers import read_symbols
from gentext.errors import FileFormatError, RunError, refuse_exit
from gentext.exported.boundary import BoundaryTokenizer
from gentext.exported.metadata import Bundle
from gentext.interfaces import Tokenizer
from gentext.manager import host
from gentext.run import TOKENIZER_FILE, Run

__all__ = ["tokenizer_of"]


def load_tokenizer(name: str, state: Mapping[str, Any]) -> Tokenizer:
    """Build a tokenizer from its stored state.

    Raises RunError when that is damaged, PluginError when a plugin's class builds no tokenizer.
    """
    registered = host().registry.find("tokenizer", name)

    def restore() -> Any:
        try:
            return registered.load().from_state(state)
        except (KeyError, TypeError, ValueError, RunError) as error:
            problem = f"the stored state of tokenizer {name!r} is damaged ({error})"
            raise RunError(f"{problem}; train the run again") from None

    tokenizer: Tokenizer = create_component(registered, restore)
    return tokenizer


def load_run_tokenizer(run: Run) -> Tokenizer:
    """Build the tokenizer of a run, with the boundary symbol where it has records. Raises RunError."""
    (name, state), records = run.read_tokenizer(), run.read_records()
    try:
        tokenizer = load_tokenizer(name, state)
    except RunError as error:
        raise RunError(f"{run.path / TOKENIZER_FILE}: {error}") from None
    if records is None:
        return tokenizer
    with_boundary = BoundaryTokenizer(tokenizer)
    if problem := records.find_problem(with_boundary.vocab_size):
        raise RunError(f"{run.path / TOKENIZER_FILE}: damaged, {problem}; train the run again")
    return with_boundary


def tokenizer_of(bundle: Bundle) -> Tokenizer:
    """Build the tokenizer of a file, with the boundary symbol where it has records.

    Raises FileFormatError when its symbols are not those of the file.
    """
    tokenizer = load_tokenizer(bundle.tokenizer.name, bundle.tokenizer.state)
    if bundle.records is not None:
        tokenizer = BoundaryTokenizer(tokenizer)
    with refuse_exit(f"the tokenizer {bundle.tokenizer.name!r}"):
        symbols = read_symbols(bundle.tokenizer.name, tokenizer)
    if symbols != bundle.token_bytes or tokenizer.unknown != bundle.tokenizer.unknown:
        raise FileFormatError(
            f"the file's tokenizer {bundle.tokenizer.name!r} and its {bundle.vocab_size} symbols disagree; "
            f"the file is damaged, export it again"
        )
    return tokenizer
