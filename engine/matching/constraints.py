"""What the texts of a request must match: from expressions and schemas to what the link `match` reads."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gentext.errors import GenError, PrimeError, UsageError
from gentext.exported.metadata import Bundle
from gentext.files.reading import parse_json, read_file
from gentext.interfaces import Ids
from gentext.manager import host
from gentext.matching.byte_automaton import MAX_SECONDS, ByteAutomaton, compile_bytes
from gentext.matching.expression import Alphabet, ExpressionError, every_character, translate_expression
from gentext.matching.json_schema import translate_schema
from gentext.matching.match import MatchAutomaton, build_automaton, stack_automata
from gentext.matching.match_tables import FREE_STATE, NO_LIMIT, first_states
from gentext.requests.spelling import Spelling
from gentext.sampling.chain import Chain, LinkArrays
from gentext.sampling.configured_chain import chain_of, make_tables
from gentext.stop import MAX_TABLE, find_unwritable

if TYPE_CHECKING:
    from gentext.requests.declaration import WritingOptions

#: Bytes of a file with a schema, at most.
MAX_SCHEMA_BYTES = 2**20


class Constraint(NamedTuple):
    """What a text must match."""

    title: str
    """How messages name it: the option that it comes from."""
    expression: str | None
    """A regular expression as Python's `re` reads it; None: there is a schema."""
    schema: object = None
    """A JSON schema."""

    def translate(self, alphabet: Alphabet) -> str:
        """Return the expression in the syntax of outlines-core; raises ExpressionError."""
        if self.expression is None:
            return translate_schema(self.schema, alphabet)
        return translate_expression(self.expression, alphabet)


class ConstraintCompiler(Protocol):
    """Compiles constraints as `compile_here` does, perhaps in another process."""

    def __call__(
        self,
        constraint: Constraint,
        symbols: Sequence[bytes],
        is_allowed: NDArray[np.bool_],
        primes: Sequence[bytes],
        *,
        boundary: int | None = None,
    ) -> MatchAutomaton: ...


@dataclasses.dataclass(frozen=True)
class TextMatches:
    """What the link `match` reads for some texts."""

    tables: Mapping[str, NDArray[Any]]
    """The tables of the link, for the expressions of all texts of the request."""
    first_states: NDArray[np.int64]
    """The state in which each text begins; ``FREE_STATE`` for one without an expression."""
    budgets: NDArray[np.int64]
    """How many characters each text may have."""

    def of_texts(self, numbers: Sequence[int]) -> TextMatches:
        """Return the same for the texts with these numbers."""
        texts = np.array(numbers)
        return dataclasses.replace(self, first_states=self.first_states[texts], budgets=self.budgets[texts])


def prepare_matches(
    bundle: Bundle,
    chain: Chain,
    tables: LinkArrays,
    encoded_primes: Sequence[Ids],
    options: WritingOptions,
    spelling: Spelling,
) -> TextMatches:
    """Return what the texts of a request must match, in their order, for the chain and the tables that they run with.

    Raises UsageError and PrimeError as `build_matches` does.
    """
    count = options["count"]
    constraints = read_constraints(options["match"], options["json_schema"], len(encoded_primes) * count, spelling)
    prime_bytes = [
        b"".join(bundle.token_bytes[int(token)] for token in ids) if options["match_prime"] else b""
        for ids in encoded_primes
    ]
    primes = [prime for prime in prime_bytes for _ in range(count)]
    is_banned = banned_symbols(chain, tables, bundle)
    always_allows_empty = options["continues"] or not bundle.never_empty
    allows_empty = [always_allows_empty or len(ids) > 0 for ids in encoded_primes for _ in range(count)]
    return build_matches(constraints, primes, bundle, is_banned, options["length"], spelling, allows_empty)


def banned_symbols(chain: Chain, tables: LinkArrays, bundle: Bundle) -> NDArray[np.bool_]:
    """Return which symbols the links of a chain ban, by a table ``banned`` (bool [V]): no text has them [V]."""
    is_banned = np.zeros(bundle.vocab_size, np.bool_)
    for link in chain:
        spec = link.strategy.tables.get("banned")
        if spec is None or (spec.dtype, tuple(spec.dims)) != ("bool", (bundle.vocab_size,)):
            continue
        link_tables = tables
        if link.name not in tables:  # the tables are within the compiled file: the installed link makes them again
            link_tables = make_tables(chain_of(bundle, host().registry, [link.name]), bundle)
        is_banned |= link_tables[link.name]["banned"]
    return is_banned


# -- from options to constraints -----------------------------------------------------------------


