"""Checks a request for records and prepares it, for `gen sample` and the library alike."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from gentext.corpus.novelty import KnownRecords
from gentext.describe import tokenizer_of
from gentext.errors import GenError, PrimeError, RunError, UnknownComponent, UsageError, nearest
from gentext.exported.batch_size import choose_batch_rows, max_rows, max_texts
from gentext.exported.boundary import RecordsMeta
from gentext.exported.metadata import Bundle
from gentext.exported.signature import flat_arrays
from gentext.generation.model_calls import SlotSampler
from gentext.generation.rows import RowRequest, row_requests
from gentext.generation.stacking import Arrays
from gentext.generation.writing import Writing, prepare_writing
from gentext.interfaces import OpenSampler
from gentext.manager import host
from gentext.matching.match_tables import MATCH_LINK
from gentext.records.record_batches import RecordBatches
from gentext.records.record_output import TableRows
from gentext.records.record_plan import MAX_RECORDS, MAX_TRIES, RecordFilter, RecordPlan
from gentext.records.record_rows import RecordRows, symbol_limit
from gentext.records.record_writing import WAITING_ROWS, RecordSource, RecordStream
from gentext.requests.declaration import MAX_TEXTS, WritingOptions
from gentext.requests.declared_options import is_whole
from gentext.requests.options import writing_options
from gentext.requests.parameters import choose_chain
from gentext.requests.spelling import ParamValues, Spelling
from gentext.run import HASHES_FILE
from gentext.sampling.stored import is_compiled


class Prefix(NamedTuple):
    """What some records begin with."""

    text: str
    parameters: Mapping[str, object] = MappingProxyType({})
    """Parameters of the chain's links for these records alone."""
    title: str = ""
    """How messages name it, such as the line of a file."""


#: The only prefix of records without one.
NO_PREFIX = Prefix("")


