"""``gen sample``: write text with a trained model."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand

from gentext.cli.links import FlagSpelling, describe_flags, extract_flags, split_names
from gentext.completion import complete_models
from gentext.config import merge, parse_setting
from gentext.console import Bar, progress, raw_stdout, say, warn
from gentext.errors import PrimeError, UsageError
from gentext.escapes import decode_escapes
from gentext.interrupts import EndedByUser
from gentext.library import open_text_model
from gentext.manager import host
from gentext.parameters import ChosenChain
from gentext.reading import read_file, read_stream
from gentext.settings import check_device, check_threads
from gentext.source import FILE_SAMPLER
from gentext.writing import TextBatch, Writing, WritingOptions, WrittenText, check_options

#: Bytes of a prime, at most: several novels.
MAX_PRIME_BYTES = 2**22


class SampleCommand(TyperCommand):
    """``gen sample`` with the options of whatever links its chain has, such as --temperature."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options = {name: option for option in self.params for name in getattr(option, "opts", [])}
        ctx.meta["flags"], declared = extract_flags(args, options)
        ctx.meta["spelling"] = FlagSpelling([name.lstrip("-") for name in options])
        return super().parse_args(ctx, declared)

    def get_help(self, ctx: Any) -> str:
        return super().get_help(ctx) + "\n" + describe_flags(host().registry)


#: `gentext.cli.app` builds the command with this class.
COMMAND_CLASS = SampleCommand


class Separation(NamedTuple):
    """How texts are kept apart on stdout."""

    text_end: str
    """Follows each text."""
    between: str
    """Precedes each text but the first."""

    def occurs_in(self, text: str) -> bool:
        """Return whether the text has a separator within itself, so that it would be taken for two."""
        return bool(self.between) and self.text_end + self.between in self.text_end + text + self.text_end


#: Without --separator, each text ends its line, and a line of its own stands between two texts.
SEPARATOR_LINES = Separation("\n", "%%%\n")


