"""The metadata of an exported file, which is stored in its ``metadata_props``: docs/formats.md is the reference.

The export writes it, and every sampler reads it. A file may come from anywhere, so its fields are checked before memory
is allocated for them.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from gentext.config import CONVERSION_LOCK
from gentext.errors import FileFormatError
from gentext.exported.boundary import RecordsMeta as RecordsMeta
from gentext.files.reading import check_data
from gentext.strategy import MAX_NUMBER, Place, State, Table
from gentext.values import STATE_DTYPES, StateSpec

#: Every change of what a file holds raises it. 2 added the check of the whole file, see `gentext.exported.onnx_file`; 3
#: added the switch of a link, the state by which it ends a row, and the places ``first`` and ``last``; 4 added
#: ``records``.
FORMAT_VERSION = 4
#: ``model``: tokens to logits. ``generator``: the chain and the draw inside, for any number of positions a call.
#: ``unrolled``: the same for a fixed number of positions, in a file beside the generator.
FileKind = Literal["model", "generator", "unrolled"]
METADATA_PREFIX = "gentext."
#: Names of the inputs and outputs of the graphs, which no model state may have.
RESERVED_NAMES = {
    *("tokens", "token", "logits", "logprobs", "fresh", "ended", "forced", "noise"),
    *(f"stop_{name}" for name in ("state", "table", "final")),
    *(f"top_{name}" for name in ("count", "tokens", "logprobs")),
}
#: Elements of all that a file has allocated for one row, at most: its states, tables, parameters and noise together.
#: They take 64 MiB as float32. The notebook's states have 2,048 elements.
MAX_ELEMENTS = 2**24
#: Dimensions of a state or a table, at most: as many as NumPy and onnxruntime both take.
MAX_DIMENSIONS = 8
#: Bytes of an entry of the metadata, at most: decoded, JSON takes up to twenty times as much. The largest have one byte
#: or two for each symbol and each character of the tokenizer's state.
MAX_ENTRY_BYTES = 2**24


@dataclasses.dataclass(frozen=True)
class StateMeta:
    """One state tensor: a StateSpec and the initial value of a row."""

    name: str
    shape: list[int | None]
    dtype: str
    initial: str | float = 0.0
    """One number for every element of a row, or base64 of the row's little-endian elements in C order."""

    @property
    def spec(self) -> StateSpec:
        return StateSpec(self.name, tuple(self.shape), self.dtype)

    def initial_row(self) -> NDArray[Any]:
        """Return the initial state of one row, without the batch axis."""
        shape = tuple(size for size in self.shape if size is not None)
        if isinstance(self.initial, str):
            array = np.frombuffer(base64.b64decode(self.initial, validate=True), np.dtype(self.dtype).newbyteorder("<"))
            return array.astype(self.dtype).reshape(shape)
        return np.full(shape, self.initial, self.dtype)

    def initial_rows(self, count: int) -> NDArray[Any]:
        """Return the initial state of ``count`` rows, in the full shape with the batch axis."""
        axis = self.spec.batch_axis
        return np.ascontiguousarray(np.repeat(np.expand_dims(self.initial_row(), axis), count, axis=axis))

    @classmethod
    def from_row(cls, spec: StateSpec, row: NDArray[Any]) -> StateMeta:
        """Describe a state tensor whose rows all start as ``row``."""
        flat_row = np.asarray(row).ravel()
        if flat_row.size and (flat_row == flat_row[0]).all() and np.isfinite(flat_row[0]):  # JSON has no infinity
            number = float(flat_row[0])
            if number == flat_row[0].item():  # a float cannot hold every large integer
                return cls(spec.name, list(spec.shape), spec.dtype, number)
        state_bytes = flat_row.astype(np.dtype(spec.dtype).newbyteorder("<")).tobytes()
        return cls(spec.name, list(spec.shape), spec.dtype, base64.b64encode(state_bytes).decode())


@dataclasses.dataclass(frozen=True)
class TokenizerMeta:
    """The tokenizer of a model, and its state, from which it is built again."""

    name: str
    state: dict[str, Any]
    unknown: int | None = None
    """The token of all unknown characters, or None."""


@dataclasses.dataclass(frozen=True)
class ParamMeta:
    """One parameter of a link: enough for its command-line option. ``low`` and ``high`` are None without a limit."""

    default: float
    neutral: float
    help: str = ""
    dtype: Literal["float32", "int64"] = "float32"
    low: float | None = None
    high: float | None = None
    per_symbol: bool = False
    decisive: float | None = None
    is_option: bool = True


