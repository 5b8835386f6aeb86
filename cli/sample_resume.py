"""The command line of ``gen sample --resume``: that of the command that began the file, which lies beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gentext.errors import UsageError
from gentext.records.record_output import read_settings

#: Options that change no record, which a command may have when it goes on with a file.
FREE_OPTIONS = ("--slots", "--threads")
#: The spellings of the option that names the file.
OUTPUT_OPTIONS = ("-o", "--output")


class CommandWords(NamedTuple):
    """The words of a command line."""

    decisive: list[str]
    """Those that decide which records are written."""
    free: list[str]
    """Those of `FREE_OPTIONS`."""
    output: str | None
    """The file to write."""
    resume: bool

    @classmethod
    def split(cls, words: Sequence[str]) -> CommandWords:
        """Return the words of a command line by what they decide."""
        decisive: list[str] = []
        free: list[str] = []
        output = None
        remaining = iter(words)
        for word in remaining:
            name, equals, setting = word.partition("=")
            if name not in (*FREE_OPTIONS, *OUTPUT_OPTIONS):
                decisive.append(word)
                continue
            setting = setting if equals else next(remaining, "")
            if name in OUTPUT_OPTIONS:
                output = setting
            else:
                free += [name, setting]
        return cls([word for word in decisive if word != "--resume"], free, output, "--resume" in decisive)


def resumed_words(words: list[str]) -> tuple[list[str], dict[str, Any] | None]:
    """Return the words of the command to run, and the settings of the file that ``--resume`` goes on with, or None.

    Raises UsageError for other options than those that the file was begun with, RunError without its settings.
    """
    typed = CommandWords.split(words)
    if not typed.resume:
        return words, None
    if not typed.output:
        raise UsageError("--resume: expected -o FILE with it, the file to go on with")
    settings = read_settings(Path(typed.output))
    if typed.decisive and typed.decisive != settings["words"]:
        raise UsageError(
            f"--resume: {typed.output} was begun with gen sample {' '.join(settings['words'])}; give the same options, "
            f"or none"
        )
    return [*settings["words"], *typed.free, "--output", typed.output, "--resume"], settings
