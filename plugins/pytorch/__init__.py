"""Tools for authors of models and trainers. (torch)

The names in ``__all__`` are public. All other names of the modules in this folder are internal and may change. A module
inside this folder imports the others by their full names, never through the package.
"""

from gentext.plugins.pytorch.checkpoint import (
    Checkpoint,
    build_model,
    load_best_checkpoint,
    load_last_checkpoint,
    load_weights,
    save_checkpoint,
)
from gentext.plugins.pytorch.device import Compute, check_memory, choose_compute, choose_device
from gentext.plugins.pytorch.distributed import ProcessGroup
from gentext.plugins.pytorch.evaluate import mean_loss
from gentext.plugins.pytorch.recurrent import RecurrentModel, TorchState, reset_rows
from gentext.plugins.pytorch.sampler import preview

__all__ = [
    "Checkpoint",
    "Compute",
    "ProcessGroup",
    "RecurrentModel",
    "TorchState",
    "build_model",
    "check_memory",
    "choose_compute",
    "choose_device",
    "load_best_checkpoint",
    "load_last_checkpoint",
    "load_weights",
    "mean_loss",
    "preview",
    "reset_rows",
    "save_checkpoint",
]
