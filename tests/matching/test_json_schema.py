"""Schemas as expressions: every text is valid JSON by the schema, and every keyword that is not kept is refused."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import numpy as np
import pytest
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st

from gentext.matching.byte_automaton import read_automaton
from gentext.matching.decimals import write_decimals
from gentext.matching.expression import Alphabet, ExpressionError
from gentext.matching.expression_child import compile_expression
from gentext.matching.json_schema import translate_schema
from gentext.matching.match import MatchAutomaton, build_automaton

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


@examples(150)
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


def follow(automaton: MatchAutomaton, text: str) -> bool:
    """Return whether a text matches."""
    state = automaton.start
    for character in text:
        state = int(automaton.transitions[state, CHARACTERS.index(character)]) if state >= 0 else -1
    return state >= 0 and bool(automaton.final[state])


@examples(150)
@given(st.data())
def test_integers_between_bounds(data: st.DataObject) -> None:
    """Every integer within the bounds matches and no other one, whatever its size and sign."""
    integers = st.integers(-999, 999) | st.integers(-(10**30), 10**30) | st.integers(0, 40).map(lambda n: 10**n)
    low, high = sorted([data.draw(integers), data.draw(integers)])
    expression = re.compile(write_decimals(low, high))
    for integer in {low - 1, low, low + 1, high - 1, high, high + 1, -low, 0, data.draw(st.integers(low, high))}:
        assert bool(expression.fullmatch(str(integer))) is (low <= integer <= high), integer
        assert not expression.fullmatch(f"0{integer}") and not expression.fullmatch("-0")


@examples(40)
@given(
    st.dictionaries(
        st.sampled_from(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]),
        st.integers(-50, 50) | st.integers(-(10**20), 10**20) | st.decimals(-9, 9, places=3).map(float),
        min_size=1,
    ),
    st.sampled_from(["integer", "number"]),
    st.randoms(use_true_random=False),
)
def test_numbers_within_the_bounds_of_a_schema(bounds: dict[str, Any], name: str, rng: Any) -> None:
    schema = {"type": "array", "items": {"anyOf": [{"type": name, **bounds}]}, "minItems": 1, "maxItems": 2}
    number = jsonschema.Draft202012Validator({"type": name, **bounds})
    try:
        automaton = build(schema)
    except ExpressionError as error:
        assert "is valid" in str(error)
        return
    for _ in range(5):
        assert all(number.is_valid(element) for element in json.loads(write(automaton, rng, 40)))
    for integer in rng.sample(range(-60, 61), 5):
        assert follow(automaton, f"[{integer}]") is number.is_valid(integer)
    for text in [f"{rng.uniform(-10, 10):.3f}", *map(str, bounds.values())]:
        assert number.is_valid(json.loads(text)) or not follow(automaton, f"[{text}]")


def test_lengths_that_a_schema_does_not_say() -> None:
    element = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}
    assert follow(build({"type": "string"}), json.dumps("a" * 200))
    assert not follow(build({"type": "string"}), json.dumps("a" * 201))
    assert follow(build({"type": "string", "minLength": 300}), json.dumps("a" * 300))
    assert follow(build({"type": "string", "maxLength": 300}), json.dumps('"' * 300))
    assert follow(build({"type": "integer"}), "-" + "9" * 15) and not follow(build({"type": "integer"}), "1" + "0" * 15)
    assert follow(build({"type": "integer", "minimum": 10**40}), "9" * 41)
    assert follow(build({"type": "number"}), "-123456789.123456e-12")
    items = {"type": "array", "items": {"type": "null"}}
    assert follow(build(items), json.dumps([None] * 20)) and not follow(build(items), json.dumps([None] * 21))
    table = {"type": "array", "items": {"type": "array", "items": element}}
    assert follow(build(table), json.dumps([[{"a": "a" * 999, "b": 1}] * 30])), "with all limits it would be too large"


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
    ({"type": "string", "minimum": 3}, ".minimum cannot be used"),
    ({"type": "integer", "minimum": "3"}, ".minimum '3': expected a number"),
    ({"type": "integer", "exclusiveMinimum": True}, ".exclusiveMinimum True: expected a number"),
    ({"type": "number", "maximum": 5e-324}, ".maximum: expected at most 400 digits, and 30 behind the point"),
    ({"type": "integer", "maximum": 10**5000}, ".maximum: expected at most 400 digits"),
    ({"type": "integer", "minimum": 4, "maximum": 3}, "minimum 4 and maximum 3: no number with 0 decimal places"),
    ({"type": "integer", "minimum": 0.5, "exclusiveMaximum": 1}, "no number with 0 decimal places is valid"),
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
