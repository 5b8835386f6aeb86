"""Which device and which arithmetic training uses on this machine. (torch)"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from gentext.errors import ConfigError, DeviceError
from gentext.interfaces import World
from gentext.settings import Settings

#: Numbers of glibc's mallopt: blocks that may be mapped one by one, and free bytes after which the heap shrinks.
MMAP_MAX, TRIM_THRESHOLD = -4, -1


@dataclasses.dataclass(frozen=True)
class Compute:
    """A device and a precision that were found to work."""

    device: torch.device
    precision: str
    threads: int

    @property
    def line(self) -> str:
        """What was taken, in words."""
        if self.device.type == "cuda":
            return f"{torch.cuda.get_device_name(self.device)}, {self.precision}"
        return f"CPU, {self.threads} threads, {self.precision}"

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which the forward pass runs."""
        kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
        if self.precision not in kinds:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=kinds[self.precision])


@contextlib.contextmanager
def flush_denormals() -> Iterator[None]:
    """Take numbers below 1e-38 for zero, which is many times as fast; this thread's arithmetic, so put it back."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextlib.contextmanager
def keep_memory() -> Iterator[None]:
    """Have glibc keep freed memory for the next step on a CPU, then give it back; with another C library nothing.

    By default every large tensor is mapped anew and its pages are cleared as they are first touched, step after
    step: about a fifth of the time of a step. In return the peak of memory rises, by up to a half.
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


def memory(device: torch.device) -> int | None:
    """Return how many bytes a device has, or for the CPU this process may use; None where nobody tells."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    sizes = []
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with contextlib.suppress(OSError, ValueError):
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(sizes, default=None)


def check_memory(parameters: int, bytes_each: int, device: torch.device, purpose: str) -> None:
    """Raise ConfigError for a model that cannot fit, before memory is taken."""
    needed, there = parameters * bytes_each, memory(device)
    if there is not None and needed > there:
        raise ConfigError(
            f"{parameters:,} parameters need {needed / 1e9:,.0f} GB {purpose}, and this machine has "
            f"{there / 1e9:,.0f} GB; choose a smaller model (model.hidden, model.layers, model.embedding)"
        )


def choose(settings: Settings) -> Compute:
    """Choose device and precision, or raise DeviceError when what was asked for is not there."""
    device, (rank, processes) = choose_device(settings.device), _beside()
    if device.type == "cuda" and processes > 1:
        if processes > torch.cuda.device_count():
            raise DeviceError(
                f"{processes} processes on a machine with {torch.cuda.device_count()} GPUs: each needs its own; "
                f"start fewer, or use --device cpu"
            )
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    torch.set_num_threads(settings.threads or max(1, _cores() // processes))
    return Compute(device, _precision(settings.precision, device), torch.get_num_threads())


def choose_device(wanted: str) -> torch.device:
    """Return the device; ``cuda`` where there is none raises DeviceError."""
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        why = "this PyTorch is built without CUDA" if not torch.backends.cuda.is_built() else "PyTorch sees no GPU"
        raise DeviceError(f"--device cuda: {why}; use --device cpu or auto")
    return torch.device("cuda" if there and wanted != "cpu" else "cpu")


def bf16_on_cpu() -> bool:
    """Tell whether bf16 LSTMs run on this CPU: without the instructions, oneDNN raises."""
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _beside() -> tuple[int, int]:
    """Return the number of this process on this machine, and how many there train together."""
    if World.of_process().size == 1:
        return 0, 1
    return int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def _precision(wanted: str, device: torch.device) -> str:
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported()
        if wanted == "bf16" and not has_bf16:
            raise DeviceError("--precision bf16: this GPU has no bf16; use fp16, fp32 or auto")
        return ("bf16" if has_bf16 else "fp16") if wanted == "auto" else wanted
    if wanted == "fp16":
        raise DeviceError("--precision fp16: only a GPU trains in fp16; use bf16, fp32 or auto")
    if wanted == "bf16" and not bf16_on_cpu():
        raise DeviceError("--precision bf16: this CPU has no bf16 instructions; use fp32 or auto")
    return ("bf16" if bf16_on_cpu() else "fp32") if wanted == "auto" else wanted
