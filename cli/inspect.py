"""``gen inspect``: what a model thinks at each symbol of a text, as a page or a picture."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from gentext.arguments import with_flags
from gentext.cli.links import FlagSpelling
from gentext.console import say
from gentext.corpus.held_out import held_out_path, read_held_out
from gentext.describe import tokenizer_of
from gentext.errors import CorpusError, MissingExtra, UsageError, nearest
from gentext.files.atomic import check_output
from gentext.library.declaration import OpenArguments
from gentext.library.loading import TextModel, open_from_arguments
from gentext.runs.completion import complete_models
from gentext.scoring.inspection import inspect_tokens, most_symbols, unit_names
from gentext.scoring.unknown_characters import UnknownCharacters

#: The most probable symbols of a position that a page has, at most.
MAX_TOP = 20


@with_flags
def inspect(
    source: Annotated[
        Path,
        typer.Argument(metavar="RUN | FILE.onnx", help="The model that reads.", autocompletion=complete_models),
    ],
    file: Annotated[
        str | None, typer.Argument(metavar="[TEXT FILE | -]", help="Default: the run's held-out text.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="The text itself, in place of a file.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write an HTML page to this file.")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw a picture of the beginning into this PNG file.")] = None,
    length: Annotated[int, typer.Option(help="Symbols to read, at most.")] = 10_000,
    top: Annotated[int, typer.Option(help="How many probable symbols to show at each place.")] = 5,
    unit: Annotated[
        list[str] | None, typer.Option(help="Also show this hidden unit, such as h.0.12; may be repeated.")
    ] = None,
    unknown: Annotated[
        str, typer.Option(help="What to do about characters that the model does not know: error or skip.")
    ] = "error",
    *,
    opening: OpenArguments,
) -> None:
    """Show how a model reads a text: the surprise of each symbol, what else was probable, and its hidden units.

    The page is one file that needs nothing else. It names the hidden units that tell most about line ends, quotes and
    more.
    """
    from gentext.cli.inspect_page import write_page
    from gentext.cli.inspect_report import build_report
    from gentext.scoring.score import encode_text

    _check_options(file, text, output, png, length, top)
    if png is not None and importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("--png", "train")
    model = open_from_arguments(source, opening)
    _check_units(unit or [], unit_names(model.bundle))
    length = min(length, most_symbols(model.bundle))
    characters = UnknownCharacters([model.bundle], unknown, FlagSpelling())
    name, beginning, is_cut = _read_text(model, file, text, length, characters)
    if not beginning:
        raise CorpusError(f"{name}: no text to inspect")
    tokenizer = tokenizer_of(model.bundle)
    characters.count_replaced(beginning, tokenizer, f"{name}: ")
    characters.report(name)
    tokens = encode_text(model.bundle, tokenizer, beginning)
    if is_cut or len(tokens) > length:
        say(f"the first {min(len(tokens), length):,} symbols of {name} are read; --length takes more or fewer")
    inspection = inspect_tokens(model._sampler, tokens[:length], top)
    report = build_report(model, name, inspection, unit or [])
    if output is not None:
        write_page(report, output)
        say(f"wrote {output} ({output.stat().st_size:,} bytes)")
    if png is not None:
        from gentext.cli.inspect_picture import draw_picture

        draw_picture(report, png)
        say(f"wrote {png}")
    for line in report.lines():
        print(line)


def _check_options(
    file: str | None, text: str | None, output: Path | None, png: Path | None, length: int, top: int
) -> None:
    if output is None and png is None:
        raise UsageError("nothing to write: expected -o PAGE.html, or --png PICTURE.png, or both")
    if file is not None and text is not None:
        raise UsageError("a text file and --text: expected one of them")
    if length < 1:
        raise UsageError(f"--length {length}: expected 1 or more symbols")
    if not 1 <= top <= MAX_TOP:
        raise UsageError(f"--top {top}: expected 1 to {MAX_TOP}")
    for path in (output, png):
        if path is not None:
            check_output(path)


def _check_units(chosen_names: list[str], names: list[str]) -> None:
    known_names = set(names)
    for name in chosen_names:
        if name not in known_names:
            expected = f"{names[0]} to {names[-1]}" if names else "none, as the model has no states of real numbers"
            raise UsageError(f"--unit {name}: no such hidden unit; expected {expected}.{nearest(name, names)}")


def _read_text(
    model: TextModel, file: str | None, text: str | None, length: int, characters: UnknownCharacters
) -> tuple[str, str, bool]:
    """Return the name of the text, its beginning of about ``length`` symbols, and whether it is longer.

    Of ``characters`` it lacks those that are to be left out.
    """
    from gentext.data.corpus import corpus_name, iter_text

    if text is not None:
        return "the text", characters.leave_out(text), False
    if file is None:
        held_out = held_out_path(model.path)
        if not held_out.is_file():
            raise CorpusError(f"{model.path} has no held-out text beside it; name a text file, or --text")
        if model.bundle.boundary is not None:  # one record: the model reads each from a fresh state
            return held_out.stem, characters.leave_out(read_held_out(held_out)[0]), False
        file = str(held_out)
    limit = length * max(1, *(len(symbol) for symbol in model.bundle.token_bytes))
    beginning = ""
    for piece in iter_text(file):
        rest = piece
        while rest and len(beginning) < limit:
            room = limit - len(beginning)
            beginning += characters.leave_out(rest[:room])
            rest = rest[room:]
        if rest:
            return corpus_name(file), beginning, True
    return corpus_name(file), beginning, False
