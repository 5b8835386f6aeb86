"""The command ``gen``: assembles the commands, runs one, and turns errors into lines and exit codes."""

from __future__ import annotations

import _thread
import contextlib
import errno
import gc
import importlib
import io
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

# All commands need NumPy. It is imported here, where few calls are under way: imported from within a command it took
# 9 ms longer with CPython 3.11, probably because calls then cross a boundary of the interpreter's stack over and over.
import numpy  # noqa: F401
import typer
from typer.models import CommandInfo

from gentext.console import escape_on_terminal, report_error, write_wholly
from gentext.errors import GenError, exit_error, reason, text_of
from gentext.files.atomic import advise_room
from gentext.interrupts import INTERRUPTED_STATUS, EndedByUser, end_stuck_process
from gentext.manager import host, is_strict

#: The commands of this folder, and the names of their module and function.
COMMANDS = {
    "train": "train",
    "export": "export",
    "sample": "sample",
    "best": "best",
    "eval": "evaluate",
    "score": "score",
    "inspect": "inspect",
    "info": "info",
    "plugins": "plugins",
    "corpora": "corpora",
    "models": "models",
    "bench": "bench",
    "doctor": "doctor",
}
#: All commands of gentext in the order of the help; a built-in plugin adds those that are not of this folder.
#: Commands of other distributions come after them, and may not take their names.
COMMAND_ORDER = ["train", "sweep", *(name for name in COMMANDS if name != "train"), "serve"]
#: Errors of the operating system whose cause is the machine, not the program.
MACHINE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM}
MACHINE_ERRORS |= {errno.ENAMETOOLONG, errno.ELOOP, errno.EMFILE, errno.ENFILE, errno.ENODEV, errno.ENXIO}


