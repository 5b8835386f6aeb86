"""Opens exported files, checks that a file's metadata and its graph agree, and runs the graph.

Several threads may run one opened file at a time: onnxruntime allows it, and a run changes no attribute here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gentext.errors import FileFormatError
from gentext.exported.metadata import Bundle
from gentext.exported.onnx_file import read_checked_metadata
from gentext.exported.signature import TOP_COUNT, TOP_OUTPUTS, Port, signature
from gentext.plugins.samplers.runtime import (
    CPU_PROVIDER,
    CUDA_OPTIONS,
    CUDA_PROVIDER,
    best_threads,
    create_session,
    first_line,
    is_out_of_memory,
    open_session,
    run_options,
    run_stoppable,
)

#: Positions of an unrolled generator, at most: each adds nodes to the graph.
MAX_UNROLLED_POSITIONS = 256
#: Name -> (onnxruntime's name of the element type, shape). None is an open size.
TensorTypes = dict[str, tuple[str, list[int | None]]]


def tensor_type(dtype: str) -> str:
    """Return onnxruntime's name for tensors of an element type, which is named as in NumPy."""
    return "tensor(float)" if dtype == "float32" else f"tensor({dtype})"


class _FileSession:
    """An onnxruntime session of a file, with the Bundle that the file carries.

    ``device`` names the device that runs it in one line. ``verify`` is whether the bytes of the file were compared with
    its check. Several threads may run it at a time.
    """

    def __init__(self, path: Path, session: Any, device: str, bundle: Bundle, verify: bool) -> None:
        self.path, self.session, self.device, self.bundle = path, session, device, bundle
        self.verify = verify
        self.on_cuda = session.get_providers()[0] == CUDA_PROVIDER
        self.threads: int = session.get_session_options().intra_op_num_threads

    def _run_graph(self, output_names: list[str], feeds: Mapping[str, Any], options: Any = None) -> list[Any]:
        """Run the graph, until Ctrl-C.

        :param options: run options by which the caller may stop the run; None for new ones.

        Raises FileFormatError where it fails, as with a default value of a wrong shape, or for want of memory.
        """
        options = options or run_options()
        try:
            results: list[Any] = run_stoppable(lambda: self.session.run(output_names, feeds, options), options)
        except Exception as error:  # onnxruntime has a class for each status, with no common base
            if is_out_of_memory(error):
                raise FileFormatError(
                    f"{self.path}: running it takes more memory than there is; ask for fewer or shorter texts at once"
                ) from error
            raise FileFormatError(
                f"{self.path}: onnxruntime cannot run it ({first_line(error)}); export it again"
            ) from error
        return results

    def check_ports(self, expected_inputs: TensorTypes, expected_outputs: TensorTypes) -> None:
        """Raise FileFormatError when the graph has other inputs or outputs than its metadata describes.

        Sizes in the metadata decide how much memory is allocated, so they are checked before that.
        """
        for ports, expected_types in (
            (self.session.get_inputs(), expected_inputs),
            (self.session.get_outputs(), expected_outputs),
        ):
            actual_types = {port.name: (port.type, list(port.shape)) for port in ports}
            types_agree = actual_types.keys() == expected_types.keys() and all(
                _type_agrees(actual_types[name], expected_types[name]) for name in expected_types
            )
            if not types_agree:
                raise FileFormatError(
                    f"{self.path}: its metadata and its graph disagree "
                    f"({_format_types(expected_types)} against {_format_types(actual_types)}); "
                    f"the file is damaged, export it again"
                )


