"""The declaration of options: it has the parameters of all built-in links, and no argument is left to Python."""

from __future__ import annotations

from typing import get_type_hints

import pytest

import gentext
from gentext.arguments import declared
from gentext.config import config_class, per_run_fields
from gentext.manager import host
from gentext.requests.declaration import ManyTextsArguments, RecordArguments, SearchArguments
from gentext.requests.keywords import LinkArguments
from gentext.sampling.configured_chain import builtin_strategies


def test_the_typed_arguments_of_links_are_the_parameters_of_the_built_in_links() -> None:
    expected: dict[str, type] = {}
    for name in builtin_strategies(host().registry):
        strategy = host().registry.get("strategy", name)
        for param, spec in strategy.params.items():
            if spec.is_option:
                expected[param] = int if spec.dtype == "int64" else float
        expected |= dict.fromkeys(per_run_fields(config_class(strategy)), str)
    assert get_type_hints(LinkArguments) == expected


@pytest.mark.parametrize("kind", [ManyTextsArguments, RecordArguments, SearchArguments])
def test_no_option_is_a_parameter_of_a_link_too(kind: type) -> None:
    assert all(own.option.help for own in declared(kind).values())
    if kind is not SearchArguments:  # its temperature is not that of the link
        assert not declared(kind).keys() & get_type_hints(LinkArguments).keys()


def test_an_argument_that_a_search_does_not_have() -> None:
    with pytest.raises(TypeError, match=r"best\(\) got an unexpected keyword argument 'bean'"):
        gentext.TextModel.best(None, bean=3)  # type: ignore[arg-type, call-arg]
