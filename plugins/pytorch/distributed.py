"""Training by several processes, each with a part of every batch: what they must do together. (torch)

torchrun starts them and torch.distributed connects them: gloo between CPUs, NCCL between GPUs. After each backward
pass one all-reduce averages the gradients, so all processes hold the same weights at every step. What passes between
them otherwise (losses, wishes to stop, states for a checkpoint) is small, and goes through gloo.

DistributedDataParallel would do the averaging as well, but it arranges the gradients anew after its first step. With
three processes or more that changes the order of additions, and a resumed run would not be exact. And it must be
told of parameters that have no gradient in some steps, such as a learned initial state, at the price of a warning
for every other model.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed import distributed_c10d as c10d
from torch.distributed.rendezvous import rendezvous

from gentext import console
from gentext.errors import DeviceError, TrainingStopped, reason
from gentext.interfaces import World

#: What gloo and NCCL say when another process has gone.
GONE = re.compile(r"gloo|nccl|connection|broken pipe|timed out|socket", re.IGNORECASE)


@contextlib.contextmanager
def together(world: World) -> Iterator[None]:
    """Connect the processes, and let them speak with one voice.

    Rank 0 alone speaks; of an error that ends all of them, whoever meets it first. Raises DeviceError
    when they cannot reach each other.
    """
    if world.rank:
        console.mute(True)
    try:
        store, rank, size = next(iter(rendezvous("env://")))
        store = c10d.PrefixStore("gentext", store)
        nccl = torch.cuda.is_available() and dist.is_nccl_available()
        dist.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo", store=store, rank=rank, world_size=size)
    except (RuntimeError, ValueError) as error:
        console.mute(False)
        raise DeviceError(
            f"process {world.rank} of {world.size} cannot reach the others ({reason(error)[:150]}); "
            f"start them with torchrun"
        ) from None
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        told = world.rank if isinstance(error, KeyboardInterrupt) else not _is_first(store)  # all hear a Ctrl-C
        if told:
            raise SystemExit(getattr(error, "exit_code", 1)) from None
        console.mute(False)
        raise
    finally:
        dist.destroy_process_group()


def _is_first(store: c10d.Store) -> bool:
    """Tell whether no other process has met an error before this one."""
    try:
        return bool(store.add("error", 1) == 1)
    except RuntimeError:  # the store has gone with the process that held it
        return True


class Group:
    """The processes that train together; where there is no other, every method does nothing."""

    def __init__(self, world: World) -> None:
        self.rank, self.size = world.rank, world.size

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes rank 0's values, in place."""
        for one in tensors if self.size > 1 else ():
            dist.broadcast(one.detach(), 0)

    def average(self, model: Any) -> None:
        """Average the gradients over all processes; a parameter that has none anywhere keeps none.

        Buffers become those of rank 0, as in DistributedDataParallel.
        """
        if self.size == 1:
            return
        learned = [one for one in model.parameters() if one.requires_grad]
        parts = [(torch.zeros_like(one) if one.grad is None else one.grad).flatten() for one in learned]
        has = torch.tensor([one.grad is not None for one in learned])
        flat = torch.cat([*parts, has.to(parts[0])])
        dist.all_reduce(flat)
        *means, has = (flat / self.size).split([*(one.numel() for one in learned), len(learned)])
        for one, mean, there in zip(learned, means, has.tolist(), strict=True):
            one.grad = mean.view_as(one).to(one.dtype) if there else None
        self.spread(model.buffers())

    def first(self, number: int) -> int:
        """Return rank 0's number everywhere."""
        if self.size == 1:
            return number
        held = torch.tensor([int(number)])
        dist.broadcast(held, 0)
        return int(held)

    def first_path(self, path: Path) -> Path:
        """Return rank 0's path everywhere."""
        if self.size == 1:
            return path
        data = str(path).encode()
        held = torch.zeros(self.first(len(data)), dtype=torch.uint8)
        if not self.rank:
            held.copy_(torch.tensor(list(data), dtype=torch.uint8))
        dist.broadcast(held, 0)
        return Path(bytes(held.tolist()).decode())

    def sum(self, *numbers: float) -> list[float]:
        """Return the sum of each number over all processes."""
        if self.size == 1:
            return list(numbers)
        held = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(held)
        return [float(one) for one in held.tolist()]

    def agree(self, loss: float, asked: bool, late: bool) -> tuple[float, bool, bool]:
        """Return the mean loss, whether any process was asked to stop, and whether rank 0 wants to save."""
        total, wishes, lates = self.sum(loss, asked, late and not self.rank)
        return total / self.size, wishes > 0, lates > 0

    def any(self, asked: bool) -> bool:
        """Tell whether it is so in any process."""
        return self.sum(asked)[0] > 0

    def gather(self, one: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, in the order of ranks, on the CPU. They have one shape and type."""
        if self.size == 1:
            return [one]
        mine = one.detach().cpu().contiguous()
        raw = mine.flatten().view(torch.uint8)  # no type is foreign to bytes
        parts = [torch.empty_like(raw) for _ in range(self.size)]
        dist.all_gather(parts, raw)
        return [part.view(mine.dtype).view(mine.shape) for part in parts]

    def part(self, total: int) -> slice:
        """Return which of so many rows are this process's: contiguous ones, as even as can be."""
        return slice(total * self.rank // self.size, total * (self.rank + 1) // self.size)

    def seed(self, seed: int, step: int) -> None:
        """Give a process that has no random state of its own one: dropout must differ from rank to rank."""
        if self.rank:
            torch.manual_seed(int(np.random.SeedSequence([seed, step, self.rank]).generate_state(1)[0]))

    @contextlib.contextmanager
    def watched(self, advice: str) -> Iterator[None]:
        """Turn the loss of another process into TrainingStopped with that advice."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not GONE.search(str(error)):
                raise
            raise TrainingStopped(f"one of the {self.size} processes ended or cannot be reached; {advice}") from error
