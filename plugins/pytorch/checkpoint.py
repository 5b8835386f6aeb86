"""Checkpoints: everything that training needs to continue exactly, in one safetensors file. (torch)

The name of a file shows its step and its loss: ``last-step000200-val1.4321.safetensors``. A resume begins with the
newest ``last`` file, or with the one before it if that is damaged. ``best`` is the one with the lowest loss on the
held-out text. Trainers of other plugins may use `save_checkpoint`, `load_last_checkpoint` and `load_weights` as they
are: tensors whose names begin with ``model.`` are the weights.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import math
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from gentext.capabilities import SupportsLogitScale
from gentext.components.creation import create_component
from gentext.config import build_config, config_class
from gentext.console import warn
from gentext.describe import load_run_tokenizer
from gentext.errors import RunError
from gentext.files.atomic import sync_folder, write_bytes
from gentext.files.reading import parse_json
from gentext.interfaces import Model
from gentext.manager import host
from gentext.plugins.pytorch.device import memory_size
from gentext.run import Run
from gentext.runs.removal import CHECKPOINT_NAME, remove_temporary_files
from gentext.settings import MAX_STEPS

#: How many ``last`` checkpoints a run has at most.
MAX_LAST_CHECKPOINTS = 2
#: How the names of tensors that are weights begin.
MODEL_PREFIX = "model."
#: Keys of a file's metadata: the ``meta`` of `save_checkpoint`, and the checksum of that and of all tensors.
META_KEY, CHECKSUM_KEY = "gentext", "sha256"
#: Key of ``meta``: by which factor the logits of the weights are best, where a trainer has measured it.
LOGIT_SCALE_KEY = "logit_scale"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory."""

    path: Path
    tensors: dict[str, Tensor]
    """All tensors, by name; those of the model begin with ``model.``."""
    meta: dict[str, Any]
    """What was saved beside them, at least ``step``."""

    def tensors_under(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin with ``prefix``, by the rest of their names."""
        return {name[len(prefix) :]: tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}


def find_checkpoints(run: Run, role: str) -> list[Path]:
    """Return a run's checkpoints of one role (last or best), the newest step first. A folder of such a name is none."""
    names = [path for path in run.checkpoints.glob(f"{role}-*.safetensors") if CHECKPOINT_NAME.fullmatch(path.name)]
    paths = [path for path in names if not path.is_dir()]
    return sorted(paths, key=lambda path: (checkpoint_step(path), path), reverse=True)


def checkpoint_step(path: Path) -> int:
    """Return the step in the name of a checkpoint."""
    match = CHECKPOINT_NAME.fullmatch(path.name)
    assert match is not None
    return int(match[2])


def save_checkpoint(run: Run, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], *, best: bool) -> Path:
    """Write a ``last`` checkpoint, and a ``best`` one beside it when it is; remove the older ones.

    ``meta`` is plain JSON data with at least ``step``; ``val_loss``, where it is known, goes into
    the name. Raises RunError when the disk is full; older checkpoints stay then.
    """
    step, val_loss = int(meta["step"]), meta.get("val_loss")
    loss_in_name = "" if val_loss is None else f"-val{val_loss:.4f}"
    path = run.checkpoints / f"last-step{step:06d}{loss_in_name}.safetensors"
    if run.path.is_dir():
        run.checkpoints.mkdir(exist_ok=True)  # somebody may have removed it; what is in memory is not lost by that
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    meta_text = json.dumps(dict(meta))
    metadata = {META_KEY: meta_text, CHECKSUM_KEY: compute_checksum(contiguous, meta_text)}
    write_bytes(path, safetensors.torch.save(contiguous, metadata=metadata))
    if best:
        link_as_best(run, path)
    _remove_old_checkpoints(run)
    return path