def sample(
    ctx: typer.Context,
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN | FILE.onnx]", help="Default: the newest exported run.", autocompletion=complete_models
        ),
    ] = None,
    prime: Annotated[str | None, typer.Option(help="Text to go on from.")] = None,
    prime_file: Annotated[str | None, typer.Option(help="The same from a file, or from - .")] = None,
    length: Annotated[int, typer.Option(help="New characters; 0: without end.")] = 500,
    count: Annotated[int, typer.Option(help="How many texts to write, all from one seed.")] = 1,
    separator: Annotated[
        str | None,
        typer.Option(help="What to print between two texts, such as '\\0', and nothing else. Default: a line %%%."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same text. Default: a fresh one.")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="Stop before this text, such as '\\n\\n'; may be repeated.")
    ] = None,
    match: Annotated[
        str | None, typer.Option(metavar="REGEX", help="A regular expression that each new text matches, whole.")
    ] = None,
    json_schema: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A JSON schema by which each new text is valid.")
    ] = None,
    match_prime: Annotated[
        bool, typer.Option("--match-prime", help="The prime counts as the beginning of it.")
    ] = False,
    style: Annotated[
        str | None, typer.Option(help="careful, balanced or bold; parameters beside it count. Default: the file's.")
    ] = None,
    chain: Annotated[str | None, typer.Option(help="Links in order, with commas. Default: the file's.")] = None,
    unknown: Annotated[
        str, typer.Option(help="Characters of the prime that are unknown: error, skip or unknown.")
    ] = "error",
    sampler: Annotated[str, typer.Option(help="onnx or torch, or a plugin's.")] = FILE_SAMPLER,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="sampler.KEY=VALUE", help="One option of the sampler.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(help="Threads; the text is the same. Default: by the size of the file.")] = 0,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Open a file that does not fit its check.")] = False,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="Write in turns with the model: type, Tab goes on.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a text.")] = False,
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Print when all is written.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Send control characters to the terminal as they are.")] = False,
    show_chain: Annotated[bool, typer.Option("--show-chain", help="Say which links run, with their values.")] = False,
) -> None:
    """Write text: the prime, then exactly LENGTH new characters, or at most so many with --match or --json-schema.

    Text goes to stdout as it is written, everything else to stderr.
    """
    # check the arguments before anything is opened
    spelling = ctx.meta["spelling"]
    _check_length(length, count)
    separation = _parse_separator(separator, as_json)
    options = WritingOptions(
        count_per_prime=count,
        length=length or None,
        seed=seed,
        stop=[decode_escapes(text) for text in stop or ()],
        unknown=unknown,
        links=split_names(chain),
        parameters=ctx.meta["flags"],
        match=match,
        json_schema=json_schema,
        match_prime=match_prime,
        style=style,
    )
    if interactive:
        _check_interactive(
            {"--count": count > 1, "--json": as_json, "--no-stream": no_stream, "--raw": raw}
            | {"--separator": separator is not None, "--match": match is not None, "--prime-file -": prime_file == "-"}
            | {"--json-schema": json_schema is not None}
        )
    check_options(options, spelling)
    check_device(device)
    check_threads(threads)
    prime_text = _read_prime(prime, prime_file)
    # open the model
    sampler_options = _sampler_options(settings or [])
    if threads:
        sampler_options["threads"] = threads
    if no_verify:
        sampler_options["verify"] = False
    model = open_text_model(source, device, sampler, sampler_options)
    # prepare the texts
    writing = model.prepare_writing([prime_text], options, spelling)
    for note in writing.notes:
        warn(note)
    if device == "auto":
        say(f"device: {model.device}")
    if show_chain:
        say(f"chain: {_describe_chain(writing.chosen_chain)}")
    if interactive:
        from gentext.cli.interactive import write_interactively  # few calls need it

        write_interactively(model, prime_text, options, writing.seed)
        return
    if seed is None:
        say(f"seed: {writing.seed}")
    # write them
    try:
        with (
            contextlib.redirect_stdout(raw_stdout() if raw else sys.stdout),
            progress("writing", length * count or None, "characters") as bar,
        ):
            if as_json:
                masked_streams = _print_json(_watch_texts(writing, bar))
            elif count > 1 or no_stream:
                masked_streams = _print_texts(_watch_texts(writing, bar), count, separation)
            else:
                [batch] = writing.batches()
                masked_streams = _print_as_written(prime_text, batch, separation, bar)
    except KeyboardInterrupt:
        if length == 0:
            raise EndedByUser from None
        raise
    for stream in masked_streams:
        warn(f"text {stream} ended early: the chain left no symbol to draw")


def _check_length(length: int, count: int) -> None:
    if length < 0:
        raise UsageError(f"--length {length}: expected 0 (without end) or more")
    if length == 0 and count > 1:
        raise UsageError(f"--length 0 writes without end, which one text can, but not --count {count}")


def _check_interactive(is_set: dict[str, bool]) -> None:
    """Raise UsageError for an option that a text in turns cannot have."""
    for option in (option for option, is_used in is_set.items() if is_used):
        raise UsageError(
            f"--interactive and {option}: expected one of them; a text in turns is a single one of any form"
        )


def _parse_separator(separator: str | None, as_json: bool) -> Separation:
    if separator is None:
        return SEPARATOR_LINES
    if as_json:
        raise UsageError("--separator and --json: expected one of them; --json prints each text as one line")
    between = decode_escapes(separator)
    try:
        between.encode()
    except UnicodeEncodeError:  # an argument of a command line may have half a surrogate pair
        raise UsageError(f"--separator {separator!r}: not text in UTF-8") from None
    return Separation("", between)


def _sampler_options(settings: list[str]) -> dict[str, Any]:
    """Return the sampler's options among those of ``--set``; the other sections belong to training."""
    table = merge(*map(parse_setting, settings))
    for section in sorted(table.keys() - {"sampler"}):
        raise UsageError(f"--set {section}...: gen sample has options of the sampler only, --set sampler.KEY=VALUE")
    return dict(table.get("sampler", {}))


