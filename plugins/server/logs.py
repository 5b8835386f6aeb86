"""One line of JSON on stderr for each request that has ended, and for each warning of the libraries.

No line has a text, a key or a session: of a request its path is written, not its query, and of an exception its type
and where it was raised, not its message, which may quote what a client sent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import msgspec

if TYPE_CHECKING:
    from starlette.types import Scope

#: Where a request's record stands in its ASGI scope.
RECORD = "gentext.record"
#: Characters of a client's path, or of a library's message, in a line.
MAX_CHARACTERS = 200


@dataclasses.dataclass(slots=True)
class RequestRecord:
    """What is written about a request; the app sets what it alone knows."""

    request_id: str
    method: str
    path: str
    status: int = 0
    """499 where the client went before an answer began."""
    model: str | None = None
    symbols: int | None = None
    """Symbols that were drawn."""
    finish: str | None = None
    """Why the texts ended."""
    begun: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long the request has taken."""
        return time.monotonic() - self.begun


def record_of(scope: Scope) -> RequestRecord:
    """Return the record of the request that an app answers."""
    record = scope[RECORD]
    assert isinstance(record, RequestRecord)
    return record


class LogWriter:
    """Writes lines of JSON."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def write(self, level: str, **fields: object) -> None:
        """Write a line; where it cannot be written, as on a full disk, there is none."""
        time_text = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = msgspec.json.encode({"time": time_text, "level": level, **fields}).decode()
        with contextlib.suppress(OSError, ValueError):
            print(line, file=self._stream or sys.stderr, flush=True)

    def write_request(self, record: RequestRecord) -> None:
        """Write the line of a request that has ended."""
        self.write(
            "info",
            request_id=record.request_id,
            method=record.method,
            path=record.path[:MAX_CHARACTERS].encode("ascii", "backslashreplace").decode(),
            status=record.status,
            seconds=round(record.seconds, 4),
            model=record.model,
            symbols=record.symbols,
            finish=record.finish,
        )

    def write_exception(self, error: BaseException, request_id: str | None = None) -> None:
        """Write where an exception was raised that nobody expected."""
        self.write("error", message="unexpected exception", request_id=request_id, error=locate(error))


def locate(error: BaseException) -> str:
    """Return the type of an exception and the last frame of its traceback, without its message."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    return f"{type(error).__name__}{place}"


class JsonHandler(logging.Handler):
    """Writes what libraries log as lines of JSON."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        # Further lines of asyncio's messages show objects, and those may show a text.
        message = record.getMessage().partition("\n")[0][:MAX_CHARACTERS]
        error = record.exc_info[1] if record.exc_info else None
        fields = {} if error is None else {"error": locate(error)}
        self._writer.write(record.levelname.lower(), logger=record.name, message=message, **fields)


def configure_logging(writer: LogWriter) -> None:
    """Let the warnings and errors of uvicorn and asyncio be lines of JSON, and silence the rest of theirs."""
    handler = JsonHandler(writer)
    for name in ("uvicorn", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").disabled = True
