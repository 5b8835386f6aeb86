"""``gen sample --interactive``: a text that the user and the model write in turns.

`screen` needs a terminal and the library prompt_toolkit. `lines` needs neither: it reads lines, also from a pipe.
"""

from __future__ import annotations

import os
import sys

from gentext.cli.interactive.commands import Commands, SettingSpelling
from gentext.errors import MissingExtra, UsageError
from gentext.generation.slots import Slots
from gentext.library.loading import TextModel
from gentext.plugins.samplers.onnx import OnnxGenerator
from gentext.requests.declaration import WritingOptions
from gentext.sessions.text_tree import TextTree

#: Seconds of the model's work between two pieces of text.
PIECE_SECONDS = 0.05


def write_interactively(model: TextModel, prime: str, options: WritingOptions, seed: int) -> None:
    """Write a text with the user, until they end it.

    Raises UsageError where the model has no compiled generator, or one with another chain, and MissingExtra for a
    terminal without prompt_toolkit.
    """
    sampler = model._sampler
    if not isinstance(sampler, OnnxGenerator):
        raise UsageError(
            f"--interactive: {model.path} has no compiled generator, whose states are needed to branch; "
            f"expected a run with generator.onnx: gen export RUN"
        )
    slots = Slots(sampler.model, model.bundle, 1, chunk_seconds=PIECE_SECONDS)
    commands = Commands(model, TextTree(model, slots, options, seed, SettingSpelling()))
    if not has_screen():
        from gentext.cli.interactive.lines import run_lines

        run_lines(commands, prime)
        return
    try:
        from gentext.cli.interactive.screen import run_screen
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "prompt_toolkit":
            raise
        raise MissingExtra("--interactive (but not with TERM=dumb)", "interactive") from None
    run_screen(commands, prime)


def has_screen() -> bool:
    """Return whether input and output are a terminal that can do more than print lines."""
    is_terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    return is_terminal and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