@dataclasses.dataclass(frozen=True)
class LinkMeta:
    """One link of the default chain."""

    name: str
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    place: Place = "mask"
    switch: str | None = None
    ends: str | None = None
    uniforms: int = 0
    per_run: list[str] = dataclasses.field(default_factory=list)
    params: dict[str, ParamMeta] = dataclasses.field(default_factory=dict)
    state: dict[str, State] = dataclasses.field(default_factory=dict)
    tables: dict[str, Table] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Bundle:
    """The metadata of an exported model: its symbols, states, default chain and origin.

    Raises FileFormatError when its fields contradict each other.
    """

    kind: FileKind
    tokenizer: TokenizerMeta
    token_bytes: list[bytes]
    """The bytes of each token, in the order of the ids."""
    states: list[StateMeta]
    start: int
    """The token that every row reads first; it is no part of the text."""
    chain: list[LinkMeta]
    """The links of the default chain, in order; in a generator, those that are compiled into it."""
    card: dict[str, Any]
    """The origin of the model: corpus, sizes, losses, config, versions."""
    records: RecordsMeta | None = None
    """What a model of records was trained on; None for a model of one text."""

    def __post_init__(self) -> None:
        symbol_count = len(self.token_bytes)
        _require(symbol_count > 0, "no symbols")
        _require(0 <= self.start < symbol_count, f"start symbol {self.start} outside the {symbol_count} symbols")
        unknown = self.tokenizer.unknown
        _require(
            unknown is None or 0 <= unknown < symbol_count,
            f"unknown symbol {unknown} outside the {symbol_count} symbols",
        )
        self._check_records()
        # Otherwise a text of some number of characters would never be complete.
        _require(
            any(symbol for token, symbol in enumerate(self.token_bytes) if token != unknown),
            "no symbol has any bytes, so it writes no text",
        )
        _check_unique("link", [link.name for link in self.chain])
        _require(sum(link.place == "last" for link in self.chain) <= 1, "two of its links must stand last")
        _require(all(link.place != "first" for link in self.chain[1:]), "a link that must stand first does not")
        self._check_elements()
        check_states(self.states)
        for link in self.chain:
            _check_params(link)

    def _check_records(self) -> None:
        """Check the boundary symbol, on which it depends that a text ends."""
        if self.records is None:
            return
        problem = self.records.find_problem(self.vocab_size)
        _require(problem is None, str(problem))
        _require(self.token_bytes[-1] == b"", "the boundary symbol has bytes, so a text could contain it")
        _require(self.start == self.boundary, f"the start symbol is {self.start}, not the boundary {self.boundary}")
        _require(self.tokenizer.unknown != self.boundary, "the boundary symbol stands for unknown characters too")

    @property
    def boundary(self) -> int | None:
        """The token that ends a record, and begins each; None in a model of one text."""
        return None if self.records is None else self.records.boundary

    @property
    def never_empty(self) -> bool:
        """Whether the boundary symbol, read before a record, is never the next one that is drawn."""
        return self.records is not None and self.records.never_empty

    @functools.cached_property
    def characters_by_token(self) -> list[str] | None:
        """The characters of each token; None where a symbol has none, or parts of some.

        Of the boundary symbol, behind which no text goes on, they are empty.
        """
        try:
            has_all = all(self.token_bytes[: self.boundary])
            return [symbol.decode() for symbol in self.token_bytes] if has_all else None
        except UnicodeDecodeError:
            return None

    @property
    def has_one_character_symbols(self) -> bool:
        """Whether every symbol is exactly one character; the boundary symbol, which has none, does not count."""
        characters = self.characters_by_token
        return characters is not None and all(len(each) == 1 for each in characters[: self.boundary])

    def join_symbols(self, tokens: Iterable[int]) -> bytes:
        """Return the bytes of some tokens, one after another."""
        return b"".join([self.token_bytes[int(token)] for token in tokens])

    @property
    def row_elements(self) -> int:
        """The elements that are allocated for each row that is written: logits, states and noise of a position."""
        count = self.vocab_size + sum(_count_elements(f"state {state.name!r}", state.shape) for state in self.states)
        for link in self.chain:
            _require(link.uniforms >= 0, f"{link.name} draws {link.uniforms} numbers")
            count += link.uniforms
            for name, state in link.state.items():
                count += _count_elements(f"state {link.name}.{name}", state.shape)
        return count

    def _check_elements(self) -> None:
        """Check all sizes, one by one and together, before any memory is allocated for them."""
        count = self.row_elements
        for link in self.chain:
            count += sum(self.vocab_size if param.per_symbol else 1 for param in link.params.values())
            for name, table in link.tables.items():
                count += _count_elements(f"table {link.name}.{name}", table.dims)
        _require(
            count <= MAX_ELEMENTS,
            f"its states, tables, parameters and noise have {count:,} elements together and are too large; "
            f"at most {MAX_ELEMENTS:,} are allowed",
        )

    @property
    def vocab_size(self) -> int:
        return len(self.token_bytes)

    def to_metadata(self) -> dict[str, str]:
        """Return the bundle as metadata_props: prefixed names to JSON, and the format and kind as plain words."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["token_bytes"] = [symbol.hex() for symbol in self.token_bytes]
        properties = {"format": str(FORMAT_VERSION), "kind": fields.pop("kind")}
        properties |= {name: msgspec.json.encode(field).decode() for name, field in fields.items()}
        return {METADATA_PREFIX + name: text for name, text in properties.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: Path) -> Bundle:
        """Read the metadata_props of a file, or raise FileFormatError naming its path."""
        check_format(metadata, path)
        properties = {
            key.removeprefix(METADATA_PREFIX): text for key, text in metadata.items() if key.startswith(METADATA_PREFIX)
        }
        for name in _JSON_FIELDS:
            size = len(properties.get(name, ""))
            if size > MAX_ENTRY_BYTES:
                raise FileFormatError(
                    f"{path}: damaged metadata ({name} has {size:,} bytes, at most {MAX_ENTRY_BYTES:,} are allowed); "
                    f"export it again"
                )
        try:
            with CONVERSION_LOCK:
                fields: dict[str, Any] = {"kind": msgspec.convert(properties["kind"], FileKind)}
                for name, field_type in _JSON_FIELDS.items():
                    fields[name] = msgspec.json.decode(properties[name], type=field_type)
            check_data([fields["card"], fields["tokenizer"].state, *(link.config for link in fields["chain"])])
            fields["token_bytes"] = [bytes.fromhex(symbol) for symbol in fields["token_bytes"]]
            return cls(**fields)
        except KeyError as error:
            raise FileFormatError(f"{path}: damaged, its metadata lacks {error}; export it again") from None
        except (ValueError, RecursionError, msgspec.MsgspecError, FileFormatError) as error:
            raise FileFormatError(f"{path}: damaged metadata ({error}); export it again") from None


#: Fields that are stored as JSON, with the types that they are decoded to.
_JSON_FIELDS: dict[str, Any] = {
    "tokenizer": TokenizerMeta,
    "token_bytes": list[str],
    "states": list[StateMeta],
    "start": int,
    "chain": list[LinkMeta],
    "card": dict[str, Any],
    "records": RecordsMeta | None,
}


def check_format(metadata: Mapping[str, str], path: Path) -> None:
    """Raise FileFormatError for the metadata_props of a file that gentext did not make, or made in another format."""
    version = metadata.get(f"{METADATA_PREFIX}format")
    if version is None:
        raise FileFormatError(f"{path}: not made by gentext (no gentext metadata); expected a file from gen export")
    if version != str(FORMAT_VERSION):
        raise FileFormatError(
            f"{path}: file format {version[:20]}, this gentext reads {FORMAT_VERSION}; export it again: gen export RUN"
        )


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise FileFormatError(problem)


def _check_unique(kind: str, names: Sequence[str]) -> None:
    _require(len(set(names)) == len(names), f"one {kind} stands in it twice: {', '.join(names)}")


def _count_elements(name: str, shape: Sequence[int | None]) -> int:
    """Return the elements of a state of one row or of a table, whose open sizes are None; check each size and all."""
    fixed_sizes = [size for size in shape if size is not None]
    _require(len(shape) <= MAX_DIMENSIONS, f"{name} has {len(shape)} dimensions")
    _require(all(size > 0 for size in fixed_sizes), f"{name} has the shape {shape}")
    count = math.prod(fixed_sizes)
    _require(count <= MAX_ELEMENTS, f"{name} is too large: {shape}")
    return count


def check_states(states: Sequence[StateMeta]) -> None:
    """Raise FileFormatError for states that no file can hold: wrong names, shapes, types or initial values."""
    _check_unique("state", [state.name for state in states])
    for state in states:
        _check_state(state)


def _check_state(state: StateMeta) -> None:
    is_allowed = state.name.isidentifier() and state.name not in RESERVED_NAMES and not state.name.endswith("_out")
    _require(is_allowed, f"a state may not be called {state.name!r}: the files use that name themselves")
    _require(state.shape.count(None) == 1, f"state {state.name!r} must have one batch axis")
    _count_elements(f"state {state.name!r}", state.shape)
    _require(state.dtype in STATE_DTYPES, f"state type {state.dtype!r}")
    try:
        state.initial_row()
    except (ValueError, TypeError):
        _require(False, f"the initial value of state {state.name!r} does not fit its shape")


def _check_params(link: LinkMeta) -> None:
    _require(link.switch is None or link.switch in link.params, f"{link.name} has no parameter {link.switch!r}")
    for name, param in link.params.items():
        low = -math.inf if param.low is None else param.low
        high = math.inf if param.high is None else param.high
        is_in_range = low <= param.default <= high and abs(param.default) <= MAX_NUMBER[param.dtype]
        _require(is_in_range, f"{link.name}.{name} = {param.default:g} is out of its range")


def readable_symbol(symbol: bytes) -> str:
    """Return the bytes of a symbol as text; bytes that are no character alone come as ``\\xe2``."""
    return symbol.decode("utf-8", "backslashreplace")


def choose_start(token_bytes: Sequence[bytes], counts: NDArray[np.int64], unknown: int | None) -> int:
    """Return the start token: the newline, else the token that is most frequent in the text.

    ``counts`` [V] is how often each token occurs in the text.
    """
    if b"\n" in token_bytes:
        return token_bytes.index(b"\n")
    counts = counts.copy()
    if unknown is not None:
        counts[unknown] = -1
    return int(counts.argmax())
