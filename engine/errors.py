"""Every error that is shown to the user as one line.

GenError                 base: one line on stderr, exit status 1
├── UsageError           an option, or an argument of a function, is wrong; exit status 2
├── ConfigError          a setting has an unknown name, a wrong type or an impossible value
├── CorpusError          a text is missing, unreadable, or too small to learn from
├── PluginError          a plugin failed to load, clashes, or breaks its contract
│   └── UnknownComponent nothing is registered under that name
├── RunError             a run directory or a checkpoint is missing, damaged, or of another kind
├── FileFormatError      an exported file is damaged, foreign, or of another version
├── DeviceError          this machine does not offer the requested device or precision
├── PrimeError           a prime holds characters that the model's vocabulary does not have
├── SessionError         a session is damaged, foreign, or of another format
│   └── SessionConflict  a session belongs to another file or runtime
├── ExportError          an export failed, or did not agree with the model it came from
│   └── ExportDefect     a conversion of gentext itself failed; the message says what to report
├── TrainingStopped      training ended early (Ctrl-C, a loss that is not a number); work is saved
└── MissingExtra         an optional dependency is not installed

A message has what gentext got, what it expected, and what to do. An exception that is not a GenError is a bug: one line
where the code of a plugin raised it, and a traceback otherwise.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator

__all__ = [
    "ConfigError",
    "CorpusError",
    "DeviceError",
    "ExportDefect",
    "ExportError",
    "FileFormatError",
    "GenError",
    "MissingExtra",
    "PluginError",
    "PrimeError",
    "RunError",
    "SessionConflict",
    "SessionError",
    "TrainingStopped",
    "UnknownComponent",
    "UsageError",
    "nearest",
    "reason",
]

#: Escape sequences that colour text on a terminal; some libraries put them into their messages.
COLOUR_CODES = re.compile(r"\x1b\[[0-9;]*m")
#: Modules that authors of plugins were once told to import, and the modules that have their names now.
MOVED_MODULES = {
    "gentext.plugins.checkpoint": "gentext.plugins.pytorch",
    "gentext.plugins.device": "gentext.plugins.pytorch",
    "gentext.plugins.distributed": "gentext.plugins.pytorch",
    "gentext.plugins.evaluate": "gentext.plugins.pytorch",
    "gentext.plugins.interrupts": "gentext.interrupts",
    "gentext.plugins.recurrent": "gentext.plugins.pytorch",
    "gentext.plugins.session": "gentext.plugins.samplers",
    "gentext.plugins.torch_sampler": "gentext.plugins.pytorch",
}


class GenError(Exception):
    """Base of all errors that are shown as one line, without a traceback."""

    exit_code = 1


class UsageError(GenError):
    """An option of a command, or an argument of a function, is unknown or has an impossible value."""

    exit_code = 2


class ConfigError(GenError):
    """A setting has an unknown name, a wrong type, or an impossible value."""


class CorpusError(GenError):
    """A text is missing, cannot be decoded, or is too small."""


class PluginError(GenError):
    """A plugin failed to load, clashes with another, or breaks its contract."""


class UnknownComponent(PluginError):
    """No component of that kind is registered under that name."""


class RunError(GenError):
    """A run directory or a checkpoint is missing, damaged, or not what it should be."""


class FileFormatError(GenError):
    """An exported file is damaged, was not made by gentext, or has another format version."""


class DeviceError(GenError):
    """The device or the precision that was asked for cannot be used on this machine."""


class PrimeError(GenError):
    """A prime holds a character that the model's vocabulary does not have."""


class SessionError(GenError):
    """A session cannot be gone on with."""

    def __init__(self, message: str, code: str) -> None:
        """``code`` is the reason in one word, for programs."""
        super().__init__(message)
        self.code = code


class SessionConflict(SessionError):
    """A session belongs to another file, or to another version of the runtime."""


class ExportError(GenError):
    """An export failed, or its result does not agree with the model that it came from."""


class ExportDefect(ExportError):
    """A conversion of gentext failed, or its file does not run: an error of gentext, which has to be reported."""


class TrainingStopped(GenError):
    """Training ended before its budget; the message says where the work was saved."""


class MissingExtra(GenError):
    """A feature needs packages that the base install does not bring."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs packages that are not installed: pip install 'gentext[{extra}]'")


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` with the candidate that is most like the name, or an empty string."""
    import difflib  # only messages need it, and importing it takes time at every start

    matches = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.5)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def text_of(error: BaseException) -> str:
    """Return the text of an exception; an empty one where its class, which may be a plugin's, fails to give it."""
    try:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return ""


def reason(error: BaseException) -> str:
    """Return an exception as one short line: the first line of its text, or its type."""
    text = COLOUR_CODES.sub("", text_of(error)).strip()
    first_line = text.splitlines()[0] if text else ""
    if isinstance(error, GenError) and first_line:
        return first_line
    moved = _describe_moved_module(error) if isinstance(error, ImportError) else ""
    return f"{type(error).__name__}: {first_line}".rstrip(": ") + moved


def _describe_moved_module(error: ImportError) -> str:
    """Return where the module is now that an import did not find, as the end of a message, or an empty string."""
    for module, new_module in MOVED_MODULES.items():
        package, _, name = module.rpartition(".")
        # "from gentext.plugins import checkpoint" names the module in the message alone.
        if error.name == module or (error.name == package and f"cannot import name {name!r} from" in text_of(error)):
            return f"; {module} is {new_module} now"
    return ""


def exit_error(component: str, error: SystemExit) -> PluginError:
    """Return the error for a component that raised SystemExit, which would end the program without a word.

    ``component`` names it in the message, as in "the tokenizer 'words'".
    """
    return PluginError(
        f"{component} ended the program ({reason(error)}); only the commands of a plugin may do so, its other code "
        f"must raise another exception"
    )


@contextlib.contextmanager
def refuse_exit(component: str) -> Iterator[None]:
    """Raise `exit_error` where the code of a component raises SystemExit."""
    try:
        yield
    except SystemExit as error:
        raise exit_error(component, error) from error
