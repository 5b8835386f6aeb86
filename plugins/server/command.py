"""``gen serve``: models behind an HTTP API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gentext.errors import MissingExtra
from gentext.plugins.server.settings import Limits, change_limits
from gentext.runs.completion import complete_models

LIMITS = Limits()


def serve(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[[NAME=]RUN | FILE.onnx | MODEL]...",
            help="Runs, files, or names of `gen models`, each under its name. Default: the newest exported run.",
            autocompletion=complete_models,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on. Default: this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any free one.")] = 8000,
    slots: Annotated[int, typer.Option(min=1, help="Texts that a model writes at a time.")] = LIMITS.slots,
    queue: Annotated[
        int, typer.Option(min=0, help="Texts that may wait for a slot of a model; more get the answer 429.")
    ] = LIMITS.queue,
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="How long texts may go on after SIGTERM.")
    ] = LIMITS.drain_seconds,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="Name by which clients reach the server; * allows all. Addresses and localhost need none."),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="A file of keys, one a line; each request must have one of them. Default: none.")
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="Change a limit, such as body=1000; an unknown name lists them all."),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes of a model. Default: by the size of its file.")] = 0,
    session_key_file: Annotated[
        Path | None,
        typer.Option(
            help="A file with the key that signs sessions; a second line may hold the previous key. Default: a new key."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Serve models over HTTP, for many clients at a time, with the API of OpenAI's completions.

    SIGTERM and Ctrl-C end the server after the texts in progress; SIGHUP loads the files again.
    """
    try:
        from gentext.plugins.server.serving import ServeOptions, serve_models
    except ModuleNotFoundError:
        raise MissingExtra("gen serve", "serve") from None
    limits = change_limits(Limits(slots=slots, queue=queue, drain_seconds=drain_seconds), limit or [])
    serve_models(
        ServeOptions(
            sources or [], host, port, workers, device, limits, allowed_host or [], api_key_file, session_key_file
        )
    )
