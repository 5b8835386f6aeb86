"""Checks what components hand over to gentext, where it is cheap and the component can still be named.

What a component of a plugin returns is used far away from it. Without these checks a wrong type or shape would end in
an error that names only gentext's own code, or in a wrong text without any error. Each check raises PluginError, with
the name of the component and what was expected.
"""

from __future__ import annotations

import contextlib
import json
import typing
from collections.abc import Generator, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gentext.errors import PluginError, exit_error, reason
from gentext.files.reading import check_data
from gentext.interfaces import Chunk, Finish, Ids, OpenSampler, Request, Tokenizer, TopSymbols
from gentext.strategy import State, Strategy, Table

FINISHES = typing.get_args(Finish)
FLOAT32 = np.dtype(np.float32)
PAIR_TYPES = (tuple, list)
SEQUENCE_TYPES = (tuple, list, np.ndarray)


@runtime_checkable
class _Closable(Protocol):
    """An iterator that releases what it holds when it is closed, as a generator does."""

    def close(self) -> None: ...


# -- strategies -------------------------------------------------------------------------------
# The first two checks run at every position, so they read no array.


def check_applied(
    link: str,
    strategy: Strategy,
    returned: object,
    logits: NDArray[np.float32],
    previous_states: Mapping[str, NDArray[Any]],
) -> tuple[NDArray[np.float32], dict[str, NDArray[Any]]]:
    """Return the logits and the states that a link's ``apply`` returned for logits [N, V] and its previous states."""
    if not (isinstance(returned, PAIR_TYPES) and len(returned) == 2):
        raise PluginError(f"the link {link}: apply must return logits and states, not {type(returned).__name__}")
    link_logits, states = returned
    if not _has_type(link_logits, logits.shape, FLOAT32):
        raise PluginError(
            f"the link {link}: apply must return float32 logits of shape {logits.shape}, not {_type_of(link_logits)}"
        )
    if states is previous_states:  # they were checked before
        return link_logits, dict(previous_states)
    return link_logits, check_link_states(link, strategy, "apply", states, len(logits))


def check_link_states(link: str, strategy: Strategy, method: str, states: object, rows: int) -> dict[str, NDArray[Any]]:
    """Return the states of so many rows that a method of a link returned, all that it declares and no others."""
    declared = strategy.state
    if not isinstance(states, Mapping):
        raise PluginError(f"the link {link}: {method} must return states by name, not {type(states).__name__}")
    if states.keys() != declared.keys():
        names = sorted(map(str, states))
        raise PluginError(f"the link {link}: {method} returned the state {names}, declared {sorted(declared)}")
    for name, spec in declared.items():
        shape, dtype = (rows, *spec.shape), np.dtype(spec.dtype)
        if not _has_type(states[name], shape, dtype):
            raise PluginError(
                f"the link {link}: after {method}, state {name} is {_type_of(states[name])}, declared {dtype} {shape}"
            )
    return dict(states)


def check_nan(logits: NDArray[np.float32], link_logits: Mapping[str, NDArray[np.float32]]) -> None:
    """Raise PluginError for the first link that returned NaN for logits without NaN, which a model itself may give.

    ``link_logits`` are the logits after each link, in the order of the chain.
    """
    for link, returned_logits in link_logits.items():
        if np.isnan(returned_logits).any() and not np.isnan(logits).any():
            raise PluginError(f"the link {link}: the logits have NaN; mask with -inf")
        logits = returned_logits


def start_states(link: str, strategy: Strategy, params: Mapping[str, NDArray[Any]], rows: int) -> dict[str, Any]:
    """Return the states of a link before a row's first position: those of ``start``, and the others as declared."""
    started: object = strategy.start(np, params)
    if not isinstance(started, Mapping):
        raise PluginError(f"the link {link}: start must return states by name, not {type(started).__name__}")
    declared = {name: _full_state(spec, rows) for name, spec in strategy.state.items()}
    return check_link_states(link, strategy, "start", declared | dict(started), rows)


def _full_state(spec: State, rows: int) -> NDArray[Any]:
    return np.full((rows, *spec.shape), spec.initial, spec.dtype)


def table_arrays(link: str, strategy: Strategy, tokenizer: Tokenizer | None) -> dict[str, NDArray[Any]]:
    """Return the tables that a link makes for its own config, the neutral one for each that it leaves out."""
    declared = strategy.tables
    tables: object = strategy.make_tables(tokenizer, strategy.config)
    if not isinstance(tables, Mapping):
        raise PluginError(f"the link {link}: make_tables must return tables by name, not {type(tables).__name__}")
    for name in tables.keys() - declared.keys():
        names = ", ".join(declared) or "none"
        raise PluginError(f"the link {link} makes a table {name!r} that it does not declare ({names})")
    return {name: _table_array(f"{link}.{name}", spec, tables.get(name)) for name, spec in declared.items()}


