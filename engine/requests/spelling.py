"""How messages name what a request asks for: as a flag, a keyword argument or a field."""

from __future__ import annotations

import numbers
from collections.abc import Collection
from typing import NamedTuple, Protocol

from gentext.errors import UsageError, nearest
from gentext.requests.declaration import LengthArguments, WriterArguments

#: Link -> parameter -> the number that it is set to.
ParamValues = dict[str, dict[str, float]]


class Spelling(Protocol):
    """How parameters are spelled in messages, and how their values are read: text from flags, objects from Python."""

    def name(self, parameter: str) -> str:
        """Return a parameter as the user writes it: ``--top-k``, or ``top_k``."""
        ...

    def full_name(self, link: str, parameter: str) -> str:
        """Return the unambiguous name of a parameter, for one that several links have."""
        ...

    def assignment(self, parameter: str, setting: object) -> str:
        """Return a parameter, or an option such as ``seed``, with its setting: ``--top-k -1``, or ``top_k = -1``."""
        ...

    def number(self, parameter: str, setting: object) -> float:
        """Return the number that a parameter was set to; raises UsageError for what is no number."""
        ...

    def unknown_parameter(self, parameter: str, parameters: Collection[str]) -> UsageError:
        """Return the error for a name that no link has; ``parameters`` are those that could be set."""
        ...


class KeywordSpelling:
    """Parameters as keyword arguments: ``top_k=5``."""

    def name(self, parameter: str) -> str:
        return parameter

    def full_name(self, link: str, parameter: str) -> str:
        return f"params={{'{link}.{parameter}': ...}}"

    def assignment(self, parameter: str, setting: object) -> str:
        return f"{parameter} = {setting!r}"

    def number(self, parameter: str, setting: object) -> float:
        if isinstance(setting, bool) or not isinstance(setting, numbers.Real):
            raise UsageError(f"{self.assignment(parameter, setting)}: expected a number")
        return float(setting)

    def unknown_parameter(self, parameter: str, parameters: Collection[str]) -> UsageError:
        names = [*LengthArguments.__annotations__, *WriterArguments.__annotations__, *parameters]
        return UsageError(
            f"no parameter {parameter}.{nearest(parameter, names)} "
            f"gen sample --help lists those of links; links of plugins: chain=[...]"
        )


KEYWORD_SPELLING = KeywordSpelling()


class LinkParameter(NamedTuple):
    """The parameter of a link that a name refers to, or the option of a link that each request may set."""

    link: str
    parameter: str
