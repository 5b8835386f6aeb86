"""Takes optimizer steps: the model, its optimizers and the state that is carried from window to window. (torch)

A step depends only on the seed, on its number and on the tensors that `Learner.tensors` returns. So a run that was
killed can be resumed exactly from a checkpoint.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gentext.capabilities import SupportsHiddenMatrices, SupportsMembers
from gentext.console import warn
from gentext.errors import PluginError, RunError
from gentext.interfaces import Batcher, Model
from gentext.plugins.pytorch.checkpoint import MODEL_PREFIX, Checkpoint, load_weights
from gentext.plugins.pytorch.device import Compute
from gentext.plugins.pytorch.distributed import ProcessGroup
from gentext.plugins.pytorch.evaluate import NO_TARGET
from gentext.plugins.pytorch.recurrent import TorchState, reset_rows
from gentext.plugins.trainers.average import WeightAverage, decay_of
from gentext.plugins.trainers.muon import Muon
from gentext.plugins.trainers.options import BPTTConfig, StepOptions
from gentext.plugins.trainers.state import TrainingState, check_optimizer_states, check_tensor
from gentext.settings import Settings
from gentext.token_corpus import TokenCorpus

#: How the names of the weights begin from which training goes on, where those of the model are averages.
UNAVERAGED_PREFIX = "unaveraged."


class Learner:
    """The model, its optimizers and the carried state; `step` takes one optimizer step."""

    def __init__(
        self,
        config: BPTTConfig,
        settings: Settings,
        compute: Compute,
        process_group: ProcessGroup,
        model: Model,
        batcher: Batcher,
        train: TokenCorpus,
    ) -> None:
        self.config, self.compute, self.process_group, self.batcher = config, compute, process_group, batcher
        self.seed = settings.seed
        self.model = model.to(compute.device).train()
        process_group.broadcast(self.model.state_dict().values())
        self.optimizers = _create_optimizers(model, config, compute)
        decay = decay_of(config.average_decay) if config.average == "ema" else None
        self.average = WeightAverage(self.model, decay)
        self.scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.precision == "fp16")
        #: Rows of a batch in this process.
        self.rows = batcher.rows // process_group.size
        #: Whether some positions of a batch may have no target: then the processes count their targets together.
        self._has_padding = train.is_records
        #: How many targets a batch has on average, over all processes; None where all have the same number.
        self._mean_symbols = batcher.symbols_per_epoch / batcher.steps_per_epoch if train.is_records else None
        #: How many targets the last batch had, over all processes.
        self.symbols = 0
        #: The model's state after the last window of each row.
        self.carried: TorchState = model.initial_state(self.rows)
        #: Learning rate of the last step.
        self.rate = 0.0

    def step(self, step: int, options: StepOptions) -> float:
        """Take optimizer step number ``step`` (from 0).

        Return this process's part of the loss: the mean over the parts of all processes is the loss of the batch, the
        sum over its targets divided by their number.
        """
        epoch, step_of_epoch = divmod(step, self.batcher.steps_per_epoch)
        batch = self.batcher.batch(self.seed, epoch, step_of_epoch, self.process_group.rank)
        x, y, fresh = (torch.from_numpy(array) for array in batch)
        device, model, size = self.compute.device, self.model, self.process_group.size
        self.symbols = self._count_targets(y)
        self._set_options(options)

        # forward
        initial = model.initial_state(len(x))
        state = reset_rows(self.carried, fresh.to(device), initial, model.state_spec)
        model.zero_grad()
        with self.compute.autocast():
            x, y = x.to(device), y.to(device)
            logits, state = self._read(x, state)
            total_loss = self._sum_losses(logits.float(), x, y, fresh)
            loss = total_loss * (size / self.symbols)
            # A batch counts as much as it has targets. Else those of short records would count for more, and records
            # that the model writes would be too short.
            objective = loss if self._mean_symbols is None else total_loss * (size / self._mean_symbols)

        # backward
        self.scaler.scale(objective).backward()
        self.process_group.average_gradients(model)

        # update the parameters
        for optimizer in self.optimizers.values():
            self.scaler.unscale_(optimizer)
        if self.config.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), self.config.clip)
        for optimizer in self.optimizers.values():
            self.scaler.step(optimizer)
        self.scaler.update()
        if options.is_averaged:
            self.average.update()

        # In the types that the model declares: autocast may have left smaller ones, which a resume would not restore.
        self.carried = tuple(
            tensor.detach().to(initial_tensor.dtype) for tensor, initial_tensor in zip(state, initial, strict=True)
        )
        return loss.item()

    def _read(self, x: Tensor, state: TorchState) -> tuple[Tensor, TorchState]:
        """Return the logits of each network of the model [members, B, T, V], mostly of one, and the new state."""
        if isinstance(self.model, SupportsMembers):
            logits, state = self.model.member_logits(x, state)
            return logits, state
        logits, state = self.model(x, state)
        return logits[None], state

    def _sum_losses(self, logits: Tensor, x: Tensor, y: Tensor, fresh: Tensor) -> Tensor:
        """Return the sum of the losses of all targets y [B, T], by the logits [members, B, T, V]: a mean over members.

        Subclasses may learn from something else than the targets: x [B, T] are the inputs, and fresh [B] the rows whose
        state starts anew.
        """
        members = len(logits)
        targets = y.expand(members, *y.shape).flatten()
        losses = functional.cross_entropy(logits.flatten(0, 2), targets, ignore_index=NO_TARGET, reduction="sum")
        return losses / members

    def _count_targets(self, y: Tensor) -> int:
        """Return how many targets a batch has, over all processes, which all must call."""
        if not self._has_padding:
            return int(y.numel()) * self.process_group.size
        [count] = self.process_group.sum(int((y != NO_TARGET).sum()))
        return int(count)

    def _set_options(self, options: StepOptions) -> None:
        self.rate = options.rate
        for optimizer in self.optimizers.values():
            for parameter_group in optimizer.param_groups:
                parameter_group["lr"] = options.rate
                parameter_group["weight_decay"] = options.weight_decay if parameter_group["decays"] else 0.0

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors that a checkpoint needs, those of other processes too. Every process must call this."""
        with self.average.applied():
            tensors = {f"{MODEL_PREFIX}{name}": tensor.clone() for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.average.model_parameters().items():
            tensors[f"{UNAVERAGED_PREFIX}{name}"] = parameter
        for name, optimizer in self.optimizers.items():
            for parameter_index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"{name}.{parameter_index}.{key}": tensor for key, tensor in state.items()}
        tensors |= self._gather_state("carried", self.model, self.carried)
        for rank, random_state in enumerate(self.process_group.gather(torch.get_rng_state())):
            tensors[_random_state_name("cpu", rank)] = random_state
        if self.compute.device.type == "cuda":
            for rank, random_state in enumerate(
                self.process_group.gather(torch.cuda.get_rng_state(self.compute.device))
            ):
                tensors[_random_state_name("cuda", rank)] = random_state
        return tensors

    def _gather_state(self, prefix: str, model: Model, state: TorchState) -> dict[str, Tensor]:
        """Return a model's state of the rows of all processes, by its names in a checkpoint."""
        tensors = {}
        for spec, carried in zip(model.state_spec, state, strict=True):
            rank_tensors = self.process_group.gather(carried)  # in the order of the text's streams
            tensors[f"{prefix}.{spec.name}"] = (
                torch.cat(rank_tensors, spec.batch_axis) if len(rank_tensors) > 1 else carried
            )
        return tensors

    def load(self, checkpoint: Checkpoint, steps: int) -> TrainingState:
        """Restore what a checkpoint holds, and return how far training was.

        Warns when this machine computes in another way, or up to another number of ``steps``. Raises RunError for a
        checkpoint that is damaged or was written by another trainer.
        """
        load_weights(self.model, checkpoint)
        try:
            self.average.load(checkpoint.tensors_under(UNAVERAGED_PREFIX), checkpoint.meta.get("averaged", 0))
            self._load_optimizers(checkpoint)
            self._load_carried(checkpoint)
            self._load_random_state(checkpoint)
            self.scaler.load_state_dict(checkpoint.meta["scaler"])
            state = TrainingState.from_meta(checkpoint.meta)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise RunError(f"{checkpoint.path}: damaged or of another trainer ({error})") from None
        self._warn_of_differences(checkpoint, steps)
        return state

    def _load_optimizers(self, checkpoint: Checkpoint) -> None:
        for optimizer_name, optimizer in self.optimizers.items():
            states: dict[int, dict[str, Tensor]] = {}
            for name, tensor in checkpoint.tensors_under(f"{optimizer_name}.").items():
                index, _, key = name.partition(".")
                states.setdefault(int(index), {})[key] = tensor
            check_optimizer_states(optimizer_name, optimizer, states)
            optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})

    def _load_carried(self, checkpoint: Checkpoint) -> None:
        """Restore the carried state of this process's rows."""
        self.carried = self._own_state(checkpoint, "carried", self.model, self.carried)

    def _own_state(self, checkpoint: Checkpoint, prefix: str, model: Model, current: TorchState) -> TorchState:
        """Return a model's state of this process's rows, from a checkpoint; ``current`` has its types and device.

        Raises KeyError or ValueError where the checkpoint has another one.
        """
        carried = []
        for spec, current_tensor in zip(model.state_spec, current, strict=True):
            name = f"{prefix}.{spec.name}"
            all_rows = checkpoint.tensors[name]
            check_tensor(name, all_rows, spec.with_batch(self.rows * self.process_group.size), current_tensor.dtype)
            own_rows = all_rows.narrow(spec.batch_axis, self.process_group.rank * self.rows, self.rows)
            carried.append(own_rows.to(current_tensor.device, current_tensor.dtype))
        return tuple(carried)

    def _load_random_state(self, checkpoint: Checkpoint) -> None:
        """Restore the random state of this process, or seed it if the run had fewer processes before."""
        rank, tensors = self.process_group.rank, checkpoint.tensors
        self.process_group.seed_other_ranks(self.seed, checkpoint.meta["step"])
        if _random_state_name("cpu", rank) in tensors:
            torch.set_rng_state(tensors[_random_state_name("cpu", rank)])
        if self.compute.device.type == "cuda" and _random_state_name("cuda", rank) in tensors:
            torch.cuda.set_rng_state(tensors[_random_state_name("cuda", rank)], self.compute.device)

    def _warn_of_differences(self, checkpoint: Checkpoint, steps: int) -> None:
        current_settings = {
            "device": self.compute.device.type,
            "precision": self.compute.precision,
            "threads": self.compute.threads,
            "processes": self.process_group.size,
            "steps": steps,
        }
        stored_settings = {"processes": 1, **checkpoint.meta}  # checkpoints of the first versions do not name it
        for name, setting in current_settings.items():
            if stored_settings.get(name) != setting:
                warn(
                    f"{name} was {stored_settings.get(name)}, now {setting}: training goes on, but not bit for bit "
                    f"as it would have"
                )


