"""The one place that opens onnxruntime sessions, for sampling, export, evaluation and doctor."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import onnxruntime

from gentext.bundle import Bundle
from gentext.errors import DeviceError, FileFormatError, reason

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
#: onnxruntime names of element types, for the states that a model may have.
TYPES = {
    "float32": "tensor(float)",
    "float16": "tensor(float16)",
    "int64": "tensor(int64)",
    "bool": "tensor(bool)",
}


class Session:
    """An opened model with the Bundle that it carries, checked against each other.

    ``took`` says in one line which device is really used.
    """

    def __init__(self, path: Path, device: str = "auto", threads: int = 0) -> None:
        """Open a file. Raises FileFormatError for what is not ours, DeviceError without CUDA."""
        if path.is_dir():
            raise FileFormatError(f"{path} is a folder; expected an .onnx file")
        if not path.is_file():
            raise FileFormatError(f"{path}: no such file; expected an .onnx file from gen export")
        self.path = path
        self.session, self.took = _open(path, device, threads)
        self.bundle = Bundle.from_metadata(self.session.get_modelmeta().custom_metadata_map, path)
        self._check_signature()
        names = [state.name for state in self.bundle.states]
        self._outputs = ["logits", *(f"{name}_out" for name in names)]
        self._inputs = ["tokens", *names]

    def run(self, tokens: Any, state: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        """tokens int64 [N, T] and the states give logits float32 [N, T, V] and the new states."""
        logits, *new = self.session.run(self._outputs, dict(zip(self._inputs, [tokens, *state], strict=True)))
        return logits, tuple(new)

    def _check_signature(self) -> None:
        """A file's metadata may lie about its graph; find out before memory is taken."""
        bundle = self.bundle
        if bundle.kind != "model":
            raise FileFormatError(f"{self.path}: a {bundle.kind} file; expected model.onnx")
        inputs = {one.name: (one.type, list(one.shape)) for one in self.session.get_inputs()}
        outputs = {one.name: (one.type, list(one.shape)) for one in self.session.get_outputs()}
        wanted_in: dict[str, tuple[str, list[int | None]]] = {"tokens": ("tensor(int64)", [None, None])}
        wanted_out: dict[str, tuple[str, list[int | None]]] = {
            "logits": ("tensor(float)", [None, None, bundle.vocab_size])
        }
        for state in bundle.states:
            wanted_in[state.name] = wanted_out[f"{state.name}_out"] = (TYPES[state.dtype], list(state.shape))
        for found, wanted in ((inputs, wanted_in), (outputs, wanted_out)):
            if found.keys() != wanted.keys() or not all(_fits(found[name], wanted[name]) for name in wanted):
                raise FileFormatError(
                    f"{self.path}: its metadata and its graph disagree ({_spell(wanted)} against {_spell(found)}); "
                    f"the file is damaged, export it again"
                )


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


def options(threads: int = 0) -> Any:
    """Return the session options. They never depend on the batch: the same file, the same text."""
    chosen = onnxruntime.SessionOptions()
    chosen.log_severity_level = 4
    chosen.intra_op_num_threads = threads
    chosen.inter_op_num_threads = 1
    chosen.add_session_config_entry("session.set_denormal_as_zero", "1")
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
            session = _session(path, [(CUDA, {"use_tf32": "0"}), CPU], threads)
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
        if any(word in text for word in ("CUDA", "cuda", "cudnn", "cublas")):
            raise
        what = text.split(" : ")[-1].strip().splitlines()[0][:160] if text else type(error).__name__
        raise FileFormatError(
            f"{path}: onnxruntime cannot load it ({what}); expected an .onnx file from gen export"
        ) from None