def neutral_table(spec: Table) -> NDArray[Any]:
    """Return the table of a link that makes none."""
    return np.full([1 if size is None else size for size in spec.dims], spec.neutral, spec.dtype)


def _table_array(name: str, spec: Table, table: Any) -> NDArray[Any]:
    """Return a table as an array of its declared type, the neutral one when it is None."""
    dims = tuple(spec.dims)
    if table is None:
        return neutral_table(spec)
    try:
        array = np.asarray(table, spec.dtype)
    except (TypeError, ValueError) as error:
        raise PluginError(f"the table {name} is no array of {spec.dtype}: {reason(error)}") from error
    if array.ndim != len(dims) or any(
        size not in (None, actual) for size, actual in zip(dims, array.shape, strict=True)
    ):
        raise PluginError(f"the table {name} was made with the shape {array.shape}; declared: {dims}")
    return array


def _has_type(array: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    return isinstance(array, np.ndarray) and array.shape == shape and array.dtype == dtype


def _type_of(array: object) -> str:
    """Return what an author must know of an array, or of what was returned in the place of one."""
    return f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__


# -- samplers ---------------------------------------------------------------------------------


def describe_sampler(sampler: object) -> str:
    """Return how messages name an opened sampler: by its class, since it does not know its component's name."""
    return f"the sampler {type(sampler).__module__}.{type(sampler).__qualname__}"


def checked_chunks(sampler: OpenSampler, request: Request) -> Generator[Chunk, None, None]:
    """Yield the chunks that a sampler generates for a request, each of them checked."""
    name = describe_sampler(sampler)
    rows, vocab_size = len(request.primes), len(sampler.bundle.token_bytes)
    with contextlib.ExitStack() as stack:
        try:
            chunks: object = sampler.generate(request)
            if not isinstance(chunks, Iterable):
                raise PluginError(f"{name}: generate must return an iterator over chunks, not {type(chunks).__name__}")
            if isinstance(chunks, _Closable):  # a plugin may return another iterator than a generator
                stack.callback(chunks.close)
            iterator = iter(chunks)
        except SystemExit as error:
            raise exit_error(name, error) from error
        while True:
            try:
                chunk = next(iterator)
            except StopIteration:
                return
            except SystemExit as error:
                raise exit_error(name, error) from error
            problem = _chunk_problem(chunk, rows, vocab_size, min(request.top_count, vocab_size))
            if problem:
                raise PluginError(f"{name}: {problem}")
            yield chunk


def check_model_logits(sampler: object, logits: object, shape: tuple[int, ...]) -> None:
    """Check the logits [N, T, V] that a sampler's ``advance`` returned, before the links of the chain get them."""
    if not _has_type(logits, shape, FLOAT32):
        raise PluginError(
            f"{describe_sampler(sampler)}: advance must return float32 logits of shape {shape}, not {_type_of(logits)}"
        )


def _chunk_problem(chunk: object, rows: int, vocab_size: int, top_count: int) -> str | None:
    """Return what is wrong with a chunk of so many rows and most probable symbols, or None."""
    if not isinstance(chunk, Chunk):
        return f"generate must give chunks, not {type(chunk).__name__}"
    tokens: object = chunk.tokens
    logprobs: object = chunk.logprobs
    finish: object = chunk.finish
    if not (isinstance(tokens, np.ndarray) and tokens.dtype.kind in "iu" and tokens.shape == (len(tokens), rows)):
        return f"the tokens of a chunk must be whole numbers [K, {rows}], not {_type_of(tokens)}"
    ids = tokens.ravel().tolist()  # of one position, as most chunks are, a list is read faster than an array
    if ids and not (min(ids) >= -1 and max(ids) < vocab_size):
        return f"a chunk has tokens from {min(ids)} to {max(ids)}; expected -1, or 0 to {vocab_size - 1}"
    if not (isinstance(logprobs, np.ndarray) and logprobs.dtype.kind == "f" and logprobs.shape == tokens.shape):
        return f"the logprobs of a chunk must be floats of shape {tokens.shape}, not {_type_of(logprobs)}"
    if not (isinstance(finish, SEQUENCE_TYPES) and len(finish) == rows):
        return f"finish of a chunk must have a word for each of the {rows} rows"
    for word in finish:
        if word not in FINISHES:
            return f"a chunk has the finish {word!r}; expected one of {', '.join(FINISHES)}"
    return _top_symbols_problem(chunk.top_symbols, (*tokens.shape, top_count), vocab_size) if top_count else None


def _top_symbols_problem(top_symbols: object, shape: tuple[int, ...], vocab_size: int) -> str | None:
    """Return what is wrong with the most probable symbols of a chunk, or None."""
    if not isinstance(top_symbols, TopSymbols):
        return f"a chunk has no top_symbols, and {shape[-1]} were asked for; another sampler may have them"
    tokens: object = top_symbols.tokens
    logprobs: object = top_symbols.logprobs
    if not (isinstance(tokens, np.ndarray) and tokens.dtype.kind in "iu" and tokens.shape == shape):
        return f"the tokens of top_symbols must be whole numbers of shape {shape}, not {_type_of(tokens)}"
    if not (isinstance(logprobs, np.ndarray) and logprobs.dtype.kind == "f" and logprobs.shape == shape):
        return f"the logprobs of top_symbols must be floats of shape {shape}, not {_type_of(logprobs)}"
    if tokens.size and not (tokens.min() >= -1 and tokens.max() < vocab_size):
        return f"top_symbols has tokens from {tokens.min()} to {tokens.max()}; expected -1, or 0 to {vocab_size - 1}"
    return None


def check_opened(name: str, opened: object) -> OpenSampler:
    """Return what the ``open`` of a sampler returned."""
    if not isinstance(opened, OpenSampler):
        raise PluginError(
            f"the sampler {name!r}: open() returned {type(opened).__name__}, expected an object with a bundle, a "
            f"device and generate()"
        )
    return opened


# -- tokenizers -------------------------------------------------------------------------------


def read_symbols(name: str, tokenizer: Tokenizer) -> list[bytes]:
    """Return the bytes of each symbol of a tokenizer, in the order of the ids."""
    if not isinstance(tokenizer, Tokenizer):
        raise PluginError(
            f"the tokenizer {name!r} made {type(tokenizer).__name__}, which lacks methods of a tokenizer "
            f"(docs/hooks.md lists them)"
        )
    vocab_size: object = tokenizer.vocab_size
    if isinstance(vocab_size, bool) or not isinstance(vocab_size, int | np.integer) or vocab_size < 1:
        raise PluginError(f"the tokenizer {name!r} has vocab_size {vocab_size!r}; expected a whole number from 1")
    symbols = []
    for token in range(int(vocab_size)):
        symbol: object = tokenizer.token_bytes(token)
        if not isinstance(symbol, bytes):
            raise PluginError(
                f"the tokenizer {name!r}: token_bytes({token}) returned {type(symbol).__name__}, expected bytes"
            )
        symbols.append(symbol)
    return symbols


def check_tokenizer(name: str, tokenizer: Tokenizer) -> None:
    """Check what a run stores of a tokenizer: its symbols, its unknown token, and its state."""
    symbol_count = len(read_symbols(name, tokenizer))
    unknown: object = tokenizer.unknown
    if unknown is not None and not (isinstance(unknown, int | np.integer) and 0 <= unknown < symbol_count):
        raise PluginError(f"the tokenizer {name!r} has the unknown token {unknown!r}; expected an id, or None")
    state: object = tokenizer.state()
    if not isinstance(state, dict):
        raise PluginError(f"the tokenizer {name!r}: state() returned {type(state).__name__}, expected a dict")
    try:
        check_data(state)
        json.dumps(state, ensure_ascii=False, allow_nan=False).encode()
        problem = None if _has_text_keys(state) else "a key of a dict is no text"
    except (TypeError, ValueError, RecursionError) as error:
        problem = reason(error)
    if problem:
        raise PluginError(
            f"the tokenizer {name!r}: state() is not standard JSON ({problem}); it could not be read back"
        )


def _has_text_keys(json_value: object) -> bool:
    """Return whether all keys within JSON data are texts: JSON would turn others into texts."""
    if isinstance(json_value, dict):
        return all(isinstance(key, str) for key in json_value) and all(map(_has_text_keys, json_value.values()))
    return not isinstance(json_value, list | tuple) or all(map(_has_text_keys, json_value))


def check_ids(name: str, ids: object, vocab_size: int) -> Ids:
    """Return the ids into which a tokenizer encoded a text."""
    array = np.asarray(ids)
    is_row_of_integers = array.ndim == 1 and (array.dtype.kind in "iu" or not array.size)
    if not is_row_of_integers or (array.size and not 0 <= array.min() <= array.max() < vocab_size):
        raise PluginError(
            f"the tokenizer {name!r} must encode a text as whole numbers from 0 to {vocab_size - 1} in one row, "
            f"and does not"
        )
    return array
