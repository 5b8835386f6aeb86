"""Reads the metadata of an .onnx file without onnxruntime and without its graph, and checks the bytes of the file.

An .onnx file is a protobuf message: a sequence of fields, each of which begins with the number
``field << 3 | wire_type``. The fields of a ModelProto are integers (wire type 0), or bytes after their length (wire
type 2), so the graph can be skipped. Sources: protobuf.dev/programming-guides/encoding, and onnx.proto.

An exported file has a check, the metadata entry ``gentext.check``: the CRC-32 of all bytes of the file, in which the
eight digits of the check itself count as zeros. A CRC-32 differs after any change of up to 32 neighbouring bits, and
overlooks one of 2^32 larger ones. It guards against damage, not against somebody who writes a new check.
"""

from __future__ import annotations

import io
import json
import os
import sys
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from gentext.errors import FileFormatError
from gentext.exported.metadata import METADATA_PREFIX, check_format
from gentext.run import GENERATOR_FILE, MODEL_FILE

INTEGER_TYPE, BYTES_TYPE = 0, 2
#: Of a ModelProto: its metadata_props, one field for each entry. Of such an entry: its key and its text.
METADATA_FIELD, KEY_FIELD, TEXT_FIELD = 14, 1, 2
#: Fields that are looked at, at most, so that a damaged file costs no time. An exported model has about twenty.
MAX_FIELDS = 10_000
#: A number has 7 bits in each byte, and 64 bits at most.
VARINT_SHIFTS = range(0, 64, 7)
#: The entry that holds the check, and what its digits count as.
CHECK_KEY, ZERO_DIGITS = f"{METADATA_PREFIX}check", "00000000"
CHECK_ADVICE = (
    "export it again: gen export RUN; a file that was changed on purpose is opened with --no-verify, in Python "
    "verify=False"
)
#: Bytes that are read at a time: large enough to be fast, small enough for the processor's cache.
BLOCK_BYTES = 2**18


