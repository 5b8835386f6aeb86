"""Expressions in the browser: its tables are those of Python's automata, and what it cannot use it says in one line."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from javascript import PAGE, run_javascript, write_in_javascript
from node_packages import needs_node
from numpy.typing import NDArray
from test_match_automaton import build, random_expression

import gentext
from gentext.matching.match_tables import FIRST_STATE, link_tables

pytestmark = needs_node
#: Compiles expressions, and prints their tables, or what is wrong with them.
COMPILE = f"""
import {{ readFileSync }} from "node:fs";
import {{ compileMatch }} from "{PAGE.as_uri()}/match.js";
const {{ expressions, symbols, boundary }} = JSON.parse(readFileSync(0, "utf8"));
const model = {{
  symbols: symbols.map((symbol) => Uint8Array.from(symbol)),
  isAllowed: symbols.map(() => true),
  boundary,
}};
const plain = (key, entry) => (entry === Infinity ? -1 : typeof entry === "bigint" ? Number(entry) : entry);
const results = expressions.map((expression) => {{
  try {{
    const {{ tables, firstState }} = compileMatch(expression, model);
    const arrays = Object.entries(tables).map(([name, table]) => [name, Array.from(table)]);
    return {{ ...Object.fromEntries(arrays), first: [0, 3].map((length) => {{
      try {{ return firstState(length); }} catch (error) {{ return error.message; }}
    }}) }};
  }} catch (error) {{
    return {{ code: error.code, message: error.message }};
  }}
}});
console.log(JSON.stringify(results, plain));
"""
CHARACTERS = [letter.encode() for letter in "aé1 \n"]
#: Symbols of several characters, and parts of a character: sets are about all characters then.
PIECES = [b"a", b"\xc3", b"\xa9", b"1", b"a1", b"", b"1\xc3", b"\xa9a", b"\n"]


def compile_in_javascript(expressions: list[str], symbols: list[bytes], boundary: int | None = None) -> list[Any]:
    """Return the tables of expressions as arrays by name, or the errors."""
    request = {"expressions": expressions, "symbols": [list(symbol) for symbol in symbols], "boundary": boundary}
    results: list[Any] = run_javascript(COMPILE, input_text=json.dumps(request))
    return results


def differences(actual: dict[str, Any], expected: dict[str, NDArray[Any]], start: int, width: int) -> str:
    """Return where two tables differ, walking through both from their first states at once; "" where they agree."""
    next_states = np.array(actual["next_state"]).reshape(-1, width)
    needs = np.array(actual["need"], np.float32).reshape(-1, width)
    needs[needs < 0] = np.inf
    pairs = [(FIRST_STATE, start + FIRST_STATE)]
    for state, other in pairs:  # grows while it is read
        if (needs[state] != expected["need"][other]).any():
            return f"needs of the states {state} and {other}"
        if actual["least_need"][state] not in (expected["least_need"][other], -1):
            return f"least needs of the states {state} and {other}"
        for token in np.flatnonzero(np.isfinite(needs[state])):
            pair = int(next_states[state, token]), int(expected["next_state"][other, token])
            if (pair[0] < FIRST_STATE or pair[1] < FIRST_STATE) and pair[0] != pair[1]:
                return f"behind {token} of the states {state} and {other}"
            if pair not in pairs and pair[0] >= FIRST_STATE:
                pairs.append(pair)
    return ""


@pytest.mark.parametrize(
    ("symbols", "boundary"),
    [(CHARACTERS, None), pytest.param(PIECES, None, marks=pytest.mark.slow), ([*CHARACTERS, b""], 5)],
)
def test_tables_are_those_of_python(symbols: list[bytes], boundary: int | None) -> None:
    rng = random.Random(len(symbols))
    count = 30 if symbols is PIECES else 150
    expressions = [random_expression(rng).replace("(?i:É)", r"[^\s]") for _ in range(count)]
    for expression, actual in zip(expressions, compile_in_javascript(expressions, symbols, boundary), strict=True):
        automaton = dataclasses.replace(build(expression, symbols), boundary=boundary)
        if automaton.start < 0:
            assert "no text of the model's symbols matches it" in actual["message"], expression
            continue
        assert "message" not in actual, (expression, actual)
        expected = link_tables(automaton)
        assert actual["characters"] == expected["characters"].tolist()
        assert differences(actual, expected, automaton.start, len(symbols)) == "", expression


def test_sets_are_those_of_python() -> None:
    """What the letters of a category match, over the first characters; later ones depend on the version of Unicode."""
    characters = [chr(code) for code in range(0x500) if unicodedata.category(chr(code)) != "Cn"]
    expressions = [
        r"\d",
        r"\W",
        r"\s",
        r"\S",
        ".",
        "[^a-é]",
        r"[\]\-^\x41\u00e9]",
        "[]a-]",
        r"\.",
        r"[\w-]",
        "{}",
        "x{",
    ]
    for expression, tables in zip(
        expressions, compile_in_javascript(expressions, [each.encode() for each in characters]), strict=True
    ):
        first = np.array(tables["next_state"]).reshape(-1, len(characters))[FIRST_STATE]
        actual = {characters[token] for token in np.flatnonzero(first > FIRST_STATE)}
        expected = {each for each in characters if re.match(expression if len(expression) > 2 else ".", each)}
        if expression in ("{}", "x{"):
            expected = {expression[0]}
        elif len(expression) <= 2:
            expected = {each for each in characters if re.fullmatch(expression, each)}
        assert actual == expected, expression


@pytest.mark.parametrize(
    ("expression", "fragment"),
    [
        ("(a", "no ) for the ( at position 0"),
        ("a)", "a ) too many at position 1"),
        ("*a", "nothing to repeat at position 0"),
        ("a**", "two counts behind each other"),
        ("a{3,1}", "has no order"),
        ("[a", "it ends too early"),
        ("[z-a]", "a range of a set has no order"),
        ("a(?=b)", "look-ahead"),
        (r"(a)\1", "back to a group"),
        (r"a\b", "word boundaries"),
        ("a^b", "anchors inside"),
        ("a*+", "possessive"),
        ("(?>a)b", "atomic"),
        ("(a)?(?(1)b|a)", "conditions"),
        ("(?i)a", "flags such as (?i)"),
        (r"\q", "no escape that can be used"),
        ("[ab]*a[ab]{16}", "states, which are possible at most"),
        ("(a{300}){300}", "too large"),
        ("(){4000000000}", "too large"),
        ("x", "no text of the model's symbols matches it"),
        ("(" * 20_000 + "a" + ")" * 20_000, "nested too deeply"),
    ],
)
def test_expressions_that_cannot_be_used(expression: str, fragment: str) -> None:
    [result] = compile_in_javascript([expression], [b"a", b"b"])
    assert result["code"] == "parameter" and fragment in result["message"], result["message"][-200:]
    assert result["message"].startswith("match = ") and "\n" not in result["message"]


def test_anchors_at_the_ends_change_nothing() -> None:
    plain, *others = compile_in_javascript(["(a|ab)", "^(a|ab)$", r"\A(?P<x>a|ab)\Z"], [b"a", b"b"])
    for name in ("next_state", "need", "least_need"):
        assert [other[name] for other in others] == [plain[name], plain[name]]
    assert plain["first"][0].endswith("matches has 1 characters; allow at least so many") and plain["first"][1] == 2


@pytest.mark.parametrize("records", [False, True])
def test_writes_what_python_writes(tiny_run: Path, tiny_records_run: Path, *, records: bool) -> None:
    """Behind a prompt, behind another text, and freely after a text that has matched."""
    file = (tiny_records_run if records else tiny_run) / "generator.onnx"
    model = gentext.load(file)
    match = "[a-c]{3,8}( [d-f]+){2}"
    first, longer, further, free, wrong, short = write_in_javascript(
        "onnxruntime-node",
        file,
        {"prompt": "ab", "seed": 3, "length": 60, "match": match},
        {"prompt": "ab", "seed": 3, "length": 12, "match": "[a-c]*"},
        {"session": 0, "length": 40, "match": "(ab|c)+"},
        {"session": 0, "length": 40},
        {"match": "(?=a)"},
        {"match": "a{9}", "length": 8},
    )
    assert first["text"] == model.write("ab", seed=3, length=60, match=match) and re.fullmatch(match, first["text"])
    assert longer["text"] == model.write("ab", seed=3, length=12, match="[a-c]*")
    assert first["finish"] == ("end" if records else "match")
    assert re.fullmatch("(ab|c)+", further["text"]) and re.fullmatch("(ab|c)+", free["text"]) is None
    assert wrong["error"] == 'match = "(?=a)": look-ahead and look-behind cannot be used here'
    assert short["error"].endswith("has 9 characters; allow at least so many")