def _random_state_name(device: str, rank: int) -> str:
    """Return the name of a process's random state in a checkpoint."""
    return f"random.{device}" + (f".{rank}" if rank else "")


def find_hidden_matrices(model: Model) -> dict[str, int]:
    """Return the matrices that Muon trains, see `SupportsHiddenMatrices`; empty for a model that names none.

    Raises PluginError where the model names a parameter that is no matrix, or whose height is no multiple of the
    number of matrices in it.
    """
    if not isinstance(model, SupportsHiddenMatrices):
        return {}
    matrices_in = dict(model.hidden_matrices())
    shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    for name, count in matrices_in.items():
        shape = shapes.get(name, [])
        if len(shape) != 2 or count < 1 or shape[0] % count:
            raise PluginError(
                f"the model's hidden_matrices: {name!r} has the shape {shape or None}; expected a parameter of two "
                f"dimensions, the first a multiple of {count}"
            )
    return matrices_in


def _create_optimizers(model: Model, config: BPTTConfig, compute: Compute) -> dict[str, torch.optim.Optimizer]:
    """Return the optimizers by their names in a checkpoint; each has its own parameters."""
    matrices_in = find_hidden_matrices(model) if config.optimizer == "muon" else {}
    for_adam = [parameter for name, parameter in model.named_parameters() if name not in matrices_in]
    parameter_groups = [
        {"params": [parameter for parameter in for_adam if parameter.dim() > 1], "decays": True},
        {"params": [parameter for parameter in for_adam if parameter.dim() <= 1], "decays": False},
    ]
    parameter_groups = [parameter_group for parameter_group in parameter_groups if parameter_group["params"]]
    adam_class = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    optimizers: dict[str, torch.optim.Optimizer] = {
        "optimizer": adam_class(parameter_groups, lr=config.rate, betas=(0.9, config.beta2), fused=True)
    }
    if matrices_in:
        weights = {model.get_parameter(name): count for name, count in matrices_in.items()}
        dtype = torch.bfloat16 if compute.precision == "bf16" else torch.float32
        optimizers["muon"] = Muon(weights, config.rate, config.muon_scale, config.weight_decay, dtype)
    return optimizers
