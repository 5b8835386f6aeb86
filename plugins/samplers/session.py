"""The one place that opens onnxruntime sessions, for sampling, export, evaluation and doctor."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from gentext.bundle import Bundle
from gentext.errors import DeviceError, FileFormatError, reason
from gentext.settings import cores
from gentext.signature import Port, signature

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
#: TF32 rounds the factors of a product to ten bits.
CUDA_OPTIONS = {"use_tf32": "0"}
#: onnxruntime names of element types, for the states that a model may have.
TYPES = {
    "float32": "tensor(float)",
    "float16": "tensor(float16)",
    "int64": "tensor(int64)",
    "bool": "tensor(bool)",
}


#: Bytes of a file below which one thread is fastest, and threads at most beyond.
ONE_THREAD, MOST_THREADS = 2_000_000, 8
#: Positions of an unrolled generator at most: each has nodes of its own.
MOST_POSITIONS = 256

#: How onnxruntime says that a file asks for more than it has.
LACKS = ("No Op registered", "is not a registered function", "ValidateOpset", "NOT_IMPLEMENTED")

TensorTypes = dict[str, tuple[str, list[int | None]]]


class _File:
    """An opened file with the Bundle that it carries.

    ``device`` names in one line the device that is really used.
    """

    def __init__(self, path: Path, session: Any, device: str, bundle: Bundle) -> None:
        self.path, self.session, self.device, self.bundle = path, session, device, bundle
        self.on_cuda = session.get_providers()[0] == CUDA
        self.threads: int = session.get_session_options().intra_op_num_threads

    def _run(self, outputs: list[str], feeds: Mapping[str, Any]) -> list[Any]:
        """Run the graph. What only shows now, such as a default value of another shape, is told in one line."""
        try:
            results: list[Any] = self.session.run(outputs, feeds)
        except Exception as error:  # onnxruntime has a class for each status, with no common base
            raise FileFormatError(
                f"{self.path}: onnxruntime cannot run it ({_first_line(error)}); export it again"
            ) from error
        return results

    def check(self, inputs: TensorTypes, outputs: TensorTypes) -> None:
        """A file's metadata may lie about its graph; find out before memory is taken."""
        for found, wanted in ((self.session.get_inputs(), inputs), (self.session.get_outputs(), outputs)):
            there = {one.name: (one.type, list(one.shape)) for one in found}
            if there.keys() != wanted.keys() or not all(_fits(there[name], wanted[name]) for name in wanted):
                raise FileFormatError(
                    f"{self.path}: its metadata and its graph disagree ({_spell(wanted)} against {_spell(there)}); "
                    f"the file is damaged, export it again"
                )


