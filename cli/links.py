"""The options of chain links on the command line: --temperature, --top-k, and those of plugins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gentext.bundle import Bundle
from gentext.chain import Chain, build_link
from gentext.describe import chain_of
from gentext.errors import PluginError, UsageError, nearest
from gentext.registry import Registry
from gentext.stored import stored_chain
from gentext.strategy import Param, range_problem

#: Option without dashes -> the text that was typed.
ChainFlags = dict[str, str]
ParamValues = dict[str, dict[str, float]]


def extract_flags(args: list[str], known: Mapping[str, Any]) -> tuple[ChainFlags, list[str]]:
    """Take the options that the command does not declare out of its arguments.

    Each takes one value, as ``--name value`` or ``--name=value``. Which of them exist is known
    only when the model file is open. Returns them and the remaining arguments.
    """
    flags: ChainFlags = {}
    rest: list[str] = []
    waiting = list(args)
    while waiting:
        arg = waiting.pop(0)
        name, equals, value = arg.partition("=")
        if arg == "--":
            rest += [arg, *waiting]
            break
        if not arg.startswith("--") or name in known or name == "--help":
            rest.append(arg)
            option = known.get(arg)
            if option is not None and not getattr(option, "is_flag", False) and waiting:
                rest.append(waiting.pop(0))
            continue
        if not equals:
            if not waiting:
                raise UsageError(f"{name}: expected a value after it")
            value = waiting.pop(0)
        flags[name.removeprefix("--").replace("_", "-")] = value
    return flags, rest


def resolve_chain(
    bundle: Bundle, registry: Registry, names: str | None, flags: ChainFlags, others: Sequence[str] = ()
) -> tuple[Chain, ParamValues, list[str]]:
    """Build the chain that a command line asks for.

    Returns the chain, the parameter values that were typed, and remarks about flags that can have
    no effect. Raises UsageError for a flag that belongs to no link; ``others`` are the command's own
    options, which may have been meant.
    """
    wanted = None if names is None else [name.strip() for name in names.split(",") if name.strip()]
    inside = wanted is None and bundle.kind == "generator"
    chain = stored_chain(bundle) if inside else chain_of(bundle, registry, wanted)
    owners = {flag: _owner(flag, chain, registry, bundle.vocab_size, others) for flag in flags}
    if inside and not all(link in chain.names and name in _params(chain, link) for link, name in owners.values()):
        chain = chain_of(bundle, registry)  # more than the file has inside: now the links' code is needed
    values: ParamValues = {}
    options: dict[str, dict[str, str]] = {}
    for flag, text in flags.items():
        link, name = owners[flag]
        if link not in chain.names:
            chain = chain.with_link(build_link(registry, link, bundle.vocab_size))
        if name in _params(chain, link):
            values.setdefault(link, {})[name] = _number(flag, text, _params(chain, link)[name])
        else:
            options.setdefault(link, {})[name] = text
    chain = chain.with_options(options)
    return chain, values, _without_effect(chain, values)


def _params(chain: Chain, name: str) -> Mapping[str, Param]:
    return next(link.strategy.params for link in chain if link.name == name)


def _owner(flag: str, chain: Chain, registry: Registry, vocab_size: int, others: Sequence[str]) -> tuple[str, str]:
    """Return the link and its parameter (or option of the run) that a flag names.

    --PARAM is enough where one link has it, on a clash it is --LINK-PARAM.
    """
    links = list(chain)
    links += [build_link(registry, n, vocab_size) for n in _builtin_strategies(registry) if n not in chain.names]
    there = [(link.name, name) for link in links for name in [*link.strategy.params, *link.strategy.per_run]]
    found = [one for one in there if _matches(flag, *one)]
    known = [_spelled(name) for _, name in there]
    exact = [one for one in found if flag == f"{_spelled(one[0])}-{_spelled(one[1])}"] or found
    if len(exact) == 1:
        return exact[0]
    if exact:
        options = " or ".join(f"--{_spelled(link)}-{_spelled(param)}" for link, param in exact)
        raise UsageError(f"--{flag} belongs to more than one link; say {options}")
    options = ", ".join(f"--{name}" for name in sorted(set(known)))
    raise UsageError(
        f"no option --{flag}.{nearest(flag, [*known, *others])} Options of links: {options}; links of plugins: --chain"
    )


def _matches(flag: str, link: str, param: str) -> bool:
    return flag in (_spelled(param), f"{_spelled(link)}-{_spelled(param)}")


def _spelled(name: str) -> str:
    return name.replace("_", "-")


def _builtin_strategies(registry: Registry) -> list[str]:
    """Plugins' links are imported only when --chain or the file names them."""
    return [one.name for one in registry if one.kind == "strategy" and one.provider.builtin]


def _number(flag: str, text: str, param: Param) -> float:
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"--{flag} {text!r}: expected a number") from None
    expected = range_problem(param, value)
    if expected:
        raise UsageError(f"--{flag} {text}: {expected}")
    return value


def _without_effect(chain: Chain, values: ParamValues) -> list[str]:
    """Say which typed flags cannot matter, because another link leaves one symbol only."""
    lines = []
    for decider in chain:
        used = {**decider.defaults, **values.get(decider.name, {})}
        if not any(used[name] == spec.decisive for name, spec in decider.strategy.params.items()):
            continue
        for link in chain:
            if link.name != decider.name and link.strategy.place != "penalty":
                lines += [
                    f"--{_spelled(param)} has no effect: {decider.name} leaves one symbol"
                    for param in values.get(link.name, {})
                ]
    return list(dict.fromkeys(lines))


def describe_flags(registry: Registry) -> str:
    """Return the part of ``gen sample --help`` that lists the built-in links' options."""
    lines = ["Options of links; the links of a file's chain, plugins' among them, add theirs:"]
    for name in _builtin_strategies(registry):
        try:
            params = registry.get("strategy", name).params
        except PluginError:
            continue
        for param, spec in params.items():
            lines.append(f"  --{_spelled(param):<20} {spec.help} (default {spec.initial:g})")
    return "\n".join(lines) + "\n"
