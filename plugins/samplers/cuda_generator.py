"""A compiled generator on a GPU: many positions in one launch, between buffers that stay where they are.

The graph of ``generator-unrolled.onnx`` is captured once for each size of batch and replayed from then
on: one launch, where the loop of ``generator.onnx`` takes one for each node of each position.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gentext.compiled import next_feeds
from gentext.console import say
from gentext.errors import reason
from gentext.plugins.samplers.session import GeneratorSession, buffer, capture_as, open_unrolled
from gentext.signature import Port

#: Rows that a graph is captured for: a batch takes the next larger one, a larger batch multiples of the last.
BUCKETS = (1, 8, 64, 256, 1024, 4096)
#: Sets of buffers that are kept, each for one bucket and one shape of the links' tables.
MOST_SLOTS = 16
#: States that the host reads and writes between calls. All others stay on the device.
HOST = ("stop_state", "ended")

Feeds = Mapping[str, Any]


def bucket(rows: int) -> int:
    """Return for how many rows a batch is run."""
    return next((size for size in BUCKETS if size >= rows), -(-rows // BUCKETS[-1]) * BUCKETS[-1])


def open_captured(plain: GeneratorSession, device: str = "cuda") -> UnrolledGenerator | GeneratorSession:
    """Return what runs a generator on a GPU fastest: with a reason on stderr where that is its own loop."""
    try:
        return UnrolledGenerator(plain, open_unrolled(plain, device), device)
    except Exception as error:  # onnxruntime has a class for each status, with no common base
        _say_why(error)
        return plain


class UnrolledGenerator:
    """Runs the unrolled graph as often as it fits into a call, and the loop for the positions that are left.

    Both run the same rows, so a row meets the same arithmetic however its text is cut into calls. When
    anything fails, the loop goes on from the same states.
    """

    def __init__(self, plain: GeneratorSession, unrolled: GeneratorSession, device: str) -> None:
        """``device`` is that of the sessions: cuda, or cpu, where all is the same but nothing is captured."""
        self.signature, self.device = plain.signature, device
        self._plain = plain
        self._unrolled: GeneratorSession | None = unrolled
        self._numbers = itertools.count(1)
        self._slots: dict[Any, _Slot] = {}

    @property
    def positions(self) -> int | None:
        return None if self._unrolled is None else self._unrolled.positions

    def call(self, feeds: Feeds) -> Feeds:
        """Run the positions that ``forced`` has; outputs by name. States and logits come as `Held`."""
        if self._unrolled is not None:
            try:
                return self._call(self._unrolled, feeds)
            except Exception as error:  # as in open_captured
                self._slots.clear()
                self._unrolled = None
                _say_why(error)
        return self._plain.call({name: np.asarray(value) for name, value in feeds.items()})

    def _call(self, unrolled: GeneratorSession, feeds: Feeds) -> Feeds:
        size = unrolled.positions
        assert size is not None
        results: Feeds = {}
        said: dict[str, list[NDArray[Any]]] = {"tokens": [], "logprobs": []}
        for begin in range(0, len(feeds["forced"]), size):
            part = {**feeds, **(next_feeds(self.signature, results) if results else {})}
            part |= {name: feeds[name][begin : begin + size] for name in ("forced", "noise")}
            results = self._slot(unrolled, part).run(part) if len(part["forced"]) == size else self._rest(part)
            for name, arrays in said.items():
                arrays.append(results[name])
        return {**results, **{name: np.concatenate(arrays) for name, arrays in said.items()}}

    def _rest(self, feeds: Feeds) -> Feeds:
        """Run fewer positions than the unrolled graph has."""
        rows = len(feeds["token"])
        ports = [one for one in self.signature.inputs if one.name in feeds]
        results = self._plain.call({one.name: filled(one, feeds[one.name], rows) for one in ports})
        return {one.name: cut(one, results[one.name], rows) for one in self.signature.outputs}

    def _slot(self, unrolled: GeneratorSession, feeds: Feeds) -> _Slot:
        rows = bucket(len(feeds["token"]))
        spare = [one for one in self.signature.inputs if one.default is not None and one.name in feeds]
        shapes = {one.name: filled(one, feeds[one.name], rows).shape for one in spare}
        key = (rows, *sorted(shapes.items()))
        if key not in self._slots:
            if len(self._slots) == MOST_SLOTS:
                self._slots.clear()
            self._slots[key] = _Slot(unrolled, rows, shapes, self.device, self._numbers)
        return self._slots[key]


def _say_why(error: Exception) -> None:
    say(f"no captured graph, so the GPU runs the generator's loop, which is slower: {reason(error)}")


# -- buffers -----------------------------------------------------------------------------------


class Held:
    """An output that stays in its buffer until somebody reads it, or something else needs the buffer."""

    def __init__(self, read: Callable[[], NDArray[Any]], home: _Set) -> None:
        self.home: _Set | None = home
        self._read = read
        home.holders.add(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        array = self._read()
        return array if dtype is None else array.astype(dtype)

    def move_out(self) -> None:
        """Take a copy, since the buffer is needed."""
        array = self._read()
        self.home, self._read = None, lambda: array


class _Set:
    """Buffers of the states that stay on the device, and of the logits."""

    def __init__(self, buffers: dict[str, Any]) -> None:
        self.buffers = buffers
        self.holders: weakref.WeakSet[Held] = weakref.WeakSet()

    def empty(self) -> None:
        for one in list(self.holders):
            one.move_out()
        self.holders.clear()


class _Input:
    """A buffer that the host writes."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self._written: NDArray[Any] | None = None

    def write(self, array: NDArray[Any]) -> None:
        """Copy an array to the device, unless the same is there already."""
        if self._written is None or not np.array_equal(self._written, array):
            self.values.update_inplace(array)
            self._written = array


