"""Times some steps before training, to turn minutes into steps and to choose the number of threads. (torch)

Another program may disturb any moment of it. So everything is judged by medians, which no single moment changes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch

from gentext.plugins.pytorch.distributed import ProcessGroup
from gentext.plugins.trainers.learner import Learner
from gentext.plugins.trainers.options import StepOptions

#: Steps are taken for this number of seconds, but at least and at most these numbers of steps. The later half is timed:
#: the first step allocates memory, and the next ones may be slower too, by a tenth and more.
PROBE_SECONDS, PROBE_MIN_STEPS, PROBE_MAX_STEPS = 4.0, 3, 40
#: Learning rate of the timed steps, which change a copy of the model.
PROBE_RATE = 1e-9
#: Seconds of a block of steps with one number of threads, at least one step; and of all blocks of a comparison.
BLOCK_SECONDS, COMPARISON_SECONDS = 0.3, 6.0
#: Blocks with each number of threads: with three, one that was disturbed is never the median.
MIN_BLOCKS, MAX_BLOCKS = 3, 7
#: How many times as fast all threads must be to be chosen. Several threads wait for the one that another program
#: interrupts, so one thread loses least when programs start later.
CLEARLY_FASTER = 1.1
#: How many times as long as one thread all threads may take before a comparison is given up.
HOPELESSLY_SLOWER = 4


def time_steps(learner: Learner, process_group: ProcessGroup) -> float:
    """Return how many seconds training needs for a symbol. All processes must call; each gets its own seconds."""
    step_seconds: list[float] = []
    symbol_seconds: list[float] = []  # batches of records differ in their symbols
    while process_group.broadcast_number(_needs_another_step(step_seconds)):
        seconds, symbols = _time_step(learner, len(step_seconds))
        step_seconds.append(seconds)
        symbol_seconds.append(seconds / symbols)
    return statistics.median_low(symbol_seconds[len(symbol_seconds) // 2 :])


def choose_threads(learner: Learner, threads: int) -> int:
    """Return 1 or ``threads``, by steps with either number in turn. Leaves PyTorch with the number that it returns.

    Takes some `COMPARISON_SECONDS`, or as long as three blocks of one step each with either number. Where all threads
    take too long for that, one thread is chosen.
    """
    single_blocks: list[float] = []
    threaded_blocks: list[float] = []
    torch.set_num_threads(1)
    _time_step(learner, 0)  # allocates memory
    began_at = time.perf_counter()
    while needs_another_pair(threaded_blocks, single_blocks, time.perf_counter() - began_at):
        for count, blocks in ((1, single_blocks), (threads, threaded_blocks)):
            torch.set_num_threads(count)
            blocks.append(_time_block(learner))
    chosen = threads if are_clearly_faster(threaded_blocks, single_blocks) else 1
    torch.set_num_threads(chosen)
    return chosen


def are_clearly_faster(threaded_blocks: Sequence[float], single_blocks: Sequence[float]) -> bool:
    """Return whether all threads are clearly faster than one, from the seconds of a symbol in the blocks of each.

    Fewer than `MIN_BLOCKS` prove nothing.
    """
    if min(len(threaded_blocks), len(single_blocks)) < MIN_BLOCKS:
        return False
    return statistics.median(threaded_blocks) * CLEARLY_FASTER <= statistics.median(single_blocks)


def needs_another_pair(threaded_blocks: Sequence[float], single_blocks: Sequence[float], seconds: float) -> bool:
    """Return whether another block with either number of threads must be timed, after so many ``seconds`` of them.

    The blocks are those of `are_clearly_faster`, and equally many.
    """
    count = len(single_blocks)
    if seconds < COMPARISON_SECONDS:
        return count < MAX_BLOCKS
    return count < MIN_BLOCKS and sum(threaded_blocks) < HOPELESSLY_SLOWER * sum(single_blocks)


def _time_block(learner: Learner) -> float:
    """Return the seconds of a symbol, from as many steps as `BLOCK_SECONDS` have."""
    block_seconds, block_symbols, step = 0.0, 0, 0
    while block_seconds < BLOCK_SECONDS:
        seconds, symbols = _time_step(learner, step)
        block_seconds, block_symbols, step = block_seconds + seconds, block_symbols + symbols, step + 1
    return block_seconds / block_symbols


def _time_step(learner: Learner, step: int) -> tuple[float, int]:
    """Take a step that learns next to nothing; return its seconds and its symbols."""
    config = learner.config
    options = StepOptions(PROBE_RATE, config.weight_decay, is_averaged=config.average != "none")
    began_at = time.perf_counter()
    learner.step(step % learner.batcher.steps_per_epoch, options)
    return time.perf_counter() - began_at, learner.symbols


def _needs_another_step(step_seconds: list[float]) -> bool:
    """Return whether more steps must be timed, from the seconds of those so far."""
    if len(step_seconds) < PROBE_MIN_STEPS:
        return True
    return len(step_seconds) < PROBE_MAX_STEPS and sum(step_seconds) < PROBE_SECONDS
