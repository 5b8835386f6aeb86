"""The command ``gen``: assembles the commands, runs one, and turns errors into lines and exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

import typer

from gentext.console import say
from gentext.errors import GenError
from gentext.manager import host

COMMANDS = ("train", "export", "sample", "eval", "info", "plugins", "corpora", "doctor")


def build() -> typer.Typer:
    """Return the application with its own commands and those of plugins."""
    from gentext.cli import corpora, doctor, evaluate, export, info, plugins, sample, train

    cli = typer.Typer(
        name="gen",
        help="Train small text models, export them to ONNX, and write text with onnxruntime.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    cli.command("train")(train.train)
    cli.command("export")(export.export)
    cli.command("sample", cls=sample.SampleCommand)(sample.sample)
    cli.command("eval")(evaluate.evaluate)
    cli.command("info")(info.info)
    cli.command("plugins")(plugins.plugins)
    cli.command("corpora")(corpora.corpora)
    cli.command("doctor")(doctor.doctor)
    cli.callback(invoke_without_command=True)(_version)
    host().add_commands(cli)
    return cli


def _version(version: bool = typer.Option(False, "--version", help="Show the version and exit.")) -> None:
    if version:
        from importlib.metadata import version as of

        print(f"gentext {of('gentext')}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``gen`` and return its exit status. The only place that prints errors."""
    try:
        code = build()(args=None if arguments is None else list(arguments), standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except GenError as error:
        say(f"gen: error: {error}")
        return error.exit_code
    except BrokenPipeError:
        _silence_stdout()
        return 1
    except KeyboardInterrupt:
        say("gen: stopped")
        return 1
    except Exception as error:
        # Typer carries its own copy of click, whose usage errors are told by their methods alone.
        if not hasattr(error, "format_message"):
            raise
        say(f"gen: error: {_one_line(error)}")
        return int(getattr(error, "exit_code", 2))


def _one_line(error: object) -> str:
    text = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    return f"{text} See: {context.command_path} --help" if context is not None else text


def _silence_stdout() -> None:
    """The reader has gone: point stdout nowhere, so that the interpreter's last flush is quiet."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
