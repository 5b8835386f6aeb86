"""``gen sample``: write text with a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from gentext.arguments import NO_FLAG, declared, in_order, with_flags
from gentext.cli.links import FlagSpelling, describe_flags, extract_flags
from gentext.cli.sample_flags import HELP_ORDER, BeginningFlags, OutputFlags, RecordFlags
from gentext.cli.sample_texts import (
    Separation,
    describe_chain,
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
from gentext.generation.texts import text_batches
from gentext.generation.writing import Writing
from gentext.interrupts import EndedByUser
from gentext.library.declaration import OpenArguments
from gentext.library.loading import open_from_arguments
from gentext.manager import host
from gentext.requests.declaration import MAX_TEXTS, ManyTextsArguments, RecordsOwnArguments
from gentext.requests.options import DEFAULTS, check_options, writing_options
from gentext.runs.completion import complete_models
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


@in_order(*HELP_ORDER)
@with_flags
def sample(
    ctx: typer.Context,
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN | FILE.onnx]", help="Default: the newest exported run.", autocompletion=complete_models
        ),
    ] = None,
    *,
    beginning: BeginningFlags,
    options: ManyTextsArguments,
    records: RecordsOwnArguments,
    record_flags: RecordFlags,
    output_flags: OutputFlags,
    opening: OpenArguments,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="sampler.KEY=VALUE", help="One option of the sampler.")
    ] = None,
) -> None:
    """Write text: the prime, then LENGTH new characters; with --match or --json-schema, at most LENGTH.

    A model of records writes COUNT whole records.

    Text goes to stdout as it is written, everything else to stderr.
    """
    # check the arguments before anything is opened
    spelling = ctx.meta["spelling"]
    length, count = options["length"], options["count"]
    _check_length(length, count, output_flags["output"])
    separation = parse_separator(output_flags["separator"], output_flags["as_json"])
    text_options = writing_options(**options) | {
        "length": DEFAULTS["length"] if length is None else length or None,
        "parameters": ctx.meta["flags"],
    }
    used_flags = _used_record_flags(ctx)
    if output_flags["interactive"]:
        _check_interactive(options, output_flags, beginning["prime_file"], used_flags)
    if output_flags["output"] is not None:
        check_output(output_flags["output"])
    check_options(text_options | {"count": min(count, MAX_TEXTS)}, spelling)
    check_device(opening["device"])
    check_threads(opening["threads"])
    prime = read_prime(beginning["prime"], beginning["prime_file"])
    # open the model
    sampler_options, filter_options = _component_options(settings or [])
    model = open_from_arguments(source, opening, sampler_options)
    show_device = opening["device"] == "auto"
    if (used_flags or filter_options or model.bundle.records is not None) and not output_flags["interactive"]:
        from gentext.cli.sample_records import RecordCommand  # models of one text do not need it

        command = RecordCommand(
            model=model,
            options=text_options | {"length": length},
            prime=prime,
            records=records | {"filter_options": filter_options},
            flags=record_flags,
            used_flags=used_flags,
            output=output_flags,
            words=ctx.meta["words"],
            settings=ctx.meta["settings"],
        )
        with redirect_output(None, output_flags["raw"]):
            command.run(spelling, show_device=show_device)
        return
    # prepare the texts
    writing = model.prepare_writing([prime], text_options, spelling)
    for note in writing.notes:
        warn(note)
    if show_device:
        say(f"device: {model.device}")
    if output_flags["show_chain"]:
        say(f"chain: {describe_chain(writing.chosen_chain)}")
    if output_flags["interactive"]:
        from gentext.cli.interactive import write_interactively  # few calls need it

        write_interactively(model, prime, text_options, writing.seed)
        return
    if options["seed"] is None:
        say(f"seed: {writing.seed}")
    # write them
    try:
        masked_streams = _print_writing(writing, prime, separation, output_flags)
    except KeyboardInterrupt:
        if length == 0:
            raise EndedByUser from None
        raise
    for stream in masked_streams:
        warn(f"text {stream} ended early: the chain left no symbol to draw")


def _print_writing(writing: Writing, prime: str, separation: Separation, output: OutputFlags) -> list[int]:
    """Print the texts; return the streams of those that the chain left no symbol for."""
    count = writing.options["count"]
    with (
        redirect_output(output["output"], output["raw"]),
        progress("writing", (writing.options["length"] or 0) * count or None, "characters") as bar,
    ):
        if output["as_json"]:
            return print_json(watch_texts(writing, bar))
        if count > 1 or output["no_stream"]:
            return print_texts(watch_texts(writing, bar), count, separation)
        [batch] = text_batches(writing)
        return print_as_written(prime, batch, separation, bar)


def _used_record_flags(ctx: typer.Context) -> list[str]:
    """Return the flags about records that the command line has, in the order of the help."""
    arguments = {**declared(RecordsOwnArguments), **declared(RecordFlags)}
    names = {name for name, own in arguments.items() if own.flag is not NO_FLAG}
    params = [param for param in ctx.command.params if param.name in names]
    sources = [ctx.get_parameter_source(str(param.name)) for param in params]
    # Typer has a copy of click of its own, so the class of a source is not imported from click.
    return [
        param.opts[0]
        for param, source in zip(params, sources, strict=True)
        if source is not None and source.name == "COMMANDLINE"
    ]


def _check_length(length: int | None, count: int, output: Path | None) -> None:
    if length is not None and length < 0:
        raise UsageError(f"--length {length}: expected 0 (without end) or more")
    if length == 0 and count > 1:
        raise UsageError(f"--length 0 writes without end, which one text can, but not --count {count}")
    if length == 0 and output is not None:
        raise UsageError("--length 0 and --output: expected one of them; a file has texts that are complete")


def _check_interactive(
    options: ManyTextsArguments, output: OutputFlags, prime_file: str | None, record_flags: Sequence[str]
) -> None:
    """Raise UsageError for an option that a text in turns cannot have."""
    is_set = {
        "--count": options["count"] > 1,
        "--json": output["as_json"],
        "--no-stream": output["no_stream"],
        "--raw": output["raw"],
        "--separator": output["separator"] is not None,
        "--match": options["match"] is not None,
        "--prime-file -": prime_file == "-",
        "--json-schema": options["json_schema"] is not None,
        "--output": output["output"] is not None,
    }
    for option in [*(option for option, is_used in is_set.items() if is_used), *record_flags]:
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
