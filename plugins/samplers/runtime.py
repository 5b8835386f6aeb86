"""Sets up onnxruntime: devices, threads, sessions, tensors on a device. No other module creates sessions."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import onnxruntime

from gentext.errors import DeviceError, FileFormatError, reason
from gentext.files.file_names import is_utf8
from gentext.interrupts import call_stoppable
from gentext.settings import cores

CPU_PROVIDER, CUDA_PROVIDER = "CPUExecutionProvider", "CUDAExecutionProvider"
#: TF32 would round the factors of matrix products to ten bits.
CUDA_OPTIONS = {"use_tf32": "0"}
#: Bytes of a file below which one thread is fastest.
ONE_THREAD_BYTES = 2_000_000
#: Threads of a session, at most, where the user sets no number.
DEFAULT_MAX_THREADS = 8
Result = TypeVar("Result")
#: Parts of onnxruntime's messages about memory that it did not get.
OUT_OF_MEMORY = ("Failed to allocate memory", "Available memory of", "bad_alloc", "bad allocation")
#: Parts of onnxruntime's messages about a file whose operators it does not have.
MISSING_OPERATOR = ("No Op registered", "is not a registered function", "ValidateOpset", "NOT_IMPLEMENTED")


def best_threads(file_size: int) -> int:
    """Return the number of threads that a file of that many bytes is fastest with.

    Small matrix products end before a second thread has woken up. Measured on two cores, one row: two layers of
    256 in int8 (0.9 MB) lose a fifth with two threads, in fp32 (3.3 MB) they win 6 %, of 512 (13.5 MB) 40 %.
    """
    return 1 if file_size < ONE_THREAD_BYTES else default_max_threads()


def default_max_threads() -> int:
    """Return the largest number of threads that a session gets where the user sets none."""
    return min(cores(), DEFAULT_MAX_THREADS)


def _session_options(providers: list[Any], threads: int, many_rows: bool) -> Any:
    """Return the options of a session; ``threads`` 0 leaves their number to onnxruntime.

    A generator allocates a small tensor for each of the fifty nodes of a position, for which malloc is faster than
    onnxruntime's arena: a position of one row takes 0.86 of the time. The tensors of many rows are so large that malloc
    gives their pages back to the system and takes them again, so these have the arena.
    """
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = many_rows or providers != [CPU_PROVIDER]
    options.log_severity_level = 4  # fatal errors only: all others are raised
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return options


def cuda_problem() -> str | None:
    """Return why no CUDA session can be opened, or None where it is worth a try."""
    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        return "this onnxruntime is built without CUDA: pip install 'gentext[cuda]'"
    if not _may_have_gpu():
        return "this machine shows no NVIDIA GPU"
    if hasattr(onnxruntime, "preload_dlls"):  # newer versions only
        onnxruntime.preload_dlls()  # loads the libraries of the extra "cuda"; prints errors where they are missing
    return None


def open_session(path: Path, device: str, threads: int, many_rows: bool = False) -> tuple[Any, str]:
    """Open a session on cpu or cuda; with auto on CUDA if a session really runs there. Also returns the device.

    :param many_rows: whether its tensors are those of many rows, or of many positions.
    """
    if device == "cpu" or (device == "auto" and not _may_have_gpu()):
        return create_session(path, [CPU_PROVIDER], threads, many_rows), "onnxruntime on CPU"
    problem = cuda_problem()
    if problem is None:
        try:
            session = create_session(path, [(CUDA_PROVIDER, CUDA_OPTIONS), CPU_PROVIDER], threads)
        except FileFormatError:
            raise
        except Exception as error:  # drivers and libraries that do not fit raise exceptions of many kinds
            problem = reason(error)
        else:
            # CUDA may be listed as available and yet be dropped when a session is created.
            if session.get_providers()[0] == CUDA_PROVIDER:
                return session, "onnxruntime on CUDA"
            problem = "onnxruntime fell back to the CPU: no usable GPU, driver or CUDA libraries"
    if device == "cuda":
        raise DeviceError(f"device = cuda: {problem}; use cpu or auto")
    return create_session(path, [CPU_PROVIDER], threads, many_rows), f"onnxruntime on CPU ({problem})"


def _may_have_gpu() -> bool:
    """Return whether there are device files of an NVIDIA GPU. Asking CUDA itself is slow and prints errors."""
    return sys.platform == "win32" or any(map(os.path.exists, ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg")))


def create_session(path: Path, providers: list[Any], threads: int, many_rows: bool = False) -> Any:
    """Create a session. Raises FileFormatError for a file that cannot be loaded; problems of CUDA pass unchanged."""
    if not is_utf8(str(path)):
        raise FileFormatError(f"{path}: a path that is not UTF-8, which onnxruntime cannot read; rename it")
    options = _session_options(providers, threads, many_rows)
    try:
        return call_stoppable(
            lambda: onnxruntime.InferenceSession(path, options, providers=providers), lambda: _stop_loading(options)
        )
    except Exception as error:
        message = str(error)
        if providers != [CPU_PROVIDER] and any(
            cuda_word in message for cuda_word in ("CUDA", "cuda", "cudnn", "cublas")
        ):
            raise
        if any(problem_text in message for problem_text in MISSING_OPERATOR):
            raise FileFormatError(
                f"{path}: onnxruntime {onnxruntime.__version__} lacks an operator that it needs "
                f"({first_line(error)}); install a newer one, or export the file again"
            ) from None
        if is_out_of_memory(error):
            raise FileFormatError(f"{path}: its graph asks for more memory than there is") from None
        raise FileFormatError(
            f"{path}: onnxruntime cannot load it ({first_line(error)}); expected an .onnx file from gen export"
        ) from None


def _stop_loading(options: Any) -> None:
    """Have the creation of a session end before its next step; a step itself, as of folding constants, goes on."""
    if hasattr(options, "set_load_cancellation_flag"):  # newer versions only
        options.set_load_cancellation_flag(True)


def stop_runs(all_options: Iterable[Any]) -> None:
    """Have the runs with these run options end after the node that each computes, in loops too."""
    for options in all_options:
        options.terminate = True


def run_stoppable(run: Callable[[], Result], options: Any) -> Result:
    """Return the result of a run with these run options, which Ctrl-C stops. See `gentext.interrupts`."""
    return call_stoppable(run, lambda: stop_runs([options]))


def is_out_of_memory(error: Exception) -> bool:
    """Return whether onnxruntime's error means that it did not get the memory that a graph asked for."""
    return any(text in str(error) for text in OUT_OF_MEMORY)


def first_line(error: Exception) -> str:
    """Return the first line of onnxruntime's message, without the status codes before it."""
    message = str(error)
    if not message.strip():
        return type(error).__name__
    return message.split(" : ")[-1].strip().splitlines()[0][:160]


def allocate_tensor(shape: Sequence[int], dtype: Any, device: str) -> Any:
    """Allocate a tensor on a device, as an OrtValue whose address never changes."""
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, device, 0)


def run_options() -> Any:
    """Return the options of one run, by which `stop_runs` can stop it."""
    return onnxruntime.RunOptions()


def capture_options(graph_id: int) -> Any:
    """Return run options with which CUDA captures a graph in the first run, and replays it in all later ones."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph_id))
    return options
