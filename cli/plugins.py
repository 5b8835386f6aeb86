"""``gen plugins``: what is installed, what it registers, and what failed."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any

import typer

from gentext.chain import build_link
from gentext.config import config_class, field_docs, per_run_fields
from gentext.errors import PluginError, UnknownComponent, UsageError, nearest, reason
from gentext.manager import Loaded, host
from gentext.registry import Component

#: Symbols of the vocabulary that a strategy is checked with.
VOCABULARY = 13


def plugins(
    name: Annotated[str | None, typer.Argument(help="Show the options of one component.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Of a strategy: run the test kit, and try to compile it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List plugins and their components; with a NAME, the options of that component."""
    if check:
        _check(name)
        return
    if name is not None:
        rows = [_options(one) for one in _named(name)]
        print(json.dumps(rows, indent=1) if as_json else "\n\n".join(_spell_options(row) for row in rows))
    elif as_json:
        print(json.dumps([_row(one) for one in host().plugins], indent=1))
    else:
        _print_table()


def _check(name: str | None) -> None:
    """Hold a strategy against the rules; the first that is broken is the error."""
    if name is None:
        raise UsageError("--check: name the strategy to check, as in gen plugins --check top_k")
    from gentext.testing import check_strategy

    link = build_link(host().registry, name, VOCABULARY)
    try:
        check_strategy(type(link.strategy), vocab_size=VOCABULARY)
    except AssertionError as error:
        raise PluginError(
            f"the strategy {name!r} breaks a rule: {reason(error).removeprefix('AssertionError: ')}"
        ) from None
    try:
        from gentext.export.strategies.check import check_compiles
    except ModuleNotFoundError:
        print(f"{name}: keeps the rules on NumPy; compiling it needs pip install 'gentext[train]'")
        return
    check_compiles(link)
    print(f"{name}: keeps the rules, and compiles")


def _named(name: str) -> list[Component]:
    found = [one for one in host().registry if one.name == name]
    if not found:
        names = sorted({one.name for one in host().registry})
        raise UnknownComponent(f"no component {name!r}.{nearest(name, names)} Available: {', '.join(names)}")
    return found


def _row(one: Loaded) -> dict[str, Any]:
    return {
        "distribution": one.provider.distribution,
        "version": one.provider.version,
        "builtin": one.provider.builtin,
        "module": one.origin,
        "hooks": one.hooks,
        "components": one.components,
        "error": one.error,
    }


def _print_table() -> None:
    registry = host().registry
    for component in registry:
        print(f"{component.kind:<10} {component.name:<16} {component.provider!s:<24} {component.summary}")
    for one in host().plugins:
        if one.error:
            print(f"failed     {one.provider!s} ({one.origin}): {one.error}")


def _options(component: Component) -> dict[str, Any]:
    loaded = component.load()
    cls = config_class(loaded)
    docs = field_docs(cls)
    options = [
        {
            "name": field.name,
            "default": _default(field),
            "per_run": field.name in per_run_fields(cls),
            "help": docs.get(field.name, ""),
        }
        for field in dataclasses.fields(cls)
    ]
    params = [
        {"name": name, "default": spec.initial, "neutral": spec.neutral, "help": spec.help}
        for name, spec in getattr(loaded, "params", {}).items()
    ]
    return {
        "kind": component.kind,
        "name": component.name,
        "from": str(component.provider),
        "summary": component.summary,
        "options": options,
        "params": params,
    }


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _spell_options(row: dict[str, Any]) -> str:
    section = f"chain.{row['name']}" if row["kind"] == "strategy" else row["kind"]
    lines = [f"{row['kind']} {row['name']} ({row['from']}): {row['summary']}"]
    for one in row["options"]:
        flag = f", --{one['name'].replace('_', '-')}" if one["per_run"] else ""
        lines.append(f"  {section}.{one['name']}{flag} = {one['default']}  {one['help']}")
    lines += [
        f"  --{one['name'].replace('_', '-')} (default {one['default']:g})  {one['help']}" for one in row["params"]
    ]
    return "\n".join(lines)
