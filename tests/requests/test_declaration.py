"""The declaration of options: it has the parameters of all built-in links, and no argument is left to Python."""

from __future__ import annotations

import inspect
from typing import get_type_hints

import pytest

import gentext
from gentext.arguments import declared, defaults_of
from gentext.config import config_class, per_run_fields
from gentext.manager import host
from gentext.requests.declaration import (
    ManyTextsArguments,
    RecordArguments,
    RecordsOwnArguments,
    SearchArguments,
    TextArguments,
)
from gentext.requests.keywords import LinkArguments
from gentext.requests.option_tables import markdown_table, option_rows
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


def test_the_methods_show_their_options() -> None:
    for method, kind in {"write": TextArguments, "records": RecordArguments, "best": SearchArguments}.items():
        parameters = inspect.signature(getattr(gentext.TextModel, method)).parameters
        shown = {name: parameters[name].default for name in declared(kind)}
        assert shown == defaults_of(kind)
        assert ("arguments" in parameters) is (method != "best"), "parameters of links"


def test_reference_tables() -> None:
    library, flags, fields = (option_rows(ManyTextsArguments, door) for door in ("library", "flag", "field"))
    assert library.keys() == declared(ManyTextsArguments).keys()
    assert library.keys() - flags.keys() == {"params", "stream", "top_logprobs", "echo"}
    assert library.keys() - fields.keys() == {"params", "stream", "chain"}
    assert library["length"] == (
        ("length", "integer", "500", "from 1", "new characters of each text, at most; None: without end")
    )
    assert fields["length"][:4] == ("max_tokens", "integer", "16", "from 0")
    assert fields["top_logprobs"][:4] == ("logprobs", "integer", "none", "0 to 10")
    assert [rows["match"].type for rows in (library, flags, fields)] == ["text or list of texts", "text", "text"]
    assert [rows["json_schema"].help.rpartition(" ")[2] for rows in (library, flags, fields)] == [
        *("``match``", "``--match``", "``match``")
    ]
    for rows, prime in ((library, "prime"), (flags, "--prime"), (fields, "prompt")):
        assert f"of the ``{prime}`` that" in rows["unknown"].help
    assert flags["seed"].help == "the same seed gives the same texts; default: a new seed"
    [ordered] = markdown_table([option_rows(RecordsOwnArguments, "flag")["ordered"]]).splitlines()[2:]
    assert ordered == "| `--unordered` | true or false | `false` |  | records: write each as soon as it ends |"


def test_an_argument_that_a_search_does_not_have() -> None:
    with pytest.raises(TypeError, match=r"best\(\) got an unexpected keyword argument 'bean'"):
        gentext.TextModel.best(None, bean=3)  # type: ignore[arg-type, call-arg]
