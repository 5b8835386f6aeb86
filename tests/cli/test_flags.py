"""Arguments that are declared once are keyword arguments of a function, and flags of a command."""

# The annotations of a declaration are read, so they are not turned into texts.
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict, Unpack

import typer

from gentext.arguments import NO_FLAG, Flag, Option, in_order, keyword_signature, with_defaults, with_flags


class SizeArguments(TypedDict, total=False):
    hidden_units: Annotated[int | None, Option("units of each layer of ``model``")]
    rate: Annotated[float, Option("the rate", 0.5)]


class DrawArguments(SizeArguments, total=False):
    """In a class that inherits, options come behind those of the class above."""

    folder: Annotated[
        str | os.PathLike[str] | None, Option("a folder"), Flag(["--folder", "-f"], type=Path, metavar="DIR")
    ]
    export: Annotated[bool, Option("whether files are written", True), Flag(help="write no files")]
    unique: Annotated[bool, Option("each of them once", False)]
    stops: Annotated[
        Sequence[str], Option("where to stop", ()), Flag(["--stop"], type=list[str], read=lambda texts: tuple(texts))
    ]


def draw(corpus: str, **arguments: Unpack[DrawArguments]) -> DrawArguments:
    return with_defaults(arguments, DrawArguments)


def application(received: dict[str, Any]) -> typer.Typer:
    """Return an application of one command, which puts its arguments into ``received``."""

    @with_flags
    def command(
        corpus: Annotated[str, typer.Argument()] = "text",
        *,
        flags: DrawArguments,
        rate: Annotated[float, typer.Option(help="Another rate.")] = 2.0,
        last: bool = False,
    ) -> None:
        """The help of the command."""
        received.update(corpus=corpus, rate=rate, last=last, flags=flags)

    application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    application.command()(command)
    return application


def run(*words: str) -> dict[str, Any]:
    received: dict[str, Any] = {}
    application(received)(list(words), standalone_mode=False)
    return received


def test_a_function_shows_each_argument() -> None:
    signature = keyword_signature(draw)
    names = ["corpus", "hidden_units", "rate", "folder", "export", "unique", "stops"]
    assert list(signature.parameters) == names
    assert [signature.parameters[name].default for name in names[1:]] == [None, 0.5, None, True, False, ()]
    assert signature.parameters["rate"].annotation is float
    assert draw("text", rate=0.1) == {
        "hidden_units": None,
        "rate": 0.1,
        "folder": None,
        "export": True,
        "unique": False,
        "stops": (),
    }


def test_a_command_receives_values_of_the_arguments() -> None:
    default = {"hidden_units": None, "folder": None, "export": True, "unique": False, "stops": ()}
    assert run() == {"corpus": "text", "rate": 2.0, "last": False, "flags": default}
    words = ["a", "-f", "runs", "--stop", "x", "--stop", "y", "--no-export", "--unique", "--rate", "3", "--last"]
    chosen = {"hidden_units": None, "folder": Path("runs"), "export": False, "unique": True, "stops": ("x", "y")}
    assert run(*words) == {"corpus": "a", "rate": 3.0, "last": True, "flags": chosen}


def test_flags_are_in_order_with_the_sentences_of_the_declaration() -> None:
    command: Any = typer.main.get_command(application({}))
    assert command.help == "The help of the command."
    options = [option for option in command.params if option.param_type_name == "option"]
    assert [(option.opts, option.secondary_opts, option.help) for option in options if option.help] == [
        (["--hidden-units"], [], "Units of each layer of model."),
        (["--rate"], [], "Another rate."),
        (["--folder", "-f"], [], "A folder."),
        (["--no-export"], [], "Write no files."),
        (["--unique"], [], "Each of them once."),
        (["--stop"], [], "Where to stop."),
    ]
    assert [option.metavar for option in options if option.metavar] == ["DIR"]


class ToneArguments(TypedDict, total=False):
    hidden: Annotated[int, Option("no flag", 3), NO_FLAG]
    tone: Annotated[str | None, Option("how ``last`` sounds, ``soft`` or not", none="``soft``")]


def test_an_argument_without_a_flag_and_the_order_of_the_help() -> None:
    received: dict[str, Any] = {}

    @in_order("last", "tone")
    @with_flags
    def command(*, first: bool = False, tones: ToneArguments, last: bool = False) -> None:
        received.update(tones)

    application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    application.command()(command)
    application(["--tone", "loud"], standalone_mode=False)
    assert received == {"hidden": 3, "tone": "loud"}
    options: Any = typer.main.get_command(application).params
    assert [option.name for option in options] == ["last", "tone", "first"]
    assert options[1].help == "How --last sounds, soft or not. Default: soft."


class LinkedArguments(ToneArguments, total=False):
    top_k: int


def test_arguments_that_are_not_declared_stay_behind_stars() -> None:
    def write(text: "NotThere", **arguments: Unpack[LinkedArguments]) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert (
        str(keyword_signature(write))
        == "(text: 'NotThere', *, hidden: int = 3, tone: str | None = None, **arguments) -> None"
    )
