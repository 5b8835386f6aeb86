"""Automata of expressions: the language is that of Python's `re`, over any symbols, pruned and stacked."""

from __future__ import annotations

import itertools
import random
import re

import numpy as np
import pytest

from gentext.matching.byte_automaton import compile_bytes, read_automaton
from gentext.matching.expression import Alphabet, ExpressionError, translate_expression
from gentext.matching.expression_child import compile_expression
from gentext.matching.match import MatchAutomaton, build_automaton, stack_automata

#: All texts of up to six of these characters.
LETTERS = "aé1"
TEXTS = ["".join(letters) for length in range(7) for letters in itertools.product(LETTERS, repeat=length)]


def random_expression(rng: random.Random, depth: int = 3) -> str:
    """Return an expression of Python about LETTERS."""
    if depth == 0 or rng.random() < 0.2:
        return rng.choice([*LETTERS, ".", "[aé]", "[^a]", "[^1é]", r"\d", r"\w", r"[^\W\d]", "(?i:É)", "[b-z]?", ""])
    parts = [random_expression(rng, depth - 1) for _ in range(2)]
    kind = rng.choice("|,&*+?{r")
    if kind == "|":
        return "|".join(parts)
    if kind in ",&":
        return "".join(f"(?:{part})" if kind == "&" else f"({part})" for part in parts)
    counts = rng.choice(["{2}", "{1,}", "{0,2}", "{,2}", "{1,3}?"]) if kind in "{r" else kind + rng.choice(["", "?"])
    return f"(?:{parts[0]}){counts}"


def build(expression: str, symbols: list[bytes], starts: tuple[int, ...] | None = None) -> MatchAutomaton:
    """Compile an expression in this process, which is faster than in one of its own."""
    translated = translate_expression(expression, Alphabet.of_symbols(symbols))
    byte_automaton = read_automaton(*compile_expression(translated))
    return build_automaton(byte_automaton, symbols, np.ones(len(symbols), np.bool_), starts)


def follow(automaton: MatchAutomaton, tokens: list[int], start: int) -> int:
    """Return the state after some tokens, -1 where one is forbidden."""
    state = start
    for token in tokens:
        state = int(automaton.transitions[state, token]) if state >= 0 else -1
    return state


def language(automaton: MatchAutomaton, tokens_by_text: dict[str, list[int]], start: int) -> set[str]:
    """Return the texts that an automaton accepts from a start."""
    ends = {text: follow(automaton, tokens, start) for text, tokens in tokens_by_text.items()}
    return {text for text, state in ends.items() if state >= 0 and automaton.final[state]}


def test_the_language_is_that_of_python():
    """Over characters, over bytes, and stacked with others; no state is a dead end, and distances are the least."""
    rng = random.Random(0)
    characters = [letter.encode() for letter in LETTERS]
    byte_values = [bytes([byte]) for byte in range(256)]
    tokens_by_text = {text: [LETTERS.index(letter) for letter in text] for text in TEXTS}
    bytes_by_text = {text: list(text.encode()) for text in TEXTS}
    expressions = [random_expression(rng) for _ in range(200)]
    automata = [build(expression, characters) for expression in expressions]
    stacked = stack_automata(automata)
    for number, (expression, automaton) in enumerate(zip(expressions, automata, strict=True)):
        expected = {text for text in TEXTS if re.fullmatch(expression, text)}
        assert language(automaton, tokens_by_text, automaton.start) == expected, expression
        assert language(stacked, tokens_by_text, int(stacked.starts[number])) == expected, expression
        if number % 10 == 0:
            over_bytes = build(expression, byte_values)
            assert language(over_bytes, bytes_by_text, over_bytes.start) == expected, expression
        if expected:
            assert automaton.distance[automaton.start] == min(map(len, expected)), expression
        can_go_on = (automaton.transitions >= 0).any(axis=1)
        assert (can_go_on | automaton.final).all(), expression


def test_distances_count_characters_whatever_the_symbols_are():
    symbols = [b"\xc3", b"\xa9", b"a", b"aa\xc3", b"\xa9a", b""]
    automaton = build("(a|é){4}b?", symbols)
    assert automaton.characters.tolist() == [1, 0, 1, 3, 1, 0]
    assert automaton.distance[automaton.start] == 4
    state = follow(automaton, [3, 4], automaton.start)
    assert automaton.distance[state] == 0 and automaton.final[state]
    assert (automaton.transitions[:, 5] < 0).all(), "a symbol without bytes is forbidden"
    assert automaton.distance[follow(automaton, [3], automaton.start)] == 1, "the end of é, and one character more"


def test_states_that_reach_no_end_are_left_out():
    """Symbols that are missing or not allowed take whole branches with them, and a start may go too."""
    symbols = [b"a", b"b", b"c"]
    over_bytes = read_automaton(*compile_expression("abx|ac"))
    automaton = build_automaton(over_bytes, symbols, np.array([True, True, True]))
    assert len(automaton.final) == 3
    after_ab = over_bytes.advance(over_bytes.start, b"ab")
    starts = (over_bytes.start, after_ab, -1)
    assert build_automaton(over_bytes, symbols, np.array([True, True, True]), starts).starts.tolist() == [0, -1, -1]
    forbidden = build_automaton(over_bytes, symbols, np.array([True, True, False]))
    assert forbidden.starts.tolist() == [-1] and len(forbidden.final) == 0
    assert stack_automata([forbidden, automaton]).starts.tolist() == [-1, 0]


@pytest.mark.parametrize(
    ("expression", "fragment"),
    [
        ("(a", "missing ), unterminated subpattern at position 0"),
        ("a(?=b)", "look-ahead"),
        ("(?<!a)b", "look-behind"),
        (r"(a)\1", "back to a group"),
        (r"a\b", "word boundaries"),
        ("a^b", "anchors inside"),
        ("(a$|b)", "anchors inside"),
        ("a*+", "possessive"),
        ("(?>a)b", "atomic"),
        ("(a)?(?(1)b|c)", "conditions"),
        ("\udc80", "UTF-8"),
        ("a" * 70_000, "characters; expected at most"),
        ("(" * 5000 + "a" + ")" * 5000, "nested too deeply"),
    ],
)
def test_expressions_that_cannot_be_used(expression, fragment):
    with pytest.raises(ExpressionError, match=re.escape(fragment)) as caught:
        translate_expression(expression, Alphabet("ab"))
    assert "\n" not in str(caught.value)


def test_anchors_at_the_ends_change_nothing():
    for anchored in ("^(a|ab)$", r"\A(a|ab)\Z", "^(a|ab)"):
        assert translate_expression(anchored, Alphabet("ab")) == translate_expression("(a|ab)", Alphabet("ab"))


@pytest.mark.slow
def test_an_expression_that_is_too_large_ends_another_process():
    """The library would abort this one."""
    with pytest.raises(ExpressionError, match="131,073 states"):
        compile_bytes("[ab]*a[ab]{16}")
    with pytest.raises(ExpressionError, match=r"too large: compiling it takes more than 1\.5 s or 1 GB"):
        compile_bytes("[ab]*a[ab]{22}", 1.5)
    with pytest.raises(ExpressionError, match="states for 3,000 symbols"):
        build_automaton(read_automaton(*compile_expression("a{9000}")), [b"a"] * 3000, np.ones(3000, np.bool_))
