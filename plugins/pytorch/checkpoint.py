"""Checkpoints: everything that training needs to go on exactly, in one safetensors file. (torch)

Names carry what a person wants to know: ``last-step000200-val1.4321.safetensors``. The newest
``last`` file is where a resume begins, the one before it is kept in case that is damaged, and
``best`` is the lowest loss on the held-out text. A trainer of another plugin may use `save`,
`load_last` and `load_weights` as they are: tensors under ``model.`` are the weights.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from gentext.config import build_config, config_class
from gentext.console import warn
from gentext.describe import load_tokenizer
from gentext.errors import RunError
from gentext.manager import host
from gentext.run import Run, atomic_write, sync_folder

NAME = re.compile(r"(last|best)-step(\d+)(?:-val(\d+\.\d+))?\.safetensors")
KEPT = 2
MODEL = "model."
#: Keys of a file's metadata: what `save` was given, and the checksum of that and of all tensors.
META, CHECKSUM = "gentext", "sha256"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory."""

    path: Path
    tensors: dict[str, Tensor]
    meta: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin with ``prefix``, without it."""
        return {name[len(prefix) :]: one for name, one in self.tensors.items() if name.startswith(prefix)}


def find(run: Run, role: str) -> list[Path]:
    """Return a run's checkpoints of one role (last or best), the newest step first."""
    found = []
    for path in run.checkpoints.glob(f"{role}-*.safetensors"):
        match = NAME.fullmatch(path.name)
        if match:
            found.append((int(match[2]), path))
    return [path for _, path in sorted(found, reverse=True)]


def step_of(path: Path) -> int:
    """Return the step in a checkpoint's name."""
    match = NAME.fullmatch(path.name)
    assert match is not None
    return int(match[2])


def save(run: Run, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], *, best: bool) -> Path:
    """Write a ``last`` checkpoint, and a ``best`` one beside it when it is; drop the older ones.

    ``meta`` is plain JSON data with at least ``step``; ``val_loss``, where it is known, goes into
    the name. Raises RunError when the disk is full; what was there before stays.
    """
    step, loss = int(meta["step"]), meta.get("val_loss")
    tail = f"step{step:06d}" + (f"-val{loss:.4f}" if loss is not None else "") + ".safetensors"
    path = run.checkpoints / f"last-{tail}"
    contiguous = {name: one.detach().cpu().contiguous() for name, one in tensors.items()}
    text = json.dumps(dict(meta))
    data = safetensors.torch.save(contiguous, metadata={META: text, CHECKSUM: checksum(contiguous, text)})
    with atomic_write(path) as file:
        file.write(data)
    if best:
        link_best(run, path)
    for old in find(run, "last")[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def checksum(tensors: Mapping[str, Tensor], meta: str) -> str:
    """Return the SHA-256, in hexadecimal, of a checkpoint's metadata and tensors: names, types, shapes, bytes."""
    digest = hashlib.sha256(meta.encode())
    for name, one in sorted(tensors.items()):
        digest.update(f"\n{name} {one.dtype} {list(one.shape)}\n".encode())
        digest.update(one.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def link_best(run: Run, path: Path) -> None:
    """Make a ``last`` checkpoint the best one too, and drop the former best."""
    name = path.with_name(path.name.replace("last-", "best-", 1))
    if not name.exists():
        temporary = name.with_name(f".{name.name}.tmp")
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, temporary)
        os.replace(temporary, name)
        sync_folder(run.checkpoints)
    for old in find(run, "best"):
        if old != name:
            old.unlink(missing_ok=True)


def read(path: Path) -> Checkpoint:
    """Read one checkpoint, or raise RunError when it is damaged."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            entries = file.metadata() or {}
            if META not in entries:
                raise RunError(f"{path}: not made by gentext; expected a checkpoint that gen train wrote")
            meta = json.loads(entries[META])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        # The first checkpoints had no checksum, and no other entry either: one under another name is a damaged one.
        if len(entries) > 1 and checksum(tensors, entries[META]) != entries.get(CHECKSUM):
            raise ValueError("its content does not fit its checksum")
    except FileNotFoundError:
        raise RunError(f"{path}: no such checkpoint") from None
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise RunError(f"{path}: damaged ({error}); expected a checkpoint that gen train wrote") from None
    if not isinstance(meta, dict) or not isinstance(meta.get("step"), int):
        raise RunError(f"{path}: damaged (no step in its metadata); expected a checkpoint that gen train wrote")
    return Checkpoint(path, tensors, meta)


def load_last(run: Run) -> Checkpoint:
    """Return the newest checkpoint that is whole, saying so when a newer one is damaged."""
    problems = []
    for path in find(run, "last"):
        try:
            checkpoint = read(path)
        except RunError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            warn(f"{problem}; going on from the one before, step {checkpoint.meta['step']}")
        return checkpoint
    if problems:
        raise RunError(f"no checkpoint can be read. {problems[0]}")
    raise RunError(f"{run.path} has no checkpoint yet, so there is nothing to go on from; train anew in another folder")


def load_best(run: Run) -> Checkpoint:
    """Return the checkpoint with the lowest loss, or the last one when none was measured."""
    best = find(run, "best")
    if best:
        try:
            return read(best[0])
        except RunError as error:
            warn(f"{error}; taking the last one instead")
    return load_last(run)


def build_model(run: Run, checkpoint: Checkpoint, vocab_size: int | None = None) -> Any:
    """Build a run's model with a checkpoint's weights, on the CPU, in evaluation mode.

    :param vocab_size: how many symbols the run's tokenizer has; None loads it to find out.
    """
    table = dict(run.config.get("model", {}))
    name = table.pop("name", None)
    if not isinstance(name, str):
        raise RunError(f"{run.path}/config.toml names no model; the run is damaged")
    cls = host().registry.get("model", name)
    model = cls(build_config(config_class(cls), table, "model"), vocabulary(run) if vocab_size is None else vocab_size)
    load_weights(model, checkpoint)
    return model.eval()


def vocabulary(run: Run) -> int:
    """Return how many symbols a run's tokenizer has."""
    return int(load_tokenizer(*run.read_tokenizer()).vocab_size)


def load_weights(model: Any, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's weights into a model, or raise RunError when they do not fit."""
    try:
        model.load_state_dict(checkpoint.part(MODEL))
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:200]
        raise RunError(f"{checkpoint.path}: does not fit the run's model ({problem})") from None


def tidy(run: Run, newest: Path, *, best: bool) -> None:
    """Put in order what a kill or a damaged file left behind; ``newest`` is where training goes on from.

    ``best`` says that it has the lowest loss so far: a kill may have come before it was made the best one.
    """
    for folder in (run.path, run.checkpoints):
        for path in folder.glob(".*.tmp"):  # half written
            path.unlink(missing_ok=True)
    for path in [*find(run, "last"), *find(run, "best")]:
        if step_of(path) > step_of(newest):  # damaged, or the best of a future that will come again
            path.unlink(missing_ok=True)
    for path in find(run, "last")[KEPT:]:
        path.unlink(missing_ok=True)
    if best:
        link_best(run, newest)
