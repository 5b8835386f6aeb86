"""The error for a strategy that breaks a rule of compiling: see docs/strategies.md."""

from __future__ import annotations


class RuleBroken(Exception):
    """A strategy did something that cannot be compiled; the message is the rule."""


#: The rule against operations that need the values of an array.
NO_VALUES = (
    "a Python decision (if, while, int(), float(), range()) on the value of an array; values are not known "
    "while compiling, use xp.where"
)
