"""bptt: truncated back-propagation through time with carried state. (torch)

Everything that happens in a step depends on (seed, step) and on what a checkpoint holds, so a
run that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import statistics
import time
from typing import Any

import torch

from gentext.console import warn
from gentext.errors import TrainingStopped
from gentext.events import Hooks, Progress
from gentext.interfaces import Batcher, FitResult, Ids, World
from gentext.interrupts import Interrupts
from gentext.plugins.pytorch import checkpoint as ckpt
from gentext.plugins.pytorch.device import Compute, check_memory, choose, flush_denormals, keep_memory
from gentext.plugins.pytorch.distributed import Group
from gentext.plugins.pytorch.evaluate import mean_loss
from gentext.plugins.pytorch.sampler import preview
from gentext.plugins.trainers.loop import BPTTConfig, Loop, TrainingState, hidden_matrices
from gentext.run import Run
from gentext.settings import Settings, budget_steps

#: How long steps are timed, and how many, to turn minutes into steps and to say how long it takes.
PROBE_SECONDS, PROBE_LEAST, PROBE_MOST = 2.0, 3, 30
#: Seconds after which a checkpoint is written even without an evaluation.
SAVE_EVERY = 60.0
#: Nats a symbol from which training does not come back; guessing evenly among all of Unicode costs 14.
HOPELESS = 100.0
#: The highest rate that is recommended after a loss was lost.
USUAL_RATE = 3e-3
#: Bytes of a parameter while the probe runs: two copies, a gradient, and Adam's two moments.
TRAINING = 20


class BPTTTrainer:
    """Fits any model that satisfies gentext.interfaces.Model."""

    Config = BPTTConfig
    distributed = True

    def __init__(self, config: BPTTConfig, settings: Settings) -> None:
        self.config, self.settings = config, settings
        self.compute: Compute
        self.group = Group(World.of_process())

    def start(self) -> str:
        """Choose device and precision and seed PyTorch. Returns what was taken."""
        self.compute = choose(self.settings)
        torch.manual_seed(self.settings.seed)
        return self.compute.line + (f", {self.group.size} processes" if self.group.size > 1 else "")

    @flush_denormals()
    @keep_memory()
    def plan(self, model: Any, batcher: Batcher, train: Ids) -> tuple[int, float]:
        """Return the steps of the budget and the seconds of one, measured on a copy of the model."""
        parameters = sum(int(one.numel()) for one in model.parameters())
        check_memory(parameters, TRAINING, self.compute.device, "to train")
        with torch.random.fork_rng(), self.group.watched("nothing was saved yet"):
            probe = self._loop(copy.deepcopy(model), batcher, train)
            times: list[float] = []
            while self.group.first(
                len(times) < PROBE_LEAST or (sum(times) < PROBE_SECONDS and len(times) < PROBE_MOST)
            ):
                begin = time.perf_counter()
                probe.step(len(times) % batcher.steps_per_epoch, 1e-9)
                times.append(time.perf_counter() - begin)
        # The first steps make room and compile; a neighbour on the machine may hold one up: hence the median.
        seconds = statistics.median(times[1:])
        return self.group.first(budget_steps(self.settings, batcher.steps_per_epoch, seconds)), seconds

    @flush_denormals()
    @keep_memory()
    def fit(
        self,
        model: Any,
        batcher: Batcher,
        train: Ids,
        val: Ids,
        run: Run,
        hooks: Hooks,
        steps: int,
        resume: bool,
    ) -> FitResult:
        """Train up to ``steps``. Raises TrainingStopped when interrupted or when the loss is lost."""
        if self.config.optimizer == "muon" and not hidden_matrices(model):
            warn("the model does not say which its hidden matrices are (hidden_matrices), so AdamW trains all of it")
        run = Run(self.group.first_path(run.path))
        with self.group.watched(f"go on with: gen train --resume --run {run.path}"):
            loop = self._loop(model, batcher, train)
            where = self._begin(loop, run, steps, resume)
            self._run(loop, where, val, run, hooks, steps, resume)
            return self._result(model, train, val, run, where, loop.tokens_per_step)

    def _run(
        self, loop: Loop, where: TrainingState, val: Ids, run: Run, hooks: Hooks, steps: int, resume: bool
    ) -> None:
        """Take step after step, and measure and save on the way."""
        first = where.step
        progress = functools.partial(_progress, where, loop, steps, first)
        hooks.run_started(run, self.settings, progress())
        every = self._eval_every(steps, loop.tokens_per_step, len(val))
        saved_at = time.monotonic()
        if not resume:
            self._save(loop, where, steps, run, hooks, progress, best=False)
        with Interrupts(ignore_repeats=self.group.size > 1) as interrupts:
            while where.step < steps and not self._gave_up(where):
                begin = time.perf_counter()
                loss = loop.step(where.step, self._rate(where.step, steps))
                late = time.monotonic() - saved_at > SAVE_EVERY
                where.loss, asked, late = self.group.agree(loss, interrupts.requested, late)
                where.seconds += time.perf_counter() - begin
                if not math.isfinite(where.loss):
                    raise TrainingStopped(self._lost(run, f"the loss became {where.loss} at step {where.step + 1}"))
                where.step += 1
                where.val_loss = None
                hooks.step_done(run, progress())
                if where.step % every == 0 or where.step == steps:
                    best = self._evaluate(loop, where, val, run, hooks, progress)
                    self._save(loop, where, steps, run, hooks, progress, best=best)
                elif asked or late or (interrupts.requested and self.group.size == 1):  # several stop at the next step
                    self._save(loop, where, steps, run, hooks, progress, best=False)
                else:
                    continue
                saved_at = time.monotonic()
                if self.group.any(interrupts.requested):
                    raise TrainingStopped(
                        f"stopped at step {where.step} of {steps}, everything is saved; "
                        f"go on with: gen train --resume --run {run.path}"
                    )

    def _begin(self, loop: Loop, run: Run, steps: int, resume: bool) -> TrainingState:
        """Return where training begins: at a checkpoint, or from the start."""
        if not resume:
            self.group.seed(self.settings.seed, 0)
            return TrainingState()
        checkpoint = ckpt.load_last(run)
        where = loop.load(checkpoint, steps)
        self.group.sum(0)  # all have read before one tidies up
        if not self.group.rank:
            ckpt.tidy(run, checkpoint.path, best=where.best_step == where.step > 0)
        return where

    def _loop(self, model: Any, batcher: Batcher, train: Ids) -> Loop:
        return Loop(self.config, self.settings, self.compute, self.group, model, batcher, train)

    def _rate(self, step: int, steps: int) -> float:
        config = self.config
        rate = config.rate * min(1.0, (step + 1) / config.warmup if config.warmup else 1.0)
        if config.schedule == "cosine":
            rate *= config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * step / steps))
        return rate

    def _gave_up(self, where: TrainingState) -> bool:
        return 0 < self.config.patience <= where.worse

    def _eval_every(self, steps: int, tokens_per_step: int, val_tokens: int) -> int:
        """A measurement reads forward only, a third of a step's work: keep it to a tenth of the time."""
        if self.config.eval_every:
            return self.config.eval_every
        return max(1, min(steps, max(math.ceil(steps / 10), math.ceil(3.3 * val_tokens / tokens_per_step))))

    def _evaluate(self, loop: Loop, where: TrainingState, val: Ids, run: Run, hooks: Hooks, progress: Any) -> bool:
        where.val_loss = mean_loss(loop.model, val, self.compute.autocast(), self.group)
        if not where.val_loss < HOPELESS:  # NaN, too
            raise TrainingStopped(
                self._lost(run, f"the held-out loss became {where.val_loss:.4g} after step {where.step}")
            )
        best = where.best_loss is None or where.val_loss < where.best_loss
        where.worse = 0 if best else where.worse + 1
        if best:
            where.best_loss, where.best_step = where.val_loss, where.step
        sample = functools.cache(functools.partial(preview, loop.model, run))  # several hooks may ask
        hooks.evaluated(run, dataclasses.replace(progress(), val_loss=where.val_loss, sample=sample))
        return best

    def _save(
        self, loop: Loop, where: TrainingState, steps: int, run: Run, hooks: Hooks, progress: Any, *, best: bool
    ) -> None:
        meta = {**dataclasses.asdict(where), "steps": steps, "precision": self.compute.precision}
        meta |= {
            "device": self.compute.device.type,
            "threads": self.compute.threads,
            "processes": self.group.size,
            "scaler": loop.scaler.state_dict(),
        }
        meta["loss"] = where.loss if math.isfinite(where.loss) else None
        tensors = loop.tensors()
        if not all(bool(one.isfinite().all()) for name, one in tensors.items() if name.startswith(ckpt.MODEL)):
            raise TrainingStopped(self._lost(run, f"the weights became infinite or NaN after step {where.step}"))
        if not self.group.rank:
            path = ckpt.save(run, tensors, meta, best=best)
            hooks.checkpoint_saved(run, progress(), path)

    def _lost(self, run: Run, problem: str) -> str:
        return (
            f"{problem}; the last good checkpoint is step "
            f"{ckpt.step_of(ckpt.find(run, 'last')[0])} in {run.path}. Train anew with a lower rate "
            f"(--set trainer.rate={min(self.config.rate / 3, USUAL_RATE):.2g}) or a smaller trainer.clip"
        )

    def _result(
        self, model: Any, train: Ids, val: Ids, run: Run, where: TrainingState, tokens_per_step: int
    ) -> FitResult:
        """Measure the best checkpoint in fp32, on the held-out text and on as much training text."""
        if not self.group.rank:
            ckpt.load_weights(model, ckpt.load_best(run))
        self.group.spread(model.state_dict().values())
        return FitResult(
            steps=where.step,
            val_loss=mean_loss(model, val, group=self.group),
            train_loss=mean_loss(model, train[-len(val) :], group=self.group),
            best_step=where.best_step,
            symbols_per_second=where.step * tokens_per_step / max(where.seconds, 1e-9),
        )


def _progress(where: TrainingState, loop: Loop, steps: int, first: int) -> Progress:
    return Progress(
        step=where.step,
        total_steps=steps,
        epoch=max(0, where.step - 1) // loop.batcher.steps_per_epoch,
        loss=where.loss,
        rate=loop.rate,
        tokens=where.step * loop.tokens_per_step,
        seconds=where.seconds,
        first_step=first,
    )
