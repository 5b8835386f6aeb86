"""What the server and its workers send each other: MessagePack, each message behind its length in four bytes.

A job is one text, score or search, and has a number of its own in its worker. The worker answers it with events, of
which the last one has a ``finish`` or is a `Failed` or an `Answer`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, TypedDict

import msgspec

from gentext.requests.declaration import SearchArguments, WritingOptions
from gentext.requests.fields import message_types

if TYPE_CHECKING:
    SentOptions = WritingOptions
    SentSearch = SearchArguments
else:  # as msgspec reads them
    SentOptions = TypedDict("SentOptions", message_types(WritingOptions))
    SentSearch = TypedDict("SentSearch", message_types(SearchArguments))
#: The length of a message, before it.
LENGTH = struct.Struct("<I")


class Start(msgspec.Struct, tag=True):
    """Open a file; the first message to a worker."""

    path: str
    slots: int
    device: str = "auto"
    threads: int = 0
    """0: as many as the file is fastest with."""
    expression_seconds: float = 20.0
    """How long what texts must match is compiled."""


class TextJob(msgspec.Struct, tag=True):
    """Write a text."""

    number: int
    prompt: str
    options: SentOptions
    """All that `gentext.requests.options.writing_options` returns, with a seed, for one text."""
    has_logprobs: bool = False
    """Whether log-probabilities are asked for, be it without those of the most probable symbols."""
    session: bytes | None = None
    """The state to go on from, as `gentext.sessions.session` packs it."""


class ScoreJob(msgspec.Struct, tag=True):
    """Measure the log-probability of each symbol of a text."""

    number: int
    text: str
    unknown: str = "error"
    """The policy of `gentext.TextModel.score`."""


class BestJob(msgspec.Struct, tag=True):
    """Search for the most probable texts behind a prompt."""

    number: int
    prompt: str
    options: SentSearch
    seconds: float
    """After this time the answer is what is proven by then."""


class Hold(msgspec.Struct, tag=True):
    """Stop writing a text, whose client does not read it, until `Resume` or another end. It keeps its slot."""

    number: int


class Resume(msgspec.Struct, tag=True):
    """Go on with a text that is held."""

    number: int


class Leave(msgspec.Struct, tag=True):
    """End a job whose client has gone: nothing more is answered."""

    number: int


class Cut(msgspec.Struct, tag=True):
    """End a text where it is; its last event has ``finish`` "cut" and the session."""

    number: int


Request = TextJob | ScoreJob | BestJob | Hold | Resume | Leave | Cut


class SymbolScore(msgspec.Struct, array_like=True):
    """A symbol, and how probable it was in its place."""

    text: str
    """The readable symbol."""
    logprob: float | None
    """None for the first symbol of a text, in front of which nothing stands."""
    top: list[tuple[str, float]]
    """The most probable symbols there, with their log-probabilities."""
    offset: int
    """Characters of the text before it, of the prompt too where that is echoed."""


class TextEvent(msgspec.Struct, array_like=True):
    """What a text has gained by a call."""

    number: int
    text: str
    tokens: int
    """Symbols that were drawn."""
    finish: str | None = None
    """Why the text has ended; None while it goes on."""
    scores: list[SymbolScore] | None = None
    prompt_tokens: int = 0
    """Symbols of the prompt, in the first event."""
    session: bytes | None = None
    """The state behind the text, in its last event."""


class Ready(msgspec.Struct, tag=True):
    """The worker has opened its file; the first message."""

    model: dict[str, Any]
    """What ``/v1/models`` tells of the model."""


class Events(msgspec.Struct, tag=True):
    """What texts have gained by one call."""

    texts: list[TextEvent]


class Answer(msgspec.Struct, tag=True):
    """The result of a `ScoreJob` or a `BestJob`."""

    number: int
    result: dict[str, Any]


class Failed(msgspec.Struct, tag=True):
    """A job has ended with an error; with number -1, the worker has."""

    number: int
    status: int
    message: str
    parameter: str | None = None
    code: str | None = None


Reply = Ready | Events | Answer | Failed


def encode_frame(message: Start | Request | Reply) -> bytes:
    """Return a message with its length before it."""
    content = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(content)) + content


def read_frames(stream: BinaryIO) -> Iterator[Start | Request]:
    """Yield the messages to a worker until its stdin ends, which may be within a message."""
    decoder: msgspec.msgpack.Decoder[Start | Request] = msgspec.msgpack.Decoder(Start | Request)
    while len(header := stream.read(LENGTH.size)) == LENGTH.size:
        [length] = LENGTH.unpack(header)
        content = stream.read(length)
        if len(content) < length:
            return
        yield decoder.decode(content)
