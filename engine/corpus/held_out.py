"""What a run holds out, in its folder: the end of a text as it is, or records as JSON, one a line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from gentext.errors import RunError
from gentext.files.reading import parse_json, read_regular_file
from gentext.run import HELD_OUT_FILE, HELD_OUT_RECORDS_FILE, write_text

#: Bytes of what is held out, at most; gentext writes four million for a text.
MAX_HELD_OUT_BYTES = 2**27


def held_out_path(folder: Path) -> Path:
    """Return the file of a run's folder that holds what is held out; it need not exist."""
    records = folder / HELD_OUT_RECORDS_FILE
    return records if records.is_file() else folder / HELD_OUT_FILE


def write_held_out(folder: Path, text: str) -> None:
    """Write the end of a text that a run holds out."""
    write_text(folder / HELD_OUT_FILE, text)


def write_held_out_records(folder: Path, records: Sequence[str], repeats: Sequence[int] | None) -> None:
    """Write the records that a run holds out, and how many times each counts; None: each once."""
    rows: list[dict[str, str | int]] = [{"text": record} for record in records]
    if repeats is not None:
        rows = [{**row, "repeats": count} for row, count in zip(rows, repeats, strict=True)]
    write_text(folder / HELD_OUT_RECORDS_FILE, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_held_out(path: Path) -> list[str]:
    """Return the text, or the records, of `held_out_path`. Raises RunError where it cannot be read."""
    return [text for text, _ in read_held_out_repeats(path)]


def read_held_out_repeats(path: Path) -> list[tuple[str, int]]:
    """Return what `read_held_out` returns, each with how many times it counts. Raises RunError likewise."""
    try:
        content = read_regular_file(path, MAX_HELD_OUT_BYTES).decode("utf-8")
        if path.name != HELD_OUT_RECORDS_FILE:
            return [(content, 1)]
        return [_parse_record(line) for line in content.splitlines()]
    except FileNotFoundError:
        raise RunError(f"{path}: missing; nothing is held out beside the model") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path}: damaged ({error})") from None


def _parse_record(line: str) -> tuple[str, int]:
    """Return a line that `write_held_out_records` has written as a text and how many times it counts."""
    row = parse_json(line)
    text, repeats = row["text"], row.get("repeats", 1)
    if not isinstance(text, str):
        raise TypeError("a record is no text")
    if not isinstance(repeats, int) or repeats < 1:
        raise ValueError(f"a record counts {repeats!r} times")
    return text, repeats