class _Slot:
    """All buffers for one size of batch. The states go from one set of them to the other, and back.

    To capture a graph, onnxruntime runs it several times: with one set for both ends, each run would
    start from what the run before it left.
    """

    def __init__(
        self,
        unrolled: GeneratorSession,
        rows: int,
        spare: Mapping[str, tuple[int, ...]],
        device: str,
        numbers: itertools.count[int],
    ) -> None:
        """``spare`` are the shapes of the inputs that may be left out and are not; ``numbers`` name captures."""

        def make(port: Port) -> Any:
            shape = spare.get(port.name) or [sizes.get(size, size) for size in port.shape]
            return buffer(shape, np.dtype(port.dtype), device)

        sizes: dict[Any, Any] = {"K": unrolled.positions, "N": rows}
        signature = unrolled.signature
        self._session = unrolled.session
        self._ports = {one.name: one for one in (*signature.inputs, *signature.outputs)}
        self._states = [one.name for one in signature.states if one.name not in HOST]
        fed = [one for one in signature.inputs if one.default is None or one.name in spare]
        held = {f"{name}_out" for name in self._states} | {"logits"}
        self._inputs = {one.name: _Input(make(one)) for one in fed if one.name not in self._states}
        self._outputs = {one.name: make(one) for one in signature.outputs if one.name not in held}
        self._sets = [_Set({name: make(self._ports[name]) for name in held}) for _ in range(2)]
        self._bindings = [self._bind(*self._sets), self._bind(*reversed(self._sets))]
        self._options = [capture_as(next(numbers)) for _ in self._bindings]

    def run(self, feeds: Feeds) -> dict[str, Any]:
        """Run the graph once."""
        rows = len(feeds["token"])
        source = self._source(feeds, rows)
        target = self._sets[1 - source]
        target.empty()
        for name, one in self._inputs.items():
            one.write(filled(self._ports[name], feeds[name], rows))
        self._session.run_with_iobinding(self._bindings[source], self._options[source])
        results = {name: cut(self._ports[name], one.numpy(), rows) for name, one in self._outputs.items()}
        return results | {name: self._hold(target, name, rows) for name in target.buffers}

    def _source(self, feeds: Feeds, rows: int) -> int:
        """Return which set holds the states that are fed; put them into one where none does."""
        homes = {getattr(feeds[name], "home", None) for name in self._states}
        for turn, one in enumerate(self._sets):
            if homes == {one}:
                return turn
        arrays = {name: filled(self._ports[name], feeds[name], rows) for name in self._states}
        self._sets[0].empty()
        for name, array in arrays.items():
            self._sets[0].buffers[f"{name}_out"].update_inplace(array)
        return 0

    def _hold(self, target: _Set, name: str, rows: int) -> Held:
        port, values = self._ports[name], target.buffers[name]
        return Held(lambda: cut(port, values.numpy(), rows), target)

    def _bind(self, source: _Set, target: _Set) -> Any:
        binding = self._session.io_binding()
        for name, one in self._inputs.items():
            binding.bind_ortvalue_input(name, one.values)
        for name in self._states:
            binding.bind_ortvalue_input(name, source.buffers[f"{name}_out"])
        for name, values in (self._outputs | target.buffers).items():
            binding.bind_ortvalue_output(name, values)
        return binding


# -- rows that fill a bucket ---------------------------------------------------------------------


def filled(port: Port, value: Any, rows: int) -> NDArray[Any]:
    """Return a copy of an input with as many rows as its bucket has: the last row stands for the new ones.

    Rows that only fill the bucket are fresh at each call. A stop automaton is filled with states that
    nothing leads to, up to a power of two, so that stop texts of about one length share their buffers.
    """
    array = np.asarray(value)
    axis = _open_axis(port)
    if axis is None:
        return array.copy()
    wanted = 1 << (len(array) - 1).bit_length() if port.shape[axis] == "S" else bucket(rows)
    more = np.repeat(array.take([-1], axis), wanted - array.shape[axis], axis)
    return np.concatenate([array, np.ones_like(more) if port.name == "fresh" else more], axis)


def cut(port: Port, array: NDArray[Any], rows: int) -> NDArray[Any]:
    """Return a copy of an output without the rows that only fill its bucket."""
    axis = _open_axis(port)
    return array.take(range(rows), axis) if axis is not None else array.copy()


def _open_axis(port: Port) -> int | None:
    """Return the axis that is filled."""
    return port.row_axis if "S" not in port.shape else port.shape.index("S")
