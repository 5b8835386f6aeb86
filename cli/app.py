"""The command ``gen``: assembles the commands, runs one, and turns errors into lines and exit codes."""

from __future__ import annotations

import _thread
import contextlib
import errno
import gc
import importlib
import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from gentext.console import say
from gentext.errors import GenError
from gentext.manager import host

#: The commands, in the order of the help, and the modules and functions that they are.
COMMANDS = {
    "train": "train",
    "export": "export",
    "sample": "sample",
    "eval": "evaluate",
    "info": "info",
    "plugins": "plugins",
    "corpora": "corpora",
    "bench": "bench",
    "doctor": "doctor",
}
#: What goes wrong with a machine, not with the program.
ENVIRONMENT = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM}
ENVIRONMENT |= {errno.ENAMETOOLONG, errno.ELOOP, errno.EMFILE, errno.ENFILE, errno.ENODEV, errno.ENXIO}
#: What would break the one line of an error, or steer a terminal: a file's name or metadata may hold it.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
#: Typer turns Ctrl-C into this status.
INTERRUPTED = 130


def build(only: str | None = None) -> typer.Typer:
    """Return the application with its own commands and those of plugins; ``only`` names the one that is needed."""
    cli = typer.Typer(
        name="gen",
        help="Train small text models, export them to ONNX, and write text with onnxruntime.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name in [only] if only in COMMANDS else COMMANDS:
        module = importlib.import_module(f"gentext.cli.{COMMANDS[name]}")
        cli.command(name, cls=getattr(module, "COMMAND", None))(getattr(module, COMMANDS[name]))
    cli.callback(invoke_without_command=True)(_version)
    host().add_commands(cli, COMMANDS)
    return cli


def _version(version: bool = typer.Option(False, "--version", help="Show the version and exit.")) -> None:
    if version:
        from importlib.metadata import version as of

        print(f"gentext {of('gentext')}")
        raise typer.Exit


def script() -> int:
    """Run ``gen`` as a process of its own, and return its exit status."""
    code = main()
    # The process ends and gives back all there is; looking through it for cycles first takes 25 ms.
    gc.freeze()
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``gen`` and return its exit status. The only place that prints errors."""
    if sys.stdout is None:  # closed before the program began
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):  # what stdout cannot encode, such as half a surrogate pair, becomes ?
        sys.stdout.reconfigure(errors="replace")
    try:
        arguments = None if arguments is None else list(arguments)
        with _lasting_interrupts():
            given = sys.argv[1:] if arguments is None else arguments
            # The modules of the other commands would double the time that a short command takes.
            code = build(given[0] if given else None)(args=arguments, prog_name="gen", standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except GenError as error:
        say(f"gen: error: {CONTROL.sub(' ', str(error))}")
        return error.exit_code
    except BrokenPipeError:
        _silence_stdout()
        return 1
    except KeyboardInterrupt:
        say("gen: error: stopped by Ctrl-C; what was written before is kept")
        return 1
    except MemoryError as error:
        say(f"gen: error: not enough memory{f' ({error})' if str(error) else ''}; ask for less at once")
        return 1
    except OSError as error:
        if error.errno not in ENVIRONMENT:
            raise
        say(f"gen: error: {error.filename or 'the output'}: {error.strerror}; what was written before is kept")
        if error.filename is None:  # stdout itself: what it still holds cannot be written either
            _silence_stdout()
        return 1
    except Exception as error:
        # Typer carries its own copy of click, whose usage errors are told by their methods alone.
        if not hasattr(error, "format_message"):
            raise
        if str(error):  # a bare ``gen`` has shown its help already
            say(f"gen: error: {_one_line(error)}")
        return int(getattr(error, "exit_code", 2))


def _one_line(error: BaseException) -> str:
    """Return a usage error with what was given, which Typer itself leaves out, and where to read on."""
    text = " ".join(error.format_message().split()).rstrip(".")  # type: ignore[attr-defined]
    cause: Any = error.__cause__
    given = [one["input"] for one in cause.errors()] if hasattr(cause, "errors") else []
    context = getattr(error, "ctx", None)
    text += f", not {given[0]!r}" if given else ""
    end = "" if text.endswith("?") else "."
    return f"{text}{end} See: {context.command_path} --help" if context is not None else text


@contextlib.contextmanager
def _lasting_interrupts() -> Iterator[None]:
    """A Ctrl-C that falls into a destructor or a weak reference's callback is lost there: send it again."""
    before = sys.unraisablehook

    def hook(lost: sys.UnraisableHookArgs) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            threading.Timer(0.05, _thread.interrupt_main).start()
        else:
            before(lost)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _silence_stdout() -> None:
    """The reader has gone: point stdout nowhere, so that the interpreter's last flush is quiet."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
