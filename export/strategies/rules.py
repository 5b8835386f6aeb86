"""The error behind every rule that a strategy must keep to be compiled: see docs/strategies.md."""

from __future__ import annotations


class RuleBroken(Exception):
    """A strategy did something that cannot be compiled; the message is the rule."""


#: The rule behind all operations that would need the values of an array.
NO_VALUES = (
    "a Python decision (if, while, int(), float(), range()) on the value of an array; values are not known "
    "while compiling, use xp.where"
)