@dataclasses.dataclass(frozen=True)
class RecordRequest:
    """A request for records. The defaults are those of ``gen sample``."""

    count: int = 1
    """How many records to write of each prefix."""
    prefixes: Sequence[Prefix] = (NO_PREFIX,)
    """Record i of prefix j has the number ``count * j + i``."""
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Leading columns of a table whose rows are the records, instead of prefixes."""
    options: WritingOptions = dataclasses.field(default_factory=writing_options)
    """How to write; those of several texts, of lengths, stop strings and logits do not count."""
    length: int | None = None
    """Characters behind the prefix, at most; None: twice as many as the longest training record has."""
    shard: tuple[int, int] = (0, 1)
    """(i, n): write the numbers that are i modulo n."""
    ordered: bool = True
    unique: bool = False
    novel: bool | Path = False
    """Whether no training record is written; or the file, or the run, with the hashes of records not to write."""
    accept: str | None = None
    """A regular expression that whole records match."""
    filters: Sequence[RecordFilter] = ()
    max_tries: int = 1000
    """Records that are drawn for each number, at most."""
    slots: int | None = None
    """Records that are written side by side; None: as many as are fast. They change no record."""
    keeps_tokens: bool = False


def require_records(bundle: Bundle, path: Path, option: str) -> RecordsMeta:
    """Return what a model of records was trained on; raises UsageError for a model of one text."""
    if bundle.records is None:
        raise UsageError(
            f"{option} is for models of records, and {path} has learned one text; the option records of training, "
            f"such as records = lines, makes a model of records"
        )
    return bundle.records


def prepare_records(
    sampler: OpenSampler, path: Path, request: RecordRequest, spelling: Spelling
) -> tuple[RecordStream, Writing]:
    """Check a request and prepare its records. Returns them, and what they are written with.

    ``path`` is the run or the file of the sampler. Raises UsageError for an impossible option, in the words of
    ``spelling``, PrimeError for a prefix with characters that the model does not know, RunError without the hashes of
    the training records.
    """
    records = require_records(sampler.bundle, path, spelling.name("records"))
    prefixes = request.prefixes
    if request.fields:
        prefixes = [Prefix(row_beginning(records, request.fields, spelling))]
    check_request(request, spelling, len(prefixes))
    length = max(2 * records.longest, 1) if request.length is None else request.length
    options = request.options | {"count": 1, "length": length, "stream": 0, "stop": ()}
    try:
        writing = prepare_writing(sampler, [prefix.text for prefix in prefixes], options, spelling)
    except PrimeError as error:
        tokenizer = tokenizer_of(sampler.bundle)
        title = next((prefix.title for prefix in prefixes if tokenizer.unknown_at(prefix.text)), "")
        raise PrimeError(f"{title}: {error}" if title else str(error)) from None
    plan = RecordPlan(
        count=request.count * len(prefixes),
        count_per_prefix=request.count,
        prefixes=writing.primes,
        seed=writing.seed,
        length=length,
        shard=request.shard,
        ordered=request.ordered,
        unique=request.unique,
        training=_read_training(path, request.novel, spelling),
        accept=None if request.accept is None else _compile_accept(request.accept, spelling),
        filters=[*([TableRows(records.header)] if records.header else []), *request.filters],
        max_tries=request.max_tries,
        max_tries_option=spelling.name("max_tries"),
    )
    longest_prefix = max(map(len, writing.primes))
    rows = request.slots or choose_batch_rows(sampler.bundle, max(len(plan.numbers), 1), longest_prefix + length)
    source = _open_source(writing, prefixes, rows, request.keeps_tokens, spelling)
    window = max(rows, min(WAITING_ROWS * rows, max_texts(longest_prefix + length)))
    return RecordStream(plan, source, window), writing


def check_request(request: RecordRequest, spelling: Spelling, prefixes: int = 1) -> None:
    """Raise UsageError for options that no model can fulfil with that number of prefixes."""
    if prefixes > MAX_TEXTS:
        raise UsageError(f"{prefixes:,} prefixes: expected at most {MAX_TEXTS:,}; use several files")
    limits = {
        "count": (request.count, 1, MAX_RECORDS // prefixes),
        "length": (request.length, 1, MAX_RECORDS),
        "max_tries": (request.max_tries, 1, MAX_TRIES),
        "slots": (request.slots, 1, MAX_TEXTS),
    }
    for name, (setting, low, high) in limits.items():
        if setting is not None and not (is_whole(setting) and low <= setting <= high):
            raise UsageError(f"{spelling.assignment(name, setting)}: expected a whole number from {low} to {high:,}")
    number, shards = request.shard
    if not (is_whole(number) and is_whole(shards) and shards >= 1 and 0 <= number < shards):
        raise UsageError(
            f"{spelling.assignment('shard', f'{number}/{shards}')}: expected a shard from 0/{shards} to "
            f"{max(shards - 1, 0)}/{shards}; they count from 0"
        )
    if request.unique and not request.ordered:
        unordered, unique = spelling.name("unordered"), spelling.name("unique")
        raise UsageError(
            f"{unordered} and {unique}: expected one of them; which of equal records stays is decided in order"
        )
    if request.accept is not None:
        _compile_accept(request.accept, spelling)


def _compile_accept(expression: object, spelling: Spelling) -> re.Pattern[str]:
    try:
        return re.compile(expression)  # type: ignore[call-overload, no-any-return]
    except (re.error, TypeError, OverflowError, RecursionError) as error:
        raise UsageError(f"{spelling.assignment('accept', expression)}: no regular expression ({error})") from None


def _read_training(path: Path, novel: bool | Path, spelling: Spelling) -> KnownRecords | None:
    """Return the records not to write: by default those of the run, or those whose hashes lie beside the file."""
    if novel is False:
        return None
    named = path if novel is True else novel
    file = named if named.is_file() and novel is not True else (named if named.is_dir() else named.parent) / HASHES_FILE
    if not file.is_file() and novel is True:
        raise RunError(
            f"{file}: missing; it has the hashes of the training records, and comes with the run. "
            f"{spelling.name('novel_against')} names it"
        )
    return KnownRecords.read(file)


def row_beginning(records: RecordsMeta, fields: Mapping[str, str], spelling: Spelling) -> str:
    """Return what a row of a table begins with whose leading columns have these fields.

    Raises UsageError for a model of other records, for an unknown column, and for one that others stand before.
    """
    from gentext.data.records import format_row, parse_header

    option = spelling.name("given")
    if not records.header:
        raise UsageError(f"{option}: the records are no rows of a table; train on one with records = csv")
    columns, delimiter = parse_header(records.header)
    for column in fields:
        if column not in columns:
            raise UsageError(f"{option}: no column {column!r}.{nearest(column, columns)} Columns: {', '.join(columns)}")
    leading = columns[: len(fields)]
    for column in fields:
        if column not in leading:
            before = next(name for name in leading if name not in fields)
            raise UsageError(
                f"{option} {column}: {before!r} stands before it, and the model writes rows from their beginning; set "
                f"the columns before it too, or throw other rows away with {spelling.name('accept')}"
            )
    if len(leading) == len(columns):
        raise UsageError(f"{option}: all {len(columns)} columns are set, so there is nothing left to write")
    return format_row([fields[column] for column in leading], delimiter) + delimiter


def _open_source(
    writing: Writing, prefixes: Sequence[Prefix], rows: int, keeps_tokens: bool, spelling: Spelling
) -> RecordSource:
    """Return what draws the records: rows of the compiled generator, or batches where its chain is another one."""
    sampler = writing.sampler
    if rows > (most_rows := max_rows(sampler.bundle)):
        raise UsageError(f"{spelling.assignment('slots', rows)}: expected at most {most_rows} for a model of this size")
    param_values = _choose_values(writing, prefixes, spelling)
    model = sampler.slot_model if isinstance(sampler, SlotSampler) else None
    if model is not None and is_compiled(sampler.bundle, writing.chosen_chain.chain):
        assert writing.options["length"] is not None
        most_symbols = symbol_limit(sampler.bundle, writing.options["length"])
        requests = _row_requests(writing, param_values)
        with contextlib.suppress(UnknownComponent):  # the code of a link with states may not be installed
            return RecordRows(model, sampler.bundle, requests, rows, most_symbols, keeps_tokens=keeps_tokens)
    return RecordBatches(writing, param_values, rows)


def _choose_values(writing: Writing, prefixes: Sequence[Prefix], spelling: Spelling) -> list[ParamValues]:
    """Return the parameters of links for the records of each prefix; those of equal parameters are one object."""
    chosen, options = writing.chosen_chain, writing.options
    by_parameters: dict[frozenset[tuple[str, object]], ParamValues] = {frozenset(): chosen.param_values}
    param_values = []
    for prefix in prefixes:
        key = frozenset(prefix.parameters.items())
        if key not in by_parameters:
            settings = {**options["parameters"], **prefix.parameters}
            try:
                own = choose_chain(
                    writing.sampler.bundle, host().registry, options["chain"], settings, spelling, options["style"]
                )
            except GenError as error:
                raise UsageError(f"{prefix.title}: {error}") from None
            if missing := [name for name in own.chain.names if name not in chosen.chain.names]:
                raise UsageError(
                    f"{prefix.title}: the chain {', '.join(chosen.chain.names)} has no link {missing[0]}; name all "
                    f"links that prefixes need with {spelling.name('chain')}"
                )
            by_parameters[key] = own.param_values
        param_values.append(by_parameters[key])
    return param_values


def _row_requests(writing: Writing, param_values: Sequence[ParamValues]) -> list[RowRequest]:
    """Return a request for the rows of each prefix, with the parameters of its own."""
    chain, requests = writing.chosen_chain.chain, []
    arrays_by_values: dict[int, tuple[Arrays, frozenset[str]]] = {}
    for request, values in zip(row_requests(writing), param_values, strict=True):
        if values is not writing.chosen_chain.param_values:
            if id(values) not in arrays_by_values:
                arrays = chain.param_arrays(1, values)
                arrays_by_values[id(values)] = flat_arrays(arrays), frozenset(chain.active(arrays, {}).names)
            params, active_links = arrays_by_values[id(values)]
            if MATCH_LINK in request.active_links:
                match_params = {name: array for name, array in request.params.items() if name.startswith(MATCH_LINK)}
                params, active_links = {**params, **match_params}, active_links | {MATCH_LINK}
            request = dataclasses.replace(request, params=params, active_links=active_links)
        requests.append(request)
    return requests
