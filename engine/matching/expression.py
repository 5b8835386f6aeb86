"""Regular expressions as Python's `re` reads them, written anew in the syntax of outlines-core.

The two syntaxes differ in many places: in Rust ``a*+`` is a repeat of a repeat, ``[a&&b]`` an intersection, and ``\\d``
follows another version of Unicode. So Python's own parser reads an expression, and what it has read is written with
groups, counts and lists of characters alone, which mean the same in both.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import warnings
from collections.abc import Iterable, Sequence
from re import _parser  # type: ignore[attr-defined]  # no other module of Python gives the parts of an expression
from typing import Any

#: Characters of an expression, at most.
MAX_CHARACTERS = 2**16
#: The flags that change which characters a part matches.
CHARACTER_FLAGS = re.IGNORECASE | re.ASCII | re.DOTALL
#: One part of an expression, as Python's parser gives it: the name of its kind, and what belongs to it.
Part = tuple[Any, Any]

#: What no automaton can follow, by the parser's name of it.
REFUSED = {
    "ASSERT": "look-ahead and look-behind",
    "ASSERT_NOT": "look-ahead and look-behind",
    "FAILURE": "look-ahead and look-behind",
    "GROUPREF": "references back to a group",
    "GROUPREF_EXISTS": "conditions on a group",
    "ATOMIC_GROUP": "atomic groups",
    "POSSESSIVE_REPEAT": "possessive repeats such as a*+",
}
CATEGORIES = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}
#: The first character of the last plane, which is for private use: `gentext.matching.expression_child` needs it for a
#: mark.
FIRST_UNUSED_CODE = 0x100000
#: Stands for a part that no text matches. It is never within an expression, where the library would refuse it.
NOTHING = r"[^\x{0}-\x{10FFFF}]"


class ExpressionError(Exception):
    """An expression cannot be used; the message is the reason, without the expression."""


class Alphabet:
    """The characters that an expression is about: those that a model can write."""

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self._classes: dict[tuple[str, int], str] = {}

    @classmethod
    def of_symbols(cls, symbols: Iterable[bytes]) -> Alphabet:
        """Return the characters of some symbols: every character where one of them is a part of a character."""
        try:
            return cls("".join(sorted({character for symbol in symbols for character in symbol.decode()})))
        except UnicodeDecodeError:
            return every_character()

    def find(self, source: str, flags: int) -> str:
        """Return the characters that an expression for one character matches."""
        key = (source, flags & CHARACTER_FLAGS)
        if key not in self._classes:
            self._classes[key] = "".join(re.findall(source, self.characters, key[1]))
        return self._classes[key]


@functools.cache
def every_character() -> Alphabet:
    """Return all characters but surrogates, which are no text, and those of the last plane."""
    codes = itertools.chain(range(0xD800), range(0xE000, FIRST_UNUSED_CODE))
    return Alphabet("".join(map(chr, codes)))


def translate_expression(expression: str, alphabet: Alphabet) -> str:
    """Return an expression in the syntax of outlines-core, for the same texts of an alphabet's characters.

    Anchors at its two ends are left out: an expression always has to match the whole text. Raises ExpressionError for
    one that Python does not accept, or that no automaton can follow.
    """
    parts, flags = parse_expression(expression)
    begin, end = _bounds_without_anchors(parts)
    return _translate_parts(parts[begin:end], flags, alphabet, in_json=False)


def translate_pattern(expression: str, alphabet: Alphabet, character: str) -> str:
    """Return the same for texts in which the expression occurs, as JSON writes them between quotes.

    ``character`` is an expression in the syntax of outlines-core for each character around it.
    """
    parts, flags = parse_expression(expression)
    begin, end = _bounds_without_anchors(parts)
    translated = _translate_parts(parts[begin:end], flags, alphabet, in_json=True)
    if translated == NOTHING:
        raise ExpressionError("no text of the model's symbols matches it")
    before, behind = "" if begin else f"{character}*", "" if end < len(parts) else f"{character}*"
    return f"{before}(?:{translated}){behind}"


def _translate_parts(parts: Sequence[Part], flags: int, alphabet: Alphabet, *, in_json: bool) -> str:
    try:
        return _Translator(alphabet, in_json).translate(parts, flags)
    except RecursionError:
        raise ExpressionError("its groups are nested too deeply") from None


def parse_expression(expression: str) -> tuple[list[Part], int]:
    """Return the parts of an expression, and its flags; raise ExpressionError for one that Python does not accept."""
    if len(expression) > MAX_CHARACTERS:
        raise ExpressionError(f"it has {len(expression):,} characters; expected at most {MAX_CHARACTERS:,}")
    try:
        expression.encode()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sets that a later Python may read in another way
            parsed = _parser.parse(expression)
    except UnicodeEncodeError:  # an argument of a command line may have half a surrogate pair
        raise ExpressionError("not text in UTF-8") from None
    except (re.error, OverflowError) as error:
        raise ExpressionError(f"no regular expression of Python ({error})") from None
    except RecursionError:
        raise ExpressionError("its groups are nested too deeply") from None
    return list(parsed), parsed.state.flags


def _bounds_without_anchors(parts: Sequence[Part]) -> tuple[int, int]:
    """Return where the parts of an expression begin and end without the anchors at its two ends."""
    begin, end = 0, len(parts)
    while begin < end and _is_anchor(parts[begin], "AT_BEGINNING"):
        begin += 1
    while begin < end and _is_anchor(parts[end - 1], "AT_END"):
        end -= 1
    return begin, end


def _is_anchor(part: Part, kind: str) -> bool:
    return str(part[0]) == "AT" and str(part[1]) in (kind, f"{kind}_STRING")


class _Translator:
    """Writes the parts of an expression in the syntax of outlines-core, with ``in_json`` as JSON has them in quotes."""

    def __init__(self, alphabet: Alphabet, in_json: bool) -> None:
        self._alphabet, self._in_json = alphabet, in_json

    def translate(self, parts: Iterable[Part], flags: int) -> str:
        """Return parts that follow each other."""
        expressions = [self._translate_part(str(kind), argument, flags) for kind, argument in parts]
        return NOTHING if NOTHING in expressions else "".join(expressions)

    def _translate_part(self, kind: str, argument: Any, flags: int) -> str:
        if kind == "LITERAL" and not flags & re.IGNORECASE:
            return self._write_characters(chr(argument) if argument < FIRST_UNUSED_CODE else "")
        if kind in ("LITERAL", "NOT_LITERAL", "IN", "ANY"):
            return self._write_characters(self._alphabet.find(_character_source(kind, argument), flags))
        if kind == "BRANCH":
            return join_alternatives([self.translate(branch, flags) for branch in argument[1]])
        if kind == "SUBPATTERN":
            _, added_flags, removed_flags, parts = argument
            return join_alternatives([self.translate(parts, flags & ~removed_flags | added_flags)])
        if kind in ("MAX_REPEAT", "MIN_REPEAT"):
            least, highest, parts = argument
            upper_end = "" if highest is _parser.MAXREPEAT else int(highest)
            expression = self.translate(parts, flags)
            if expression == NOTHING:
                return NOTHING if least else ""
            return f"(?:{expression}){{{int(least)},{upper_end}}}"
        if kind == "AT":
            name = "word boundaries" if "BOUNDARY" in str(argument) else "anchors inside of it"
            raise ExpressionError(f"{name} cannot be used; it always matches the whole text")
        raise ExpressionError(f"{REFUSED.get(kind, kind)} cannot be used: no automaton can follow them")

    def _write_characters(self, characters: str) -> str:
        """Return an expression for one of these characters."""
        if not self._in_json:
            return write_class(characters)
        spelled = {character: json.dumps(character, ensure_ascii=False)[1:-1] for character in characters}
        plain = "".join(character for character, spelling in spelled.items() if spelling == character)
        escaped = [escape_text(spelling) for character, spelling in spelled.items() if spelling != character]
        return join_alternatives([write_class(plain), *escaped])


def _character_source(kind: str, argument: Any) -> str:
    """Return a part for one character as an expression of Python."""
    if kind == "ANY":
        return "."
    if kind != "IN":
        return f"[{'^' if kind == 'NOT_LITERAL' else ''}{_escape_code(argument)}]"
    items = []
    for item_kind, item_argument in argument:
        name = str(item_kind)
        if name == "NEGATE":
            items.append("^")
        elif name == "RANGE":
            items.append("-".join(map(_escape_code, item_argument)))
        else:
            items.append(CATEGORIES[str(item_argument)] if name == "CATEGORY" else _escape_code(item_argument))
    return f"[{''.join(items)}]"


def _escape_code(code: int) -> str:
    return f"\\U{code:08x}"


def write_class(characters: str) -> str:
    """Return an expression of outlines-core for one of some characters, which come in the order of their codes."""
    if not characters:
        return NOTHING
    ranges: list[list[int]] = []
    for code in map(ord, characters):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "[" + "".join(f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in ranges) + "]"


def join_alternatives(expressions: Sequence[str]) -> str:
    """Return an expression of outlines-core for texts that one of some expressions matches."""
    possible = [expression for expression in expressions if expression != NOTHING]
    return f"(?:{'|'.join(possible)})" if possible else NOTHING


def escape_text(text: str) -> str:
    """Return an expression of outlines-core that matches a text alone."""
    return "".join(f"\\x{{{ord(character):x}}}" for character in text)
