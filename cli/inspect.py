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
from gentext.errors import CorpusError, MissingExtra, UsageError
from gentext.files.atomic import check_output
from gentext.inspection.reading import most_symbols
from gentext.library.declaration import OpenArguments
from gentext.library.loading import TextModel, open_from_arguments
from gentext.runs.completion import complete_models
from gentext.scoring.unknown_characters import UnknownCharacters


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
    from gentext.inspection.inspected_text import check_inspection, inspect_tokens, tokens_to_inspect

    _check_options(file, text, output, png, length)
    if png is not None and importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("--png", "train")
    model = open_from_arguments(source, opening)
    check_inspection(model.bundle, top, unit or [], FlagSpelling())
    length = min(length, most_symbols(model.bundle))
    characters = UnknownCharacters([model.bundle], unknown, FlagSpelling())
    name, beginning, is_cut = _read_text(model, file, text, length, characters)
    tokens = tokens_to_inspect(model.bundle, beginning, name, characters)
    if is_cut or len(tokens) > length:
        say(f"the first {min(len(tokens), length):,} symbols of {name} are read; --length takes more or fewer")
    inspected = inspect_tokens(model._sampler, tokens[:length], top, unit or [], model.path, name)
    if output is not None:
        inspected.save(output)
        say(f"wrote {output} ({output.stat().st_size:,} bytes)")
    if png is not None:
        from gentext.cli.inspect_picture import draw_picture

        draw_picture(inspected, png)
        say(f"wrote {png}")
    for line in inspected.lines():
        print(line)


def _check_options(file: str | None, text: str | None, output: Path | None, png: Path | None, length: int) -> None:
    if output is None and png is None:
        raise UsageError("nothing to write: expected -o PAGE.html, or --png PICTURE.png, or both")
    if file is not None and text is not None:
        raise UsageError("a text file and --text: expected one of them")
    if length < 1:
        raise UsageError(f"--length {length}: expected 1 or more symbols")
    for path in (output, png):
        if path is not None:
            check_output(path)


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
