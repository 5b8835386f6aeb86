"""The trainer bptt: truncated back-propagation through time with carried state. (torch)

A step depends only on the seed, on its number and on what a checkpoint holds. So a run that was killed and resumed
has the same losses and weights as one that was not.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import time

import torch

from gentext.console import progress, say, warn
from gentext.errors import TrainingStopped
from gentext.events import Hooks
from gentext.interfaces import Batcher, FitResult, Measurement, Model, Speed, TrainingPlan, World
from gentext.interrupts import Interrupts
from gentext.measuring import count_symbols
from gentext.plugins.pytorch.checkpoint import (
    LOGIT_SCALE_KEY,
    MODEL_PREFIX,
    checkpoint_step,
    find_checkpoints,
    load_best_checkpoint,
    load_for_prediction,
    load_last_checkpoint,
    save_checkpoint,
    tidy_checkpoints,
)
from gentext.plugins.pytorch.device import Compute, check_memory, choose_compute, flush_denormals, keep_memory
from gentext.plugins.pytorch.distributed import ProcessGroup
from gentext.plugins.pytorch.evaluate import measure_loss, stream_loss, time_reading
from gentext.plugins.pytorch.sampler import preview
from gentext.plugins.trainers.calibration import check_logit_scale, choose_logit_scale, scaled_logits, split_calibration
from gentext.plugins.trainers.fit import Fit
from gentext.plugins.trainers.learner import Learner, find_hidden_matrices
from gentext.plugins.trainers.options import BPTTConfig, choose_step_options
from gentext.plugins.trainers.probe import choose_threads, time_steps
from gentext.plugins.trainers.state import TrainingState
from gentext.run import Run
from gentext.runs.model_description import describe
from gentext.settings import Settings
from gentext.token_corpus import TokenCorpus

#: Positions of the sample that each measurement writes, and seconds of a picture and a checkpoint, roughly.
SAMPLE_LENGTH, OTHER_SECONDS = 300, 0.2
#: Seconds after which a checkpoint is written even without an evaluation.
SAVE_INTERVAL = 60.0
#: Held-out loss, in nats a symbol, at which training is given up; guessing evenly among all of Unicode costs 14.
HOPELESS_LOSS = 100.0
#: The highest learning rate that is recommended after the loss diverged.
MAX_RECOMMENDED_RATE = 3e-3
#: Bytes of a parameter while the probe runs: two copies, a gradient, and Adam's two moments, of 4 bytes each; and bytes
#: of its average.
TRAINING_BYTES_PER_PARAMETER, AVERAGE_BYTES_PER_PARAMETER = 20, 4


class BPTTTrainer:
    """Fits any model that satisfies gentext.interfaces.Model."""

    Config = BPTTConfig
    distributed = True

    def __init__(self, config: BPTTConfig, settings: Settings) -> None:
        self.config, self.settings = config, settings
        self.compute: Compute
        self.process_group = ProcessGroup(World.of_process())

    def start(self) -> str:
        """Choose device and precision and seed PyTorch. Returns a line that names them."""
        self.compute = choose_compute(self.settings)
        torch.manual_seed(self.settings.seed)
        return self._describe_compute()

    @flush_denormals()
    @keep_memory()
    def measure_speed(self, model: Model, batcher: Batcher, train: TokenCorpus) -> Speed:
        """Time steps and measurements on a copy of the model, and choose the threads for a budget of minutes."""
        if self.config.calibration:
            check_logit_scale(model)
        parameters = sum(int(parameter.numel()) for parameter in model.parameters())
        average_bytes = AVERAGE_BYTES_PER_PARAMETER if self.config.average != "none" else 0
        check_memory(parameters, TRAINING_BYTES_PER_PARAMETER + average_bytes, self.compute.device, "to train")
        with torch.random.fork_rng(), self.process_group.explain_lost_process("nothing was saved yet"):
            probe = self._create_learner(copy.deepcopy(model), batcher, train)
            if self._may_choose_threads():
                self.compute = dataclasses.replace(self.compute, threads=choose_threads(probe, self.compute.threads))
            symbol_seconds = time_steps(probe, self.process_group)
            reading = time_reading(probe.model, train, self.compute.autocast(), self.process_group)
        seconds = symbol_seconds * batcher.symbols_per_epoch / batcher.steps_per_epoch
        step, symbol, stream_symbol, position = self.process_group.broadcast_numbers(
            seconds, reading.symbol, reading.stream_symbol, reading.position
        )
        measurement = position * SAMPLE_LENGTH + self.config.calibration * symbol + OTHER_SECONDS
        # A run on several processes may resume with fewer of them, and then each has more of the cores.
        threads = self.compute.threads if self._is_single_on_cpu() else 0
        device = self._describe_compute()
        return Speed(step, symbol, stream_symbol, measurement, self.config.eval_every, threads, device)

    def _may_choose_threads(self) -> bool:
        """Return whether the threads follow from measuring.

        One thread and two add numbers in another order, so the weights differ. Two runs with the same seed and as many
        steps must be equal, so only a budget of minutes, whose steps are measured anyway, has measured threads.
        """
        is_open = self.settings.minutes is not None and not self.settings.threads
        return is_open and self._is_single_on_cpu() and self.compute.threads > 1

    def _is_single_on_cpu(self) -> bool:
        return self.process_group.size == 1 and self.compute.device.type == "cpu"

    def _describe_compute(self) -> str:
        """Return a line with device, threads and precision."""
        processes = f", {self.process_group.size} processes" if self.process_group.size > 1 else ""
        return self.compute.description + processes

    @flush_denormals()
    @keep_memory()
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
        """Train up to ``plan.steps``. Raises TrainingStopped when interrupted or when the loss diverges."""
        if self.config.optimizer == "muon" and not find_hidden_matrices(model):
            warn("the model does not say which its hidden matrices are (hidden_matrices), so AdamW trains all of it")
        to_learn, calibration = split_calibration(train, self.config.calibration)
        run = Run(self.process_group.broadcast_path(run.path))
        with self.process_group.explain_lost_process(f"go on with: gen train --resume --run {run.path}"):
            learner = self._create_learner(model, batcher, to_learn)
            state = self._initial_state(learner, run, plan.steps, resume)
            fit = Fit(learner, state, to_learn, calibration, val, run, hooks, plan, first_step=state.step)
            self._run_steps(fit, resume)
            return self._measure_result(fit)

    def part_to_learn(self, train: TokenCorpus) -> TokenCorpus:
        """Return the training text without what the logits are calibrated on."""
        return split_calibration(train, self.config.calibration)[0]

    def _create_learner(self, model: Model, batcher: Batcher, train: TokenCorpus) -> Learner:
        return Learner(self.config, self.settings, self.compute, self.process_group, model, batcher, train)

    def _initial_state(self, learner: Learner, run: Run, steps: int, resume: bool) -> TrainingState:
        """Return how far training is: as far as the newest checkpoint, which is loaded, or at its beginning."""
        if not resume:
            self.process_group.seed_other_ranks(self.settings.seed, 0)
            return TrainingState()
        checkpoint = load_last_checkpoint(run)
        state = learner.load(checkpoint, steps)
        self.process_group.wait()  # until every process has read the checkpoints
        if self.process_group.rank == 0:
            tidy_checkpoints(run, checkpoint.path, best=state.best_step == state.step > 0)
        return state

    def _run_steps(self, fit: Fit, resume: bool) -> None:
        """Take step after step, and measure and save in between."""
        learner, state, run, hooks, steps = fit.learner, fit.state, fit.run, fit.hooks, fit.plan.steps
        hooks.run_started(run, self.settings, fit.progress())
        saved_at = time.monotonic()
        if not resume:
            self._save_checkpoint(fit, best=False)
        with Interrupts(ignore_repeats=self.process_group.size > 1) as interrupts:
            while state.step < steps and not self._out_of_patience(state):
                began_at = time.perf_counter()
                loss = learner.step(state.step, choose_step_options(self.config, state.step, steps))
                save_due = time.monotonic() - saved_at > SAVE_INTERVAL
                state.loss, stop_requested, save_due = self.process_group.combine_step(
                    loss, interrupts.requested, save_due
                )
                state.seconds += time.perf_counter() - began_at
                if not math.isfinite(state.loss):
                    raise self._divergence_error(run, f"the loss became {state.loss} at step {state.step + 1}")
                state.step += 1
                state.val_loss = None
                hooks.step_done(run, fit.progress())

                # A hook may have asked to stop; several processes agree in the next step.
                if self.process_group.size == 1:
                    stop_requested = interrupts.requested
                if state.step in fit.plan.measured_at or state.step == steps:
                    with learner.average.applied():
                        state.logit_scale = choose_logit_scale(learner.model, fit.calibration, self.process_group)
                        with scaled_logits(learner.model, state.logit_scale):
                            is_best = self._evaluate_model(fit)
                    self._save_checkpoint(fit, best=is_best)
                elif stop_requested or save_due:
                    self._save_checkpoint(fit, best=False)
                else:
                    continue
                saved_at = time.monotonic()
                if self.process_group.is_true_anywhere(interrupts.requested):
                    raise TrainingStopped(
                        f"stopped at step {state.step} of {steps}, everything is saved; "
                        f"go on with: gen train --resume --run {run.path}"
                    )
        if state.step < steps:
            say(
                f"training ends at step {state.step} of {steps}: the held-out loss has not been lower since step "
                f"{state.best_step}, so more steps cannot help; trainer.patience=0 takes all of them"
            )

    def _out_of_patience(self, state: TrainingState) -> bool:
        return 0 < self.config.patience <= state.evaluations_without_gain

    def _evaluate_model(self, fit: Fit) -> bool:
        """Measure both losses, and return whether the held-out loss is the lowest so far."""
        state, model, run = fit.state, fit.learner.model, fit.run
        measure = functools.partial(
            measure_loss,
            model,
            autocast=self.compute.autocast(),
            group=self.process_group,
            symbols=fit.plan.measured_symbols,
        )
        with progress("measuring the losses", 2 * fit.plan.measured_symbols, "symbols") as bar:
            val, train = (measure(corpus, advance=bar.advance) for corpus in (fit.val, fit.train))
        val_loss = val.mean
        if fit.val.symbols and not val_loss < HOPELESS_LOSS:  # NaN, too
            raise self._divergence_error(run, f"the held-out loss became {val_loss:.4g} after step {state.step}")
        state.val_loss = val_loss
        # Where nothing is held out, the loss is NaN, and the newest checkpoint is the best.
        is_best = not fit.val.symbols or state.best_loss is None or val_loss < state.best_loss
        if is_best:
            state.best_loss = val_loss if fit.val.symbols else None
            state.best_step, state.evaluations_without_gain = state.step, 0
        else:
            state.evaluations_without_gain += 1
        symbols = count_symbols(fit.learner.batcher, state.step)
        measurement = Measurement(state.step, symbols, val_loss, train.mean, val.error, train.error)
        sample = functools.cache(functools.partial(preview, model, run))  # several hooks may want the same text
        fit.hooks.evaluated(run, fit.progress(measurement, sample))
        return is_best

    def _save_checkpoint(self, fit: Fit, *, best: bool) -> None:
        """Write a checkpoint. Raises TrainingStopped, and writes none, where the weights are no numbers."""
        learner, state, run = fit.learner, fit.state, fit.run
        meta = {
            **state.to_meta(),
            "steps": fit.plan.steps,
            "precision": self.compute.precision,
            "device": self.compute.device.type,
            "threads": self.compute.threads,
            "processes": self.process_group.size,
            "scaler": learner.scaler.state_dict(),
            "averaged": learner.average.count,
        }
        tensors = learner.tensors()
        weight_tensors = [tensor for name, tensor in tensors.items() if name.startswith(MODEL_PREFIX)]
        if not all(bool(tensor.isfinite().all()) for tensor in weight_tensors):
            raise self._divergence_error(run, f"the weights became infinite or NaN after step {state.step}")
        if self.process_group.rank == 0:
            path = save_checkpoint(run, tensors, meta, best=best)
            fit.hooks.checkpoint_saved(run, fit.progress(), path)

    def _divergence_error(self, run: Run, problem: str) -> TrainingStopped:
        """Return the error for a loss or weights that diverged."""
        last_step = checkpoint_step(find_checkpoints(run, "last")[0])
        lower_rate = min(self.config.rate / 3, MAX_RECOMMENDED_RATE)
        return TrainingStopped(
            f"{problem}; the last good checkpoint is step {last_step} in {run.path}. Train anew with a lower rate "
            f"(trainer.rate={lower_rate:.2g}) or a smaller trainer.clip"
        )

    def _measure_result(self, fit: Fit) -> FitResult:
        """Measure the best checkpoint in fp32: on the whole held-out text, as `gen eval` does, and on training text."""
        model, state, val = fit.learner.model, fit.state, fit.val
        if self.process_group.rank == 0:
            checkpoint = load_best_checkpoint(fit.run)
            load_for_prediction(model, checkpoint)
            if fit.calibration is not None:
                scale = checkpoint.meta[LOGIT_SCALE_KEY]
                say(f"calibrated on {fit.calibration.symbols:,} symbols: all logits are multiplied by {scale:.3f}")
        self.process_group.broadcast(model.state_dict().values())
        with progress("measuring the held-out loss of the best checkpoint", val.symbols, "symbols") as bar:
            if val.is_records or not val.symbols:
                val_loss = measure_loss(model, val, None, self.process_group, None, bar.advance).mean
            else:
                val_loss = stream_loss(model, describe(fit.run, model), val, self.process_group, bar.advance)
        with progress("measuring its training loss", val.symbols, "symbols") as bar:
            symbols = val.symbols or fit.plan.measured_symbols
            train = measure_loss(model, fit.train, None, self.process_group, symbols, bar.advance)
        return FitResult(
            steps=state.step,
            val_loss=val_loss,
            train_loss=train.mean,
            best_step=state.best_step,
            symbols_per_second=count_symbols(fit.learner.batcher, state.step) / max(state.seconds, 1e-9),
            curve=fit.run.read_curve(state.step) if self.process_group.rank == 0 else (),
        )
