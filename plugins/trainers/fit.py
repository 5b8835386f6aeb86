"""What one call of the trainer's `fit` works with. (torch)"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from gentext.events import Hooks, Progress
from gentext.interfaces import Measurement, TrainingPlan
from gentext.measuring import count_symbols
from gentext.plugins.trainers.learner import Learner
from gentext.plugins.trainers.state import TrainingState
from gentext.run import Run
from gentext.token_corpus import TokenCorpus


@dataclasses.dataclass(frozen=True)
class Fit:
    """The learner and its state, and everything that `BPTTTrainer.fit` got."""

    learner: Learner
    state: TrainingState
    """Changes with every step."""
    train: TokenCorpus
    """What is learned from."""
    calibration: TokenCorpus | None
    """What is set aside of the training text."""
    val: TokenCorpus
    run: Run
    hooks: Hooks
    plan: TrainingPlan
    first_step: int
    """The step at which this process began."""

    def progress(self, measurement: Measurement | None = None, sample: Callable[[int], str] | None = None) -> Progress:
        """Return how far training is, as hooks get it; ``sample`` writes that many characters with the model."""
        learner, state = self.learner, self.state
        return Progress(
            step=state.step,
            total_steps=self.plan.steps,
            epoch=max(0, state.step - 1) // learner.batcher.steps_per_epoch,
            loss=state.loss,
            rate=learner.rate,
            tokens=count_symbols(learner.batcher, state.step),
            seconds=state.seconds,
            first_step=self.first_step,
            measurement=measurement,
            sample=sample,
        )
