"""``gen eval``: how well a model predicts a text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from gentext.arguments import with_flags
from gentext.cli.links import FlagSpelling
from gentext.console import progress, warn
from gentext.corpus.held_out import held_out_path, read_held_out_repeats
from gentext.errors import CorpusError, UsageError
from gentext.library.declaration import OPEN_DEFAULTS, FileArguments
from gentext.library.loading import TextModel, open_from_arguments
from gentext.run import HELD_OUT_FILE
from gentext.runs.completion import complete_models
from gentext.runs.record_options import RecordOptions
from gentext.scoring.record_scores import EncodedText, TextScorer, score_texts
from gentext.scoring.unknown_characters import UnknownCharacters


@with_flags
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
        bool,
        typer.Option(
            "--notebook", help="Also measure by the notebook's formula: 128 streams, windows of 100 characters."
        ),
    ] = False,
    weight: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column of the file that says how often a record counts.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip broken records, and count them.")] = False,
    unknown: Annotated[
        str, typer.Option(help="What to do about characters that the model does not know: error or skip.")
    ] = "error",
    *,
    opening: FileArguments,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the loss on a text: nats and bits a character, and perplexity.

    The text is read as one stream with its true next characters, piece by piece, so it may be longer than memory.
    """
    from gentext.data.corpus import corpus_name, iter_text, read_corpus
    from gentext.data.stream import PIECE_SIZE, cut_pieces

    model = open_from_arguments(source, {**OPEN_DEFAULTS, **opening})
    characters = UnknownCharacters([model.bundle], unknown, FlagSpelling())
    if model.bundle.records is not None:
        if notebook:
            raise UsageError("--notebook: the notebook's formula is for one text, and this is a model of records")
        if weight is not None and text is None:
            raise UsageError("--weight is for a file of records; those that a run holds out count as in its training")
        options = RecordOptions(model.bundle.records.layout, weight=weight or "", skip_bad=skip_bad)
        _evaluate_records(model, options, text, characters, as_json)
        return
    if weight is not None:
        raise UsageError("--weight is for a model of records, and this is a model of one text")
    if skip_bad:
        raise UsageError("--skip-bad is for a model of records, and this is a model of one text")
    if text is None:
        text = model.path / HELD_OUT_FILE
        if not text.is_file():
            raise CorpusError(f"{model.path} has no held-out text beside it; name a text file")
        if not text.stat().st_size:
            raise CorpusError(f"{model.path}: nothing was held out when it was trained; name a text file")
    # The notebook's formula needs all of the text. It is read once, since it may come from a pipe.
    whole_text = read_corpus(str(text)).text if notebook else ""
    pieces = cut_pieces(iter([whole_text]) if notebook else iter_text(str(text)), PIECE_SIZE)
    size = text.stat().st_size if text.is_file() else None
    score = model.measure_pieces(pieces, corpus_name(str(text)), size, characters)
    notebook_loss = None
    if notebook:
        notebook_loss = model.notebook_score(whole_text, unknown)
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
    if score.symbol_count != score.characters:
        print(f"{score.nats_per_symbol:.4f} nats a symbol ({score.symbol_count:,} symbols)")
    if notebook_loss is not None:
        print(f"{notebook_loss:.4f} by the notebook's formula (128 x 100 windows, last target wrapped)")


def _evaluate_records(
    model: TextModel, options: RecordOptions, path: Path | None, characters: UnknownCharacters, as_json: bool
) -> None:
    """Print the loss on records: those of a file, laid out as the model's were, or those that the run holds out."""
    from gentext.data.corpus import corpus_name

    scorer = TextScorer(model.whole_sequence_sampler(), characters)
    records: Iterable[EncodedText[int]]
    if path is None:
        path = held_out_path(model.path)
        records = (EncodedText(repeats, text, [scorer.encode(text)]) for text, repeats in read_held_out_repeats(path))
    else:
        records = _encode_records(scorer, options, str(path))
    count = symbols = 0
    logprob = 0.0
    with progress("measuring the loss", None, "records") as bar:
        for window in score_texts([scorer], records):
            for repeats, [score] in window:
                count += repeats
                symbols += repeats * len(score.tokens)
                logprob += repeats * score.logprob
            bar.advance(len(window))
    if not count:
        raise CorpusError(f"{path}: no records to measure; name a file of records")
    nats, bits = -logprob / symbols, -logprob / count / math.log(2)
    unknown = characters.count
    characters.report(corpus_name(str(path)))
    if as_json:
        report = {
            "source": str(model.path),
            "text": str(path),
            "records": count,
            "symbols": symbols,
            "nats_per_symbol": _finite(nats),
            "bits_per_record": _finite(bits),
            "unknown": unknown,
        }
        print(json.dumps(report, indent=1))
        return
    print(f"{nats:.4f} nats a symbol, {bits:.4f} bits a record ({count:,} records of {path}, {symbols:,} symbols)")


def _encode_records(scorer: TextScorer, options: RecordOptions, path: str) -> Iterator[EncodedText[int]]:
    """Yield the records of a file, each with how many times it counts, in the tokens of a model.

    Raises CorpusError for the first that cannot be measured.
    """
    from gentext.data.corpus import corpus_name, iter_text
    from gentext.data.records import RecordReader

    name = corpus_name(path)
    for record in RecordReader(name, iter_text(path, escape_errors=True), options):
        if not record.repeats:
            continue
        try:
            tokens = scorer.encode(record.text)
        except CorpusError as error:
            raise CorpusError(f"{name}, line {record.line:,}: {error}") from None
        yield EncodedText(record.repeats, record.text, [tokens])


def _finite(figure: float) -> float | None:
    """Return a figure for JSON, which has no infinity: it becomes null."""
    return figure if math.isfinite(figure) else None
