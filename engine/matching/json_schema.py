"""JSON schemas as expressions in the syntax of outlines-core.

What the library itself makes of a schema drops keywords without a word, such as ``minimum`` and a name in ``required``
that has no property, and writes quotes in names and in some formats that are no JSON. So this module has its own list
of keywords, refuses all others by name, and every text that it lets through is valid.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from gentext.matching.decimals import write_decimals
from gentext.matching.expression import (
    Alphabet,
    ExpressionError,
    escape_text,
    join_alternatives,
    translate_pattern,
    write_class,
)

#: Characters of the expression of a schema, at most.
MAX_CHARACTERS = 2**20
#: Digits of an integer, and of a number before and behind its point, where no bound says more: a double holds them all.
INTEGER_DIGITS, WHOLE_DIGITS, MAX_PLACES = 15, 9, 6
#: Digits of a bound, and those of them that are behind its point, at most.
MAX_BOUND_DIGITS, MAX_BOUND_PLACES = 400, 30
#: Characters of a string, and elements of an array, at most, where the schema does not say.
STRING_CHARACTERS, ARRAY_ELEMENTS = 200, 20
#: The size of an expression, in ranges of characters, up to which these two hold: to compile a larger one takes long.
MAX_RANGES = 20_000
#: Keywords that say nothing about which values are valid.
ANNOTATIONS = {
    *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
    *("$schema", "$id", "$comment", "$defs", "definitions"),
}
BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
#: The keywords of each type.
KEYWORDS: Mapping[str, set[str]] = {
    "string": {"minLength", "maxLength", "pattern", "format"},
    "integer": BOUNDS,
    "number": BOUNDS,
    "boolean": set(),
    "null": set(),
    "array": {"items", "minItems", "maxItems"},
    "object": {"properties", "required", "additionalProperties"},
}
PYTHON_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}
#: A number without bounds.
NUMBER = rf"-?(?:0|[1-9][0-9]{{0,{WHOLE_DIGITS - 1}}})(?:\.[0-9]{{1,{MAX_PLACES}}})?(?:[eE][+-]?[0-9]{{1,2}})?"
DATE = "[1-9][0-9]{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])"
TIME = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z"
OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
#: Expressions of the formats that texts can have. A date has no day after the 28th, which not every month has.
FORMATS = {
    "date": DATE,
    "time": TIME,
    "date-time": f"{DATE}T{TIME}",
    "uuid": "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "ipv4": rf"{OCTET}(?:\.{OCTET}){{3}}",
}
#: A character that JSON writes with a backslash.
ESCAPE = r'\\["\\/bfnrt]'
#: What may stand behind a comma and a colon.
SPACE = "[ ]?"


def translate_schema(schema: object, alphabet: Alphabet) -> str:
    """Return an expression in the syntax of outlines-core for JSON values that are valid by a schema.

    Strings and arrays without a greatest length have one, unless the expression would be large with it.

    Raises ExpressionError for a schema that is wrong, recursive, or has a keyword that no text can be made to follow.
    """
    try:
        translator = _Translator(schema, alphabet, has_limits=True)
        expression = translator.translate(schema, "", ())
        if translator.ranges <= MAX_RANGES:
            return expression
        return _Translator(schema, alphabet, has_limits=False).translate(schema, "", ())
    except RecursionError:
        raise ExpressionError("it is nested too deeply") from None


class _Translator:
    """Writes schemas as expressions. A path names the place in the schema, for messages."""

    def __init__(self, root: object, alphabet: Alphabet, *, has_limits: bool) -> None:
        """``has_limits`` is whether strings and arrays have a greatest length where the schema has none."""
        self.ranges = 0
        """The ranges of characters of all strings so far, as often as they are repeated: the size of the expression."""
        self._root, self._alphabet, self._has_limits = root, alphabet, has_limits
        plain = write_class(alphabet.find(r'[^"\\\x00-\x1f\x7f-\x9f]', 0))
        self._character = join_alternatives([plain, ESCAPE])

    def translate(self, schema: object, path: str, references: tuple[str, ...]) -> str:
        """Return the expression of a schema; ``references`` are those that led to it."""
        if not isinstance(schema, Mapping):
            raise ExpressionError(
                f"{path or 'it'} is {json.dumps(schema)[:40]}; expected an object that says which values are valid"
            )
        expression = self._translate_object(schema, path, references)
        if len(expression) > MAX_CHARACTERS:
            raise ExpressionError(f"{path or 'it'} is too large; use smaller counts or fewer properties")
        return expression

    def _translate_object(self, schema: Mapping[str, Any], path: str, references: tuple[str, ...]) -> str:
        keywords = schema.keys() - ANNOTATIONS
        if "$ref" in keywords:
            _check_keywords(keywords, {"$ref"}, path)
            return self._translate_reference(schema["$ref"], path, references)
        if "anyOf" in keywords:
            _check_keywords(keywords, {"anyOf"}, path)
            schemas = _checked_list(schema["anyOf"], f"{path}.anyOf")
            return join_alternatives(
                [self.translate(part, f"{path}.anyOf[{i}]", references) for i, part in enumerate(schemas)]
            )
        types = _types_of(schema, path)
        if "enum" in keywords or "const" in keywords:
            _check_keywords(keywords, {"enum", "const", "type"} - ({"enum"} if "const" in keywords else set()), path)
            choices = [schema["const"]] if "const" in keywords else _checked_list(schema["enum"], f"{path}.enum")
            return join_alternatives([_write_value(choice, types, path) for choice in choices])
        if not types:
            raise ExpressionError(
                f"{path or 'it'} has no type, which would allow any value, and so is recursive; expected type, enum, "
                f"const, anyOf or $ref"
            )
        _check_keywords(keywords, {"type"}.union(*(KEYWORDS[name] for name in types)), path)
        return join_alternatives([self._translate_type(name, schema, path, references) for name in types])

    def _translate_type(self, name: str, schema: Mapping[str, Any], path: str, references: tuple[str, ...]) -> str:
        if name == "string":
            return self._translate_string(schema, path)
        if name == "array":
            return self._translate_array(schema, path, references)
        if name == "object":
            return self._translate_properties(schema, path, references)
        if name in ("integer", "number"):
            return _translate_number(schema, path, is_whole=name == "integer")
        return {"boolean": "(?:true|false)", "null": "null"}[name]

    def _translate_string(self, schema: Mapping[str, Any], path: str) -> str:
        exclusive = [name for name in ("pattern", "format") if name in schema]
        if exclusive and len(schema.keys() & KEYWORDS["string"]) > 1:
            raise ExpressionError(
                f"{path}.{exclusive[0]} beside other keywords of a string cannot be used; leave one out"
            )
        if "pattern" in schema:
            try:
                pattern = translate_pattern(_checked_text(schema["pattern"]), self._alphabet, self._character)
            except ExpressionError as error:
                raise ExpressionError(f"{path}.pattern: {error}") from None
            return f'"{pattern}"'
        if "format" in schema:
            if schema["format"] not in FORMATS:
                raise ExpressionError(f"{path}.format {schema['format']!r}: expected one of {', '.join(FORMATS)}")
            return f'"{FORMATS[schema["format"]]}"'
        low, high = self._read_counts(schema, ("minLength", "maxLength"), STRING_CHARACTERS, path)
        self.ranges += (high or 1) * (self._character.count("-") + 1)
        return f'"{self._character}{{{low},{"" if high is None else high}}}"'

    def _read_counts(
        self, schema: Mapping[str, Any], names: tuple[str, str], limit: int, path: str
    ) -> tuple[int, int | None]:
        """Return the least and the highest count of a schema; None: without end."""
        low, high = _read_counts(schema, *names, path)
        return low, max(low, limit) if high is None and self._has_limits else high

    def _translate_array(self, schema: Mapping[str, Any], path: str, references: tuple[str, ...]) -> str:
        if "items" not in schema:
            raise ExpressionError(f"{path or 'it'} is an array of any values, which is recursive; expected items")
        ranges = self.ranges
        element = self.translate(schema["items"], f"{path}.items", references)
        low, high = self._read_counts(schema, ("minItems", "maxItems"), ARRAY_ELEMENTS, path)
        self.ranges += (self.ranges - ranges + len(element) // 8) * (high or 1)
        if high == 0:
            return r"\[\]"
        upper_end = "" if high is None else high - 1
        elements = f"(?:{element}(?:,{SPACE}{element}){{{max(low - 1, 0)},{upper_end}}})"
        return rf"\[{elements}{'' if low else '?'}\]"

    def _translate_properties(self, schema: Mapping[str, Any], path: str, references: tuple[str, ...]) -> str:
        """Return an expression for objects with the properties in the order of the schema, and no others."""
        properties, required = schema.get("properties"), schema.get("required", [])
        if not isinstance(properties, Mapping):
            raise ExpressionError(f"{path or 'it'} is an object of any properties; expected properties")
        if not isinstance(schema.get("additionalProperties", True), bool):
            raise ExpressionError(f"{path}.additionalProperties with a schema cannot be used; name all properties")
        for name in _checked_list(required, f"{path}.required") if required else ():
            if name not in properties:
                raise ExpressionError(f"{path}.required has {name!r}, which is not among the properties")
        is_required = [name in required for name in properties]
        first_required = is_required.index(True) if True in is_required else len(is_required)
        members = []
        for number, (name, part) in enumerate(properties.items()):
            ranges = self.ranges
            members.append(f"{_spell_value(name)}:{SPACE}{self.translate(part, f'{path}.{name}', references)}")
            self.ranges += (self.ranges - ranges) * min(number, first_required)  # `_join_members` repeats it
        return rf"\{{{_join_members(members, is_required)}\}}"

    def _translate_reference(self, reference: object, path: str, references: tuple[str, ...]) -> str:
        if not (isinstance(reference, str) and reference.startswith("#")):
            raise ExpressionError(f"{path}.$ref {reference!r}: expected one within the schema, such as #/$defs/name")
        if reference in references:
            raise ExpressionError(
                f"{path}.$ref {reference!r} is recursive, which no automaton can follow; write out as many levels as "
                f"there may be"
            )
        schema = self._root
        for part in filter(None, reference[1:].split("/")):
            name = part.replace("~1", "/").replace("~0", "~")
            if not (isinstance(schema, Mapping) and name in schema):
                raise ExpressionError(f"{path}.$ref {reference!r}: the schema has no {name!r} there")
            schema = schema[name]
        return self.translate(schema, f"{path}.$ref", (*references, reference))


def _types_of(schema: Mapping[str, Any], path: str) -> list[str]:
    """Return the types that a schema names; without any, the one that has its keywords."""
    if "type" not in schema:
        return [name for name, keywords in KEYWORDS.items() if keywords & schema.keys()][:1]
    names = schema["type"] if isinstance(schema["type"], list) and schema["type"] else [schema["type"]]
    for name in names:
        if not (isinstance(name, str) and name in KEYWORDS):
            raise ExpressionError(f"{path}.type {name!r}: expected one of {', '.join(KEYWORDS)}")
    return names


def _check_keywords(keywords: set[str], allowed: set[str], path: str) -> None:
    """Raise ExpressionError for a keyword that is not allowed."""
    unusable = sorted(map(str, keywords - allowed))
    if unusable:
        expected = ", ".join(sorted(allowed))
        raise ExpressionError(f"{path}.{unusable[0]} cannot be used here; expected nothing but {expected}")


def _checked_list(sequence: object, path: str) -> Sequence[Any]:
    if not (isinstance(sequence, list) and sequence):
        raise ExpressionError(f"{path} is {json.dumps(sequence)[:40]}; expected a list with something in it")
    return sequence


def _checked_text(text: object) -> str:
    if not isinstance(text, str):
        raise ExpressionError(f"{text!r}; expected a text")
    return text


def _read_counts(schema: Mapping[str, Any], low_name: str, high_name: str, path: str) -> tuple[int, int | None]:
    """Return the least and the highest count of a schema; None: without end."""
    low, high = schema.get(low_name, 0), schema.get(high_name)
    for name, count in ((low_name, low), (high_name, high)):
        if name in schema and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
            raise ExpressionError(f"{path}.{name} {count!r}: expected a whole number from 0")
    if high is not None and high < low:
        raise ExpressionError(f"{path}.{high_name} {high} is less than {low_name} {low}, so nothing is valid")
    return low, high


def _translate_number(schema: Mapping[str, Any], path: str, *, is_whole: bool) -> str:
    """Return an expression for the numbers within the bounds of a schema; those with bounds have no exponents."""
    lows = [(name, _read_bound(schema, name, path)) for name in ("minimum", "exclusiveMinimum") if name in schema]
    highs = [(name, _read_bound(schema, name, path)) for name in ("maximum", "exclusiveMaximum") if name in schema]
    if not (is_whole or lows or highs):
        return NUMBER
    bounds = [bound for _, bound in lows + highs]
    digits = max(len(str(int(abs(bound)))) for bound in [*bounds, Fraction()])
    places = 0 if is_whole else _choose_places(bounds, digits)
    unit = 10**places
    furthest = 10 ** (max(digits, INTEGER_DIGITS if is_whole else WHOLE_DIGITS) + places) - 1
    # An exclusive bound that is a whole number of units is itself left out.
    least = [math.floor(bound * unit) + 1 if "exc" in name else math.ceil(bound * unit) for name, bound in lows]
    most = [math.ceil(bound * unit) - 1 if "exc" in name else math.floor(bound * unit) for name, bound in highs]
    low, high = max(least, default=-furthest), min(most, default=furthest)
    if low > high:
        names = " and ".join(f"{name} {schema[name]}" for name, _ in lows + highs)
        raise ExpressionError(f"{path or 'it'} has {names}: no number with {places} decimal places is valid")
    return write_decimals(low, high, places)


def _read_bound(schema: Mapping[str, Any], name: str, path: str) -> Fraction:
    """Return a bound as it is written in decimals, exactly."""
    bound = schema[name]
    is_number = isinstance(bound, int | float) and not isinstance(bound, bool)
    if not is_number or (isinstance(bound, float) and not math.isfinite(bound)):
        raise ExpressionError(f"{path}.{name} {bound!r:.40}: expected a number")
    fraction = Fraction(bound) if isinstance(bound, int) else Fraction(Decimal(repr(bound)))
    if abs(fraction) >= 10**MAX_BOUND_DIGITS or (fraction * 10**MAX_BOUND_PLACES).denominator != 1:
        raise ExpressionError(
            f"{path}.{name}: expected at most {MAX_BOUND_DIGITS} digits, and {MAX_BOUND_PLACES} behind the point"
        )
    return fraction


def _choose_places(bounds: Sequence[Fraction], digits: int) -> int:
    """Return how many decimal places numbers have whose bounds have so many digits before the point.

    All digits together fit into a double, unless a bound needs more: then there are some behind those of the bound.
    """
    needed = next(
        places for places in range(MAX_BOUND_PLACES + 1) if all((b * 10**places).denominator == 1 for b in bounds)
    )
    return max(min(MAX_PLACES, INTEGER_DIGITS - digits), needed + 3 if needed else 0)


def _write_value(json_value: object, types: Sequence[str], path: str) -> str:
    """Return an expression for a value that must be of one of some types, where there are any."""
    if types and not any(_has_type(json_value, name) for name in types):
        raise ExpressionError(f"{path or 'it'} allows {json.dumps(json_value)[:40]}, which is no {' or '.join(types)}")
    return _spell_value(json_value)


def _spell_value(json_value: object) -> str:
    if isinstance(json_value, Mapping):
        members = [f"{_spell_value(name)}:{SPACE}{_spell_value(part)}" for name, part in json_value.items()]
        return rf"\{{{f',{SPACE}'.join(members)}\}}"
    if isinstance(json_value, list):
        return rf"\[{f',{SPACE}'.join(map(_spell_value, json_value))}\]"
    return escape_text(json.dumps(json_value, ensure_ascii=False))


def _has_type(json_value: object, name: str) -> bool:
    is_whole = isinstance(json_value, float) and json_value.is_integer()
    if name == "integer" and is_whole:
        return True
    return isinstance(json_value, PYTHON_TYPES[name]) and (isinstance(json_value, bool) <= (name == "boolean"))


def _join_members(members: Sequence[str], is_required: Sequence[bool]) -> str:
    """Return an expression for the members of an object, of which some may be left out, with commas between them."""
    following = [
        f"(?:,{SPACE}{member}){'' if needed else '?'}" for member, needed in zip(members, is_required, strict=True)
    ]
    # Each alternative begins with another member; none before it is required.
    first_required = is_required.index(True) if True in is_required else len(members) - 1
    alternatives = [member + "".join(following[i + 1 :]) for i, member in enumerate(members[: first_required + 1])]
    if not alternatives:
        return ""
    return join_alternatives(alternatives) if True in is_required else f"(?:{'|'.join(alternatives)})?"
