"""--match and --json-schema from Python and on the command line, with bad input; compiled and in NumPy."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import SHALLOW

import gentext
from gentext.errors import PrimeError, UsageError

DATE = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
ADDRESS = rf"{OCTET}(\.{OCTET}){{3}}"
LINE = "[^\n]{80}"
PLATE = "[A-Z]{1,3}-[A-Z]{1,2} [1-9][0-9]{0,3}"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 8},
        "age": {"type": "integer"},
        "score": {"type": "number"},
        "ok": {"type": "boolean"},
        "tags": {"type": "array", "items": {"enum": ["a", "b", None]}, "maxItems": 3},
    },
    "required": ["name", "age", "score", "ok", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def printable_run(tmp_path_factory: pytest.TempPathFactory, gen: Any, tiny_options: Any) -> Path:
    """A run of two steps whose symbols are the line end, the printable characters of ASCII, and é."""
    folder = tmp_path_factory.mktemp("match")
    characters = "".join(map(chr, range(32, 127))) + "é\n"
    (folder / "text.txt").write_text(characters * 40, encoding="utf-8")
    code, _, err = gen("train", folder / "text.txt", "--run", folder / "run", *tiny_options, *SHALLOW, "--steps", 2)
    assert code == 0, err
    return folder / "run"


def test_five_kinds_of_texts_in_one_batch(printable_run: Path) -> None:
    """Compiled and in NumPy, at the least length at which all of them are possible."""
    expressions = [DATE, ADDRESS, LINE, PLATE, None] * 4
    for path in (printable_run, printable_run / "model.onnx"):
        model = gentext.load(path)
        texts = model.write_many(count=20, length=80, seed=3, match=expressions)
        for text, expression in zip(texts, expressions, strict=True):
            assert text.finish == ("match" if expression else "length")
            assert expression is None or re.fullmatch(expression, text.text), text
        for text in model.write_many(count=20, length=60, seed=3, json_schema=SCHEMA, temperature=1.5, top_k=0):
            assert text.finish == "match"
            jsonschema.validate(json.loads(text.text), SCHEMA)
    torch_model = gentext.load(printable_run, sampler="torch")
    assert re.fullmatch(ADDRESS, torch_model.write(match=ADDRESS, length=9, seed=1))
    assert model.write(match=DATE, length=10, seed=1) == model.write(match=f"^{DATE}$", length=10, seed=1)
    pieces = model.stream(match="(ab)*", length=None, seed=1)
    assert re.fullmatch("(ab)*", "".join(pieces)) and pieces.result.finish == "match"


def test_the_prime_counts_where_it_is_asked_to(printable_run: Path) -> None:
    model = gentext.load(printable_run)
    text = model.write("2024-0", match=DATE, match_prime=True, length=4, seed=2)
    assert re.fullmatch(DATE, "2024-0" + text)
    assert re.fullmatch(DATE, model.write("2024-0", match=DATE, length=10, seed=2)), "the new text alone"
    texts = model.write_many(["1", "12.", "255.1"], count=2, match=ADDRESS, match_prime=True, length=13, seed=2)
    assert all(re.fullmatch(ADDRESS, text.prime + text.text) for text in texts)
    assert model.write("1999-12-31", match=DATE, match_prime=True, length=4, seed=2) == ""
    with pytest.raises(PrimeError, match=r"the prime has '7' at position 5"):
        model.write("2024-72", match=DATE, match_prime=True, length=9)


def test_banned_symbols_leave_the_expression(printable_run: Path) -> None:
    model = gentext.load(printable_run)
    for seed in range(5):
        assert re.fullmatch("[02-8]{4}", model.write(match="[0-9]{4}", ban="19", length=4, seed=seed))
    with pytest.raises(UsageError, match="cannot write 'e', as in 'e'"):
        model.write(match="e+", ban="e")
    assert model.write("eve", match="eve[a-d]", match_prime=True, ban="e", length=2, seed=1) in "abcd"


BAD_REQUESTS: list[tuple[list[str], str]] = [
    (["--match", "(a"], "--match (a: no regular expression of Python (missing )"),
    (["--match", "a(?=b)"], "look-ahead and look-behind cannot be used"),
    (["--match", r"(a)\1"], "references back to a group cannot be used"),
    (["--match", r"[^\s\S]"], "no text matches it"),
    (["--match", "[ßü]{3}"], "the model cannot write 'ß', as in 'ßßß'"),
    (["--match", "[ab]*a[ab]{16}"], "it needs 131,073 states; at most 65,536 are possible"),
    (["--match", "[0-9]{4}", "--length", "3"], "--length 3: the shortest text that --match [0-9]{4} matches has 4"),
    (["--match", "a", "--stop", "b"], "--match and --stop: expected one of them"),
    (["--match", "a", "--json-schema", "s.json"], "--match and --json-schema: expected one of them"),
    (["--match-prime"], "--match-prime: expected --match or --json-schema with it"),
    (["--match", "ab", "--match-prime", "--prime", "b"], "the prime has 'b' at position 0"),
    (["--json-schema", "missing.json"], "--json-schema missing.json: cannot be read"),
    (["--json-schema", "text.json"], "--json-schema text.json: no JSON"),
    (["--json-schema", "multiple.json"], ".multipleOf cannot be used here"),
    (["--match", "a", "--chain", "top_k,match"], "match must stand first"),
    (["--first-state", "3"], "no option --first-state"),
]


@pytest.mark.parametrize(("options", "fragment"), BAD_REQUESTS, ids=[fragment for _, fragment in BAD_REQUESTS])
def test_bad_input_is_one_clear_line(
    printable_run: Path,
    gen: Any,
    options: list[str],
    fragment: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.json").write_text("{type: string}", encoding="utf-8")
    Path("multiple.json").write_text('{"type": "integer", "multipleOf": 3}', encoding="utf-8")
    code, out, err = gen("sample", printable_run, "--seed", 1, *options)
    lines = [line for line in err.splitlines() if line.startswith("gen: error: ")]
    assert code in (1, 2) and out == "" and lines == err.splitlines()[-1:], err
    assert fragment in lines[0] and "Traceback" not in err


def test_the_command_says_how_a_text_ended(printable_run: Path, gen: Any, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    code, out, err = gen(
        "sample", printable_run, "--json-schema", tmp_path / "schema.json", "--count", 3, "--seed", 1, "--json"
    )
    assert code == 0, err
    for line in out.splitlines():
        text = json.loads(line)
        assert text["finish"] == "match"
        jsonschema.validate(json.loads(text["text"]), SCHEMA)
    code, out, err = gen("sample", printable_run, "--match", DATE, "--prime", "Today: ", "--seed", 1, "--length", 0)
    assert code == 0 and re.fullmatch(f"Today: {DATE}\n", out), err
