"""The errors that a client gets, as OpenAI's API has them: a status and an object with the message."""

from __future__ import annotations

import re
from typing import Any

from gentext.errors import FileFormatError, GenError, PluginError, SessionConflict, SessionError, text_of

#: The type of an error, as OpenAI's clients know it, by the status. All others are ``invalid_request_error``.
TYPE_BY_STATUS = {
    401: "authentication_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


class Problem(Exception):
    """An error that is the answer to a request."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        parameter: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.parameter, self.code = status, message, parameter, code
        self.headers = headers or {}

    def to_json(self) -> dict[str, Any]:
        """Return the object that is the body of the answer, or an event of a stream."""
        kind = TYPE_BY_STATUS.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.parameter, "code": self.code}}


class Overload(GenError):
    """The server has too much to do; the client may try again later."""


def problem_of(error: GenError) -> Problem:
    """Return the problem for an error of gentext: the client's, unless the file or a plugin is to blame."""
    if isinstance(error, SessionError):
        status = 409 if isinstance(error, SessionConflict) else 400
        return Problem(status, text_of(error), parameter="session", code=error.code)
    status = 500 if isinstance(error, FileFormatError | PluginError) else 503 if isinstance(error, Overload) else 400
    message = text_of(error)
    assignment = re.match(r"(\w+) = ", message)
    return Problem(status, message, parameter=assignment[1] if assignment else None)
