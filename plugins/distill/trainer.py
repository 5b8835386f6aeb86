"""The trainer distill: a student learns its teacher's probabilities of the next symbol. (torch)

After G. Hinton, O. Vinyals, J. Dean: Distilling the Knowledge in a Neural Network (2015). The teacher reads the same
windows beside the student, with a carried state of its own: its PyTorch model gives the probabilities of all symbols at
all positions of a window in one call, which its exported file would give one position at a time.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import msgspec
import torch
from torch import Tensor
from torch.nn import functional

from gentext.console import warn
from gentext.corpus.taught_corpus import require_teacher
from gentext.events import Hooks
from gentext.interfaces import Batcher, FitResult, Model, Speed, TrainingPlan
from gentext.plugins.distill.batcher import WrittenBatcher
from gentext.plugins.pytorch.checkpoint import Checkpoint, build_model, load_best_checkpoint
from gentext.plugins.pytorch.device import Compute
from gentext.plugins.pytorch.distributed import ProcessGroup
from gentext.plugins.pytorch.evaluate import NO_TARGET
from gentext.plugins.pytorch.recurrent import TorchState, reset_rows
from gentext.plugins.trainers.bptt import BPTTTrainer
from gentext.plugins.trainers.learner import Learner
from gentext.plugins.trainers.options import BPTTConfig
from gentext.run import Run
from gentext.settings import Settings
from gentext.token_corpus import TokenCorpus

#: How the names of the teacher's state in a checkpoint begin.
TEACHER_PREFIX = "teacher"


@dataclasses.dataclass(frozen=True)
class DistillConfig(BPTTConfig):
    """Options of the trainer ``distill``: those of ``bptt``, and what of the teacher is learned."""

    soft: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    """Share of the loss that is measured against the teacher's probabilities; the other part: against the text."""
    temperature: Annotated[float, msgspec.Meta(ge=0.01, le=100)] = 1.0
    """Temperature of the probabilities that are compared, the teacher's and the student's."""


class DistillLearner(Learner):
    """A learner whose targets are a teacher's probabilities."""

    def __init__(
        self,
        config: DistillConfig,
        settings: Settings,
        compute: Compute,
        process_group: ProcessGroup,
        model: Model,
        batcher: Batcher,
        train: TokenCorpus,
        teacher: Model,
    ) -> None:
        super().__init__(config, settings, compute, process_group, model, batcher, train)
        self.soft, self.temperature, self.teacher = config.soft, config.temperature, teacher
        self.teacher_state: TorchState = teacher.initial_state(self.rows)
        """The teacher's state after the last window of each row."""

    def _sum_losses(self, logits: Tensor, x: Tensor, y: Tensor, fresh: Tensor) -> Tensor:
        """Return the soft and the hard losses, mixed.

        The gradient of the soft ones falls with the square of the temperature, so they are multiplied by that.
        """
        if not self.soft:
            return super()._sum_losses(logits, x, y, fresh)
        probabilities = self._teach(x, fresh)
        probabilities *= (y != NO_TARGET)[:, :, None]
        members = len(logits)
        targets = probabilities.expand(members, *probabilities.shape).flatten(0, 2)
        losses = functional.cross_entropy((logits / self.temperature).flatten(0, 2), targets, reduction="sum")
        soft_loss = self.temperature**2 * losses / members
        if self.soft == 1:
            return soft_loss
        return self.soft * soft_loss + (1 - self.soft) * super()._sum_losses(logits, x, y, fresh)

    @torch.no_grad()
    def _teach(self, x: Tensor, fresh: Tensor) -> Tensor:
        """Return the teacher's probabilities [B, T, V] after each of the inputs, and carry its state on."""
        initial = self.teacher.initial_state(len(x))
        state = reset_rows(self.teacher_state, fresh.to(x.device), initial, self.teacher.state_spec)
        logits, state = self.teacher(x, state)
        self.teacher_state = tuple(
            tensor.to(initial_tensor.dtype) for tensor, initial_tensor in zip(state, initial, strict=True)
        )
        return torch.softmax(logits.float() / self.temperature, dim=-1)

    def tensors(self) -> dict[str, Tensor]:
        return super().tensors() | self._gather_state(TEACHER_PREFIX, self.teacher, self.teacher_state)

    def _load_carried(self, checkpoint: Checkpoint) -> None:
        super()._load_carried(checkpoint)
        self.teacher_state = self._own_state(checkpoint, TEACHER_PREFIX, self.teacher, self.teacher_state)


class DistillTrainer(BPTTTrainer):
    """Fits a model to a teacher's probabilities, otherwise as its base class does."""

    Config = DistillConfig
    config: DistillConfig

    def measure_speed(self, model: Model, batcher: Batcher, train: TokenCorpus) -> Speed:
        """Time steps, and beside them how long the teacher writes for each."""
        writing_seconds = 0.0
        if isinstance(batcher, WrittenBatcher):
            [writing_seconds] = self.process_group.broadcast_numbers(batcher.measure_writing(self.settings.seed))
        speed = super().measure_speed(model, batcher, train)
        return dataclasses.replace(speed, step=speed.step + writing_seconds)

    def fit(
        self,
        model: Model,
        batcher: Batcher,
        train: TokenCorpus,
        val: TokenCorpus,
        run: Run,
        hooks: Hooks,
        plan: TrainingPlan,
        resume: bool,
    ) -> FitResult:
        """Train as the base class does. Warns where the student is larger than its teacher."""
        if not resume and self.process_group.rank == 0:
            sizes = [sum(parameter.numel() for parameter in each.parameters()) for each in (model, self._load(train))]
            if sizes[0] > sizes[1]:
                warn(
                    f"the student has {sizes[0]:,} parameters, its teacher {sizes[1]:,}: a larger model learns more "
                    f"from the text itself, with gen train"
                )
        return super().fit(model, batcher, train, val, run, hooks, plan, resume)

    def _create_learner(self, model: Model, batcher: Batcher, train: TokenCorpus) -> Learner:
        teacher = self._load(train).to(self.compute.device)
        return DistillLearner(
            self.config, self.settings, self.compute, self.process_group, model, batcher, train, teacher
        )

    def _load(self, train: TokenCorpus) -> Model:
        """Return the teacher's model, with its best weights, on the CPU."""
        teacher, _ = require_teacher(train, "trainer.name = distill")
        model: Model = build_model(teacher.run, load_best_checkpoint(teacher.run))
        return model
