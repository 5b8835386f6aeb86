"""``gen best``: the most probable texts of a trained model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from gentext.arguments import in_order, with_flags
from gentext.cli.links import FlagSpelling
from gentext.console import progress, say, warn
from gentext.files.escapes import decode_escapes
from gentext.library.declaration import OpenArguments
from gentext.library.loading import open_from_arguments
from gentext.requests.declaration import SearchArguments
from gentext.runs.completion import complete_models
from gentext.search.searching import BestTexts, check_search_options

#: The first flags of the help.
HELP_ORDER = (
    *("source", "prime", "count", "length", "stop", "match", "json_schema", "match_prime", "temperature", "beam"),
    *("memory", "unknown"),
)


@in_order(*HELP_ORDER)
@with_flags
def best(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN | FILE.onnx]", help="Default: the newest exported run.", autocompletion=complete_models
        ),
    ] = None,
    prime: Annotated[str, typer.Option(help="Text to go on from.")] = "",
    *,
    options: SearchArguments,
    opening: OpenArguments,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the most probable texts in order, with the natural logarithms of their probabilities.

    The list is exact: each text is printed as soon as no other one can be more probable.
    """
    spelling = FlagSpelling()
    prime_text = decode_escapes(prime)
    check_search_options(options, spelling)
    model = open_from_arguments(source, opening)
    searching = model.prepare_search(prime_text, options, spelling)
    for note in searching.notes:
        warn(note)
    interrupt: KeyboardInterrupt | None = None
    try:
        with progress("searching", options["count"]) as bar:
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
