"""A compiled generator on a GPU: many positions in one launch, with inputs and outputs in fixed buffers.

onnxruntime captures the graph of ``generator-unrolled.onnx`` once for each size of batch, and replays it from
then on: one launch, where the loop of ``generator.onnx`` needs one for each node at each position. A captured
graph reads and writes fixed addresses, so its inputs and outputs are buffers that live as long as it does.
"""

from __future__ import annotations

import itertools
import math
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gentext.console import say
from gentext.errors import reason
from gentext.exported.signature import TOP_COUNT, Port
from gentext.plugins.samplers.runtime import allocate_tensor, capture_options, run_stoppable
from gentext.plugins.samplers.session import GeneratorSession, open_unrolled

#: Rows that graphs are captured for. A batch takes the smallest of these that holds it, or a multiple of the last.
BUCKET_SIZES = (1, 8, 64, 256, 1024, 4096)
#: Captured batches that are kept, each for a bucket and shapes of the optional inputs.
MAX_CAPTURED_BATCHES = 16
#: States that the host reads and writes between calls. All others stay on the device.
HOST_STATES = ("stop_state", "ended")

Feeds = Mapping[str, Any]


def bucket_size(rows: int) -> int:
    """Return the number of rows that a batch is padded to."""
    for size in BUCKET_SIZES:
        if rows <= size:
            return size
    largest = BUCKET_SIZES[-1]
    return math.ceil(rows / largest) * largest


def open_captured(loop: GeneratorSession, device: str = "cuda") -> UnrolledGenerator | GeneratorSession:
    """Return the fastest way to run a generator on a GPU. Where that is its own loop, stderr gets the reason."""
    try:
        return UnrolledGenerator(loop, open_unrolled(loop, device), device)
    except Exception as error:  # onnxruntime has a class for each status, with no common base
        _report_fallback(error)
        return loop


class UnrolledGenerator:
    """Runs the unrolled graph for calls of as many positions as it has, and the loop for shorter ones, as a prime ends.

    The loop alone finds the most probable symbols, so it runs each call that asks for them. Both run the batch padded
    to the same size, so that a row meets the same arithmetic however its text is cut into calls. When the
    unrolled graph fails, the loop continues from the same states. Several threads may call it at a time: they take
    turns, since they share the buffers.
    """

    def __init__(self, loop: GeneratorSession, unrolled: GeneratorSession, device: str) -> None:
        """``device`` is that of the sessions: cuda; or cpu, where nothing is captured and all else is the same."""
        self.signature, self.device = loop.signature, device
        self._loop = loop
        self._unrolled: GeneratorSession | None = unrolled
        self._graph_ids = itertools.count(1)
        self._batches: dict[Any, _CapturedBatch] = {}
        # Reentrant, because a call may read the buffered outputs of an earlier one.
        self._lock = threading.RLock()

    @property
    def positions(self) -> int | None:
        """The positions of the unrolled graph; None when only the loop is left."""
        return None if self._unrolled is None else self._unrolled.positions

    def call(self, feeds: Feeds) -> Feeds:
        """Run the K positions of ``forced`` [K, N], and return the outputs by name.

        States and logits are `BufferedOutput`, which `numpy.asarray` reads.
        """
        with self._lock:
            if self._unrolled is not None:
                try:
                    if len(feeds["forced"]) == self._unrolled.positions and TOP_COUNT not in feeds:
                        return self._captured_batch(self._unrolled, feeds).run(feeds)
                    return self._run_loop(feeds)
                except Exception as error:  # onnxruntime's own, as in open_captured
                    self._batches.clear()
                    self._unrolled = None
                    _report_fallback(error)
        return self._loop.call({name: np.asarray(tensor) for name, tensor in feeds.items()})

    def _run_loop(self, feeds: Feeds) -> Feeds:
        """Run any number of positions in a batch of the same size."""
        rows = len(feeds["token"])
        ports = [port for port in self.signature.inputs if port.name in feeds]
        results = self._loop.call({port.name: pad_rows(port, feeds[port.name], rows) for port in ports})
        ports = [port for port in self.signature.outputs if port.name in results]
        return {port.name: trim_rows(port, results[port.name], rows) for port in ports}

    def _captured_batch(self, unrolled: GeneratorSession, feeds: Feeds) -> _CapturedBatch:
        """Return the buffers for a batch of this size, made when one first comes."""
        padded_rows = bucket_size(len(feeds["token"]))
        optional_ports = [port for port in self.signature.inputs if port.default is not None and port.name in feeds]
        shapes = {port.name: pad_rows(port, feeds[port.name], padded_rows).shape for port in optional_ports}
        batch_key = (padded_rows, *sorted(shapes.items()))
        if batch_key not in self._batches:
            if len(self._batches) == MAX_CAPTURED_BATCHES:
                self._batches.clear()
            self._batches[batch_key] = _CapturedBatch(
                unrolled, padded_rows, shapes, self.device, self._graph_ids, self._lock
            )
        return self._batches[batch_key]


