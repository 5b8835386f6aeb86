"""One optimizer step at a time: the model, its optimizer and the state that is carried along. (torch)

What a step does depends on (seed, step) and on what `Loop.tensors` returns, and nothing else:
that is why a killed run can go on exactly.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from gentext.config import Fraction, NonNegative, NonNegativeFloat, PositiveFloat
from gentext.console import warn
from gentext.errors import PluginError, RunError
from gentext.interfaces import Batcher, Ids
from gentext.plugins.pytorch import checkpoint as ckpt
from gentext.plugins.pytorch.device import Compute
from gentext.plugins.pytorch.distributed import Group
from gentext.plugins.pytorch.recurrent import TorchState, reset_rows
from gentext.plugins.trainers.muon import Muon
from gentext.settings import Settings


@dataclasses.dataclass(frozen=True)
class BPTTConfig:
    """Options of the trainer ``bptt``. The defaults are the notebook's."""

    optimizer: Literal["adam", "adamw", "muon"] = "adam"
    """Adam, Adam with decoupled weight decay, or Muon for the matrices between hidden units and AdamW for the rest."""
    rate: PositiveFloat = 1e-3
    """Peak learning rate."""
    muon_scale: PositiveFloat = 2.0
    """Size of Muon's updates, as a multiple of AdamW's."""
    beta2: Fraction = 0.999
    """How slowly Adam's second moment forgets."""
    weight_decay: NonNegativeFloat = 0.0
    """Decay of the weight matrices (adamw, muon); biases and norms have none."""
    clip: NonNegativeFloat = 5.0
    """Largest norm of the gradient; 0: no limit."""
    schedule: Literal["constant", "cosine"] = "constant"
    """How the rate falls over the budget."""
    warmup: NonNegative = 0
    """Steps in which the rate rises to its peak."""
    final: Fraction = 0.02
    """Share of the peak rate at the end of the cosine."""
    eval_every: NonNegative = 0
    """Steps between two measurements of the held-out loss; 0: about a tenth of the time."""
    patience: NonNegative = 0
    """Stop after so many measurements without a better loss; 0: never."""


@dataclasses.dataclass
class TrainingState:
    """Where training stands; with the tensors, all that a checkpoint holds."""

    step: int = 0
    seconds: float = 0.0
    loss: float = math.nan
    best_loss: float | None = None
    best_step: int = 0
    worse: int = 0
    val_loss: float | None = None