def compute_checksum(tensors: Mapping[str, Tensor], meta: str) -> str:
    """Return the SHA-256, in hexadecimal, of a checkpoint's metadata and tensors: names, types, shapes, bytes."""
    digest = hashlib.sha256(meta.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _remove_old_checkpoints(run: Run) -> None:
    for path in find_checkpoints(run, "last")[MAX_LAST_CHECKPOINTS:]:
        path.unlink(missing_ok=True)


def link_as_best(run: Run, path: Path) -> None:
    """Make a ``last`` checkpoint the best one too, and remove the former best."""
    best_path = path.with_name(path.name.replace("last-", "best-", 1))
    if not best_path.exists():
        # One of the names that `atomic_write` chooses from, by which `tidy_checkpoints` recognizes it after a kill.
        temporary_path = best_path.with_name(f".{best_path.name}.new_best.tmp")
        temporary_path.unlink(missing_ok=True)
        try:
            os.link(path, temporary_path)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, temporary_path)
        os.replace(temporary_path, best_path)
        sync_folder(run.checkpoints)
    for former_best in find_checkpoints(run, "best"):
        if former_best != best_path:
            former_best.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint, or raise RunError when it is damaged or does not fit into memory."""
    try:
        _check_size(path)
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if META_KEY not in metadata:
                raise RunError(f"{path}: not made by gentext; expected a checkpoint that gen train wrote")
            meta = parse_json(metadata[META_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if CHECKSUM_KEY not in metadata:
            raise ValueError(f"it has no {CHECKSUM_KEY}")
        if compute_checksum(tensors, metadata[META_KEY]) != metadata[CHECKSUM_KEY]:
            raise ValueError("its content does not fit its checksum")
    except FileNotFoundError:
        raise RunError(f"{path}: no such checkpoint") from None
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise RunError(f"{path}: damaged ({error}); expected a checkpoint that gen train wrote") from None
    step = meta.get("step") if isinstance(meta, dict) else None
    if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step <= MAX_STEPS:
        raise RunError(
            f"{path}: damaged (step {step!r:.20} in its metadata); expected a checkpoint that gen train wrote"
        )
    return Checkpoint(path, tensors, meta)


def _check_size(path: Path) -> None:
    """Raise OSError for what is no file, or for one that does not fit into memory: its header may claim anything."""
    status, memory = path.stat(), memory_size(torch.device("cpu"))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no file")
    if memory is not None and status.st_size > memory:
        raise OSError(
            errno.EFBIG, f"it has {status.st_size / 1e9:,.0f} GB, this machine {memory / 1e9:,.0f} GB of memory"
        )


def load_last_checkpoint(run: Run) -> Checkpoint:
    """Return the newest checkpoint that is whole, with a warning when a newer one is damaged."""
    problems = []
    for path in find_checkpoints(run, "last"):
        try:
            checkpoint = read_checkpoint(path)
        except RunError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            warn(f"{problem}; going on from the one before, step {checkpoint.meta['step']}")
        return checkpoint
    if problems:
        raise RunError(f"no checkpoint can be read. {problems[0]}")
    raise RunError(f"{run.path} has no checkpoint yet, so there is nothing to go on from; train anew")


def load_best_checkpoint(run: Run) -> Checkpoint:
    """Return the checkpoint with the lowest loss, or the last one when none was measured."""
    best_paths = find_checkpoints(run, "best")
    if best_paths:
        try:
            return read_checkpoint(best_paths[0])
        except RunError as error:
            warn(f"{error}; taking the last one instead")
    return load_last_checkpoint(run)


def build_model(run: Run, checkpoint: Checkpoint, vocab_size: int | None = None) -> Any:
    """Build a run's model with a checkpoint's weights, on the CPU, in evaluation mode.

    :param vocab_size: how many symbols the run's tokenizer has; None loads it to find out.
    """
    table = dict(run.config.get("model", {}))
    name = table.pop("name", None)
    if not isinstance(name, str):
        raise RunError(f"{run.path}/config.toml names no model; the run is damaged")
    registered = host().registry.find("model", name)
    cls = registered.load()
    if vocab_size is None:
        vocab_size = load_run_tokenizer(run).vocab_size
    model = create_component(registered, cls, build_config(config_class(cls), table, "model"), vocab_size)
    load_for_prediction(model, checkpoint)
    return model.eval()


def load_for_prediction(model: Model, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's weights into a model as `load_weights` does, and scale its logits as was best."""
    load_weights(model, checkpoint)
    scale = checkpoint.meta.get(LOGIT_SCALE_KEY, 1.0)
    if not isinstance(scale, float) or not 0 < scale < math.inf:
        raise RunError(f"{checkpoint.path}: damaged ({LOGIT_SCALE_KEY} is {scale!r:.20}); train the run again")
    if scale == 1:
        return
    if not isinstance(model, SupportsLogitScale):
        raise RunError(
            f"{checkpoint.path}: its logits must be scaled, and the model has no scale_logits; install the version of "
            f"its plugin that trained it"
        )
    model.scale_logits(scale)


def load_weights(model: Model, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's weights into a model, or raise RunError when they do not fit."""
    check_weight_types(model, checkpoint)
    try:
        model.load_state_dict(checkpoint.tensors_under(MODEL_PREFIX))
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:200]
        raise RunError(f"{checkpoint.path}: does not fit the run's model ({problem})") from None


def check_weight_types(model: Model, checkpoint: Checkpoint) -> None:
    """Raise RunError for weights of another kind of number than the model's, which PyTorch would convert silently.

    One precision of floating-point numbers may stand for another.
    """
    weights = checkpoint.tensors_under(MODEL_PREFIX)
    for name, tensor in model.state_dict().items():
        weight = weights.get(name, tensor)
        if weight.dtype != tensor.dtype and not (weight.is_floating_point() and tensor.is_floating_point()):
            raise RunError(
                f"{checkpoint.path}: damaged, the weight {name} is {weight.dtype}, expected {tensor.dtype}; "
                f"train the run again"
            )


def tidy_checkpoints(run: Run, newest_path: Path, *, best: bool) -> None:
    """Remove files of a killed process and damaged ones; training continues from the checkpoint ``newest_path``.

    ``best``: it has the lowest loss so far, so it must be linked as the best one, in case a kill prevented that.
    """
    remove_temporary_files(run.path)
    for path in [*find_checkpoints(run, "last"), *find_checkpoints(run, "best")]:
        # A newer checkpoint is damaged, or it is the best one of steps that will be taken once more.
        if checkpoint_step(path) > checkpoint_step(newest_path):
            path.unlink(missing_ok=True)
    _remove_old_checkpoints(run)
    if best:
        link_as_best(run, newest_path)
