"""Reads the files of ``gen sample --prefix-file``."""

from __future__ import annotations

import json
from pathlib import Path

from gentext.errors import PrimeError
from gentext.files.reading import read_file
from gentext.records.record_requests import Prefix

#: Bytes of a file of prefixes, at most.
MAX_PREFIX_BYTES = 2**26


def read_prefixes(path: Path) -> list[Prefix]:
    """Read a file of prefixes: lines; or JSON lines, where its name ends in .jsonl, with parameters for each.

    Raises PrimeError for a file that cannot be read, and for a line that is not as expected.
    """
    try:
        text = read_file(path, MAX_PREFIX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise PrimeError(
            f"--prefix-file {path}, line {line}: not UTF-8 (0x{error.object[error.start]:02x}); convert it to UTF-8"
        ) from None
    except OSError as error:
        raise PrimeError(f"--prefix-file {path}: cannot be read ({error.strerror}); expected a text file") from None
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if not text:
        raise PrimeError(f"--prefix-file {path}: empty; expected a prefix in each line")
    if path.suffix != ".jsonl":
        return [Prefix(line, title=f"{path}, line {number}") for number, line in enumerate(lines, 1)]
    return [_parse_prefix(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _parse_prefix(line: str, title: str) -> Prefix:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise PrimeError(f"{title}: no JSON ({error})") from None
    if not isinstance(fields, dict) or not isinstance(fields.get("prefix"), str):
        raise PrimeError(f'{title}: expected an object such as {{"prefix": "ab", "temperature": 0.7}}')
    text = fields.pop("prefix")
    for name, setting in fields.items():
        if isinstance(setting, bool) or not isinstance(setting, int | float):
            raise PrimeError(f"{title}: {name} is {setting!r}; expected a number, as the parameters of links are")
    return Prefix(text, fields, title)
