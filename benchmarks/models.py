"""Makes the generators in data/models/, which are part of the package. Whoever changes the file format makes them anew.

    python benchmarks/models.py                        # trains, about six minutes on one core, and exports
    python benchmarks/models.py --run shakespeare=RUN  # exports RUN, which the same command has trained

Needs the train extra, and the text tinyshakespeare, which gen train downloads.
"""

from __future__ import annotations

import argparse
import shlex
import tempfile
from pathlib import Path

from gentext.cli.app import main as gen
from gentext.errors import GenError
from gentext.export.exporter import export_run
from gentext.export.job import ExportOptions
from gentext.run import GENERATOR_FILE, open_run, write_bytes

FOLDER = Path(__file__).parent.parent / "data" / "models"
#: What the card of each model has beside the entries that every export has.
CARDS = {
    "shakespeare": {
        "summary": "verse and prose in the manner of William Shakespeare's plays",
        "edition": "the text tinyshakespeare of gen corpora: 40,000 lines from the plays, without its last tenth",
        "license": {"text": "public domain", "weights": "MIT"},
        # Tables of n-grams would make the file larger. After five passes 256 units without them were as good.
        "command": "gen train tinyshakespeare --preset small --epochs 16 --seed 1 "
        "--set model.ngram_length=0 --set model.hidden=256 --set model.embedding=128 "
        "--set batcher.batch=64 --set run.threads=1",
    }
}


def make_model(name: str, run: Path | None, folder: Path) -> None:
    """Train the model, unless there is a run of it, and replace its file."""
    if run is None:
        run = folder / name
        command = shlex.split(str(CARDS[name]["command"]))
        if gen([*command[1:], "--run", str(run), "--no-export"]):
            raise SystemExit(f"{name}: the training failed")
    exported = folder / f"{name}-exported"
    exported.mkdir()
    for line in export_run(open_run(run), exported, ExportOptions("int8", card=CARDS[name])).lines:
        print(line)
    write_bytes(FOLDER / f"{name}.onnx", (exported / GENERATOR_FILE).read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="append", default=[], metavar="NAME=RUN", help="export this run of a model")
    options = parser.parse_args()
    runs = {name: Path(path) for name, _, path in (option.partition("=") for option in options.run)}
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in CARDS:
            try:
                make_model(name, runs.get(name), Path(folder))
            except GenError as error:
                parser.error(f"{name}: {error}")


if __name__ == "__main__":
    main()
