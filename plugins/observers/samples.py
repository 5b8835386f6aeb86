"""Writes samples.txt: what the model writes at each measurement, always from the same seed."""

from __future__ import annotations

import re

from gentext.console import say
from gentext.events import Progress
from gentext.hookspecs import hookimpl
from gentext.run import SAMPLES, Run, append_line, write_text
from gentext.settings import Settings

LENGTH = 300
#: How much of a sample is shown while training.
SHOWN = 100
HEADER = re.compile(r"^=== step (\d+), held-out loss [\d.]+ ===$", re.MULTILINE)


@hookimpl
def run_started(run: Run, settings: Settings, progress: Progress) -> None:
    """Cut the file back to the checkpoint that training goes on from."""
    path = run.path / SAMPLES
    text = path.read_bytes().decode("utf-8", "replace") if path.exists() else ""
    late = [match.start() for match in HEADER.finditer(text) if int(match[1]) > progress.step]
    write_text(path, text[: late[0]] if late else text)


@hookimpl
def evaluated(run: Run, progress: Progress) -> None:
    if progress.sample is not None:
        text = progress.sample(LENGTH)
        # A symbol may be any byte; what is not to be printed could steer the terminal.
        shown = " ".join(text.split())[:SHOWN]
        say("    " + "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in shown))
        append_line(
            run.path / SAMPLES,
            f"=== step {progress.step}, held-out loss {progress.val_loss:.4f} ===\n{text}\n",
        )