class Loop:
    """Model, optimizers and carried state: one optimizer step at a time."""

    def __init__(
        self,
        config: BPTTConfig,
        settings: Settings,
        compute: Compute,
        group: Group,
        model: Any,
        batcher: Batcher,
        train: Ids,
    ) -> None:
        self.config, self.compute, self.group, self.batcher, self.train = config, compute, group, batcher, train
        self.seed = settings.seed
        self.model = model.to(self.compute.device).train()
        group.spread(self.model.state_dict().values())
        self.optimizers = _optimizers(model, config, compute)
        self.scaler = torch.amp.GradScaler(self.compute.device.type, enabled=self.compute.precision == "fp16")
        self.rows, self.tokens_per_step = batcher.rows // group.size, batcher.rows * batcher.length
        self.carried: TorchState = model.initial_state(self.rows)
        self.rate = 0.0

    def step(self, step: int, rate: float) -> float:
        """Take optimizer step number ``step`` (from 0) at a learning rate; return the loss of this process's rows."""
        epoch, within = divmod(step, self.batcher.steps_per_epoch)
        batch = self.batcher.batch(self.train, self.seed, epoch, within, self.group.rank)
        x, y, fresh = (torch.from_numpy(one) for one in batch)
        device = self.compute.device
        model = self.model
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate
        self.rate = rate
        initial = model.initial_state(len(x))
        state = reset_rows(self.carried, fresh.to(device), initial, model.state_spec)
        model.zero_grad()
        with self.compute.autocast():
            logits, state = model(x.to(device), state)
            loss = functional.cross_entropy(logits.float().flatten(0, 1), y.to(device).flatten())
        self.scaler.scale(loss).backward()
        self.group.average(model)
        for optimizer in self.optimizers.values():
            self.scaler.unscale_(optimizer)
        if self.config.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), self.config.clip)
        for optimizer in self.optimizers.values():
            self.scaler.step(optimizer)
        self.scaler.update()
        # As the model declares them: autocast may have left a smaller type, which a resume would not restore.
        self.carried = tuple(one.detach().to(begin.dtype) for one, begin in zip(state, initial, strict=True))
        return loss.item()

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors that a checkpoint needs, those of the other processes too: all must ask."""
        tensors = {f"{ckpt.MODEL}{name}": one for name, one in self.model.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"{name}.{index}.{key}": one for key, one in state.items()}
        specs = self.model.state_spec
        for spec, one in zip(specs, self.carried, strict=True):  # in the order of the text's streams
            parts = self.group.gather(one)
            tensors[f"carried.{spec.name}"] = torch.cat(parts, spec.batch_axis) if len(parts) > 1 else one
        for rank, one in enumerate(self.group.gather(torch.get_rng_state())):
            tensors[_random("cpu", rank)] = one
        if self.compute.device.type == "cuda":
            for rank, one in enumerate(self.group.gather(torch.cuda.get_rng_state(self.compute.device))):
                tensors[_random("cuda", rank)] = one
        return tensors

    def load(self, checkpoint: ckpt.Checkpoint, steps: int) -> TrainingState:
        """Take up where a checkpoint stands. Says so when this machine computes differently."""
        meta, compute = checkpoint.meta, self.compute
        ckpt.load_weights(self.model, checkpoint)
        try:
            for kind, optimizer in self.optimizers.items():
                state: dict[int, dict[str, Tensor]] = {}
                for name, one in checkpoint.part(f"{kind}.").items():
                    index, _, key = name.partition(".")
                    state.setdefault(int(index), {})[key] = one
                optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
            begin, specs = self.group.rank * self.rows, self.model.state_spec
            carried = [checkpoint.tensors[f"carried.{spec.name}"] for spec in specs]
            mine = (one.narrow(spec.batch_axis, begin, self.rows) for one, spec in zip(carried, specs, strict=True))
            self.carried = tuple(one.to(now.device, now.dtype) for one, now in zip(mine, self.carried, strict=True))
            self._load_random(checkpoint)
            self.scaler.load_state_dict(meta["scaler"])
            fields = {field.name: meta[field.name] for field in dataclasses.fields(TrainingState)}
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise RunError(f"{checkpoint.path}: damaged or of another trainer ({error})") from None
        now = {
            "device": compute.device.type,
            "precision": compute.precision,
            "threads": compute.threads,
            "processes": self.group.size,
            "steps": steps,
        }
        meta = {"processes": 1, **meta}  # a checkpoint of the time before there could be several
        for name, value in now.items():
            if meta.get(name) != value:
                warn(
                    f"{name} was {meta.get(name)}, now {value}: training goes on, but not bit for bit as it would have"
                )
        fields["loss"] = math.nan if fields["loss"] is None else fields["loss"]
        return TrainingState(**fields)

    def _load_random(self, checkpoint: ckpt.Checkpoint) -> None:
        """Take up the random state of this process, or begin one where fewer have trained."""
        kept, rank = checkpoint.tensors, self.group.rank
        self.group.seed(self.seed, checkpoint.meta["step"])
        if _random("cpu", rank) in kept:
            torch.set_rng_state(kept[_random("cpu", rank)])
        if self.compute.device.type == "cuda" and _random("cuda", rank) in kept:
            torch.cuda.set_rng_state(kept[_random("cuda", rank)], self.compute.device)


def _random(device: str, rank: int) -> str:
    """Return what a checkpoint calls the random state of a process."""
    return f"random.{device}" + (f".{rank}" if rank else "")


def hidden_matrices(model: Any) -> dict[str, int]:
    """Return what Muon trains of a model, see gentext.interfaces.Model: nothing where the model does not tell.

    Raises PluginError where it names what is no matrix, or cannot be cut as it says.
    """
    stacked = dict(model.hidden_matrices()) if hasattr(model, "hidden_matrices") else {}
    shapes = {name: list(one.shape) for name, one in model.named_parameters()}
    for name, number in stacked.items():
        shape = shapes.get(name, [])
        if len(shape) != 2 or number < 1 or shape[0] % number:
            raise PluginError(
                f"the model's hidden_matrices: {name!r} has the shape {shape or None}; expected a parameter of two "
                f"dimensions, the first a multiple of {number}"
            )
    return stacked


def _optimizers(model: Any, config: BPTTConfig, compute: Compute) -> dict[str, torch.optim.Optimizer]:
    """Return the optimizers by what a checkpoint calls them; each has its own parameters."""
    stacked = hidden_matrices(model) if config.optimizer == "muon" else {}
    others = [one for name, one in model.named_parameters() if name not in stacked]
    groups = [
        {"params": [one for one in others if one.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [one for one in others if one.dim() <= 1], "weight_decay": 0.0},
    ]
    cls = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    groups = [one for one in groups if one["params"]]
    optimizers: dict[str, torch.optim.Optimizer] = {
        "optimizer": cls(groups, lr=config.rate, betas=(0.9, config.beta2), fused=True)
    }
    if not stacked:
        return optimizers
    weights = {model.get_parameter(name): number for name, number in stacked.items()}
    dtype = torch.bfloat16 if compute.precision == "bf16" else torch.float32
    return {**optimizers, "muon": Muon(weights, config.rate, config.muon_scale, config.weight_decay, dtype)}