class Session(_File):
    """A ``model.onnx``: logits of given tokens."""

    def __init__(self, path: Path, session: Any, device: str, bundle: Bundle) -> None:
        super().__init__(path, session, device, bundle)
        states: TensorTypes = {one.name: (TYPES[one.dtype], list(one.shape)) for one in bundle.states}
        tokens: TensorTypes = {"tokens": ("tensor(int64)", [None, None])}
        logits: TensorTypes = {"logits": ("tensor(float)", [None, None, bundle.vocab_size])}
        outs = {f"{name}_out": one for name, one in states.items()}
        self.check(tokens | states, logits | outs)
        self._inputs, self._outputs = ["tokens", *states], ["logits", *outs]

    def run(self, tokens: Any, state: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        """tokens int64 [N, T] and the states give logits float32 [N, T, V] and the new states."""
        logits, *new = self._run(self._outputs, dict(zip(self._inputs, [tokens, *state], strict=True)))
        return logits, tuple(new)


class GeneratorSession(_File):
    """A ``generator.onnx``: text by itself. See gentext.signature for its interface.

    Of ``generator-unrolled.onnx`` a call has ``positions`` positions, of the other one any number.
    """

    def __init__(self, path: Path, session: Any, device: str, bundle: Bundle) -> None:
        super().__init__(path, session, device, bundle)
        self.signature = signature(bundle)
        self.positions = _positions(path, bundle) if bundle.kind == "unrolled" else None
        fixed = {} if self.positions is None else {"K": self.positions}
        # What may be left out has a default, and onnxruntime lists it apart.
        needed, spare = [[p for p in self.signature.inputs if (p.default is None) == n] for n in (True, False)]
        self.check(_ports(needed, fixed), _ports(self.signature.outputs, fixed))
        there = {one.name: (one.type, list(one.shape)) for one in session.get_overridable_initializers()}
        self.check_spare(there, _ports(spare, fixed))
        self._outputs = [one.name for one in self.signature.outputs]

    def check_spare(self, there: TensorTypes, wanted: TensorTypes) -> None:
        """Inputs with a default: names and types; their shape is that of the default."""
        if {n: one[0] for n, one in there.items()} != {n: one[0] for n, one in wanted.items()}:
            raise FileFormatError(
                f"{self.path}: its metadata and its graph disagree about {_spell(wanted)}; "
                f"the file is damaged, export it again"
            )

    def call(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run K positions; outputs by name."""
        return dict(zip(self._outputs, self._run(self._outputs, feeds), strict=True))


def open_file(path: Path, device: str = "auto", threads: int = 0) -> Session | GeneratorSession:
    """Open a file. Raises FileFormatError for what is not ours, DeviceError without CUDA."""
    if path.is_dir():
        raise FileFormatError(f"{path} is a folder; expected an .onnx file")
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file; expected an .onnx file from gen export")
    session, device = _open(path, device, threads or threads_for(path.stat().st_size))
    bundle = Bundle.from_metadata(session.get_modelmeta().custom_metadata_map, path)
    if bundle.kind == "unrolled":
        raise FileFormatError(f"{path}: the part of a generator that a GPU captures; expected generator.onnx")
    return (Session if bundle.kind == "model" else GeneratorSession)(path, session, device, bundle)


def open_model(path: Path, device: str = "auto", threads: int = 0) -> Session:
    """Open a ``model.onnx``, and nothing else."""
    session = open_file(path, device, threads)
    if not isinstance(session, Session):
        raise FileFormatError(f"{path}: a compiled generator; expected model.onnx")
    return session


def open_unrolled(generator: GeneratorSession, device: str, threads: int = 0) -> GeneratorSession:
    """Open the file beside a generator that has its positions unrolled; on CUDA, to be captured.

    Raises FileFormatError where there is none that was made together with the generator; onnxruntime raises
    what it likes where it cannot capture it.
    """
    path = generator.path.with_name(f"{generator.path.stem}-unrolled.onnx")
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file; gen export RUN --unroll 32 makes it")
    providers = [CPU] if device == "cpu" else [(CUDA, CUDA_OPTIONS | {"enable_cuda_graph": "1"}), CPU]
    session = _session(path, providers, threads)
    bundle = Bundle.from_metadata(session.get_modelmeta().custom_metadata_map, path)
    mark = generator.bundle.card.get("fingerprint")
    twin = dataclasses.replace(bundle, kind="generator", card=generator.bundle.card)
    if bundle.kind != "unrolled" or mark is None or bundle.card.get("fingerprint") != mark or twin != generator.bundle:
        raise FileFormatError(f"{path}: made with another {generator.path.name}; gen export RUN --unroll 32 makes both")
    return GeneratorSession(path, session, generator.device, bundle)


def buffer(shape: Sequence[int], dtype: Any, device: str) -> Any:
    """Return memory of a device for one tensor, an OrtValue that stays where it is."""
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, device, 0)


def capture_as(number: int) -> Any:
    """Return the options of runs that are captured once, and replayed under this number from then on."""
    chosen = onnxruntime.RunOptions()
    chosen.add_run_config_entry("gpu_graph_id", str(number))
    return chosen


def _positions(path: Path, bundle: Bundle) -> int:
    found = bundle.card.get("positions")
    if not isinstance(found, int) or not 1 <= found <= MOST_POSITIONS:
        raise FileFormatError(f"{path}: {found!r:.20} positions, expected 1 to {MOST_POSITIONS}; export it again")
    return found


def _ports(ports: Iterable[Port], fixed: Mapping[str, int]) -> TensorTypes:
    """Return names, types and sizes: those that are fixed by a number, open ones as None."""
    return {
        one.name: (TYPES[one.dtype], [size if isinstance(size, int) else fixed.get(size) for size in one.shape])
        for one in ports
    }


def _fits(found: tuple[str, list[Any]], wanted: tuple[str, list[int | None]]) -> bool:
    """Tell whether type and shape agree; None is a dynamic axis, which the graph must leave open."""
    return (
        found[0] == wanted[0]
        and len(found[1]) == len(wanted[1])
        and all(
            isinstance(f, int) == isinstance(w, int) and (w is None or f == w)
            for f, w in zip(found[1], wanted[1], strict=True)
        )
    )


def _spell(signature: dict[str, tuple[str, list[Any]]]) -> str:
    return ", ".join(f"{name}{shape}" for name, (_, shape) in sorted(signature.items()))


def threads_for(size: int) -> int:
    """Return how many threads a file of that many bytes is fastest with.

    Small products are done before a second thread has woken up. Measured on two cores, one row: two layers of
    256 in int8 (0.9 MB) lose a fifth with two threads, in fp32 (3.3 MB) they win 6 %, of 512 (13.5 MB) 40 %.
    """
    return 1 if size < ONE_THREAD else most_threads()


def most_threads() -> int:
    """Return how many threads are taken at most where nobody says."""
    return min(cores(), MOST_THREADS)


def options(threads: int = 0) -> Any:
    """Return the session options. They never depend on the batch: the same file, the same text."""
    chosen = onnxruntime.SessionOptions()
    chosen.log_severity_level = 4
    chosen.intra_op_num_threads = threads
    chosen.inter_op_num_threads = 1
    return chosen


def cuda_there() -> str | None:
    """Return None when a CUDA session can be tried, else why not."""
    if CUDA not in onnxruntime.get_available_providers():
        return "this onnxruntime is built without CUDA: pip install 'gentext[cuda]'"
    if not _gpu_files():
        return "this machine shows no NVIDIA GPU"
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # the libraries that the extra brings; loud where there are none
    return None


def _open(path: Path, device: str, threads: int) -> tuple[Any, str]:
    """Open a session on the device asked for; with auto, on CUDA where that really works."""
    if device == "cpu" or (device == "auto" and not _gpu_files()):
        return _session(path, [CPU], threads), "onnxruntime on CPU"
    why = cuda_there()
    if why is None:
        try:
            session = _session(path, [(CUDA, CUDA_OPTIONS), CPU], threads)
        except FileFormatError:
            raise
        except Exception as error:  # a driver or library that does not fit raises many things
            why = reason(error)
        else:
            # The list of available providers lies; the session knows.
            if session.get_providers()[0] == CUDA:
                return session, "onnxruntime on CUDA"
            why = "onnxruntime fell back to the CPU: no usable GPU, driver or CUDA libraries"
    if device == "cuda":
        raise DeviceError(f"--device cuda: {why}; use --device cpu or auto")
    return _session(path, [CPU], threads), f"onnxruntime on CPU ({why})"


def _gpu_files() -> bool:
    """Tell whether the system may have an NVIDIA GPU; asking CUDA itself is slow and loud."""
    return sys.platform == "win32" or any(map(os.path.exists, ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg")))


def _session(path: Path, providers: list[Any], threads: int) -> Any:
    try:
        return onnxruntime.InferenceSession(path, options(threads), providers=providers)
    except Exception as error:
        text = str(error)
        if providers != [CPU] and any(word in text for word in ("CUDA", "cuda", "cudnn", "cublas")):
            raise
        if any(words in text for words in LACKS):
            raise FileFormatError(
                f"{path}: onnxruntime {onnxruntime.__version__} lacks an operator that it needs "
                f"({_first_line(error)}); install a newer one, or export the file again"
            ) from None
        raise FileFormatError(
            f"{path}: onnxruntime cannot load it ({_first_line(error)}); expected an .onnx file from gen export"
        ) from None


def _first_line(error: Exception) -> str:
    """Return what onnxruntime has to say, without its status codes."""
    text = str(error)
    return text.split(" : ")[-1].strip().splitlines()[0][:160] if text.strip() else type(error).__name__
