"""``gen eval``: how well a model predicts a text."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from gentext.cli.source import find_source, run_of
from gentext.console import say
from gentext.errors import CorpusError
from gentext.run import HELD_OUT
from gentext.settings import check_device


def evaluate(
    source: Annotated[
        Path | None, typer.Argument(metavar="[RUN | FILE.onnx]", help="Default: the newest exported run.")
    ] = None,
    text: Annotated[
        Path | None, typer.Argument(metavar="[TEXT FILE]", help="Default: the run's held-out text.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Measure the loss on a text: nats and bits a character, and perplexity.

    The text is read as one stream with its true next characters. Beside it stands the notebook's
    own formula (128 streams of 100, the last target of each wrapped), where the text is long enough.
    """
    from gentext.data.corpus import read_corpus
    from gentext.score import score

    check_device(device)
    path = find_source(source)
    run = run_of(path)
    if text is None:
        if run is None or not (run.path / HELD_OUT).is_file():
            raise CorpusError(f"{path} has no held-out text beside it; name a text file")
        text = run.path / HELD_OUT
    result = score(path, read_corpus(str(text)), device)
    if as_json:
        print(json.dumps({"source": str(path), "text": str(text), **result}, indent=1))
        return
    nats = result["nats_per_character"]
    print(
        f"{nats:.4f} nats a character, {nats / math.log(2):.4f} bits, perplexity {math.exp(nats):.3f} "
        f"({result['characters']:,} characters of {text}, one stream)"
    )
    if result["unknown"]:
        say(f"{result['unknown']} characters are unknown to the model and count as its unknown symbol")
    if result["notebook_formula"] is not None:
        print(f"{result['notebook_formula']:.4f} by the notebook's formula (128 x 100 windows, last target wrapped)")
