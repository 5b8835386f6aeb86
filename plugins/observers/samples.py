"""Writes samples.txt: a text of the model at each measurement, always with the same seed."""

from __future__ import annotations

import re

from gentext.console import say
from gentext.errors import RunError
from gentext.events import Progress
from gentext.files.reading import read_regular_file
from gentext.hookspecs import hookimpl
from gentext.run import SAMPLES_FILE, Run, append_line, write_text
from gentext.settings import Settings

#: Characters of a sample.
SAMPLE_LENGTH = 300
#: Characters of a sample that are printed, at most, and lines.
PRINTED_LENGTH, PRINTED_LINES = 200, 6
#: Bytes of samples.txt, at most, of which a resumed run reads all: a hundred thousand samples.
MAX_SAMPLES_BYTES = 2**25
HEADER_PATTERN = re.compile(r"^=== step (\d+), held-out loss [\d.]+ ===$", re.MULTILINE)


@hookimpl
def run_started(run: Run, settings: Settings, progress: Progress) -> None:
    """Drop the samples of steps after the checkpoint from which training continues."""
    path = run.path / SAMPLES_FILE
    try:
        text = read_regular_file(path, MAX_SAMPLES_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        text = ""
    except OSError as error:
        raise RunError(
            f"{path}: cannot be read ({error.strerror}); move it away, and training begins a new one"
        ) from error
    dropped_positions = [header.start() for header in HEADER_PATTERN.finditer(text) if int(header[1]) > progress.step]
    write_text(path, text[: dropped_positions[0]] if dropped_positions else text)


@hookimpl
def evaluated(run: Run, progress: Progress) -> None:
    if progress.sample is not None:
        text = progress.sample(SAMPLE_LENGTH)
        for line in _printed_lines(text):
            say(f"    {line}")
        append_line(
            run.path / SAMPLES_FILE,
            f"=== step {progress.step}, held-out loss {progress.val_loss:.4f} ===\n{text}\n",
        )


def _printed_lines(text: str) -> list[str]:
    """Return the first lines of a sample. Any byte may be in it, and a control character could steer the terminal."""
    lines = text[:PRINTED_LENGTH].expandtabs(4).strip("\n").split("\n")[:PRINTED_LINES]
    return [
        "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
        for line in lines
    ]
