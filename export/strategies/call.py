"""Calls a strategy's method while compiling, and turns every failure into one line for its author."""

from __future__ import annotations

import sys
import sysconfig
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gentext.errors import PluginError, reason
from gentext.export.strategies.rules import RuleBroken
from gentext.export.strategies.traced import Traced
from gentext.sampling.chain import Link
from gentext.strategy import Strategy


def call_strategy(link: Link, method: Literal["start", "apply", "accept"], *arguments: Any) -> Any:
    """Call ``apply``, ``accept`` or ``start`` of a link with traced arrays, and check what it returns.

    Raises PluginError naming the link, the author's source line and the rule.
    """
    try:
        returned = getattr(link.strategy, method)(*arguments)
    except (Exception, SystemExit) as error:
        location, explanation = _describe_location(error, link.strategy), _explain_error(error)
        raise PluginError(f"the strategy {link.name!r} cannot be compiled: {location}{explanation}") from error
    returned_states = returned
    if method == "apply":
        if not (isinstance(returned, tuple) and len(returned) == 2):
            raise _wrong_result(link, method, f"returned {type(returned).__name__}, expected (logits, state)")
        logits, returned_states = returned
        _check_array(link, method, "logits", logits, np.dtype("float32"), (link.strategy.vocab_size,))
    declared_states = link.strategy.state
    if not isinstance(returned_states, Mapping):
        raise _wrong_result(
            link, method, f"returned the state {type(returned_states).__name__}, declared {sorted(declared_states)}"
        )
    names_agree = (
        returned_states.keys() <= declared_states.keys()
        if method == "start"
        else returned_states.keys() == declared_states.keys()
    )
    if not names_agree:
        raise _wrong_result(
            link, method, f"returned the state {sorted(returned_states)}, declared {sorted(declared_states)}"
        )
    for name, array in returned_states.items():
        spec = declared_states[name]
        _check_array(link, method, f"state {name!r}", array, np.dtype(spec.dtype), spec.shape)
    return returned


def _check_array(
    link: Link, method: str, name: str, array: Any, dtype: np.dtype[Any], row_shape: tuple[int, ...]
) -> None:
    """Raise PluginError unless an array is a traced one of that type and of the shape [N, *row_shape]."""
    expected_type = f"{dtype}[N{''.join(f', {size}' for size in row_shape)}]"
    if not isinstance(array, Traced):
        raise _wrong_result(link, method, f"returned {name} as {type(array).__name__}, expected {expected_type}")
    sizes_match = len(array.shape) == 1 + len(row_shape) and all(
        size in (declared_size, None) for size, declared_size in zip(array.shape[1:], row_shape, strict=True)
    )
    if array.dtype != dtype or not sizes_match:
        actual_type = f"{array.dtype}{list(array.shape)}".replace("None", "N")
        hint = " (a float64 constant? write Python numbers)" if array.dtype == np.float64 else ""
        raise _wrong_result(link, method, f"returned {name} as {actual_type}, expected {expected_type}{hint}")


def _wrong_result(link: Link, method: str, problem: str) -> PluginError:
    return PluginError(f"the strategy {link.name!r} cannot be compiled: {method}() {problem}")


def _describe_location(error: BaseException, strategy: Strategy) -> str:
    """Return file, line number and text of the author's line on the way to an error, or an empty string."""
    frame = _author_frame(traceback.extract_tb(error.__traceback__)[1:], strategy)  # the first is `call_strategy`
    if frame is None:
        return ""
    return f"{Path(frame.filename).name}:{frame.lineno} `{(frame.line or '').strip()[:90]}`: "


def _author_frame(frames: list[traceback.FrameSummary], strategy: Strategy) -> traceback.FrameSummary | None:
    """Return the innermost frame in the packages of the strategy's classes, wherever they are installed.

    Where there is none, the innermost one that is neither gentext's nor an installed library's; and the strategy's
    own method where there is none of these either, as when a link of gentext itself fails.
    """
    package_names = {base_class.__module__.partition(".")[0] for base_class in type(strategy).__mro__}
    package_names -= {"gentext", *sys.stdlib_module_names}
    author_files, own_files = _source_files(package_names), _source_files({"gentext"})
    for frame in reversed(frames):
        if frame.filename in author_files:
            return frame
    for frame in reversed(frames):
        if frame.filename not in own_files and not _is_library(frame.filename):
            return frame
    return frames[0] if frames else None


def _source_files(package_names: set[str]) -> set[str]:
    """Return the source files of all modules of some packages that are imported."""
    modules = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] in package_names]
    filenames = [getattr(module, "__file__", None) for module in modules]  # a namespace package has none
    return {filename for filename in filenames if filename is not None}


def _is_library(filename: str) -> bool:
    """Return whether a file belongs to Python itself, or to an installed distribution."""
    if {"site-packages", "dist-packages"} & set(Path(filename).parts) or filename.startswith("<frozen "):
        return True
    return Path(filename).is_relative_to(sysconfig.get_path("stdlib"))


def _explain_error(error: BaseException) -> str:
    if isinstance(error, RuleBroken):
        return str(error)
    text = str(error)
    if "Traced" in text or "ufunc" in text:
        return f"NumPy or Python code that needs values; use xp.<name> ({reason(error)})"
    return reason(error)
