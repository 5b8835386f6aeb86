"""How far training is, as a checkpoint stores it, and checks of the tensors from which a trainer goes on. (torch)

A checkpoint may be damaged in a way that its checksum does not show: somebody may have written it. A tensor of another
shape or type would be accepted, and fail in the middle of the first step or change what is learned.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import torch
from torch import Tensor

from gentext.config import CONVERSION_LOCK, NonNegativeFloat, PositiveFloat
from gentext.plugins.pytorch.checkpoint import LOGIT_SCALE_KEY
from gentext.settings import MAX_STEPS

#: The tensors that each optimizer has for a parameter, by the optimizer's name in a checkpoint.
OPTIMIZER_KEYS = {"optimizer": {"step", "exp_avg", "exp_avg_sq"}, "muon": {"momentum"}}
#: The number of steps that Adam has taken is a tensor without dimensions.
STEP_KEY = "step"
#: A number of steps or measurements.
_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_STEPS)]


@dataclasses.dataclass
class _StoredState:
    """`TrainingState` as a checkpoint stores it."""

    step: _Count
    seconds: NonNegativeFloat
    loss: float | None
    best_loss: float | None
    best_step: _Count
    worse: _Count
    val_loss: float | None
    logit_scale: PositiveFloat = 1.0


@dataclasses.dataclass
class TrainingState:
    """How far training is: with `Learner.tensors`, everything that a checkpoint holds."""

    step: int = 0
    """Optimizer steps done."""
    seconds: float = 0.0
    """Time spent in them."""
    loss: float = math.nan
    """Training loss of the last step."""
    best_loss: float | None = None
    """The lowest held-out loss so far, and the step at which it was measured."""
    best_step: int = 0
    evaluations_without_gain: int = 0
    """Measurements of the held-out loss since then."""
    val_loss: float | None = None
    """The held-out loss, where it was measured after the last step."""
    logit_scale: float = 1.0
    """By which factor the logits were best when they were last calibrated."""

    def to_meta(self) -> dict[str, Any]:
        """Return the state as a checkpoint stores it; JSON has no NaN."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "loss": self.loss if math.isfinite(self.loss) else None,
            "best_loss": self.best_loss,
            "best_step": self.best_step,
            "worse": self.evaluations_without_gain,
            "val_loss": self.val_loss,
            LOGIT_SCALE_KEY: self.logit_scale,
        }

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> TrainingState:
        """Return the state that a checkpoint stores. Raises ValueError where there is none, or an impossible one."""
        try:
            with CONVERSION_LOCK:
                stored = msgspec.convert(meta, _StoredState)
        except msgspec.ValidationError as error:  # no ValueError in older versions of msgspec
            raise ValueError(str(error)) from error
        return cls(
            step=stored.step,
            seconds=stored.seconds,
            loss=math.nan if stored.loss is None else stored.loss,
            best_loss=stored.best_loss,
            best_step=stored.best_step,
            evaluations_without_gain=stored.worse,
            val_loss=stored.val_loss,
            logit_scale=stored.logit_scale,
        )


def check_optimizer_states(
    name: str, optimizer: torch.optim.Optimizer, states: Mapping[int, Mapping[str, Tensor]]
) -> None:
    """Raise ValueError for states of parameters, by their index, that an optimizer cannot go on from."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, state in states.items():
        if not 0 <= index < len(parameters) or state.keys() != OPTIMIZER_KEYS[name]:
            raise ValueError(f"{name}.{index} has {', '.join(state)}, of {len(parameters)} parameters")
        parameter = parameters[index]
        for key, tensor in state.items():
            if key == STEP_KEY:
                check_tensor(f"{name}.{index}.{key}", tensor, (), torch.float32)
            else:
                check_tensor(f"{name}.{index}.{key}", tensor, parameter.shape, parameter.dtype)


def check_tensor(name: str, tensor: Tensor, shape: Sequence[int], dtype: torch.dtype) -> None:
    """Raise ValueError for a tensor of another shape or type than expected."""
    if tensor.dtype != dtype or tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)}, expected {dtype} {list(shape)}")