def _report_fallback(error: Exception) -> None:
    say(f"no captured graph, so the GPU runs the generator's loop, which is slower: {reason(error)}")


class BufferedOutput:
    """An output that stays in its buffer until it is read, or until another run needs the buffer."""

    def __init__(self, read: Callable[[], NDArray[Any]], buffers: _StateBuffers, lock: threading.RLock) -> None:
        self.buffers: _StateBuffers | None = buffers
        """The buffers that hold the output; None once it was copied out of them."""
        self._read = read
        self._lock = lock
        buffers.outputs.add(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        with self._lock:
            array = self._read()
        return array if dtype is None else array.astype(dtype)

    def copy_out(self) -> None:
        """Copy the output to the host, so that the buffer can be overwritten."""
        array = self._read()
        self.buffers, self._read = None, lambda: array


class _StateBuffers:
    """Buffers on the device for the states that stay there, and for the logits."""

    def __init__(self, tensors: dict[str, Any]) -> None:
        self.tensors = tensors
        """Name of an output -> OrtValue."""
        self.outputs: weakref.WeakSet[BufferedOutput] = weakref.WeakSet()
        """The outputs that are still in these buffers."""

    def release(self) -> None:
        """Copy all outputs out of the buffers, so that they can be overwritten."""
        for buffered_output in list(self.outputs):
            buffered_output.copy_out()
        self.outputs.clear()


class _InputBuffer:
    """A buffer that the host writes before a run."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor
        self._last_array: NDArray[Any] | None = None

    def write(self, array: NDArray[Any]) -> None:
        """Copy an array to the device, unless the buffer has the same contents already."""
        if self._last_array is None or not np.array_equal(self._last_array, array):
            self.tensor.update_inplace(array)
            self._last_array = array


class _CapturedBatch:
    """The captured graphs for one size of batch, and their buffers.

    There are two sets of buffers for the states: a run reads one and writes the other, the next run reads that
    one. To capture a graph, onnxruntime runs it several times; if it read and wrote the same set, each of these
    runs would start from the states that the one before has left.
    """

    def __init__(
        self,
        unrolled: GeneratorSession,
        rows: int,
        optional_shapes: Mapping[str, tuple[int, ...]],
        device: str,
        graph_ids: itertools.count[int],
        lock: threading.RLock,
    ) -> None:
        """``optional_shapes`` has the shapes of the optional inputs that are fed; all others keep their default."""
        sizes: dict[Any, Any] = {"K": unrolled.positions, "N": rows}

        def allocate(port: Port) -> Any:
            shape = optional_shapes.get(port.name) or [sizes.get(size, size) for size in port.shape]
            return allocate_tensor(shape, np.dtype(port.dtype), device)

        signature = unrolled.signature
        self._session = unrolled.session
        self._lock = lock
        self._ports = {port.name: port for port in (*signature.inputs, *signature.outputs)}
        self._states = [port.name for port in signature.states if port.name not in HOST_STATES]
        fed_ports = [port for port in signature.inputs if port.default is None or port.name in optional_shapes]
        device_outputs = {f"{name}_out" for name in self._states} | {"logits"}
        self._inputs = {port.name: _InputBuffer(allocate(port)) for port in fed_ports if port.name not in self._states}
        self._outputs = {port.name: allocate(port) for port in signature.outputs if port.name not in device_outputs}
        self._buffers = [
            _StateBuffers({name: allocate(self._ports[name]) for name in device_outputs}) for _ in range(2)
        ]
        self._bindings = [self._bind_buffers(*self._buffers), self._bind_buffers(*reversed(self._buffers))]
        self._run_options = [capture_options(next(graph_ids)) for _ in self._bindings]

    def run(self, feeds: Feeds) -> dict[str, Any]:
        """Run the graph once."""
        rows = len(feeds["token"])
        source_index = self._load_states(feeds, rows)
        target_buffers = self._buffers[1 - source_index]
        target_buffers.release()
        for name, buffer in self._inputs.items():
            buffer.write(pad_rows(self._ports[name], feeds[name], rows))
        binding, options = self._bindings[source_index], self._run_options[source_index]
        options.terminate = False  # Ctrl-C may have stopped an earlier run
        run_stoppable(lambda: self._session.run_with_iobinding(binding, options), options)
        host_results = {
            name: trim_rows(self._ports[name], tensor.numpy(), rows) for name, tensor in self._outputs.items()
        }
        return host_results | {
            name: self._buffered_output(target_buffers, name, rows) for name in target_buffers.tensors
        }

    def _load_states(self, feeds: Feeds, rows: int) -> int:
        """Return the index of the buffers that hold the fed states; copy them into the first where none does."""
        states = {name: feeds[name] for name in self._states}
        holding_buffers = {state.buffers if isinstance(state, BufferedOutput) else None for state in states.values()}
        for buffers_index, buffers in enumerate(self._buffers):
            if holding_buffers == {buffers}:
                return buffers_index
        arrays = {name: pad_rows(self._ports[name], state, rows) for name, state in states.items()}
        self._buffers[0].release()
        for name, array in arrays.items():
            self._buffers[0].tensors[f"{name}_out"].update_inplace(array)
        return 0

    def _buffered_output(self, buffers: _StateBuffers, name: str, rows: int) -> BufferedOutput:
        port, tensor = self._ports[name], buffers.tensors[name]
        return BufferedOutput(lambda: trim_rows(port, tensor.numpy(), rows), buffers, self._lock)

    def _bind_buffers(self, source_buffers: _StateBuffers, target_buffers: _StateBuffers) -> Any:
        """Return the binding of a run that reads the states from one set of buffers and writes them to the other."""
        binding = self._session.io_binding()
        for name, buffer in self._inputs.items():
            binding.bind_ortvalue_input(name, buffer.tensor)
        for name in self._states:
            binding.bind_ortvalue_input(name, source_buffers.tensors[f"{name}_out"])
        for name, tensor in (self._outputs | target_buffers.tensors).items():
            binding.bind_ortvalue_output(name, tensor)
        return binding


# -- rows that fill a bucket ---------------------------------------------------------------------


def pad_rows(port: Port, tensor: Any, rows: int) -> NDArray[Any]:
    """Return a copy of an input of ``rows`` rows, padded to the size of its bucket with copies of the last row.

    The padding is fresh at each call. The tables of a stop automaton are padded to a power of two with states
    that nothing leads to, so that stop strings of about one length share their buffers.
    """
    array = np.asarray(tensor)
    axis = _padded_axis(port)
    if axis is None:
        return array.copy()
    padded_size = 1 << (len(array) - 1).bit_length() if port.shape[axis] == "S" else bucket_size(rows)
    padding = np.repeat(array.take([-1], axis), padded_size - array.shape[axis], axis)
    if port.name == "fresh":
        padding = np.ones_like(padding)
    return np.concatenate([array, padding], axis)


def trim_rows(port: Port, array: NDArray[Any], rows: int) -> NDArray[Any]:
    """Return a copy of an output without the padding."""
    axis = _padded_axis(port)
    return array.take(range(rows), axis) if axis is not None else array.copy()


def _padded_axis(port: Port) -> int | None:
    """Return the axis that is padded: the rows, or the states of a stop automaton."""
    return port.row_axis if "S" not in port.shape else port.shape.index("S")