def _read_prime(prime: str | None, prime_file: str | None) -> str:
    if prime is not None and prime_file is not None:
        raise UsageError("--prime and --prime-file: expected one of them")
    if prime_file is None:
        return prime or ""
    if prime_file == "-" and sys.stdin is None:
        raise PrimeError("--prime-file -: standard input is closed; pipe a text into it, or name a file")
    try:
        if prime_file == "-":
            prime_bytes = read_stream(sys.stdin.buffer, MAX_PRIME_BYTES)
        else:
            prime_bytes = read_file(Path(prime_file), MAX_PRIME_BYTES)
        return prime_bytes.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise PrimeError(f"--prime-file {prime_file}: not UTF-8 at byte {error.start}; convert it to UTF-8") from None
    except OSError as error:
        raise PrimeError(
            f"--prime-file {prime_file}: cannot be read ({error.strerror}); expected a text file"
        ) from None


def _watch_texts(writing: Writing, bar: Bar) -> Iterator[WrittenText]:
    """Write the texts, and show how far they are; if they go to a terminal, only until the first one does."""
    length, count = writing.options.length, writing.options.count_per_prime
    for number, written in enumerate(writing.texts(bar), 1):
        if sys.stdout.isatty():
            bar.close()
        if length is not None and bar.total is not None:
            bar.total -= length - len(written.text)  # it may have ended early
        bar.advance(0, f"{number:,} of {count:,} texts")
        yield written


def _print_json(texts: Iterable[WrittenText]) -> list[int]:
    """Print each text as soon as it comes; return the streams of those that the chain left no symbol for."""
    masked_streams = []
    for written in texts:
        print(_format_json(written), flush=True)
        masked_streams += _masked_streams(written)
    return masked_streams


def _print_texts(texts: Iterable[WrittenText], count: int, separation: Separation) -> list[int]:
    """Print texts as `_print_json` does, but as they are, and warn of the first that has a separator within itself."""
    masked_streams = []
    is_ambiguous = False
    for number, written in enumerate(texts):
        text = written.prime + written.text
        sys.stdout.write((separation.between if number else "") + text + separation.text_end)
        sys.stdout.flush()
        masked_streams += _masked_streams(written)
        if count > 1 and not is_ambiguous and separation.occurs_in(text):
            is_ambiguous = True
            warn(f"text {written.stream} has a separator within itself; use another --separator, or --json")
    return masked_streams


def _print_as_written(prime: str, batch: TextBatch, separation: Separation, bar: Bar) -> list[int]:
    """Print the characters of one text as they come, until it ends or nobody reads stdout any longer."""
    if sys.stdout.isatty():
        bar.close()
    write, flush = sys.stdout.write, sys.stdout.flush
    write(prime)
    flush()
    try:
        for piece in batch:
            write(piece.text)
            flush()
            bar.advance(len(piece.text))
    except KeyboardInterrupt:
        if sys.stdout.isatty():  # what follows begins on a line of its own
            write("\n")
        raise
    finally:
        batch.close()
    write(separation.text_end)
    return _masked_streams(batch.result())


def _masked_streams(written: WrittenText) -> list[int]:
    return [written.stream] if written.finish == "masked" else []


def _format_json(written: WrittenText) -> str:
    fields = {
        "stream": written.stream,
        "seed": written.seed,
        "prime": written.prime,
        "text": written.text,
        "finish": written.finish,
        "tokens": written.tokens,
        "logprobs": [round(logprob, 6) for logprob in written.logprobs],
    }
    return json.dumps(fields, ensure_ascii=False)


def _describe_chain(chosen_chain: ChosenChain) -> str:
    """Return the chain in words: each link with the numbers that it will use."""
    links = []
    for link in chosen_chain.chain:
        numbers = chosen_chain.param_numbers(link.name)
        params = ", ".join(
            f"{param}={numbers[param]:g}" for param, spec in link.strategy.params.items() if spec.is_option
        )
        links.append(f"{link.name}({params})")
    return " -> ".join([*links, "draw"])
