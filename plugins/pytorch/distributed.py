"""Training by several processes, each with a part of every batch: how they communicate. (torch)

torchrun starts them and torch.distributed connects them: gloo between CPUs, NCCL between GPUs. After each backward
pass one all-reduce averages the gradients, so all processes have the same weights at every step. What passes between
them otherwise (losses, requests to stop, states for a checkpoint) is small, and goes through gloo.

DistributedDataParallel would do the averaging as well, but it rearranges the gradients after its first step. With
three processes or more that changes the order of additions, and a resumed run would not be exact. Besides, it needs
an option for parameters that have no gradient in some steps, such as a learned initial state, and that option costs
every other model a warning.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed import distributed_c10d as c10d
from torch.distributed.rendezvous import rendezvous

from gentext import console
from gentext.errors import DeviceError, GenError, TrainingStopped, reason
from gentext.interfaces import Model, World

#: Parts of the messages of gloo and NCCL when another process has ended.
PROCESS_LOST = re.compile(r"gloo|nccl|connection|broken pipe|timed out|socket", re.IGNORECASE)


#: One for each tensor of a collective call that something still refers to. A thread of gloo lets go of a tensor a
#: moment after the call has returned, or much later on a busy machine. If it is the last to hold it, it needs the
#: interpreter's lock to delete it, while `destroy_process_group` keeps that lock and waits for the thread, without end:
#: seen with PyTorch 2.7. A weak reference would not do: it must not be followed while a thread deletes the tensor.
_finalizers: list[weakref.finalize[[], Tensor]] = []
#: Seconds to wait for gloo to let go of them. Those of an error's traceback are held until the process ends.
RELEASE_SECONDS = 2.0


def _note_tensors(*tensors: Tensor) -> None:
    """Note the tensors of a collective call, so that `_wait_for_release` knows them."""
    _finalizers[:] = [finalizer for finalizer in _finalizers if finalizer.alive]
    for tensor in tensors:
        finalizer = weakref.finalize(tensor, lambda: None)
        finalizer.atexit = False
        _finalizers.append(finalizer)


def _wait_for_release() -> None:
    """Wait until gloo has let go of all tensors; it can, because sleeping gives up the interpreter's lock."""
    deadline = time.monotonic() + RELEASE_SECONDS
    while any(finalizer.alive for finalizer in _finalizers) and time.monotonic() < deadline:
        time.sleep(0.001)
    _finalizers.clear()


@contextlib.contextmanager
def connect_processes(world: World) -> Iterator[None]:
    """Connect the processes that train together, for as long as the context lasts.

    Rank 0 alone writes to the terminal; an error that ends all of them is reported by the process that meets it first.
    Raises DeviceError when they cannot reach each other.
    """
    if world.rank:
        console.mute(True)
    try:
        store, rank, size = next(iter(rendezvous("env://")))
        store = c10d.PrefixStore("gentext", store)
        has_nccl = torch.cuda.is_available() and dist.is_nccl_available()
        dist.init_process_group("cpu:gloo,cuda:nccl" if has_nccl else "gloo", store=store, rank=rank, world_size=size)
        ProcessGroup(world).wait()  # a process that meets an error at once must not end while others still connect
    except (RuntimeError, ValueError) as error:
        console.mute(False)
        raise DeviceError(
            f"process {world.rank} of {world.size} cannot reach the others ({reason(error)[:150]}); "
            f"start them with torchrun"
        ) from None
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        # Every process gets a Ctrl-C, and rank 0 reports it.
        is_interrupt = isinstance(error, KeyboardInterrupt)
        reported_elsewhere = world.rank > 0 if is_interrupt else not _is_first_error(store)
        if reported_elsewhere:
            raise SystemExit(error.exit_code if isinstance(error, GenError) else 1) from None
        console.mute(False)
        raise
    finally:
        _wait_for_release()
        dist.destroy_process_group()


def _is_first_error(store: c10d.Store) -> bool:
    """Return whether no other process has met an error before this one."""
    try:
        return bool(store.add("error", 1) == 1)
    except RuntimeError:  # the process that hosts the store has ended
        return True


