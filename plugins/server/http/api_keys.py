"""Keys that clients send."""

from __future__ import annotations

import hmac

from gentext.plugins.server.problems import Problem


class ApiKeys:
    """The keys that clients may send, compared in a time that does not tell how much of one was right."""

    def __init__(self, keys: list[bytes]) -> None:
        self.keys = keys

    def check(self, authorization: str | None) -> None:
        """Raise a problem for a header ``Authorization`` that has none of the keys."""
        scheme, _, key = (authorization or "").partition(" ")
        sent = key.strip().encode("latin-1", "replace")
        is_equal = [hmac.compare_digest(sent, known_key) for known_key in self.keys]  # all of them
        if scheme.lower() == "bearer" and any(is_equal):
            return
        message = "the API key is not valid" if key else "an API key is missing; send Authorization: Bearer KEY"
        raise Problem(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
