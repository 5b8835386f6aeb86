"""Components with one planted fault each, for the tests of the test kit."""

from __future__ import annotations

from typing import Any

#: A class with one planted fault, and a part of the message that names the rule.
Fault = tuple[type[Any], str]


def plant(base: type[Any], **members: Any) -> type[Any]:
    """Return a class that is like another one, but for one fault."""
    return type("Faulty", (base,), members)


def name_faults(faults: list[Fault]) -> dict[str, Any]:
    """Return the arguments of a parametrized test, whose parts are called by the messages."""
    return {"argnames": ("cls", "message"), "argvalues": faults, "ids": [message for _, message in faults]}
