"""A session: a text between two requests, as bytes that any process with the same file can go on from.

It holds the state of the row, what is not yet text, and the settings of the request; docs/formats.md is the reference.
A session comes back from a client. It is signed, see `gentext.sessions.session_keys`, and is checked all the same, as
whoever has the key may run another version of gentext.
"""

from __future__ import annotations

import functools
import zlib
from typing import Annotated

import msgspec
import numpy as np

from gentext.errors import SessionConflict, SessionError
from gentext.exported.metadata import Bundle
from gentext.exported.signature import Port, signature
from gentext.files.versions import installed_version
from gentext.generation.rows import RowState
from gentext.sampling.decoder import DecoderState
from gentext.sessions.session_keys import MAX_PAYLOAD_BYTES
from gentext.sessions.session_settings import StoredSettings, session_settings

#: Bytes of a session before it is compressed, at most. States of links can be large and mostly empty.
MAX_SESSION_BYTES = 2**22
#: Distributions that bring the runtime.
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")

Word = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class StoredArray(msgspec.Struct, frozen=True, array_like=True):
    """An array of a row's state."""

    dtype: str
    shape: list[Word]
    content: bytes
    """Its elements, little-endian, in C order."""


class StoredRow(msgspec.Struct, frozen=True):
    """A `gentext.generation.rows.RowState`."""

    arrays: dict[str, StoredArray]
    drawn: Word
    pending: str
    unfinished: Annotated[bytes, msgspec.Meta(max_length=3)]
    stop_state: Word
    empty_count: Word
    automata: dict[str, str]
    excess: str = ""
    unread: list[Word] = []


class Session(msgspec.Struct, frozen=True):
    """A text between two requests."""

    file: str
    """The fingerprint of the exported file."""
    runtime: str
    """Name and version of what runs the file."""
    settings: StoredSettings
    row: StoredRow


_DECODER = msgspec.msgpack.Decoder(Session)


def file_fingerprint(bundle: Bundle) -> str:
    """Return the hash that stands in a generator and covers its network, chain and tables: SHA-256, hexadecimal.

    Raises SessionError for a file without one.
    """
    fingerprint = bundle.card.get("fingerprint")
    if not isinstance(fingerprint, str):
        raise SessionError(
            "sessions need a generator with a fingerprint, and the file has none; export it again: gen export RUN",
            "session_unavailable",
        )
    return fingerprint


@functools.cache
def runtime_version() -> str:
    """Return name and version of the installed runtime, whose distributions have the same versions."""
    versions = filter(None, map(installed_version, RUNTIMES))
    return f"{RUNTIMES[0]} {next(versions, 'of an unknown version')}"


def pack(session: Session) -> bytes:
    """Return a session as bytes. Raises SessionError where it is too large, as with a prime of a million characters."""
    content = msgspec.msgpack.encode(session)
    payload = zlib.compress(content)
    if len(content) > MAX_SESSION_BYTES or len(payload) > MAX_PAYLOAD_BYTES:
        raise SessionError(
            f"session: the state of the text takes {len(content):,} bytes, {len(payload):,} when compressed; expected "
            f"{MAX_SESSION_BYTES:,} and {MAX_PAYLOAD_BYTES:,} at most",
            "session_too_long",
        )
    return payload


def unpack(payload: bytes) -> Session:
    """Return the session that `pack` turned into bytes. Raises SessionError for other bytes."""
    decompressor = zlib.decompressobj()
    try:
        content = decompressor.decompress(payload, MAX_SESSION_BYTES)
        if not decompressor.eof or decompressor.unused_data:
            raise ValueError("it is too large or cut off")
        session = _DECODER.decode(content)
    except (zlib.error, ValueError) as error:  # msgspec's errors are a ValueError
        raise SessionError(f"session: damaged ({error}); begin the text again", "session_invalid") from None
    # A session of an earlier version lacks newer settings.
    return msgspec.structs.replace(session, settings=session_settings(**session.settings))


def check_origin(session: Session, fingerprint: str, runtime: str) -> None:
    """Raise SessionConflict for a session of another file, or of another version of the runtime."""
    if session.file != fingerprint:
        raise SessionConflict(
            f"session: it belongs to the file {session.file[:16]!r}, and the model's file is {fingerprint[:16]!r} now; "
            f"begin the text again",
            "session_other_file",
        )
    if session.runtime != runtime:
        raise SessionConflict(
            f"session: written with {session.runtime[:40]!r}, and this server runs {runtime!r}, which may write other "
            f"texts; begin the text again",
            "session_other_runtime",
        )


# -- the state of a row --------------------------------------------------------------------------


def row_ports(bundle: Bundle) -> list[Port]:
    """Return the inputs that hold the state of a row."""
    ports = signature(bundle)
    return [ports.inputs[0], *ports.states]


def pack_state(state: RowState) -> StoredRow:
    """Return the state of a row as it is stored."""
    arrays = {
        name: StoredArray(
            array.dtype.name, [*array.shape], np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        )
        for name, array in state.arrays.items()
    }
    decoder = state.decoder
    return StoredRow(
        arrays,
        state.drawn,
        decoder.pending,
        decoder.unfinished,
        decoder.stop_state,
        decoder.empty_count,
        dict(state.automata),
        decoder.excess,
        [*state.unread],
    )


def unpack_state(row: StoredRow, bundle: Bundle) -> RowState:
    """Return the stored state of a row. Raises SessionError where it is none of the file's rows."""
    ports = {port.name: port for port in row_ports(bundle)}
    if row.arrays.keys() != ports.keys():
        raise state_error(f"the states {', '.join(row.arrays):.80}; expected {', '.join(ports)}")
    arrays = {}
    for name, port in ports.items():
        stored, dtype = row.arrays[name], np.dtype(port.dtype)
        shape = [1 if size == "N" else int(size) for size in port.shape]
        size = int(np.prod(shape)) * dtype.itemsize
        if (stored.dtype, stored.shape, len(stored.content)) != (dtype.name, shape, size):
            raise state_error(
                f"{name} as {stored.dtype[:20]} {stored.shape[:8]} in {len(stored.content)} bytes; expected "
                f"{dtype.name} {shape} in {size}"
            )
        if port.dtype == "bool" and stored.content.strip(b"\0\1"):
            raise state_error(f"{name} with bytes that are neither 0 nor 1")
        # A copy: the bytes cannot be written to.
        arrays[name] = np.frombuffer(stored.content, dtype.newbyteorder("<")).astype(dtype).reshape(shape)
    decoder = DecoderState(row.pending, row.unfinished, row.stop_state, row.empty_count, row.excess)
    return RowState(arrays, row.drawn, decoder, row.automata, tuple(row.unread))


def state_error(problem: str) -> SessionError:
    """Return the error for a state that has this, which no state of the file has."""
    # Names in a session may be of any characters, and an error is one line.
    line = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in problem)
    return SessionError(f"session: it has {line}; begin the text again", "session_invalid")