def read_constraints(match: object, json_schema: object, texts: int, spelling: Spelling) -> list[Constraint | None]:
    """Return what each of so many texts must match; None: anything.

    ``match`` is an expression, and ``json_schema`` a schema as a dict, or the path of a file; a list of them, or of
    None, has one for each text. Raises UsageError for anything else.
    """
    name, option = ("match", match) if match is not None else ("json_schema", json_schema)
    parts = option if isinstance(option, list | tuple) else [option] * texts
    if len(parts) != texts:
        raise UsageError(
            f"{spelling.name(name)} has {len(parts)} elements for {texts} texts; expected one for each text"
        )
    read = _read_expression if name == "match" else _read_schema
    keys = [part if isinstance(part, str | None) else id(part) for part in parts]
    constraint_by_key: dict[object, Constraint | None] = {None: None}
    for key, part in zip(keys, parts, strict=True):
        if key not in constraint_by_key:
            constraint_by_key[key] = read(part, spelling)
    return [constraint_by_key[key] for key in keys]


def _read_expression(expression: object, spelling: Spelling) -> Constraint:
    title = spelling.assignment("match", expression)
    if not isinstance(expression, str):
        raise UsageError(f"{title}: expected a regular expression, as a text")
    return Constraint(title, expression)


def _read_schema(schema: object, spelling: Spelling) -> Constraint:
    if isinstance(schema, Mapping):
        return Constraint(spelling.name("json_schema"), None, schema)
    title = spelling.assignment("json_schema", schema)
    if not isinstance(schema, str | os.PathLike):
        raise UsageError(f"{title}: expected a JSON schema as a dict, or the path of a file")
    try:
        content = parse_json(read_file(Path(schema), MAX_SCHEMA_BYTES))
    except OSError as error:
        raise UsageError(f"{title}: cannot be read ({error.strerror}); expected a file with a JSON schema") from None
    except ValueError as error:
        raise UsageError(f"{title}: no JSON ({error}); expected a file with a JSON schema") from None
    return Constraint(title, None, content)


# -- from constraints to automata ----------------------------------------------------------------


def build_matches(
    constraints: Sequence[Constraint | None],
    primes: Sequence[bytes],
    bundle: Bundle,
    is_banned: NDArray[np.bool_],
    length: int | None,
    spelling: Spelling,
    allows_empty: Sequence[bool] = (),
) -> TextMatches:
    """Return what the link `match` reads for texts that continue their primes, which are b"" where they do not count.

    ``is_banned`` [V] is which symbols are never drawn, besides the unknown one; ``length`` is how many new characters
    a text may have, and ``allows_empty`` which of the texts may have none, by default all. Raises UsageError for an
    expression that cannot be followed, or not within that length, and PrimeError for a prime that no text which matches
    continues.
    """
    allows_empty = allows_empty or [True] * len(constraints)
    numbers_by_constraint: dict[int, list[int]] = {}
    for number, constraint in enumerate(constraints):
        if constraint is not None:
            numbers_by_constraint.setdefault(id(constraint), []).append(number)
    budget = NO_LIMIT if length is None else length
    automata: list[MatchAutomaton] = []
    starts = np.full(len(constraints), -1, np.int64)  # of each text, among those of all automata
    start_count = 0
    for numbers in numbers_by_constraint.values():
        constraint = constraints[numbers[0]]
        assert constraint is not None
        number_by_prime = {prime: i for i, prime in enumerate(dict.fromkeys(primes[number] for number in numbers))}
        automaton = compile_constraint(constraint, bundle, is_banned, list(number_by_prime))
        prime_allows_empty = dict.fromkeys(number_by_prime, True)
        for number in numbers:
            prime_allows_empty[primes[number]] &= allows_empty[number]
        check_lengths(automaton, [*number_by_prime], budget, constraint.title, spelling, [*prime_allows_empty.values()])
        automata.append(automaton)
        starts[numbers] = [start_count + number_by_prime[primes[number]] for number in numbers]
        start_count += len(number_by_prime)
    states = np.full(len(constraints), FREE_STATE, np.int64)
    matched = starts >= 0
    if not automata:
        raise UsageError(f"{spelling.name('match')} has nothing but None; expected an expression for some text")
    try:
        stacked = stack_automata(automata)
    except ExpressionError as error:
        raise UsageError(f"{spelling.name('match')}, all expressions together: {error}") from None
    budgets = np.full(len(constraints), budget, np.int64)
    states[matched] = first_states(stacked, stacked.starts[starts[matched]], budgets[matched])
    return TextMatches(stacked.link_tables, states, budgets)


def compile_constraint(
    constraint: Constraint, bundle: Bundle, is_banned: NDArray[np.bool_], primes: Sequence[bytes] = (b"",)
) -> MatchAutomaton:
    """Return the automaton of a constraint over a model's symbols, with a start behind each prime.

    ``is_banned`` [V] is which symbols are never drawn, besides the unknown one. Raises UsageError for a constraint that
    no text of the model matches, PrimeError for a prime that no such text continues.
    """
    is_allowed = ~is_banned
    if bundle.tokenizer.unknown is not None:
        is_allowed[bundle.tokenizer.unknown] = False
    return _compilers[-1](constraint, bundle.token_bytes, is_allowed, primes, boundary=bundle.boundary)


