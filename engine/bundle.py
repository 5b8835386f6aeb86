"""What an exported file says about itself, in ``metadata_props``: docs/formats.md is its reference.

Written by the export, read by every sampler. A file may come from a stranger, so each value is
checked against the others before anything is allocated from it.
"""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from gentext.errors import FileFormatError
from gentext.interfaces import StateSpec
from gentext.strategy import LARGEST, State, Table

FORMAT = 1
#: ``unrolled`` is a generator for a fixed number of positions, beside one for any number.
Kind = Literal["model", "generator", "unrolled"]
PREFIX = "gentext."
#: Names of a file's own inputs and outputs, which no model state may take.
RESERVED = {"tokens", "token", "logits", "logprobs", "fresh", "ended", "forced", "noise"} | {
    f"stop_{name}" for name in ("state", "table", "final")
}
#: A row's state may not be larger than this: 64 MiB of float32. The notebook's is 8 KiB.
MAX_STATE = 2**24


@dataclasses.dataclass(frozen=True)
class StateMeta:
    """One state tensor: a StateSpec and the initial value of a row."""

    name: str
    shape: list[int | None]
    dtype: str
    initial: str | float = 0.0
    """One number for every element, or base64 of little-endian values in C order, without batch."""

    @property
    def spec(self) -> StateSpec:
        return StateSpec(self.name, tuple(self.shape), self.dtype)

    def row(self) -> NDArray[Any]:
        """Return the initial value of a row, without the batch axis."""
        shape = tuple(size for size in self.shape if size is not None)
        if isinstance(self.initial, str):
            data = np.frombuffer(base64.b64decode(self.initial, validate=True), np.dtype(self.dtype).newbyteorder("<"))
            return data.astype(self.dtype).reshape(shape)
        return np.full(shape, self.initial, self.dtype)

    def rows(self, count: int) -> NDArray[Any]:
        """Return the initial state of ``count`` rows, batch axis in place."""
        axis = self.spec.batch_axis
        return np.ascontiguousarray(np.repeat(np.expand_dims(self.row(), axis), count, axis=axis))

    @classmethod
    def of(cls, spec: StateSpec, row: NDArray[Any]) -> StateMeta:
        """Describe a state tensor whose rows begin as ``row``."""
        flat = np.asarray(row).ravel()
        if flat.size and (flat == flat[0]).all() and np.isfinite(flat[0]):  # JSON has no infinity
            number = float(flat[0])
            if number == flat[0].item():  # a large integer is not always a float
                return cls(spec.name, list(spec.shape), spec.dtype, number)
        data = flat.astype(np.dtype(spec.dtype).newbyteorder("<")).tobytes()
        return cls(spec.name, list(spec.shape), spec.dtype, base64.b64encode(data).decode())


@dataclasses.dataclass(frozen=True)
class TokenizerMeta:
    """Which tokenizer made the ids, and what it needs to encode again."""

    name: str
    state: dict[str, Any]
    unknown: int | None = None


@dataclasses.dataclass(frozen=True)
class ParamMeta:
    """One parameter of a link, as command lines need it."""

    default: float
    neutral: float
    help: str = ""
    dtype: Literal["float32", "int64"] = "float32"
    low: float | None = None
    high: float | None = None
    per_symbol: bool = False
    decisive: float | None = None