class _MetadataText(NamedTuple):
    """The text of an entry of the metadata."""

    text: str
    offset: int
    """Where its bytes begin in the file."""


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata_props of an .onnx file.

    Raises ValueError for a file that is no protobuf message, OSError for one that cannot be read.
    """
    with path.open("rb") as file:
        return {key: entry.text for key, entry in _read_entries(file).items()}


def read_checked_metadata(path: Path, *, verify: bool = True) -> dict[str, str]:
    """Return the metadata_props of an exported file, whose bytes fit its check.

    :param verify: False reads a file that has another check than its own, or none.

    Raises FileFormatError for a file that is damaged, not from gentext, or of another format.
    """
    try:
        with path.open("rb") as file:
            entries = _read_entries(file)
            metadata = {key: entry.text for key, entry in entries.items()}
            check_format(metadata, path)
            if verify:
                _verify_check(path, file, entries.get(CHECK_KEY))
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read ({error.strerror}); expected an .onnx file") from None
    except ValueError as error:
        raise FileFormatError(
            f"{path}: damaged, or no .onnx file ({error}); expected an .onnx file from gen export"
        ) from None
    return metadata


def write_check(model_bytes: bytes) -> bytes:
    """Return the bytes of an .onnx file with its check; its ``gentext.check`` must be `ZERO_DIGITS`."""
    stream = io.BytesIO(model_bytes)
    offset = _read_entries(stream)[CHECK_KEY].offset
    digits = _compute_check(stream, offset).encode()
    return model_bytes[:offset] + digits + model_bytes[offset + len(digits) :]


def _verify_check(path: Path, file: IO[bytes], check: _MetadataText | None) -> None:
    if check is None:
        raise FileFormatError(f"{path}: damaged, its metadata lacks {CHECK_KEY!r}; {CHECK_ADVICE}")
    if len(check.text) != len(ZERO_DIGITS) or check.text != _compute_check(file, check.offset):
        raise FileFormatError(f"{path}: damaged, its bytes do not fit its check {check.text[:20]!r}; {CHECK_ADVICE}")


def _compute_check(stream: IO[bytes], digits_offset: int) -> str:
    """Return the CRC-32 of a file whose check begins at ``digits_offset``: eight hexadecimal digits."""
    stream.seek(0)
    crc = zlib.crc32(ZERO_DIGITS.encode(), _add_bytes(0, stream, digits_offset))
    stream.seek(len(ZERO_DIGITS), os.SEEK_CUR)
    return f"{_add_bytes(crc, stream, sys.maxsize):08x}"


def _add_bytes(crc: int, stream: IO[bytes], count: int) -> int:
    """Return a CRC-32 continued over the next ``count`` bytes of a file, or over as many as are left."""
    while count > 0 and (block := stream.read(min(count, BLOCK_BYTES))):
        crc = zlib.crc32(block, crc)
        count -= len(block)
    return crc


def _read_entries(stream: IO[bytes]) -> dict[str, _MetadataText]:
    """Return the metadata_props of an .onnx file by key. Raises ValueError where it is no such file."""
    entries: dict[str, _MetadataText] = {}
    size = stream.seek(0, os.SEEK_END)
    if not size:
        raise ValueError("it is empty")
    stream.seek(0)
    for _, offset, content in _read_fields(stream, size, {METADATA_FIELD}):
        texts = {KEY_FIELD: _MetadataText("", offset), TEXT_FIELD: _MetadataText("", offset)}
        for number, text_offset, text in _read_fields(io.BytesIO(content), len(content), texts):
            texts[number] = _MetadataText(text.decode(), offset + text_offset)
        key = texts[KEY_FIELD].text
        if key in entries:
            raise ValueError(f"{key[:40]!r} stands twice in its metadata")
        entries[key] = texts[TEXT_FIELD]
    return entries


def read_export_id(path: Path) -> str | None:
    """Return the id of the export that wrote a file; an empty one for a file of an older version, which has none.

    None: the file is missing or damaged, which is reported when onnxruntime opens it.
    """
    try:
        card = json.loads(read_metadata(path)[f"{METADATA_PREFIX}card"])
    except (OSError, ValueError, KeyError, RecursionError):
        return None
    export_id = card.get("export", "") if isinstance(card, dict) else None
    return export_id if isinstance(export_id, str) else None


def check_same_export(folder: Path) -> None:
    """Raise FileFormatError when a run's model and generator come from two exports, of which the later did not end."""
    model_id, generator_id = read_export_id(folder / MODEL_FILE), read_export_id(folder / GENERATOR_FILE)
    if model_id is not None and generator_id is not None and model_id != generator_id:
        raise FileFormatError(
            f"{folder}: {MODEL_FILE} and {GENERATOR_FILE} come from two exports, of which the later did not end; "
            f"make both again: gen export {folder}"
        )


def _read_fields(stream: IO[bytes], size: int, numbers: Collection[int]) -> Iterator[tuple[int, int, bytes]]:
    """Yield number, offset and content of those fields of a message that have one of the numbers; skip the others.

    ``size`` is that of the message. Raises ValueError where it is no message.
    """
    for _ in range(MAX_FIELDS):
        if stream.tell() == size:
            return
        number, wire_type = divmod(_read_varint(stream), 8)
        if wire_type == INTEGER_TYPE and number > 0:
            _read_varint(stream)
        elif wire_type == BYTES_TYPE and number > 0:
            length = _read_varint(stream)
            if length > size - stream.tell():
                raise ValueError("a field is longer than the file")
            if number in numbers:
                yield number, stream.tell(), stream.read(length)
            else:
                stream.seek(length, os.SEEK_CUR)
        else:
            raise ValueError("not a field of a ModelProto")
    raise ValueError(f"more than {MAX_FIELDS} fields")


def _read_varint(stream: IO[bytes]) -> int:
    """Return an integer of one to ten bytes: 7 bits in each, the lowest first; the last byte is below 128."""
    number = 0
    for shift in VARINT_SHIFTS:
        byte = stream.read(1)
        if not byte:
            raise ValueError("it ends within a number")
        number |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return number
    raise ValueError("a number of more than ten bytes")
