"""Names of files that are not UTF-8, in which Python has half a surrogate pair for each byte that is no text.

What gentext writes is UTF-8, so such a name is shown with escapes, and stored as a URL from which it comes back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

#: What the URL of a stored path begins with.
_SCHEME = "file:"
#: The keys of a run's table ``[corpus]`` that hold a path.
_PATH_KEYS = ("origin", "val", "teacher")


def is_utf8(name: str) -> bool:
    """Return whether a name is UTF-8."""
    return readable_name(name) == name


def readable_name(name: str) -> str:
    r"""Return a name as text that can be written anywhere: ``\udce9`` stands for the byte E9 that is not UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


def store_paths(corpus_table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's table ``[corpus]`` for its config file: a path that is not UTF-8 becomes a URL.

    So does a path that looks like such a URL.
    """
    return _replace_paths(corpus_table, _to_stored)


def restore_paths(corpus_table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table that `store_paths` was called with."""
    return _replace_paths(corpus_table, _from_stored)


def _replace_paths(corpus_table: Mapping[str, Any], replace: Callable[[str], str]) -> dict[str, Any]:
    paths = {key: replace(corpus_table[key]) for key in _PATH_KEYS if isinstance(corpus_table.get(key), str)}
    return {**corpus_table, **paths}


def _to_stored(path: str) -> str:
    if is_utf8(path) and not path.startswith(_SCHEME):
        return path
    from urllib.parse import quote  # few names need it, and importing it takes time at every start

    return _SCHEME + quote(os.fsencode(path))


def _from_stored(path: str) -> str:
    if not path.startswith(_SCHEME):
        return path
    from urllib.parse import unquote_to_bytes

    return os.fsdecode(unquote_to_bytes(path.removeprefix(_SCHEME)))