def build(invoked: str | None = None) -> typer.Typer:
    """Return the application with gentext's own commands and those of plugins.

    :param invoked: the first word of the command line. If it is the name of one of gentext's commands, the others are
        left out: importing their modules would double the time that a short command takes.
    """
    cli = typer.Typer(
        name="gen",
        help="Train small text models, export them to ONNX, and write text with onnxruntime.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name in COMMANDS:
        if name == invoked or invoked not in COMMAND_ORDER:
            _add_command(cli, name)
    cli.callback(invoke_without_command=True)(_show_version)
    host().add_commands(cli, COMMAND_ORDER, builtins=invoked not in COMMANDS)
    cli.registered_commands.sort(key=_help_position)
    return cli


def _add_command(cli: typer.Typer, name: str) -> None:
    """Add a command of this folder; importing its module may take long."""
    module = importlib.import_module(f"gentext.cli.{COMMANDS[name]}")
    cli.command(name, cls=getattr(module, "COMMAND_CLASS", None))(getattr(module, COMMANDS[name]))


def _help_position(command: CommandInfo) -> int:
    return COMMAND_ORDER.index(command.name) if command.name in COMMAND_ORDER else len(COMMAND_ORDER)


def _show_version(version: bool = typer.Option(False, "--version", help="Show the version and exit.")) -> None:
    if version:
        print(f"gentext {metadata.version('gentext')}")
        raise typer.Exit


def script() -> int:
    """Run ``gen`` as the whole process, and return its exit status. The entry point of the command."""
    exit_status = main()
    # The operating system takes back all memory. Without this, Python would search it for cycles first: 25 ms.
    # With PyTorch the search must be: Triton, which comes with its CUDA builds, lists on stderr what was not collected.
    if "torch" not in sys.modules:
        gc.freeze()
    return exit_status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``gen`` and return its exit status. The only place that prints errors."""
    if sys.stdout is None:  # it was closed before the program began
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that stdout cannot encode, such as half a surrogate pair, becomes a question mark.
        sys.stdout.reconfigure(errors="replace")
        sys.stdout = write_wholly(sys.stdout)
    sys.stdout = escape_on_terminal(sys.stdout)
    if sys.stderr is not None:
        sys.stderr = escape_on_terminal(sys.stderr)
    argument_list = sys.argv[1:] if arguments is None else list(arguments)
    application = None
    try:
        with _lasting_interrupts(), end_stuck_process():
            application = build(argument_list[0] if argument_list else None)
            # Without arguments, Typer reads those of the process: on Windows it also expands their wildcards.
            exit_status = application(
                args=None if arguments is None else argument_list, prog_name="gen", standalone_mode=False
            )
        sys.stdout.flush()
        if exit_status == INTERRUPTED_STATUS:  # Typer turns each Ctrl-C into it
            raise KeyboardInterrupt
        return exit_status if isinstance(exit_status, int) else 0
    except SystemExit as error:
        # A plugin's own command may end with a status of its own. Within gentext's commands, a plugin's code may not:
        # training would seem to have succeeded.
        plugin = host().find_plugin(error) if argument_list and argument_list[0] in COMMAND_ORDER else None
        if plugin is None:
            raise
        report_error(str(exit_error(f"plugin {plugin}", error)))
        return 1
    except GenError as error:
        report_error(text_of(error) or reason(error))
        return error.exit_code
    except BrokenPipeError:
        _silence_stdout()
        return 1
    except EndedByUser:
        return INTERRUPTED_STATUS
    except KeyboardInterrupt:
        has_begun = application is not None
        report_error(f"stopped by Ctrl-C; {'what was written before is kept' if has_begun else 'nothing was done yet'}")
        return 1
    except MemoryError as error:
        report_error(f"not enough memory{f' ({error})' if str(error) else ''}; ask for less at once")
        return 1
    except OSError as error:
        if error.errno not in MACHINE_ERRORS:
            return _report_plugin_error(error)
        place = error.filename or 1  # stdout
        what = error.filename or "the output"
        report_error(f"{what}: {error.strerror}; what was written before is kept{advise_room(error, place)}")
        if error.filename is None:  # it was stdout: the rest of its buffer cannot be written either
            _silence_stdout()
        return 1
    except BaseException as error:
        # Typer may carry a copy of click of its own, so the class of a usage error cannot be imported from click.
        if not hasattr(error, "format_message"):
            return _report_plugin_error(error)
        if str(error):  # without a message, it comes from a ``gen`` without arguments, which has shown the help
            report_error(_format_usage_error(error))
        return int(getattr(error, "exit_code", 2))


def _report_plugin_error(error: BaseException) -> int:
    """Print an error that came from a plugin's code as one line, and return the exit status; raise any other error."""
    plugin = None if is_strict() else host().find_plugin(error)
    if plugin is None:
        raise error
    report_error(f"plugin {plugin} failed: {reason(error)}; GEN_PLUGINS_STRICT=1 shows where")
    return 1


def _format_usage_error(error: Any) -> str:
    """Return click's usage error as one line, with the refused value and where to read on.

    Typer leaves out the value: it is in the validation error that the usage error was raised from.
    """
    message = " ".join(error.format_message().split()).rstrip(".")
    cause: Any = error.__cause__
    if hasattr(cause, "errors"):
        refused = [problem["input"] for problem in cause.errors()]
        message += f", not {refused[0]!r}" if refused else ""
    click_context = getattr(error, "ctx", None)
    end = "" if message.endswith("?") else "."
    return f"{message}{end} See: {click_context.command_path} --help" if click_context is not None else message


@contextlib.contextmanager
def _lasting_interrupts() -> Iterator[None]:
    """Raise a Ctrl-C again that falls into a destructor or a weak reference's callback: Python would drop it there."""
    previous_hook = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            threading.Timer(0.05, _thread.interrupt_main).start()
        else:
            previous_hook(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = previous_hook


def _silence_stdout() -> None:
    """Redirect stdout to the null device: else Python's last flush would raise the error again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
