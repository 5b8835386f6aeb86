"""``gen sample``: write text with a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from gentext.cli.links import FlagSpelling, describe_flags, extract_flags, split_names
from gentext.cli.sample_texts import (
    describe_chain,
    option_name,
    parse_separator,
    print_as_written,
    print_json,
    print_texts,
    read_prime,
    redirect_output,
    watch_texts,
)
from gentext.config import merge, parse_setting
from gentext.console import progress, say, warn
from gentext.errors import UsageError
from gentext.files.atomic import check_output
from gentext.files.escapes import decode_escapes
from gentext.generation.texts import text_batches
from gentext.interrupts import EndedByUser
from gentext.library.loading import open_text_model
from gentext.manager import host
from gentext.requests.declaration import MAX_TEXTS
from gentext.requests.options import check_options, writing_options
from gentext.runs.completion import complete_filters, complete_models
from gentext.runs.source import FILE_SAMPLER
from gentext.settings import check_device, check_threads


class SampleCommand(TyperCommand):
    """``gen sample`` with the options of whatever links its chain has, such as --temperature."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta["settings"] = None
        if "--resume" in args:
            from gentext.cli.sample_resume import resumed_words  # few calls need it

            args, ctx.meta["settings"] = resumed_words(args)
        ctx.meta["words"] = list(args)
        options = {name: option for option in self.params for name in getattr(option, "opts", [])}
        ctx.meta["flags"], declared = extract_flags(args, options)
        ctx.meta["spelling"] = FlagSpelling([name.lstrip("-") for name in options])
        return super().parse_args(ctx, declared)

    def get_help(self, ctx: Any) -> str:
        return super().get_help(ctx) + "\n" + describe_flags(host().registry)


