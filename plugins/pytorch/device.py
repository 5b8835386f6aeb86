"""Chooses the device and the precision of training, and sets up memory and denormals. (torch)"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gentext.errors import ConfigError, DeviceError
from gentext.interfaces import World
from gentext.settings import Settings, cores

#: Numbers of glibc's mallopt: blocks that may be mapped one by one, and free bytes after which the heap shrinks.
MMAP_MAX, TRIM_THRESHOLD = -4, -1


@dataclasses.dataclass(frozen=True)
class Compute:
    """A device and a precision that work on this machine."""

    device: torch.device
    precision: str
    """fp32, bf16 or fp16: the type of matrix products."""
    threads: int

    @property
    def description(self) -> str:
        """Device and precision, for the user."""
        if self.device.type == "cuda":
            return f"{torch.cuda.get_device_name(self.device)}, {self.precision}"
        return f"CPU, {self.threads} thread{'s' * (self.threads != 1)}, {self.precision}"

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which the forward pass runs."""
        dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
        if self.precision not in dtypes:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=dtypes[self.precision])


@contextlib.contextmanager
def flush_denormals() -> Iterator[None]:
    """Treat numbers below 1e-38 as 0, which is many times as fast.

    The setting holds for everything that the thread computes, so it is reset afterwards.
    """
    for dtype in (np.float32, np.float64):  # older versions of NumPy compute the limits when first asked, and keep
        np.finfo(dtype)  # them; without denormals they would warn that the smallest one is 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextlib.contextmanager
def keep_memory() -> Iterator[None]:
    """Let glibc reuse freed memory in the next step on a CPU, and return it to the system afterwards.

    With another C library nothing happens.

    By default the memory of every large tensor is mapped again in each step, and its pages are cleared when they are
    first written: about a fifth of the time of a step. The cost is a peak of memory that is higher by up to a half.
    """
    try:
        library = ctypes.CDLL(None)
        mallopt, malloc_trim = library.mallopt, library.malloc_trim
    except (AttributeError, OSError, TypeError):
        yield
        return
    mallopt(MMAP_MAX, 0)
    mallopt(TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        mallopt(MMAP_MAX, 1 << 16)
        mallopt(TRIM_THRESHOLD, 1 << 17)
        malloc_trim(0)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute with a single thread on the CPU.

    A single row is read step by step: in each step, two threads would wait for each other longer than they compute.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def memory_size(device: torch.device) -> int | None:
    """Return how many bytes a device has, or for the CPU this process may use; None where that is unknown."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    sizes = []
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with contextlib.suppress(OSError, ValueError):
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(sizes, default=None)


def check_memory(parameters: int, bytes_per_parameter: int, device: torch.device, purpose: str) -> None:
    """Raise ConfigError for a model that cannot fit, before memory is allocated."""
    needed_bytes, available_bytes = parameters * bytes_per_parameter, memory_size(device)
    if available_bytes is not None and needed_bytes > available_bytes:
        raise ConfigError(
            f"{parameters:,} parameters need {needed_bytes / 1e9:,.0f} GB {purpose}, and this machine has "
            f"{available_bytes / 1e9:,.0f} GB; choose a smaller model (model.hidden, model.layers, model.embedding)"
        )


def choose_compute(settings: Settings) -> Compute:
    """Choose device and precision, or raise DeviceError when those of the settings are not available."""
    device = choose_device(settings.device)
    rank, processes = _local_rank_and_size()
    if device.type == "cuda" and processes > 1:
        if processes > torch.cuda.device_count():
            raise DeviceError(
                f"{processes} processes on a machine with {torch.cuda.device_count()} GPUs: each needs its own; "
                f"start fewer, or train on the CPU"
            )
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    torch.set_num_threads(settings.threads or max(1, cores() // processes))
    return Compute(device, _choose_precision(settings.precision, device), torch.get_num_threads())


def choose_device(device_name: str) -> torch.device:
    """Return the device for auto, cpu or cuda. Raises DeviceError for ``cuda`` where there is none."""
    has_cuda = torch.cuda.is_available()
    if device_name == "cuda" and not has_cuda:
        problem = "PyTorch sees no GPU" if torch.backends.cuda.is_built() else "this PyTorch is built without CUDA"
        raise DeviceError(f"device = cuda: {problem}; use cpu or auto")
    return torch.device("cuda" if has_cuda and device_name != "cpu" else "cpu")


def bf16_on_cpu() -> bool:
    """Return whether this CPU computes LSTMs in bf16, and has instructions for it.

    With AVX2 alone oneDNN raises. With AVX-512 it emulates the instructions, at a fourth of the speed of fp32.
    """
    try:
        is_supported = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return is_supported
    return is_supported and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _local_rank_and_size() -> tuple[int, int]:
    """Return the number of this process on this machine, and how many processes train together there."""
    if World.of_process().size == 1:
        return 0, 1
    return int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def _choose_precision(precision: str, device: torch.device) -> str:
    """Return fp32, bf16 or fp16; raises DeviceError for a precision that the device does not have."""
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported()
        if precision == "bf16" and not has_bf16:
            raise DeviceError("precision = bf16: this GPU has no bf16; use fp16, fp32 or auto")
        fastest = "bf16" if has_bf16 else "fp16"
    else:
        if precision == "fp16":
            raise DeviceError("precision = fp16: only a GPU trains in fp16; use bf16, fp32 or auto")
        if precision == "bf16" and not bf16_on_cpu():
            raise DeviceError("precision = bf16: this CPU has no bf16 instructions; use fp32 or auto")
        fastest = "bf16" if bf16_on_cpu() else "fp32"
    return fastest if precision == "auto" else precision