@dataclasses.dataclass(frozen=True)
class LinkMeta:
    """One link of the default chain."""

    name: str
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    place: Literal["penalty", "mask", "shape"] = "mask"
    uniforms: int = 0
    per_run: list[str] = dataclasses.field(default_factory=list)
    params: dict[str, ParamMeta] = dataclasses.field(default_factory=dict)
    state: dict[str, State] = dataclasses.field(default_factory=dict)
    tables: dict[str, Table] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Bundle:
    """Everything that a file knows about itself."""

    kind: Kind
    tokenizer: TokenizerMeta
    token_bytes: list[bytes]
    """The bytes of each id, in order."""
    states: list[StateMeta]
    start: int
    """The symbol that every row consumes first; it is not printed."""
    chain: list[LinkMeta]
    card: dict[str, Any]
    """Where it comes from: corpus, sizes, losses, config, versions."""

    def __post_init__(self) -> None:
        size = len(self.token_bytes)
        _require(size > 0, "no symbols")
        _require(0 <= self.start < size, f"start symbol {self.start} outside the {size} symbols")
        unknown = self.tokenizer.unknown
        _require(unknown is None or 0 <= unknown < size, f"unknown symbol {unknown} outside the {size} symbols")
        for what, names in (("state", self.states), ("link", self.chain)):
            known = [one.name for one in names]
            _require(len(set(known)) == len(known), f"one {what} stands in it twice: {', '.join(known)}")
        for state in self.states:
            taken = state.name in RESERVED or state.name.endswith("_out") or not state.name.isidentifier()
            _require(not taken, f"a state may not be called {state.name!r}: the files use that name themselves")
            _require(state.shape.count(None) == 1, f"state {state.name!r} must have one batch axis")
            sizes = [one for one in state.shape if one is not None]
            _require(all(one > 0 for one in sizes), f"state {state.name!r} has the shape {state.shape}")
            _require(math.prod(sizes) <= MAX_STATE, f"state {state.name!r} is too large: {state.shape}")
            _require(state.dtype in ("float32", "float16", "int64", "bool"), f"state type {state.dtype!r}")
            try:
                state.row()
            except (ValueError, TypeError):
                _require(False, f"the initial value of state {state.name!r} does not fit its shape")

        for link in self.chain:
            for name, own in link.state.items():
                _require(all(one > 0 for one in own.shape), f"state {link.name}.{name} has the shape {own.shape}")
                _require(math.prod(own.shape) <= MAX_STATE, f"state {link.name}.{name} is too large: {own.shape}")
            for name, table in link.tables.items():
                fixed = [one for one in table.dims if one is not None]
                _require(all(one > 0 for one in fixed), f"table {link.name}.{name} has the shape {table.dims}")
                _require(math.prod(fixed) <= MAX_STATE, f"table {link.name}.{name} is too large: {table.dims}")
            for name, param in link.params.items():
                low = -math.inf if param.low is None else param.low
                high = math.inf if param.high is None else param.high
                fits = low <= param.default <= high and abs(param.default) <= LARGEST[param.dtype]
                _require(fits, f"{link.name}.{name} = {param.default:g} is out of its range")

    @property
    def vocab_size(self) -> int:
        return len(self.token_bytes)

    def to_metadata(self) -> dict[str, str]:
        """Return the entries to store as metadata_props."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain["token_bytes"] = [data.hex() for data in self.token_bytes]
        values = {"format": str(FORMAT), "kind": plain.pop("kind")}
        values |= {name: msgspec.json.encode(value).decode() for name, value in plain.items()}
        return {PREFIX + name: value for name, value in values.items()}

    @classmethod
    def from_metadata(cls, entries: Mapping[str, str], path: Path) -> Bundle:
        """Read the entries of a file, or raise FileFormatError naming it."""
        values = {key.removeprefix(PREFIX): value for key, value in entries.items() if key.startswith(PREFIX)}
        if "format" not in values:
            raise FileFormatError(f"{path}: not made by gentext (no gentext metadata); expected a file from gen export")
        if values["format"] != str(FORMAT):
            raise FileFormatError(
                f"{path}: format version {values['format'][:20]}, this gentext reads {FORMAT}; "
                f"export it again, or use the version of gentext that made it"
            )
        try:
            decoded: dict[str, Any] = {"kind": msgspec.convert(values["kind"], Kind)}
            for name, kind in _ENTRIES.items():
                decoded[name] = msgspec.json.decode(values[name], type=kind)
            decoded["token_bytes"] = [bytes.fromhex(data) for data in decoded["token_bytes"]]
            return cls(**decoded)
        except KeyError as error:
            raise FileFormatError(f"{path}: damaged, its metadata lacks {error}; export it again") from None
        except (ValueError, RecursionError, msgspec.MsgspecError, FileFormatError) as error:
            raise FileFormatError(f"{path}: damaged metadata ({error}); export it again") from None


_ENTRIES: dict[str, Any] = {
    "tokenizer": TokenizerMeta,
    "token_bytes": list[str],
    "states": list[StateMeta],
    "start": int,
    "chain": list[LinkMeta],
    "card": dict[str, Any],
}


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise FileFormatError(problem)


def start_symbol(token_bytes: Sequence[bytes], counts: NDArray[np.int64], unknown: int | None) -> int:
    """Return the start symbol: newline, else the symbol that is most frequent in the text."""
    if b"\n" in token_bytes:
        return token_bytes.index(b"\n")
    counts = counts.copy()
    if unknown is not None:
        counts[unknown] = -1
    return int(counts.argmax())
