"""Arguments that are declared once, and are keyword arguments of a function and flags of a command.

A declaration is a TypedDict with a line for each: ``name: Annotated[type, Option(...)]``, and a ``Flag(...)`` behind it
where the flag differs. A function takes them as ``**arguments: Unpack[TheClass]``, see `keyword_signature`; a command
as a parameter ``arguments: TheClass``, see `with_flags`. A module of declarations has no ``from __future__ import
annotations``, since the annotations are read.
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Collection, Sequence
from types import NoneType
from typing import Annotated, Any, NamedTuple, TypeVar, cast

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])


class Option(NamedTuple):
    """What the declaration of an argument says besides its name and its type."""

    help: str
    """A sentence without its capital and its full stop.

    Code stands in double backticks; a name of an argument that stands so is shown as each door spells it.
    """
    default: object = None
    least: int | None = None
    """The least whole number that it may be."""
    most: int | None = None
    none: str = ""
    """What None stands for, where the sentence does not say it."""


class Flag(NamedTuple):
    """Where the flag of a command differs from the argument of the library.

    Without it, the flag of ``top_k`` is ``--top-k``. A bool is a switch without a value: ``--novel``, or ``--no-novel``
    for what is true by default.
    """

    names: Sequence[str] = ()
    """Its names, with their dashes."""
    type: Any = None
    """The type that Typer reads, for an argument of a type that Typer cannot read; one of its values."""
    help: str = ""
    """Another sentence, written like that of an `Option`."""
    default: object = ...
    """Another default."""
    metavar: str | None = None
    """What the help shows for its value."""
    complete: Callable[[str], Sequence[str | tuple[str, str]]] | None = None
    """Returns what a shell completes."""
    read: Callable[[Any], Any] | None = None
    """Turns a value that Typer has read, and that is not None, into one of the argument."""
    least: int | None = None
    """Another least whole number."""


#: Stands behind an option that has no flag: a command receives its default.
NO_FLAG = Flag(["-"])


class Declared(NamedTuple):
    """An argument as its declaration has it."""

    type: Any
    option: Option
    flag: Flag = Flag()
    doors: Sequence[object] = ()
    """All that stands behind the option, such as a `gentext.requests.fields.Field`."""

    @property
    def allows_none(self) -> bool:
        """Whether None is one of its values."""
        return NoneType in typing.get_args(self.type)


@functools.cache
def declared(kind: Any) -> dict[str, Declared]:
    """Return the arguments that a class of a declaration has, in order."""
    arguments = {}
    for name, annotation in kind.__annotations__.items():
        if hasattr(annotation, "__metadata__"):
            option, *doors = annotation.__metadata__
            flag = next((door for door in doors if isinstance(door, Flag)), Flag())
            arguments[name] = Declared(annotation.__origin__, option, flag, doors)
    return arguments


def defaults_of(kind: Any) -> dict[str, Any]:
    """Return the default of each argument."""
    return {name: option.default for name, (_, option, *_) in declared(kind).items()}


def with_defaults(arguments: T, kind: type[T]) -> T:
    """Return the arguments that a function got, and the defaults of the others that ``kind`` declares."""
    return cast(T, defaults_of(kind) | cast(Any, arguments))


def show_arguments(function: F) -> F:
    """Let tools show the arguments of a function by their names, for the name of the class that stands for them."""
    function.__signature__ = keyword_signature(function)  # type: ignore[attr-defined]
    return function


def keyword_signature(function: Callable[..., object]) -> inspect.Signature:
    """Return the signature of a function, with the arguments that stand behind ``**arguments: Unpack[TheClass]``.

    Where the class has others besides those that are declared, such as parameters of links, these stay behind ``**``.
    """
    signature = inspect.signature(function)
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD:
            parameters.append(parameter)
            continue
        kind = keyword_class(function)
        for name, (own_type, option, *_) in declared(kind).items():
            parameters.append(
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=own_type)
            )
        if len(declared(kind)) < len(kind.__annotations__):
            parameters.append(parameter.replace(annotation=inspect.Parameter.empty))
    return signature.replace(parameters=parameters)


def keyword_class(function: Callable[..., object]) -> Any:
    """Return ``TheClass`` of a function with ``**arguments: Unpack[TheClass]``, or None for any other function."""
    annotation = function.__annotations__.get("arguments")
    if annotation is None:
        return None
    [kind] = typing.get_args(_evaluate(annotation, function)) or [None]
    return kind


def _evaluate(annotation: Any, function: Any) -> Any:
    """Return an annotation of gentext's own code, which may be a text.

    `inspect.signature` would evaluate all of the function's, and some name what only type checkers import.
    """
    return eval(annotation, function.__globals__) if isinstance(annotation, str) else annotation


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command for Typer that has the flags of a declaration in place of each parameter of its class.

    A parameter of the command itself, with the name of a declared argument, takes the place of its flag.
    """
    own_parameters = inspect.signature(command, eval_str=True).parameters
    groups = {
        name: {argument: own for argument, own in declared(parameter.annotation).items() if own.flag is not NO_FLAG}
        for name, parameter in own_parameters.items()
        if typing.is_typeddict(parameter.annotation)
    }
    flags = {argument: own for group in groups.values() for argument, own in group.items()}
    names = {*flags, *own_parameters}
    parameters: dict[str, inspect.Parameter] = {}
    for name, parameter in own_parameters.items():
        if name in groups:
            for argument, own in groups[name].items():
                parameters[argument] = own_parameters.get(argument) or _flag_parameter(argument, own, names)
        elif name not in flags:
            parameters[name] = parameter.replace(kind=parameter.KEYWORD_ONLY)

    @functools.wraps(command, assigned=("__module__", "__name__", "__doc__"))
    def with_groups(**values: Any) -> None:
        for name, group in groups.items():
            arguments = defaults_of(own_parameters[name].annotation)
            for argument, own in group.items():
                if argument in own_parameters:
                    del arguments[argument]
                else:
                    arguments[argument] = _read_flag(own, values.pop(argument))
            values[name] = arguments
        command(**values)

    with_groups.__annotations__ = {}  # Typer evaluates them beside the signature
    with_groups.__signature__ = inspect.Signature([*parameters.values()])  # type: ignore[attr-defined]
    return with_groups


