"""Who wrote which characters of the page's text, whatever is changed in it: the tree alone, without a browser."""

from __future__ import annotations

import json
from typing import Any

from javascript import PAGE, run_javascript
from node_packages import needs_node

pytestmark = needs_node

#: Changes a text at random: each change is also made in a list with the author of each character, which must agree.
RANDOM_EDITS = f"""
import {{ Tree }} from "{PAGE.as_uri()}/tree.js";
let state = Number(process.argv[1]);
const draw = (count) => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) % 65536 % count;
const pick = (list) => list[draw(list.length)];
const makeText = (count) => Array.from({{ length: count }}, () => pick(["a", "b", "\\n", "😀", "😁"])).join("");
const isCut = (text, place) => /[\\uDC00-\\uDFFF]/.test(text[place] ?? "");
const tree = new Tree();
let units = [];
const [past, future] = [[], []];
const remember = () => (past.push(units), (future.length = 0), tree.remember());
const unitsOf = (text, isByModel) => text.split("").map((unit) => ({{ unit, isByModel }}));
const show = (units) => units.map(({{ unit, isByModel }}) => unit + isByModel).join();
const problems = [];
for (let step = 0; step < 300; step++) {{
  const text = tree.text;
  const kind = draw(8);
  if (kind === 0 && text.length < 200) {{
    remember();
    const piece = tree.grow(tree.current, "", {{ seed: step }});
    for (let count = 1 + draw(6); count > 0; count--) {{
      piece.tokens.push({{ text: makeText(1), logprob: -1, top: [] }});
      piece.text += piece.tokens.at(-1).text;
    }}
    units = [...units, ...unitsOf(piece.text, true)];
  }} else if (kind === 1 && past.length) {{
    future.push(units);
    units = past.pop();
    tree.undo();
  }} else if (kind === 2 && future.length) {{
    past.push(units);
    units = future.pop();
    tree.redo();
  }} else {{
    let [begin, end] = [draw(text.length + 1), draw(text.length + 1)].sort((one, other) => one - other);
    begin -= isCut(text, begin);
    end -= isCut(text, end);
    // A change within what was selected, an insertion at the caret, and a deletion beside it.
    const isDeletion = kind === 3;
    if (kind === 4 || (isDeletion && end - begin > 3)) end = begin;
    const typed = isDeletion ? "" : makeText(draw(4));
    const selection = isDeletion ? {{ begin: end, end }} : {{ begin, end }};
    remember();
    tree.edit(text.slice(0, begin) + typed + text.slice(end), begin + typed.length, selection);
    units = [...units.slice(0, begin), ...unitsOf(typed, false), ...units.slice(end)];
  }}
  const actual = tree.current.runs.flatMap(({{ text, isByModel }}) => unitsOf(text, isByModel));
  if (show(actual) !== show(units)) problems.push(`${{step}} ${{kind}}: ${{show(actual)}} | ${{show(units)}}`);
  for (const piece of tree.pieces) {{
    const read = piece.tokens.map(({{ text }}) => text).join("");
    if (read !== "" && read !== piece.text) problems.push(`${{step}}: the tokens of ${{piece.text}} are ${{read}}`);
  }}
  if (problems.length) break;
}}
console.log(JSON.stringify({{ problems, pieces: tree.pieces.length }}));
"""


def test_random_edits() -> None:
    for seed in range(12):
        result = run_javascript(RANDOM_EDITS, str(seed))
        assert result["problems"] == [], seed
        assert result["pieces"] > 50


def changed_runs(*edits: dict[str, Any]) -> list[list[Any]]:
    """Return the runs of a text, `[text, isByModel]`, of which the model wrote "aaab" behind the typed "x"."""
    script = f"""
        import {{ Tree }} from "{PAGE.as_uri()}/tree.js";
        const tree = new Tree();
        tree.grow(tree.grow(tree.root, "x"), "aaab", {{ seed: 1 }});
        for (const {{ text, caret, selection }} of JSON.parse(process.argv[1])) tree.edit(text, caret, selection);
        console.log(JSON.stringify(tree.current.runs.map(({{ text, isByModel }}) => [text, isByModel])));
    """
    runs: list[list[Any]] = run_javascript(script, json.dumps(edits))
    return runs


def test_the_caret_tells_which_of_equal_letters_is_new() -> None:
    assert changed_runs({"text": "xaaaab", "caret": 2}) == [["xa", False], ["aaab", True]]
    assert changed_runs({"text": "xaaaab", "caret": 4}) == [["x", False], ["aa", True], ["a", False], ["ab", True]]
    assert changed_runs({"text": "aaab", "caret": 0}) == [["aaab", True]]


def test_what_is_typed_over_a_selection_is_typed_also_where_it_is_the_same() -> None:
    edit = {"text": "xaaab", "caret": 3, "selection": {"begin": 1, "end": 3}}
    assert changed_runs(edit) == [["xaa", False], ["ab", True]]
    composed = [
        {"text": "xakaab", "caret": 3, "selection": {"begin": 2, "end": 2}},
        {"text": "xaかaab", "caret": 3, "selection": {"begin": 3, "end": 3}},
    ]
    assert changed_runs(*composed) == [["x", False], ["a", True], ["か", False], ["aab", True]]


def test_what_is_taken_back_is_again_what_was_written() -> None:
    """The tree has no further piece then, so that the model goes on from the state it had."""
    script = f"""
        import {{ Tree }} from "{PAGE.as_uri()}/tree.js";
        const tree = new Tree();
        const written = tree.grow(tree.root, "abcd", {{ seed: 1 }});
        written.session = "session";
        tree.edit("abXcd", 3);
        tree.edit("abcd", 2);
        console.log(JSON.stringify([tree.pieces.length, tree.current === written, written.session]));
    """
    assert run_javascript(script) == [1, True, "session"]
