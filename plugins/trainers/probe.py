"""Times some steps before training, to turn minutes into steps and to show how long training will take. (torch)"""

from __future__ import annotations

import time

from gentext.plugins.pytorch.distributed import ProcessGroup
from gentext.plugins.trainers.learner import Learner
from gentext.plugins.trainers.options import StepOptions

#: Steps are taken for this number of seconds, but at least and at most these numbers of steps. The later half is timed:
#: the first step allocates memory, and the next ones may be slower too, by a tenth and more.
PROBE_SECONDS, PROBE_MIN_STEPS, PROBE_MAX_STEPS = 4.0, 3, 40
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
    first = len(step_seconds) // 2
    return sum(step_seconds[first:]) / sum(step_symbols[first:])  # batches of records differ in their symbols


def _needs_another_step(step_seconds: list[float]) -> bool:
    """Return whether more steps must be timed, from the seconds of those so far."""
    if len(step_seconds) < PROBE_MIN_STEPS:
        return True
    return len(step_seconds) < PROBE_MAX_STEPS and sum(step_seconds) < PROBE_SECONDS