class Session(_FileSession):
    """A ``model.onnx``: from tokens to logits."""

    def __init__(self, path: Path, session: Any, device: str, bundle: Bundle, verify: bool) -> None:
        super().__init__(path, session, device, bundle, verify)
        tokens: TensorTypes = {"tokens": (tensor_type("int64"), [None, None])}
        logits: TensorTypes = {"logits": (tensor_type("float32"), [None, None, bundle.vocab_size])}
        states: TensorTypes = {state.name: (tensor_type(state.dtype), list(state.shape)) for state in bundle.states}
        new_states = {f"{name}_out": state for name, state in states.items()}
        self.check_ports(tokens | states, logits | new_states)
        self._input_names, self._output_names = ["tokens", *states], ["logits", *new_states]

    def run(self, tokens: Any, state: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        """Return logits (float32 [N, T, V]) after each of the tokens (int64 [N, T]), and the new state.

        A state is a tuple with an array for each state of the bundle, in its order.
        """
        logits, *new_state = self._run_graph(
            self._output_names, dict(zip(self._input_names, [tokens, *state], strict=True))
        )
        return logits, tuple(new_state)


class GeneratorSession(_FileSession):
    """A ``generator.onnx``: the model with its chain and the draw, see `gentext.exported.signature`.

    ``positions`` is the fixed number of positions of a call of ``generator-unrolled.onnx``; it is None
    for ``generator.onnx``, whose calls may have any number.
    """

    def __init__(self, path: Path, session: Any, device: str, bundle: Bundle, verify: bool) -> None:
        super().__init__(path, session, device, bundle, verify)
        self.signature = signature(bundle)
        self.positions = _unrolled_positions(path, bundle) if bundle.kind == "unrolled" else None
        fixed_sizes = {} if self.positions is None else {"K": self.positions}
        required = [port for port in self.signature.inputs if port.default is None]
        optional = [port for port in self.signature.inputs if port.default is not None]
        self.check_ports(_tensor_types(required, fixed_sizes), _tensor_types(self.signature.outputs, fixed_sizes))
        self._check_optional(_tensor_types(optional, fixed_sizes))
        self._output_names = [port.name for port in self.signature.outputs if port.name not in TOP_OUTPUTS]

    def _check_optional(self, expected: TensorTypes) -> None:
        """Raise FileFormatError when the graph has other inputs with a default than its metadata describes.

        onnxruntime lists them as overridable initializers. Their shape is that of the default, which
        may differ from the shape that is fed, so only names and types are compared.
        """
        actual_types = {port.name: port.type for port in self.session.get_overridable_initializers()}
        if actual_types != {name: element_type for name, (element_type, _) in expected.items()}:
            raise FileFormatError(
                f"{self.path}: its metadata and its graph disagree about {_format_types(expected)}; "
                f"the file is damaged, export it again"
            )

    def call(self, feeds: Mapping[str, Any], options: Any = None) -> dict[str, Any]:
        """Run the graph for the K positions of ``forced`` [K, N], and return its outputs by name.

        Those of TOP_OUTPUTS are among them where ``feeds`` asks for them.

        :param options: run options by which the caller may stop the run; None for new ones.
        """
        names = [*self._output_names, *TOP_OUTPUTS] if TOP_COUNT in feeds else self._output_names
        return dict(zip(names, self._run_graph(names, feeds, options), strict=True))


def open_file(
    path: Path, device: str = "auto", threads: int = 0, verify: bool = True, many_rows: bool = False
) -> Session | GeneratorSession:
    """Open an exported file; ``threads`` 0: as many as a file of its size is fastest with.

    :param verify: whether the bytes of the file must fit its check.
    :param many_rows: whether a generator is for calls of many rows, which need memory in larger parts.

    Raises FileFormatError for anything but a model or a generator that gentext has exported, and
    DeviceError when ``device`` is cuda and there is none.
    """
    if path.is_dir():
        raise FileFormatError(f"{path} is a folder; expected an .onnx file")
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file; expected an .onnx file from gen export")
    metadata = read_checked_metadata(path, verify=verify)
    bundle = Bundle.from_metadata(metadata, path)
    if bundle.kind == "unrolled":
        raise FileFormatError(f"{path}: the part of a generator that a GPU captures; expected generator.onnx")
    many_rows = many_rows or bundle.kind == "model"  # its calls have many positions
    session, device = open_session(path, device, threads or best_threads(path.stat().st_size), many_rows)
    _check_metadata(session, metadata, path)
    session_class = Session if bundle.kind == "model" else GeneratorSession
    return session_class(path, session, device, bundle, verify)


def open_model(path: Path, device: str = "auto", threads: int = 0, verify: bool = True) -> Session:
    """Open a ``model.onnx`` as `open_file` does; FileFormatError for a compiled generator."""
    session = open_file(path, device, threads, verify)
    if not isinstance(session, Session):
        raise FileFormatError(f"{path}: a compiled generator; expected model.onnx")
    return session


def open_unrolled(generator: GeneratorSession, device: str, threads: int = 0) -> GeneratorSession:
    """Open the file beside a generator that has its positions unrolled. On CUDA its runs are captured as graphs.

    Raises FileFormatError when there is no such file, or it was made together with another generator, and
    exceptions of onnxruntime's own where the graph cannot be captured.
    """
    path = generator.path.with_name(f"{generator.path.stem}-unrolled.onnx")
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file; gen export RUN --unroll 32 makes it")
    metadata = read_checked_metadata(path, verify=generator.verify)
    bundle = Bundle.from_metadata(metadata, path)
    fingerprint = generator.bundle.card.get("fingerprint")
    same_model = dataclasses.replace(bundle, kind="generator", card=generator.bundle.card) == generator.bundle
    same_export = fingerprint is not None and bundle.card.get("fingerprint") == fingerprint
    if not (bundle.kind == "unrolled" and same_model and same_export):
        raise FileFormatError(f"{path}: made with another {generator.path.name}; gen export RUN --unroll 32 makes both")
    providers = (
        [CPU_PROVIDER]
        if device == "cpu"
        else [(CUDA_PROVIDER, CUDA_OPTIONS | {"enable_cuda_graph": "1"}), CPU_PROVIDER]
    )
    session = create_session(path, providers, threads)
    _check_metadata(session, metadata, path)
    return GeneratorSession(path, session, generator.device, bundle, generator.verify)


def _check_metadata(session: Any, metadata: Mapping[str, str], path: Path) -> None:
    """Raise FileFormatError when onnxruntime has opened another file than the one whose metadata were checked."""
    if session.get_modelmeta().custom_metadata_map != metadata:
        raise FileFormatError(f"{path}: has changed while it was opened; open it again")


def _unrolled_positions(path: Path, bundle: Bundle) -> int:
    positions = bundle.card.get("positions")
    if not isinstance(positions, int) or not 1 <= positions <= MAX_UNROLLED_POSITIONS:
        raise FileFormatError(
            f"{path}: {positions!r:.20} positions, expected 1 to {MAX_UNROLLED_POSITIONS}; export it again"
        )
    return positions


def _tensor_types(ports: Iterable[Port], fixed_sizes: Mapping[str, int]) -> TensorTypes:
    """Return the types and shapes of ports, by name. Sizes that no number fixes are None."""
    types: TensorTypes = {}
    for port in ports:
        shape = [size if isinstance(size, int) else fixed_sizes.get(size) for size in port.shape]
        types[port.name] = (tensor_type(port.dtype), shape)
    return types


def _type_agrees(actual_tensor: tuple[str, list[Any]], expected_tensor: tuple[str, list[int | None]]) -> bool:
    """Compare element type and shape. Where None is expected the graph must have an open size, which is no integer."""
    (actual_type, actual_shape), (expected_type, expected_shape) = actual_tensor, expected_tensor
    if actual_type != expected_type or len(actual_shape) != len(expected_shape):
        return False
    sizes = [size if isinstance(size, int) else None for size in actual_shape]
    return sizes == expected_shape


def _format_types(types: dict[str, tuple[str, list[Any]]]) -> str:
    return ", ".join(f"{name}{shape}" for name, (_, shape) in sorted(types.items()))
