"""Writes anew what a page shows of `gen sample` with a model that comes with gentext.

    python benchmarks/samples.py docs/links.md [--check]

Runs each command ``$ gen sample MODEL ...`` of the page's console blocks, and puts below it what it writes. Whoever
makes the model anew, or changes what a link does, runs it. With --check the page stays as it is, and the status is 1
where anything would change.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shlex
from pathlib import Path

from gentext.cli.app import main as gen

FOLDER = Path(__file__).parent.parent / "data" / "models"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: A command, and what is shown of its output.
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


def write_text(command: str) -> str:
    """Return what a command of gen writes to stdout."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = gen(shlex.split(command)[1:])
    if status:
        raise SystemExit(f"{command}: {err.getvalue()}")
    lines = out.getvalue().splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines)


def renew_block(block: re.Match[str]) -> str:
    """Return a block with what its commands write now; those of other models stay as they are."""
    models = {path.stem for path in FOLDER.glob("*.onnx")}

    def renew(command: re.Match[str]) -> str:
        words = shlex.split(command[1], comments=True)
        is_sample = words[:2] == ["gen", "sample"] and len(words) > 2 and words[2] in models
        return f"$ {command[1]}\n{write_text(command[1])}" if is_sample else command[0]

    return f"```console\n{COMMAND.sub(renew, block[1])}```"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, nargs="+")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    is_changed = False
    for page in options.page:
        text = page.read_text(encoding="utf-8")
        renewed = BLOCK.sub(renew_block, text)
        is_changed |= renewed != text
        if renewed != text and not options.check:
            page.write_text(renewed, encoding="utf-8")
        print(f"{page}: {'changed' if renewed != text else 'as it is'}")
    if options.check and is_changed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