def use_compiler(compiler: ConstraintCompiler) -> None:
    """Compile all further constraints of this process with another function.

    A server does, since a large constraint takes seconds, in which Python runs nothing else.
    """
    _compilers[:] = [compiler]


def compile_here(
    constraint: Constraint,
    symbols: Sequence[bytes],
    is_allowed: NDArray[np.bool_],
    primes: Sequence[bytes],
    max_table: int = MAX_TABLE,
    seconds: float = MAX_SECONDS,
    *,
    boundary: int | None = None,
) -> MatchAutomaton:
    """Do what `compile_constraint` does, over those of V symbols that are allowed [V].

    An automaton has at most ``max_table`` states times symbols, and its expression is compiled in ``seconds`` at most;
    ``boundary`` is the symbol that ends a record.
    """
    allowed_symbols = [symbol for symbol, allowed in zip(symbols, is_allowed, strict=True) if allowed]
    # A prime may have characters that the model does not write.
    prime_characters = {character for prime in primes for character in prime.decode("utf-8", "replace")}
    try:
        alphabet = Alphabet.of_symbols(allowed_symbols)
        alphabet = (
            Alphabet("".join(sorted({*alphabet.characters, *prime_characters}))) if prime_characters else alphabet
        )
        byte_automaton = compile_bytes(constraint.translate(alphabet), seconds)

        def build(byte_starts: Sequence[int]) -> MatchAutomaton:
            return build_automaton(byte_automaton, symbols, is_allowed, byte_starts, max_table)

        automaton = build([byte_automaton.advance(byte_automaton.start, prime) for prime in primes])
        if (automaton.starts >= 0).all():
            return dataclasses.replace(automaton, boundary=boundary)
        if build([byte_automaton.start]).start < 0:
            raise ExpressionError(_explain_emptiness(constraint, allowed_symbols, seconds))
    except ExpressionError as error:
        raise UsageError(f"{constraint.title}: {error}") from None
    prime = next(prime for prime, start in zip(primes, automaton.starts, strict=True) if start < 0)
    raise _prime_error(constraint, prime, byte_automaton, build)


#: The function that compiles constraints, alone in a list.
_compilers: list[ConstraintCompiler] = [compile_here]


def _prime_error(
    constraint: Constraint,
    prime: bytes,
    byte_automaton: ByteAutomaton,
    build: Callable[[Sequence[int]], MatchAutomaton],
) -> GenError:
    """Return the error for a prime that no text which matches continues: it names the first character too many."""
    text = prime.decode("utf-8", "replace")
    states = [byte_automaton.advance(byte_automaton.start, text[:end].encode()) for end in range(len(text) + 1)]
    position = int(np.argmin(build(states).starts >= 0)) - 1
    return PrimeError(
        f"{constraint.title}: the prime has {text[position]!r} at position {position}, and no text that the model can "
        f"write matches from there on"
    )


def _explain_emptiness(constraint: Constraint, symbols: Sequence[bytes], seconds: float) -> str:
    """Return why no text of some symbols matches a constraint."""
    try:
        text = compile_bytes(constraint.translate(every_character()), seconds).find_shortest_text()
    except ExpressionError:  # over all characters it may be too large
        return "no text of the model's symbols matches it"
    if text is None:
        return "no text matches it"
    missing = find_unwritable([text], symbols)
    reason = f"the model cannot write {missing[text]!r}, as in {text!r}" if missing else "as none of its symbols fit"
    return f"no text of the model's symbols matches it: {reason}"


def check_lengths(
    automaton: MatchAutomaton,
    primes: Sequence[bytes],
    budget: int,
    title: str,
    spelling: Spelling,
    allows_empty: Sequence[bool],
) -> None:
    """Raise UsageError where the shortest text that matches has more characters than a text may have.

    ``allows_empty`` is whether the text behind each prime may have none: no record is empty.
    """
    starts = automaton.starts
    needs = np.where(allows_empty, automaton.distance[starts], automaton.onward[starts])
    longest = int(needs.argmax())
    if np.isinf(needs[longest]):
        raise UsageError(
            f"{title}: it matches the empty text alone, and no record is empty; expected longer texts, too"
        )
    if needs[longest] > budget:
        after = f" after the prime {json.dumps(primes[longest].decode('utf-8', 'replace'))}" if primes[longest] else ""
        raise UsageError(
            f"{spelling.assignment('length', budget)}: the shortest text that {title} matches{after} has "
            f"{needs[longest]:,.0f} characters; allow at least so many"
        )
