"""Times some steps before training, to turn minutes into steps and to show how long training will take. (torch)"""

from __future__ import annotations

import time

from gentext.plugins.pytorch.distributed import ProcessGroup
from gentext.plugins.trainers.learner import Learner
from gentext.plugins.trainers.options import StepOptions

#: Steps are timed for this number of seconds, but at least and at most these numbers of steps.
PROBE_SECONDS, PROBE_MIN_STEPS, PROBE_MAX_STEPS = 2.0, 3, 30
#: Learning rate of the timed steps, which change a copy of the model.
PROBE_RATE = 1e-9


def time_steps(learner: Learner, process_group: ProcessGroup) -> float:
    """Return how many seconds training needs for a symbol. All processes must call; each gets its own seconds."""
    config, batcher = learner.config, learner.batcher
    options = StepOptions(PROBE_RATE, config.weight_decay, is_averaged=config.average != "none")
    step_seconds: list[float] = []
    step_symbols: list[int] = []
    while process_group.broadcast_number(_needs_another_step(step_seconds)):
        began_at = time.perf_counter()
        learner.step(len(step_seconds) % batcher.steps_per_epoch, options)
        step_seconds.append(time.perf_counter() - began_at)
        step_symbols.append(learner.symbols)
    # The first step allocates memory and is slower. Batches of records differ in their symbols.
    return sum(step_seconds[1:]) / sum(step_symbols[1:])


def _needs_another_step(step_seconds: list[float]) -> bool:
    """Return whether more steps must be timed, from the seconds of those so far."""
    if len(step_seconds) < PROBE_MIN_STEPS:
        return True
    return len(step_seconds) < PROBE_MAX_STEPS and sum(step_seconds) < PROBE_SECONDS
