"""Keys that clients send, from a file with one a line."""

from __future__ import annotations

import hmac
import stat
from pathlib import Path

from gentext.console import warn
from gentext.errors import UsageError
from gentext.plugins.server.problems import Problem
from gentext.reading import read_file

#: Bytes of a file with keys, at most.
MAX_KEY_FILE_BYTES = 2**16


class ApiKeys:
    """The keys that clients may send, compared in a time that does not tell how much of one was right."""

    def __init__(self, keys: list[bytes]) -> None:
        self._keys = keys

    def check(self, authorization: str | None) -> None:
        """Raise a problem for a header ``Authorization`` that has none of the keys."""
        scheme, _, key = (authorization or "").partition(" ")
        sent = key.strip().encode("latin-1", "replace")
        is_equal = [hmac.compare_digest(sent, known_key) for known_key in self._keys]  # all of them
        if scheme.lower() == "bearer" and any(is_equal):
            return
        message = "the API key is not valid" if key else "an API key is missing; send Authorization: Bearer KEY"
        raise Problem(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def read_keys(path: Path, option: str) -> list[bytes]:
    """Return the keys of a file, one a line; warn of a file that others can read.

    Raises UsageError, which names the option, for a file that cannot be read or has no key.
    """
    try:
        content = read_file(path, MAX_KEY_FILE_BYTES)
        mode = path.stat().st_mode
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be read ({error.strerror}); expected a file with a key") from None
    keys = [line.strip() for line in content.splitlines() if line.strip()]
    if not keys:
        raise UsageError(f"{option} {path}: has no key; expected one on each line")
    if any(not 0x21 <= byte <= 0x7E for key in keys for byte in key):
        raise UsageError(f"{option} {path}: expected keys of visible ASCII characters, one on each line")
    if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        warn(f"{option} {path}: others can read this file; run chmod 600 {path}")
    return keys
