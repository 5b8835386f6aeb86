"""Reads the metadata of an .onnx file without onnxruntime and without its graph, in a fraction of a millisecond.

An .onnx file is a protobuf message: a sequence of fields, each of which begins with the number
``field << 3 | wire_type``. The fields of a ModelProto are integers (wire type 0), or bytes after their length (wire
type 2), so the graph can be skipped. Sources: protobuf.dev/programming-guides/encoding, and onnx.proto.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

from gentext.bundle import METADATA_PREFIX
from gentext.errors import FileFormatError
from gentext.run import GENERATOR_FILE, MODEL_FILE

INTEGER_TYPE, BYTES_TYPE = 0, 2
#: Of a ModelProto: its metadata_props, one field for each entry. Of such an entry: its key and its text.
METADATA_FIELD, KEY_FIELD, TEXT_FIELD = 14, 1, 2
#: Fields that are looked at, at most, so that a damaged file costs no time. An exported model has about twenty.
MAX_FIELDS = 10_000
#: A number has 7 bits in each byte, and 64 bits at most.
VARINT_SHIFTS = range(0, 64, 7)


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata_props of an .onnx file.

    Raises ValueError for a file that is no protobuf message, OSError for one that cannot be read.
    """
    metadata = {}
    with path.open("rb") as file:
        for _, entry in _read_fields(file, path.stat().st_size, {METADATA_FIELD}):
            fields = dict(_read_fields(io.BytesIO(entry), len(entry), {KEY_FIELD, TEXT_FIELD}))
            metadata[fields.get(KEY_FIELD, b"").decode()] = fields.get(TEXT_FIELD, b"").decode()
    return metadata


def read_export_id(path: Path) -> str | None:
    """Return the id of the export that wrote a file; None for a file without one.

    Files of older versions have none. Nor has a damaged file, which is reported when onnxruntime opens it.
    """
    try:
        card = json.loads(read_metadata(path)[f"{METADATA_PREFIX}card"])
    except (OSError, ValueError, KeyError, RecursionError):
        return None
    export_id = card.get("export") if isinstance(card, dict) else None
    return export_id if isinstance(export_id, str) else None


def check_same_export(folder: Path) -> None:
    """Raise FileFormatError when a run's model and generator come from two exports, of which the later did not end.

    A file without an id passes.
    """
    model_id, generator_id = read_export_id(folder / MODEL_FILE), read_export_id(folder / GENERATOR_FILE)
    if model_id and generator_id and model_id != generator_id:
        raise FileFormatError(
            f"{folder}: {MODEL_FILE} and {GENERATOR_FILE} come from two exports, of which the later did not end; "
            f"make both again: gen export {folder}"
        )


def _read_fields(stream: IO[bytes], size: int, numbers: Collection[int]) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the content of those fields of a message that have one of the numbers, and skip the others.

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
                yield number, stream.read(length)
            else:
                stream.seek(length, os.SEEK_CUR)
        else:
            raise ValueError("not a field of a ModelProto")
    raise ValueError(f"more than {MAX_FIELDS} fields")


def _read_varint(stream: IO[bytes]) -> int:
    """Return an integer of one to ten bytes: 7 bits in each, the lowest first; the last byte is below 128."""
    number = 0
    for shift in VARINT_SHIFTS:
        [byte] = stream.read(1)  # ValueError at the end of the stream
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number
    raise ValueError("a number of more than ten bytes")