def in_order(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that puts the flags of a command into this order in its help; others come behind them."""

    def reorder(command: Callable[..., None]) -> Callable[..., None]:
        parameters = dict(inspect.signature(command).parameters)
        ordered = {name: parameters[name] for name in names} | parameters
        command.__signature__ = inspect.Signature([*ordered.values()])  # type: ignore[attr-defined]
        return command

    return reorder


def flag_names(name: str, own: Declared) -> Sequence[str]:
    """Return the names of the flag of an argument, with their dashes."""
    negation = "no-" if own.type is bool and own.option.default else ""
    return own.flag.names or [f"--{negation}{name.replace('_', '-')}"]


def _flag_parameter(name: str, own: Declared, names: Collection[str]) -> inspect.Parameter:
    """Return a parameter of a command as Typer reads it; ``names`` are those of all flags of the command."""
    import typer  # a library that only declares arguments does without

    option, flag = own.option, own.flag
    default = option.default if flag.default is ... else flag.default
    if own.type is bool:
        default = False
    declaration = typer.Option(
        *flag_names(name, own),
        help=_help_of(own, names),
        metavar=flag.metavar,
        autocompletion=flag.complete,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[flag.type or own.type, declaration],
    )


def _help_of(own: Declared, names: Collection[str]) -> str:
    """Return the sentence of a flag."""
    text = own.flag.help or own.option.help.removeprefix("whether ")  # with a switch it is so
    if own.option.none and not own.flag.help:
        text += f". Default: {own.option.none}"

    def spell(match: re.Match[str]) -> str:
        return f"--{match[1].replace('_', '-')}" if match[1] in names else match[1]

    return re.sub(r"``(.*?)``", spell, f"{text[:1].upper()}{text[1:]}.")


def _read_flag(own: Declared, value: Any) -> Any:
    """Return the argument that stands behind the value of its flag."""
    if own.type is bool and own.option.default:
        return not value
    return value if own.flag.read is None or value is None else own.flag.read(value)


def split_names(text: str | None) -> list[str] | None:
    """Return the names of a flag that has them with commas, or None without the flag."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]
