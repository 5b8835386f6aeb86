"""The options of chain links on the command line: --temperature, --top-k, and those of plugins."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gentext.config import config_class, field_docs, per_run_fields
from gentext.errors import PluginError, UsageError, nearest
from gentext.registry import Registry
from gentext.sampling.configured_chain import builtin_strategies

#: Name of an option, without the leading dashes -> its value, as text.
ChainFlags = dict[str, str]


def extract_flags(arguments: list[str], options: Mapping[str, Any]) -> tuple[ChainFlags, list[str]]:
    """Separate the options of links from the arguments that the command declares itself.

    Each takes one value, as ``--name value`` or ``--name=value``. Which of them exist is known
    only when the model's file is open. Returns them and the remaining arguments.
    """
    flags: ChainFlags = {}
    command_arguments: list[str] = []
    remaining_arguments = list(arguments)
    while remaining_arguments:
        argument = remaining_arguments.pop(0)
        name, equals, flag_text = argument.partition("=")
        if argument == "--":
            command_arguments += [argument, *remaining_arguments]
            break
        if not argument.startswith("--") or name in options or name == "--help":
            command_arguments.append(argument)
            option = options.get(argument)
            if option is not None and not getattr(option, "is_flag", False) and remaining_arguments:
                command_arguments.append(remaining_arguments.pop(0))
            continue
        if not equals:
            if not remaining_arguments:
                raise UsageError(f"{name}: expected a value after it")
            flag_text = remaining_arguments.pop(0)
        flags[name.removeprefix("--").replace("_", "-")] = flag_text
    return flags, command_arguments


class FlagSpelling:
    """Parameters as flags, whose values are text: ``--top-k 5``. See `gentext.requests.spelling.Spelling`."""

    def __init__(self, command_options: Collection[str] = ()) -> None:
        """``command_options`` are the command's own options, which a misspelt flag may stand for."""
        self._command_options = command_options

    def name(self, parameter: str) -> str:
        return f"--{_with_dashes(parameter)}"

    def full_name(self, link: str, parameter: str) -> str:
        return f"--{_with_dashes(link)}-{_with_dashes(parameter)}"

    def assignment(self, parameter: str, setting: object) -> str:
        text = str(setting)
        is_visible = bool(text) and text.isprintable()
        return f"{self.name(parameter)} {text if is_visible else repr(text)}"

    def number(self, parameter: str, setting: object) -> float:
        try:
            return float(str(setting))
        except ValueError:
            raise UsageError(f"{self.name(parameter)} {setting!r}: expected a number") from None

    def unknown_parameter(self, parameter: str, parameters: Collection[str]) -> UsageError:
        names = [_with_dashes(name) for name in parameters]
        return UsageError(
            f"no option --{parameter}.{nearest(parameter, [*names, *self._command_options])} "
            f"gen sample --help lists the options of links; links of plugins: --chain"
        )


def describe_flags(registry: Registry) -> str:
    """Return the part of ``gen sample --help`` that lists the built-in links' options."""
    lines = ["Options of links; the links of a file's chain, plugins' among them, add theirs:"]
    for name in builtin_strategies(registry):
        try:
            strategy = registry.get("strategy", name)
        except PluginError:
            continue
        for param, spec in strategy.params.items():
            if not spec.is_option:
                continue
            lines.append(f"  --{_with_dashes(param):<20} {spec.help} (default {spec.initial:g})")
        docs = field_docs(config_class(strategy))
        for option in per_run_fields(config_class(strategy)):
            lines.append(f"  --{_with_dashes(option):<20} {' '.join(docs.get(option, '').replace('``', '').split())}")
    return "\n".join(lines) + "\n"


def _with_dashes(name: str) -> str:
    return name.replace("_", "-")
