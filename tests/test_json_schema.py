"""Schemas as expressions: every text is valid JSON by the schema, and every keyword that is not kept is refused."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gentext.byte_automaton import read_automaton
from gentext.expression import Alphabet, ExpressionError
from gentext.expression_child import compile_expression
from gentext.json_schema import translate_schema
from gentext.match import MatchAutomaton, build_automaton

CHARACTERS = "".join(map(chr, range(32, 127))) + "é\n"
SYMBOLS = [character.encode() for character in CHARACTERS]


def build(schema: object) -> MatchAutomaton:
    translated = translate_schema(schema, Alphabet(CHARACTERS))
    byte_automaton = read_automaton(*compile_expression(translated))
    return build_automaton(byte_automaton, SYMBOLS, np.ones(len(SYMBOLS), np.bool_))


def write(automaton: MatchAutomaton, rng: Any, budget: int) -> str:
    """Return a random text of at most so many characters, or of the least number."""
    state, text = automaton.start, ""
    left = max(budget, int(automaton.distance[state]))
    while True:
        allowed = np.flatnonzero(automaton.transitions[state] >= 0)
        fitting = [token for token in allowed if automaton.distance[automaton.transitions[state, token]] < left]
        if automaton.final[state] and (not fitting or rng.random() < 0.2):
            return text
        token = rng.choice(fitting)
        state, text, left = int(automaton.transitions[state, token]), text + CHARACTERS[token], left - 1


def simple_schemas() -> st.SearchStrategy[dict[str, Any]]:
    counts = st.tuples(st.integers(0, 2), st.integers(2, 4))
    return st.one_of(
        st.sampled_from([{"type": name} for name in ("string", "integer", "number", "boolean", "null")]),
        counts.map(lambda pair: {"type": "string", "minLength": pair[0], "maxLength": pair[1]}),
        st.sampled_from(["^a.c$", "a|b", '["\\\\]x', "^[^a-z]+", r"\d{2}$", "é?"]).map(
            lambda pattern: {"type": "string", "pattern": pattern}
        ),
        st.sampled_from(["date", "time", "date-time", "uuid", "ipv4"]).map(lambda name: {"format": name}),
        st.lists(st.sampled_from(["a", 'q"\\', "é", 1, -2.5, True, None, [1, {"k": "v"}], {}]), min_size=1).map(
            lambda choices: {"enum": choices}
        ),
        st.just({"type": ["integer", "null"], "title": "either", "default": 3}),
        st.just({"const": {"a": [1, "x y"]}}),
    )


def nested_schemas(schemas: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    names = ["a", "b c", 'd"e', "é"]
    objects = st.dictionaries(st.sampled_from(names), schemas, max_size=4).flatmap(
        lambda properties: st.sets(st.sampled_from(sorted(properties)) if properties else st.nothing()).map(
            lambda required: {"type": "object", "properties": properties, "required": sorted(required)}
        )
    )
    arrays = st.tuples(schemas, st.integers(0, 2), st.integers(2, 3)).map(
        lambda parts: {"type": "array", "items": parts[0], "minItems": parts[1], "maxItems": parts[2]}
    )
    return objects | arrays | st.lists(schemas, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts})


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(simple_schemas(), nested_schemas, max_leaves=5), st.randoms(use_true_random=False), st.integers(0, 60)
)
def test_every_text_is_valid(schema: dict[str, Any], rng: Any, budget: int) -> None:
    automaton = build(schema)
    draft = jsonschema.Draft202012Validator
    checker = draft(schema, format_checker=draft.FORMAT_CHECKER)
    for _ in range(5):
        text = write(automaton, rng, budget)
        checker.validate(json.loads(text))


def test_references_within_the_schema() -> None:
    schema = {
        "$defs": {
            "a/b": {"type": "integer"},
            "pair": {"type": "array", "items": {"$ref": "#/$defs/a~1b"}, "minItems": 2},
        },
        "type": "object",
        "properties": {"x": {"$ref": "#/$defs/pair"}, "y": {"$ref": "#/$defs/pair"}},
        "required": ["x"],
    }
    automaton = build(schema)
    assert automaton.distance[automaton.start] == len('{"x":[0,0]}')


RECURSIVE = {"type": "object", "properties": {"next": {"$ref": "#"}}}
REFUSED: list[tuple[object, str]] = [
    ({"type": "integer", "minimum": 3}, ".minimum cannot be used"),
    ({"type": "number", "maximum": 3}, ".maximum cannot be used"),
    ({"type": "number", "multipleOf": 3}, ".multipleOf cannot be used"),
    ({"type": "array", "items": {"type": "null"}, "uniqueItems": True}, ".uniqueItems cannot be used"),
    ({"type": "string", "pattern": "a", "minLength": 3}, ".pattern beside other keywords"),
    ({"type": "string", "format": "email"}, ".format 'email': expected one of date"),
    ({"oneOf": [{"type": "null"}]}, "has no type"),
    ({"allOf": [{"type": "null"}], "type": "null"}, ".allOf cannot be used"),
    ({"type": "object", "properties": {}, "required": ["z"]}, ".required has 'z'"),
    ({"type": "object", "properties": {"a": {"type": "foo"}}}, ".a.type 'foo': expected one of string"),
    ({"type": "object", "properties": {}, "additionalProperties": {"type": "null"}}, ".additionalProperties"),
    ({"type": "object"}, "an object of any properties"),
    ({"type": "array"}, "an array of any values"),
    ({"type": "string", "const": 1}, "allows 1, which is no string"),
    ({"enum": []}, ".enum is []"),
    ({"type": "string", "minLength": 4, "maxLength": 2}, "nothing is valid"),
    ({"type": "string", "minLength": -1}, ".minLength -1: expected a whole number"),
    ({"type": "string", "pattern": "(?=a)b"}, ".pattern: look-ahead"),
    (RECURSIVE, "is recursive, which no automaton can follow"),
    ({"$ref": "#/$defs/none"}, "the schema has no '$defs' there"),
    ({"$ref": "other.json"}, "expected one within the schema"),
    (True, "it is true; expected an object"),
    ({}, "it has no type"),
]


@pytest.mark.parametrize(("schema", "fragment"), REFUSED, ids=[fragment for _, fragment in REFUSED])
def test_what_a_text_could_not_keep_is_refused_by_name(schema: object, fragment: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        translate_schema(schema, Alphabet(CHARACTERS))
    assert fragment in str(caught.value) and "\n" not in str(caught.value)
