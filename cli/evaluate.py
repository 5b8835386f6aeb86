"""``gen eval``: how well a model predicts a text."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from gentext.completion import complete_models
from gentext.console import say, warn
from gentext.errors import CorpusError
from gentext.library import open_text_model
from gentext.run import HELD_OUT_FILE
from gentext.settings import check_device


def evaluate(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN | FILE.onnx]", help="Default: the newest exported run.", autocompletion=complete_models
        ),
    ] = None,
    text: Annotated[
        Path | None, typer.Argument(metavar="[TEXT FILE]", help="Default: the run's held-out text.")
    ] = None,
    notebook: Annotated[
        bool, typer.Option("--notebook", help="Also by the notebook's formula: 128 streams of 100.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Open a file that does not fit its check.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Measure the loss on a text: nats and bits a character, and perplexity.

    The text is read as one stream with its true next characters, piece by piece, so it may be longer than memory.
    """
    from gentext.data.corpus import corpus_name, iter_text, read_corpus
    from gentext.data.stream import PIECE_SIZE, cut_pieces

    check_device(device)
    model = open_text_model(source, device, options={"verify": False} if no_verify else None)
    if text is None:
        text = model.path / HELD_OUT_FILE
        if not text.is_file():
            raise CorpusError(f"{model.path} has no held-out text beside it; name a text file")
    # The notebook's formula needs all of the text. It is read once, since it may come from a pipe.
    whole_text = read_corpus(str(text)).text if notebook else ""
    pieces = cut_pieces(iter([whole_text]) if notebook else iter_text(str(text)), PIECE_SIZE)
    size = text.stat().st_size if text.is_file() else None
    score = model.measure_pieces(pieces, corpus_name(str(text)), size)
    notebook_loss = None
    if notebook:
        notebook_loss = model.notebook_score(whole_text)
        if notebook_loss is None:
            warn(f"{text}: too short for --notebook, which needs a batch of 128 x 100 symbols")
    if as_json:
        report = {
            "source": str(model.path),
            "text": str(text),
            "characters": score.characters,
            "symbols": score.symbol_count,
            "nats_per_character": _finite(score.nats_per_character),
            "bits_per_character": _finite(score.bits_per_character),
            "perplexity": _finite(score.perplexity),
            "unknown": score.unknown,
        }
        if notebook:
            report["notebook_formula"] = None if notebook_loss is None else _finite(notebook_loss)
        print(json.dumps(report, indent=1))
        return
    print(
        f"{score.nats_per_character:.4f} nats a character, {score.bits_per_character:.4f} bits, "
        f"perplexity {score.perplexity:.3f} ({score.characters:,} characters of {text}, one stream)"
    )
    if score.unknown:
        say(f"{score.unknown} characters are unknown to the model and count as its unknown symbol")
    if score.symbol_count != score.characters:
        print(f"{score.nats_per_symbol:.4f} nats a symbol ({score.symbol_count:,} symbols)")
    if notebook_loss is not None:
        print(f"{notebook_loss:.4f} by the notebook's formula (128 x 100 windows, last target wrapped)")


def _finite(figure: float) -> float | None:
    """Return a figure for JSON, which has no infinity: it becomes null."""
    return figure if math.isfinite(figure) else None
