"""``gen best``: the most probable texts of a trained model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from gentext.cli.links import FlagSpelling
from gentext.console import progress, say, warn
from gentext.files.escapes import decode_escapes
from gentext.library.loading import open_text_model
from gentext.requests.declaration import DEFAULT_SEARCH_LENGTH, SearchArguments
from gentext.runs.completion import complete_models
from gentext.runs.source import FILE_SAMPLER
from gentext.search.searching import BestTexts, check_search_options, search_options
from gentext.settings import check_device, check_threads

#: Those of the library.
DEFAULTS = search_options()


def best(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN | FILE.onnx]", help="Default: the newest exported run.", autocompletion=complete_models
        ),
    ] = None,
    prime: Annotated[str, typer.Option(help="Text to go on from.")] = "",
    count: Annotated[int, typer.Option(help="How many texts.")] = DEFAULTS["count"],
    length: Annotated[
        int | None,
        typer.Option(
            help=f"New characters of each text, at most. Default: {DEFAULT_SEARCH_LENGTH}; of records, the longest."
        ),
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="Texts end before this text, such as '\\n'; may be repeated.")
    ] = None,
    match: Annotated[
        str | None, typer.Option(metavar="REGEX", help="A regular expression that each text matches, whole.")
    ] = None,
    json_schema: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A JSON schema by which each text is valid.")
    ] = None,
    match_prime: Annotated[
        bool, typer.Option("--match-prime", help="The prime counts as the beginning of it.")
    ] = False,
    temperature: Annotated[float, typer.Option(help="1: the model's own probabilities.")] = DEFAULTS["temperature"],
    beam: Annotated[
        int | None, typer.Option(help="Keep so many beginnings of each length: quick, but not exact.")
    ] = None,
    memory: Annotated[int, typer.Option(help="Megabytes that the search may use.")] = DEFAULTS["memory"],
    unknown: Annotated[
        str, typer.Option(help="Characters of the prime that are unknown: error, skip or unknown.")
    ] = "error",
    sampler: Annotated[str, typer.Option(help="onnx or torch, or a plugin's.")] = FILE_SAMPLER,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(help="Threads. Default: by the size of the file.")] = 0,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Open a file that does not fit its check.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the most probable texts in order, with the natural logarithms of their probabilities.

    The list is exact: each text is printed as soon as no other one can be more probable.
    """
    spelling = FlagSpelling()
    options = search_options(
        count=count,
        length=length,
        stop=[decode_escapes(text) for text in stop or ()],
        temperature=temperature,
        unknown=unknown,
        beam=beam,
        memory=memory,
        match=match,
        json_schema=json_schema,
        match_prime=match_prime,
    )
    prime_text = decode_escapes(prime)
    check_search_options(options, spelling)
    check_device(device)
    check_threads(threads)
    sampler_options: dict[str, Any] = {"threads": threads} if threads else {}
    if no_verify:
        sampler_options["verify"] = False
    model = open_text_model(source, device, sampler, sampler_options)
    searching = model.prepare_search(prime_text, options, spelling)
    for note in searching.notes:
        warn(note)
    interrupt: KeyboardInterrupt | None = None
    try:
        with progress("searching", count) as bar:
            for text in searching.texts(bar):
                if not as_json:
                    print(f"{text.logprob:10.4f}  {text.finish:6}  {_format_text(text.text)}", flush=True)
    except KeyboardInterrupt as error:  # what is proven by then counts
        interrupt = error
    result = searching.result()
    if as_json:
        print(json.dumps(_describe_result(result, str(model.path), prime_text), ensure_ascii=False, indent=1))
    _report_bound(result, options)
    if interrupt is not None:
        raise interrupt


def _report_bound(result: BestTexts, options: SearchArguments) -> None:
    """Say what is known about the texts that are not in the list, where it is not what was asked for."""
    if not result.is_complete:
        warn(
            f"{len(result)} of {options['count']} texts are proven; any other has a log-probability of at most "
            f"{result.bound:.4f}. A larger --memory than {options['memory']} or a smaller --length proves more; --beam "
            f"gives probable texts quickly"
        )
    elif not result.is_exact:
        exact_count = sum(text.logprob >= result.bound for text in result)
        say(
            f"approximate: a beam of {options['beam']} may have lost texts with log-probabilities up to "
            f"{result.bound:.4f}; the first {exact_count} are exact"
        )
    elif len(result) < options["count"]:
        say(f"{len(result)} of {options['count']}: no other text is possible")


def _describe_result(result: BestTexts, source: str, prime: str) -> dict[str, Any]:
    texts = [
        {"text": text.text, "logprob": round(text.logprob, 6), "finish": text.finish, "tokens": text.tokens}
        for text in result
    ]
    return {
        "source": source,
        "prime": prime,
        "complete": result.is_complete,
        "exact": result.is_exact,
        "bound": round(result.bound, 6) if math.isfinite(result.bound) else None,  # JSON has no infinity
        "texts": texts,
    }


def _format_text(text: str) -> str:
    """Return a text in quotes on one line, with escapes for what would end the quotes or the line."""
    parts = [
        character.encode("unicode_escape").decode() if not character.isprintable() else character
        for character in text.replace("\\", r"\\").replace('"', r"\"")
    ]
    return '"' + "".join(parts) + '"'