class ProcessGroup:
    """The processes that train together. With one process, every method returns at once.

    All processes must call the same methods in the same order.
    """

    def __init__(self, world: World) -> None:
        self.rank, self.size = world.rank, world.size

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes rank 0's tensors, in place."""
        if self.size == 1:
            return
        for tensor in tensors:
            detached = tensor.detach()
            _note_tensors(detached)
            dist.broadcast(detached, 0)

    def broadcast_number(self, number: int) -> int:
        """Return rank 0's number."""
        if self.size == 1:
            return number
        buffer = torch.tensor([int(number)])
        _note_tensors(buffer)
        dist.broadcast(buffer, 0)
        return int(buffer)

    def broadcast_numbers(self, *numbers: float) -> list[float]:
        """Return rank 0's numbers."""
        return self.sum(*(number if self.rank == 0 else 0.0 for number in numbers))

    def broadcast_path(self, path: Path) -> Path:
        """Return rank 0's path."""
        if self.size == 1:
            return path
        path_bytes = os.fsencode(path)
        buffer = torch.zeros(self.broadcast_number(len(path_bytes)), dtype=torch.uint8)
        if self.rank == 0:
            buffer.copy_(torch.tensor(list(path_bytes), dtype=torch.uint8))
        _note_tensors(buffer)
        dist.broadcast(buffer, 0)
        return Path(os.fsdecode(bytes(buffer.tolist())))

    def average_gradients(self, model: Model) -> None:
        """Average the gradients over all processes; a parameter without a gradient in all of them stays without.

        Buffers become those of rank 0, as in DistributedDataParallel.
        """
        if self.size == 1:
            return
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        gradients = [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in parameters
        ]
        has_gradient = torch.tensor([parameter.grad is not None for parameter in parameters])
        # All numbers in one tensor, so that one all-reduce is enough.
        flat_gradients = torch.cat([*(gradient.flatten() for gradient in gradients), has_gradient.to(gradients[0])])
        _note_tensors(flat_gradients)
        dist.all_reduce(flat_gradients)
        *mean_gradients, has_gradient = (flat_gradients / self.size).split(
            [*(parameter.numel() for parameter in parameters), len(parameters)]
        )
        for parameter, mean_gradient, gradient_share in zip(
            parameters, mean_gradients, has_gradient.tolist(), strict=True
        ):
            parameter.grad = mean_gradient.view_as(parameter).to(parameter.dtype) if gradient_share else None
        self.broadcast(model.buffers())

    def sum(self, *numbers: float) -> list[float]:
        """Return the sum of each number over all processes."""
        if self.size == 1:
            return list(numbers)
        buffer = torch.tensor(numbers, dtype=torch.float64)
        _note_tensors(buffer)
        dist.all_reduce(buffer)
        return [float(total) for total in buffer.tolist()]

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.sum(0)

    def is_true_anywhere(self, condition: bool) -> bool:
        """Return whether a condition is true in any process."""
        return self.sum(condition)[0] > 0

    def combine_step(self, loss: float, stop_requested: bool, save_due: bool) -> tuple[float, bool, bool]:
        """Return the mean loss, whether any process is requested to stop, and whether rank 0 wants to save."""
        total_loss, stop_requests, save_requests = self.sum(loss, stop_requested, save_due and self.rank == 0)
        return total_loss / self.size, stop_requests > 0, save_requests > 0

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, in the order of ranks, on the CPU. They have one shape and type."""
        if self.size == 1:
            return [tensor]
        local_tensor = tensor.detach().cpu().contiguous()
        local_bytes = local_tensor.flatten().view(torch.uint8)  # bytes can be gathered whatever the type is
        gathered_bytes = [torch.empty_like(local_bytes) for _ in range(self.size)]
        _note_tensors(local_bytes, *gathered_bytes)
        dist.all_gather(gathered_bytes, local_bytes)
        return [rank_bytes.view(local_tensor.dtype).view(local_tensor.shape) for rank_bytes in gathered_bytes]

    def local_rows(self, rows: int) -> slice:
        """Return which of so many rows are this process's: contiguous ones, as even as possible."""
        return slice(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)

    def seed_other_ranks(self, seed: int, step: int) -> None:
        """Seed PyTorch in each process but rank 0 with a seed of its own: dropout must differ from rank to rank."""
        if self.rank:
            torch.manual_seed(int(np.random.SeedSequence([seed, step, self.rank]).generate_state(1)[0]))

    @contextlib.contextmanager
    def explain_lost_process(self, advice: str) -> Iterator[None]:
        """Raise TrainingStopped with that advice when another process ends or cannot be reached."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not PROCESS_LOST.search(str(error)):
                raise
            raise TrainingStopped(f"one of the {self.size} processes ended or cannot be reached; {advice}") from error
