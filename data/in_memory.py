"""A text, or records, that a Python program has in memory, as the file in which a run keeps them."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping

from gentext.data.decoding import unix_lines
from gentext.errors import CorpusError, UsageError
from gentext.run import CORPUS_FILE, CORPUS_RECORDS_FILE

#: The layout of records that were in memory: JSON lines hold every character, line ends among them.
RECORDS_LAYOUT = "jsonl:text"
#: Characters of a path at most, on all usual systems.
MAX_PATH = 4096


@dataclasses.dataclass(frozen=True)
class InMemoryCorpus:
    """A text, or records, as a file of the run's folder."""

    filename: str
    content: bytes = dataclasses.field(repr=False)
    """UTF-8, line ends LF."""


def text_in_memory(text: object) -> InMemoryCorpus:
    """Return a text as a file. Raises UsageError for what is no text, CorpusError for a text that no file can hold."""
    if not isinstance(text, str):
        raise UsageError(f"text = {text!r:.80}: expected a text")
    if not text:
        raise CorpusError("text = '': empty; expected some text")
    if len(text) < MAX_PATH and "\n" not in text and os.path.exists(text):
        raise UsageError(f"text = {text!r}: a file has this name; to read it, give it as the first argument, corpus")
    if "\0" in text:
        raise CorpusError(f"text: a NUL at character {text.index(chr(0))}, which no text may have; leave it out")
    # A byte order mark at the beginning of a file is no part of its text.
    content = "".join(unix_lines([text.lstrip("\ufeff")]))
    if not content:
        raise CorpusError("text: empty but for byte order marks; expected some text")
    return InMemoryCorpus(CORPUS_FILE, _encode(content, "text"))


def records_in_memory(records: object) -> InMemoryCorpus:
    """Return records as a file of JSON lines. Raises UsageError for what are no texts, CorpusError for empty ones."""
    if isinstance(records, bytes | bytearray | Mapping) or not isinstance(records, Iterable):
        raise UsageError(
            f"records = {records!r:.80}: expected records, as a list of texts, or a layout such as 'lines'"
        )
    lines = []
    for number, record in enumerate(records):
        name = f"records[{number}]"
        if not isinstance(record, str):
            raise UsageError(f"{name} = {record!r:.80}: expected a text")
        if not record:
            raise CorpusError(f"{name} is empty; leave out empty records")
        lines.append(_encode(json.dumps({"text": record}, ensure_ascii=False) + "\n", name))
    if not lines:
        raise CorpusError("records: none in it; expected some texts")
    return InMemoryCorpus(CORPUS_RECORDS_FILE, b"".join(lines))


def _encode(text: str, name: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise CorpusError(
            f"{name}: {text[error.start]!r} is half a surrogate pair, no character; leave it out"
        ) from None
