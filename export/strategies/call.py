"""Calls a strategy's function while compiling, and turns what goes wrong into one clear line."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import numpy as np

from gentext.chain import Link
from gentext.errors import PluginError, reason
from gentext.export.strategies.traced import RuleBroken, Traced


def call(link: Link, method: str, *arguments: Any) -> Any:
    """Call ``apply``, ``accept`` or ``start`` of a link with traced arrays and check what it returns.

    Raises PluginError naming the link, the author's source line and the rule.
    """
    try:
        result = getattr(link.strategy, method)(*arguments)
    except Exception as error:
        raise PluginError(f"the strategy {link.name!r} cannot be compiled: {_where(error)}{_why(error)}") from error
    states = result
    if method == "apply":
        if not (isinstance(result, tuple) and len(result) == 2):
            raise _broken(link, method, f"returned {type(result).__name__}, expected (logits, state)")
        _check(link, method, "logits", result[0], np.dtype("float32"), (link.strategy.vocab_size,))
        states = result[1]
    declared = link.strategy.state
    if not hasattr(states, "keys") or (
        set(states) != set(declared) if method != "start" else set(states) - set(declared)
    ):
        raise _broken(link, method, f"returned the state {_keys(states)}, declared {sorted(declared)}")
    for name in states:
        spec = declared[name]
        _check(link, method, f"state {name!r}", states[name], np.dtype(spec.dtype), spec.shape)
    return result


def _check(link: Link, method: str, what: str, value: Any, dtype: Any, row: tuple[int, ...]) -> None:
    wanted = f"{dtype}[N{''.join(f', {size}' for size in row)}]"
    if not isinstance(value, Traced):
        raise _broken(link, method, f"returned {what} as {type(value).__name__}, expected {wanted}")
    found = f"{value.dtype}{list(value.shape)}".replace("None", "N")
    hint = " (a float64 constant? write Python numbers)" if value.dtype == np.float64 else ""
    fits = len(value.shape) == 1 + len(row) and all(a in (b, None) for a, b in zip(value.shape[1:], row, strict=True))
    if value.dtype != dtype or not fits:
        raise _broken(link, method, f"returned {what} as {found}, expected {wanted}{hint}")


def _broken(link: Link, method: str, problem: str) -> PluginError:
    return PluginError(f"the strategy {link.name!r} cannot be compiled: {method}() {problem}")


def _keys(states: Any) -> Any:
    return sorted(states) if hasattr(states, "keys") else type(states).__name__


def _where(error: BaseException) -> str:
    """Return file, line and text of the author's line: the innermost one that is neither ours nor a library's."""
    ours = Path(__file__).parent
    frames = [one for one in traceback.extract_tb(error.__traceback__) if Path(one.filename).parent != ours]
    frames = [one for one in frames if "site-packages" not in one.filename]
    if not frames:
        return ""
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno} `{(frames[-1].line or '').strip()[:90]}`: "


def _why(error: BaseException) -> str:
    if isinstance(error, RuleBroken):
        return str(error)
    text = str(error)
    if "Traced" in text or "ufunc" in text:
        return f"NumPy or Python code that needs values; use xp.<name> ({reason(error)})"
    return reason(error)
