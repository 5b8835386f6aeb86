"""The keys that sign sessions, and the tokens in which sessions travel through the hands of clients.

A token is base64 with the alphabet for URLs, without padding, of: the format (1 byte), the number of the key (4 bytes),
HMAC-SHA256 with the key over `SIGNED_PURPOSE`, the format, the number and the payload (32 bytes), and the payload. So a
token that was changed is told from one of another key. The payload is not secret: its client can read it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from gentext.console import warn
from gentext.errors import SessionError, UsageError
from gentext.files.reading import read_file

#: Every change of a token or of what it holds raises it.
SESSION_FORMAT = 1
#: Bytes of a key, at least.
MIN_KEY_BYTES = 16
#: The command that makes a key.
NEW_KEY = "openssl rand -hex 32"
#: Bytes of a file with keys, at most.
MAX_KEY_FILE_BYTES = 2**16
#: Bytes of a payload, at most: 8 KiB are usual.
MAX_PAYLOAD_BYTES = 2**19
#: Keys of a file: the one that signs, and the one before it.
MAX_KEYS = 2
#: Part of what is signed, so that a signature made with the same key for another purpose is none of a session.
SIGNED_PURPOSE = b"gentext session\0"
NUMBER_BYTES, SIGNATURE_BYTES = 4, 32
HEAD_BYTES = 1 + NUMBER_BYTES + SIGNATURE_BYTES
#: Characters of a token, at most.
MAX_TOKEN_LENGTH = 4 * (HEAD_BYTES + MAX_PAYLOAD_BYTES + 2) // 3


class SessionKeys:
    """Signs payloads as tokens, and checks tokens."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """The first key signs; all verify."""
        self._keys = {_number_key(key): key for key in reversed(keys)}
        self._signing_number = _number_key(keys[0])

    @classmethod
    def new(cls) -> SessionKeys:
        """Return a random key, whose tokens end with this process."""
        return cls([secrets.token_bytes(32)])

    @classmethod
    def load(cls, path: Path, option: str = "") -> SessionKeys:
        """Read a file with a key on its first line, and perhaps the key before it on the second; see `read_keys`.

        Raises UsageError for a file that cannot be read, or has no key, a short one or too many.
        """
        keys = read_keys(path, option)
        title = f"{option} {path}".strip()
        if len(keys) > MAX_KEYS:
            raise UsageError(
                f"{title}: {len(keys)} keys; expected one, or two lines: the key that signs, and the one before it"
            )
        for number, key in enumerate(keys, 1):
            if len(key) < MIN_KEY_BYTES:
                raise UsageError(
                    f"{title}: key {number} has {len(key)} bytes; expected {MIN_KEY_BYTES} or more: {NEW_KEY}"
                )
        return cls(keys)

    def seal(self, payload: bytes) -> str:
        """Return the token of a payload. Raises SessionError for more than MAX_PAYLOAD_BYTES."""
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise SessionError(
                f"session: {len(payload):,} bytes; expected {MAX_PAYLOAD_BYTES:,} at most", "session_too_long"
            )
        head = bytes([SESSION_FORMAT]) + self._signing_number
        signature = _sign(self._keys[self._signing_number], head, payload)
        return base64.urlsafe_b64encode(head + signature + payload).decode().rstrip("=")

    def open(self, token: str) -> bytes:
        """Return the payload of a token.

        Raises SessionError for a token that is too long, no token, changed, of another key, or of another format.
        """
        if len(token) > MAX_TOKEN_LENGTH:
            raise SessionError(
                f"session: {len(token):,} characters; expected {MAX_TOKEN_LENGTH:,} at most", "session_too_long"
            )
        content = _decode_token(token)
        head, payload = content[: 1 + NUMBER_BYTES], content[HEAD_BYTES:]
        key = self._keys.get(head[1:])
        if key is None:
            raise SessionError(
                "session: signed with a key that this server does not have; begin the text again", "session_foreign_key"
            )
        if not hmac.compare_digest(content[1 + NUMBER_BYTES : HEAD_BYTES], _sign(key, head, payload)):
            raise SessionError(
                "session: it does not fit its signature; expected the text of a session, unchanged", "session_invalid"
            )
        if head[0] != SESSION_FORMAT:
            raise SessionError(
                f"session: format {head[0]}, this server reads {SESSION_FORMAT}; begin the text again",
                "session_other_format",
            )
        return payload


def read_keys(path: Path, option: str = "") -> list[bytes]:
    """Return the keys of a file, one a line; warn of a file that other users can read.

    :param option: the option that names the file, for messages.

    Raises UsageError for a file that cannot be read, or has no key.
    """
    title = f"{option} {path}".strip()
    try:
        mode = path.stat().st_mode
        content = read_file(path, MAX_KEY_FILE_BYTES)
    except OSError as error:
        raise UsageError(
            f"{title}: cannot be read ({error.strerror}); expected a file with a key; this makes one: "
            f"(umask 077; {NEW_KEY} > {path})"
        ) from None
    keys = [line.strip() for line in content.splitlines() if line.strip()]
    if not keys:
        raise UsageError(f"{title}: has no key; expected one on each line: {NEW_KEY}")
    if any(not 0x21 <= byte <= 0x7E for key in keys for byte in key):
        raise UsageError(f"{title}: expected keys of visible ASCII characters, one on each line: {NEW_KEY}")
    if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        warn(f"{title}: other users can read this file ({stat.filemode(mode)}); chmod 600 {path}")
    return keys


def _number_key(key: bytes) -> bytes:
    """Return the number by which tokens name a key; it says nothing about the key."""
    return hmac.digest(key, b"gentext key number", "sha256")[:NUMBER_BYTES]


def _sign(key: bytes, head: bytes, payload: bytes) -> bytes:
    return hmac.digest(key, SIGNED_PURPOSE + head + payload, "sha256")


def _decode_token(token: str) -> bytes:
    """Return the bytes of a token; SessionError for a text that no bytes are written as."""
    try:
        text = token.encode("ascii")
        content = base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        content = b""
    # Several texts stand for the same bytes, as the last bits of the last character count for nothing.
    is_canonical = base64.urlsafe_b64encode(content).decode().rstrip("=") == token
    if len(content) <= HEAD_BYTES or not is_canonical:
        raise SessionError("session: no session; expected the text of a session, unchanged", "session_invalid")
    return content
