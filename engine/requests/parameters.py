"""The parameters of a chain's links, as a user sets them to write text: by flags or by keyword arguments.

Which parameters exist depends on the model's file, on the chain and on the installed links. The command line and the
library both call `choose_chain`, each with its own `Spelling` of parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from gentext.errors import UsageError
from gentext.exported.metadata import Bundle
from gentext.registry import Registry
from gentext.requests.spelling import LinkParameter, ParamValues, Spelling
from gentext.requests.styles import STYLES, style_numbers
from gentext.sampling.chain import Chain, Link, build_link
from gentext.sampling.configured_chain import builtin_strategies, chain_of
from gentext.sampling.stored import stored_chain
from gentext.strategy import Param, range_problem


class ChosenChain(NamedTuple):
    """The chain to write with, and the parameters that were set."""

    chain: Chain
    param_values: ParamValues
    notes: list[str]
    """Remarks on parameters that were set, but cannot change the text or act against another one."""

    def param_numbers(self, link_name: str) -> dict[str, float]:
        """Return the numbers of a link's parameters: what was set, else the default."""
        link = next(link for link in self.chain if link.name == link_name)
        return {**link.defaults, **self.param_values.get(link_name, {})}


def choose_chain(
    bundle: Bundle,
    registry: Registry,
    links: Sequence[str] | None,
    settings: Mapping[str, object],
    spelling: Spelling,
    style: str | None = None,
    needed_links: Sequence[str] = (),
) -> ChosenChain:
    """Build the chain of ``links`` (None: the file's own) and set parameters of it.

    ``style`` names one of `gentext.requests.styles.STYLES`, over whose numbers ``settings`` count. A link of the style
    that the chain lacks joins it.

    ``settings`` maps names to values. A name is ``PARAM`` where one link has it, else ``LINK_PARAM`` or
    ``LINK.PARAM``; a dash may stand for an underscore. A built-in link that the chain lacks joins it when one of its
    parameters is set, and so do ``needed_links``. Raises UsageError for an unknown or ambiguous name and for a value
    out of range, ConfigError for an option of another type.
    """
    use_compiled = links is None and bundle.kind == "generator"
    chain = stored_chain(bundle) if use_compiled else chain_of(bundle, registry, links)
    link_parameters = {
        name: _find_link_parameter(name, chain, registry, bundle.vocab_size, spelling) for name in settings
    }
    style_links = [] if style is None else list(STYLES[style])
    missing_links = [name for name in (*needed_links, *style_links) if name not in chain.names]
    is_compiled_param = [_has_param(chain, link_parameter) for link_parameter in link_parameters.values()]
    if use_compiled and (missing_links or not all(is_compiled_param)):
        # A setting is no input of the compiled chain, so the installed code of its links is needed.
        chain = chain_of(bundle, registry)
    for name in missing_links:
        chain = chain.with_link(build_link(registry, name, bundle.vocab_size))
    param_values: ParamValues = {} if style is None else style_numbers(style, chain)
    options: dict[str, dict[str, object]] = {}
    user_settings: dict[LinkParameter, object] = {}
    for name, setting in settings.items():
        link_parameter = link_parameters[name]
        if link_parameter.link not in chain.names:
            new_link = build_link(registry, link_parameter.link, bundle.vocab_size)
            chain = _make_room(chain, new_link, param_values).with_link(new_link)
        if _has_param(chain, link_parameter):
            param = _link_params(chain, link_parameter.link)[link_parameter.parameter]
            number = _number_in_range(name, setting, param, spelling)
            param_values.setdefault(link_parameter.link, {})[link_parameter.parameter] = number
        else:
            options.setdefault(link_parameter.link, {})[link_parameter.parameter] = setting
        user_settings[link_parameter] = setting
    chain = chain.with_options(options)
    notes = []
    if user_settings:
        from gentext.requests.effects import (
            ChainEffects,  # imported where it is used, so that a plain start is not slower
        )

        notes = ChainEffects(chain, param_values, user_settings, spelling, bundle.vocab_size).notes()
    return ChosenChain(chain, param_values, notes)


def _make_room(chain: Chain, new_link: Link, param_values: ParamValues) -> Chain:
    """Return the chain without a link that is off, where only one of it and the new link can stand last."""
    if new_link.strategy.place != "last":
        return chain
    active_names = chain.active(chain.param_arrays(1, param_values), {}).names
    return Chain([link for link in chain if link.strategy.place != "last" or link.name in active_names])


def _link_params(chain: Chain, link_name: str) -> Mapping[str, Param]:
    return next(link.strategy.params for link in chain if link.name == link_name)


def _has_param(chain: Chain, link_parameter: LinkParameter) -> bool:
    return link_parameter.link in chain.names and link_parameter.parameter in _link_params(chain, link_parameter.link)


def _find_link_parameter(
    name: str, chain: Chain, registry: Registry, vocab_size: int, spelling: Spelling
) -> LinkParameter:
    """Return the parameter or option that a name refers to: of a link of the chain, else of another built-in one.

    Only where the chain has no such parameter are all built-in links imported.
    """
    link_parameters = _parameters_of(chain)
    matches = _find_matches(name, link_parameters)
    if not matches:
        link_parameters += _parameters_of(
            build_link(registry, strategy_name, vocab_size)
            for strategy_name in builtin_strategies(registry)
            if strategy_name not in chain.names
        )
        matches = _find_matches(name, link_parameters)
    full_matches = [link_parameter for link_parameter in matches if _is_full_name(name, link_parameter)]
    best_matches = full_matches or matches
    if not best_matches:
        raise spelling.unknown_parameter(name, [link_parameter.parameter for link_parameter in link_parameters])
    if len(best_matches) > 1:
        alternatives = " or ".join(spelling.full_name(*link_parameter) for link_parameter in best_matches)
        raise UsageError(f"{spelling.name(name)} belongs to more than one link; say {alternatives}")
    return best_matches[0]


def _parameters_of(links: Iterable[Link]) -> list[LinkParameter]:
    """Return the parameters of links, and their options that each request may set."""
    return [
        LinkParameter(link.name, parameter)
        for link in links
        for parameter in [*_option_names(link.strategy.params), *link.strategy.per_run]
    ]


def _option_names(params: Mapping[str, Param]) -> list[str]:
    """Return the parameters that users set; gentext sets the others itself."""
    return [name for name, param in params.items() if param.is_option]


def _find_matches(name: str, link_parameters: Collection[LinkParameter]) -> list[LinkParameter]:
    """Return the parameters that a name refers to."""
    return [
        link_parameter
        for link_parameter in link_parameters
        if _is_same_spelling(name, link_parameter.parameter) or _is_full_name(name, link_parameter)
    ]


def _is_full_name(name: str, link_parameter: LinkParameter) -> bool:
    full_names = (
        f"{link_parameter.link}_{link_parameter.parameter}",
        f"{link_parameter.link}.{link_parameter.parameter}",
    )
    return any(_is_same_spelling(name, full_name) for full_name in full_names)


def _is_same_spelling(name: str, other_name: str) -> bool:
    return name.replace("-", "_") == other_name.replace("-", "_")


def _number_in_range(name: str, setting: object, param: Param, spelling: Spelling) -> float:
    number = spelling.number(name, setting)
    problem = range_problem(param, number)
    if problem:
        raise UsageError(f"{spelling.assignment(name, setting)}: {problem}")
    return number
