"""``gen plugins``: what is installed, what it registers, and what failed."""

from __future__ import annotations

import dataclasses
import inspect
import json
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from gentext.config import config_class, field_docs, per_run_fields
from gentext.errors import GenError, PluginError, UnknownComponent, UsageError, nearest, reason
from gentext.export.strategies.rules import NO_VALUES
from gentext.manager import PluginRecord, host
from gentext.registry import KINDS, Component
from gentext.sampling.chain import build_link
from gentext.strategy import Param, Strategy, mapping_problem

#: Size of the vocabulary that a strategy is checked with.
CHECK_VOCAB_SIZE = 13


def plugins(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME | new NAME]",
            help="Show the options of one component; new: write a new plugin.",
        ),
    ] = None,
    new_name: Annotated[str | None, typer.Argument(hidden=True)] = None,
    kind: Annotated[
        str | None, typer.Option(help=f"What the new plugin is: {', '.join(KINDS)} or command.", metavar="KIND")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Run the test kit on a strategy, and try to compile it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List plugins and their components; with a NAME, the options of that component.

    gen plugins new NAME --kind KIND writes a small package with one plugin, ready to install.
    """
    if name == "new":
        _write_plugin(new_name, kind)
        return
    if new_name is not None or kind is not None:
        raise UsageError("a second name and --kind are for a new plugin: gen plugins new NAME --kind KIND")
    if check:
        _check_strategy(name)
        return
    if name is not None:
        rows = [_component_row(component) for component in _components_named(name)]
        print(json.dumps(rows, indent=1) if as_json else "\n\n".join(_format_component(row) for row in rows))
    elif as_json:
        print(json.dumps([_plugin_row(plugin) for plugin in host().plugins], indent=1))
    else:
        _print_table()


def _write_plugin(name: str | None, kind: str | None) -> None:
    """Write a new distribution into the current folder, and say what to do next."""
    if name is None:
        raise UsageError("gen plugins new: name the plugin, as in gen plugins new fade --kind strategy")
    import typer.main

    from gentext.cli.app import build
    from gentext.cli.scaffold import create_plugin

    paths = create_plugin(name, kind, Path(), set(typer.main.get_group(build()).commands))
    for path in paths:
        print(path)
    print(f"next: cd {paths[0].parts[0]} && pip install -e '.[test]' && pytest")


def _check_strategy(name: str | None) -> None:
    """Check that a strategy keeps the rules. The first rule that it breaks is the error."""
    if name is None:
        raise UsageError("--check: name the strategy to check, as in gen plugins --check top_k")
    from gentext.testing.strategy import check_as_compiled, check_on_numpy

    strategy_class = type(build_link(host().registry, name, CHECK_VOCAB_SIZE).strategy)
    is_compiled = False
    try:
        check_on_numpy(strategy_class, vocab_size=CHECK_VOCAB_SIZE)
        is_compiled = check_as_compiled(strategy_class, name=name)
    except AssertionError as error:
        if "cannot be compiled" in str(error):
            raise PluginError(str(error)) from None
        problem = reason(error).removeprefix("AssertionError: ")
        raise PluginError(f"the strategy {name!r} breaks a rule: {problem}") from None
    except GenError:
        raise
    except Exception as error:
        location = _location(error, strategy_class)
        is_decision = "truth value of an array" in str(error)  # NumPy recommends any() or all(), which do not compile
        raise PluginError(
            f"the strategy {name!r} fails on NumPy: {location}{NO_VALUES if is_decision else reason(error)}"
        ) from error
    if is_compiled:
        print(f"{name}: keeps the rules, and compiles")
    else:
        print(f"{name}: keeps the rules on NumPy; compiling it needs pip install 'gentext[train]'")


def _location(error: Exception, strategy_class: type[Strategy]) -> str:
    """Return file, number and text of the last line on the way to an error that is in the file of a class, or nothing.

    A class that was not read from a file has none.
    """
    source = inspect.getsourcefile(strategy_class)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == source]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno} `{frames[-1].line}`: " if frames else ""


def _components_named(name: str) -> list[Component]:
    components = [component for component in host().registry if component.name == name]
    if not components:
        names = sorted({component.name for component in host().registry})
        raise UnknownComponent(f"no component {name!r}.{nearest(name, names)} Available: {', '.join(names)}")
    return components


def _plugin_row(plugin: PluginRecord) -> dict[str, Any]:
    return {
        "distribution": plugin.distribution.name,
        "version": plugin.distribution.version,
        "builtin": plugin.distribution.builtin,
        "module": plugin.module,
        "hooks_version": plugin.hooks_version,
        "hooks": plugin.hooks,
        "components": plugin.components,
        "error": plugin.error,
    }


def _print_table() -> None:
    registry = host().registry
    for component in registry:
        print(f"{component.kind:<10} {component.name:<16} {component.distribution!s:<24} {component.summary}")
    for plugin in host().plugins:
        if not plugin.distribution.builtin and not plugin.error:
            version = f"version {plugin.hooks_version} of the hooks"
            print(
                f"{'plugin':<10} {plugin.module:<16} {plugin.distribution!s:<24} {version}: {', '.join(plugin.hooks)}"
            )
    for plugin in host().plugins:
        if plugin.error:
            print(f"failed     {plugin.distribution!s} ({plugin.module}): {plugin.error}")


def _component_row(component: Component) -> dict[str, Any]:
    """Return a component with its config's options and, of a strategy, its params."""
    target = component.load()
    config = config_class(target)
    help_texts = field_docs(config)
    options = [
        {
            "name": field.name,
            "default": _field_default(field),
            "per_run": field.name in per_run_fields(config),
            "help": help_texts.get(field.name, ""),
        }
        for field in dataclasses.fields(config)
    ]
    declared_params = getattr(target, "params", {}) if component.kind == "strategy" else {}
    if problem := mapping_problem("params", declared_params, Param):
        raise PluginError(f"the strategy {component.name!r}: {problem}")
    params = [
        {"name": name, "default": param.initial, "neutral": param.neutral, "help": param.help}
        for name, param in declared_params.items()
        if param.is_option
    ]
    return {
        "kind": component.kind,
        "name": component.name,
        "from": str(component.distribution),
        "summary": component.summary,
        "options": options,
        "params": params,
    }


def _field_default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _format_component(row: dict[str, Any]) -> str:
    """Return a component's row as lines for people."""
    named_sections = {"strategy": "chain", "filter": "filter"}  # of which a command may have several
    kind = row["kind"]
    section = f"{named_sections[kind]}.{row['name']}" if kind in named_sections else kind
    lines = [f"{row['kind']} {row['name']} ({row['from']}): {row['summary']}"]
    for option in row["options"]:
        flag_text = f", {_flag_name(option)}" if option["per_run"] else ""
        lines.append(f"  {section}.{option['name']}{flag_text} = {option['default']}  {option['help']}")
    for param in row["params"]:
        lines.append(f"  {_flag_name(param)} (default {param['default']:g})  {param['help']}")
    return "\n".join(lines)


def _flag_name(option: dict[str, Any]) -> str:
    return f"--{option['name'].replace('_', '-')}"
