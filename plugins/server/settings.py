"""Addresses, keys and limits of a server."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from gentext.errors import UsageError, nearest


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one request, or all of them together, may take. Sizes are bytes, times are seconds."""

    slots: int = 1024
    """Texts of one model that are written at a time."""
    queue: int = 1024
    """Texts of one model that wait for a slot; one more is refused with 429."""
    headers: int = 2**14
    body: int = 2**20
    bodies: int = 2**27
    """Of all bodies together that are being read."""
    prompt: int = 100_000
    """Characters of a prompt."""
    length: int = 1_000_000
    """``max_tokens`` of a request."""
    answer: int = 4_000_000
    """Characters of an answer that is not sent in events: ``max_tokens`` times the number of texts."""
    texts: int = 128
    """Texts of a request: its prompts times ``n``."""
    connections: int = 4096
    """Open connections; one more is closed at once."""
    buffer: int = 2**18
    """Text of a stream that its client has not read yet; a stream that has more waits for its client."""
    header_seconds: float = 10.0
    """From the opening of a connection, or the first byte of a request, to the end of its headers."""
    idle_seconds: float = 60.0
    """Between two requests of a connection."""
    body_seconds: float = 30.0
    """From the end of the headers to the end of the body."""
    reader_seconds: float = 30.0
    """How long a client may leave a full buffer unread."""
    expression_seconds: float = 20.0
    """How long an expression or a schema is compiled."""
    request_seconds: float = 600.0
    """How long a text is written; it then ends with what there is, and its session."""
    best_texts: int = 1000
    """Texts of a search."""
    best_beam: int = 10_000
    """The beam of a search."""
    best_megabytes: int = 200
    """Memory of a search."""
    drain_seconds: float = 30.0
    """How long texts may go on after SIGTERM."""


def change_limits(limits: Limits, assignments: Sequence[str]) -> Limits:
    """Return limits of which some are changed by texts such as ``body=1000``.

    Raises UsageError for an unknown name, and for a value that is not a number of the limit's kind from 0.
    """
    changes: dict[str, Any] = {}
    for assignment in assignments:
        name, _, number_text = assignment.partition("=")
        names = [field.name for field in dataclasses.fields(Limits)]
        if name not in names:
            raise UsageError(f"--limit {assignment}: no limit {name!r}.{nearest(name, names)} {', '.join(names)} exist")
        kind = type(getattr(limits, name))
        try:
            changes[name] = kind(number_text)
        except ValueError:
            changes[name] = -1
        if not (0 <= changes[name] < float("inf")):
            expected = "a whole number" if kind is int else "a number"
            raise UsageError(f"--limit {assignment}: expected {name}= and {expected} from 0")
    return dataclasses.replace(limits, **changes)