#: `gentext.cli.app` builds the command with this class.
COMMAND_CLASS = SampleCommand


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
    length: Annotated[
        int | None,
        typer.Option(
            help="New characters; 0: without end. Default: 500; of records at most, twice those of the longest one."
        ),
    ] = None,
    count: Annotated[int, typer.Option(help="How many texts to write, all from one seed; of records, any number.")] = 1,
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
    unique: Annotated[bool, typer.Option("--unique", help="Records: each text once.")] = False,
    novel: Annotated[bool, typer.Option("--novel", help="Records: none that the model has learned from.")] = False,
    novel_against: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Records: none of another run, or training.hashes.")
    ] = None,
    accept: Annotated[
        str | None, typer.Option(metavar="REGEX", help="Records: throw away those that do not match, whole.")
    ] = None,
    filter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Records: throw away what a filter refuses; repeatable.",
            autocompletion=complete_filters,
        ),
    ] = None,
    max_tries: Annotated[
        int | None, typer.Option(help="Records: how many to draw for each number, at most. Default: 1000.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Records: write the numbers that are I modulo N, from 0.")
    ] = None,
    unordered: Annotated[bool, typer.Option("--unordered", help="Records: write each as soon as it ends.")] = False,
    prefix_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Records: --count of each line, or of each line of a .jsonl.")
    ] = None,
    field_values: Annotated[
        list[str] | None, typer.Option("--given", metavar="COLUMN=TEXT", help="Records: a leading column of CSV rows.")
    ] = None,
    format: Annotated[str | None, typer.Option(help="Records: text, jsonl or csv.")] = None,
    fields: Annotated[
        str | None, typer.Option(help="Records as JSONL or CSV: also number, logprob, seed, stream, with commas.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write into this file.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Records: go on with the file of -o.")] = False,
    slots: Annotated[int | None, typer.Option(help="Records side by side. Default: as many as are fast.")] = None,
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

    A model of records writes COUNT whole records.

    Text goes to stdout as it is written, everything else to stderr.
    """
    # check the arguments before anything is opened
    spelling = ctx.meta["spelling"]
    _check_length(length, count, output)
    separation = parse_separator(separator, as_json)
    options = writing_options(
        count=count,
        length=500 if length is None else length or None,
        seed=seed,
        stop=[decode_escapes(text) for text in stop or ()],
        unknown=unknown,
        chain=split_names(chain),
        parameters=ctx.meta["flags"],
        match=match,
        json_schema=json_schema,
        match_prime=match_prime,
        style=style,
    )
    record_options: dict[str, Any] = {
        "unique": unique,
        "novel": novel,
        "novel_against": novel_against,
        "accept": accept,
        "filter": filter,
        "max_tries": max_tries,
        "shard": shard,
        "unordered": unordered,
        "prefix_file": prefix_file,
        "field_values": field_values,
        "format": format,
        "fields": fields,
        "resume": resume,
        "slots": slots,
    }
    record_options = {name: option for name, option in record_options.items() if option not in (None, False)}
    if interactive:
        _check_interactive(
            {"--count": count > 1, "--json": as_json, "--no-stream": no_stream, "--raw": raw}
            | {"--separator": separator is not None, "--match": match is not None, "--prime-file -": prime_file == "-"}
            | {"--json-schema": json_schema is not None}
            | {"--output": output is not None}
            | {option_name(name): True for name in record_options}
        )
    if output is not None:
        check_output(output)
    check_options(options | {"count": min(count, MAX_TEXTS)}, spelling)
    check_device(device)
    check_threads(threads)
    prime_text = read_prime(prime, prime_file)
    # open the model
    sampler_options, filter_options = _component_options(settings or [])
    if threads:
        sampler_options["threads"] = threads
    if no_verify:
        sampler_options["verify"] = False
    model = open_text_model(source, device, sampler, sampler_options)
    if (record_options or filter_options or model.bundle.records is not None) and not interactive:
        from gentext.cli.sample_records import RecordCommand  # models of one text do not need it

        command = RecordCommand(
            model=model,
            options=options | {"length": length},
            prime=prime_text,
            filter_options=filter_options,
            separator=separator,
            as_json=as_json,
            words=ctx.meta["words"],
            settings=ctx.meta["settings"],
            output=output,
            **record_options,
        )
        with redirect_output(None, raw):
            command.run(spelling, show_device=device == "auto", show_chain=show_chain)
        return
    # prepare the texts
    writing = model.prepare_writing([prime_text], options, spelling)
    for note in writing.notes:
        warn(note)
    if device == "auto":
        say(f"device: {model.device}")
    if show_chain:
        say(f"chain: {describe_chain(writing.chosen_chain)}")
    if interactive:
        from gentext.cli.interactive import write_interactively  # few calls need it

        write_interactively(model, prime_text, options, writing.seed)
        return
    if seed is None:
        say(f"seed: {writing.seed}")
    # write them
    try:
        with (
            redirect_output(output, raw),
            progress("writing", (options["length"] or 0) * count or None, "characters") as bar,
        ):
            if as_json:
                masked_streams = print_json(watch_texts(writing, bar))
            elif count > 1 or no_stream:
                masked_streams = print_texts(watch_texts(writing, bar), count, separation)
            else:
                [batch] = text_batches(writing)
                masked_streams = print_as_written(prime_text, batch, separation, bar)
    except KeyboardInterrupt:
        if length == 0:
            raise EndedByUser from None
        raise
    for stream in masked_streams:
        warn(f"text {stream} ended early: the chain left no symbol to draw")


def _check_length(length: int | None, count: int, output: Path | None) -> None:
    if length is not None and length < 0:
        raise UsageError(f"--length {length}: expected 0 (without end) or more")
    if length == 0 and count > 1:
        raise UsageError(f"--length 0 writes without end, which one text can, but not --count {count}")
    if length == 0 and output is not None:
        raise UsageError("--length 0 and --output: expected one of them; a file has texts that are complete")


def _check_interactive(is_set: dict[str, bool]) -> None:
    """Raise UsageError for an option that a text in turns cannot have."""
    for option in (option for option, is_used in is_set.items() if is_used):
        raise UsageError(
            f"--interactive and {option}: expected one of them; a text in turns is a single one of any form"
        )


def _component_options(settings: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of the sampler, and of filters, in ``--set``; the other sections belong to training."""
    table = merge(*map(parse_setting, settings))
    for section in sorted(table.keys() - {"sampler", "filter"}):
        raise UsageError(
            f"--set {section}...: gen sample has options of the sampler and of filters only, --set sampler.KEY=VALUE "
            f"or --set filter.NAME.KEY=VALUE"
        )
    return dict(table.get("sampler", {})), dict(table.get("filter", {}))
