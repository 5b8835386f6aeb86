"""The check of gentext.testing for trainers finds each planted fault, and names its rule."""

from __future__ import annotations

import dataclasses
import math
import signal
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from planted import Fault, name_faults, plant

from gentext.errors import TrainingStopped
from gentext.interfaces import FitResult, Measurement, Speed
from gentext.plugins.pytorch import save_checkpoint
from gentext.plugins.trainers.bptt import BPTTTrainer
from gentext.plugins.trainers.learner import Learner
from gentext.plugins.trainers.options import BPTTConfig
from gentext.run import Run
from gentext.testing import check_trainer
from gentext.testing.trainer import _Diary


class KeepsNoMoments(BPTTTrainer):
    """Resumes from the weights alone: the optimizer begins anew."""

    def _initial_state(self, learner: Learner, run: Run, steps: int, resume: bool) -> Any:
        state = super()._initial_state(learner, run, steps, resume)
        for optimizer in learner.optimizers.values():
            optimizer.state.clear()
        return state


class IgnoresCtrlC(BPTTTrainer):
    def fit(self, *arguments: Any, **options: Any) -> Any:
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return super().fit(*arguments, **options)
        finally:
            signal.signal(signal.SIGINT, previous)


class DiesOfCtrlC(BPTTTrainer):
    def fit(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().fit(*arguments, **options)
        except TrainingStopped:
            raise KeyboardInterrupt from None


class DrawsWhenMeasured(BPTTTrainer):
    def measure_speed(self, *arguments: Any) -> Speed:
        torch.rand(1)
        return super().measure_speed(*arguments)


class TrainsWhenMeasured(BPTTTrainer):
    def measure_speed(self, model: Any, *arguments: Any) -> Speed:
        with torch.no_grad():
            next(iter(model.parameters())).add_(1.0)
        return super().measure_speed(model, *arguments)


class LeavesGradients(BPTTTrainer):
    def measure_speed(self, model: Any, *arguments: Any) -> Speed:
        sum(parameter.sum() for parameter in model.parameters()).backward()
        return super().measure_speed(model, *arguments)


class SeedsNothing(BPTTTrainer):
    def start(self) -> str:
        state = torch.random.get_rng_state()
        line = super().start()
        torch.random.set_rng_state(state)
        return line


class SavesNothing(BPTTTrainer):
    def _save_checkpoint(self, fit: Any, *, best: bool) -> None:
        path = save_checkpoint(fit.run, {"weights": torch.zeros(1)}, {"step": fit.state.step}, best=True)
        fit.hooks.checkpoint_saved(fit.run, fit.progress(), path)

    def _measure_result(self, fit: Any) -> Any:
        return None


class SavesOtherNames(SavesNothing):
    def _measure_result(self, fit: Any) -> Any:
        return FitResult(40, 1.0, 1.0, 40, 1.0)


def gives(change: Any) -> type[Any]:
    """Return a trainer that reports something else than it has measured."""

    def fit(self: Any, *arguments: Any, **options: Any) -> Any:
        result = BPTTTrainer.fit(self, *arguments, **options)
        return dataclasses.replace(result, **change(result))

    return plant(BPTTTrainer, fit=fit)


def measures(change: Any) -> type[Any]:
    """Return a trainer whose hook `evaluated` gets something else than it has measured."""

    def change_hook(hooks: _Diary) -> None:
        call_hook = hooks._call_hook

        def call(hook: str, **arguments: Any) -> None:
            progress = arguments["progress"]
            if hook == "evaluated":
                measurement = dataclasses.replace(progress.measurement, **change(progress.measurement))
                arguments["progress"] = dataclasses.replace(progress, measurement=measurement)
            call_hook(hook, **arguments)

        hooks._call_hook = call  # type: ignore[method-assign]

    def fit(self: Any, model: Any, batcher: Any, train: Any, val: Any, run: Run, hooks: _Diary, *rest: Any) -> Any:
        change_hook(hooks)
        return BPTTTrainer.fit(self, model, batcher, train, val, run, hooks, *rest)

    return plant(BPTTTrainer, fit=fit)


class StopsEarly(BPTTTrainer):
    def fit(self, *arguments: Any, **options: Any) -> Any:
        *others, plan, resume = arguments
        return super().fit(*others, dataclasses.replace(plan, steps=plan.steps - 5), resume)


class Quiet(BPTTTrainer):
    """Leaves out some hooks."""

    silent: Mapping[str, Any] = {}

    def fit(self, model: Any, batcher: Any, train: Any, val: Any, run: Run, hooks: _Diary, *rest: Any) -> Any:
        call_hook = hooks._call_hook
        hooks._call_hook = lambda hook, **arguments: None if hook in self.silent else call_hook(hook, **arguments)  # type: ignore[method-assign]
        return super().fit(model, batcher, train, val, run, hooks, *rest)


class CallsTwice(Quiet):
    def fit(self, model: Any, batcher: Any, train: Any, val: Any, run: Run, hooks: _Diary, *rest: Any) -> Any:
        call_hook = hooks._call_hook

        def twice(hook: str, **arguments: Any) -> None:
            call_hook(hook, **arguments)
            if hook == "step_done" and arguments["progress"].step == 3:
                call_hook(hook, **arguments)

        hooks._call_hook = twice  # type: ignore[method-assign]
        return super().fit(model, batcher, train, val, run, hooks, *rest)


TRAINER_FAULTS: list[Fault] = [
    (plant(BPTTTrainer, start=lambda self: BPTTTrainer.start(self) and None), "start returned None; expected one line"),
    (plant(BPTTTrainer, measure_speed=lambda self, *arguments: 0.1), "measure_speed returned float; expected a Speed"),
    (plant(BPTTTrainer, measure_speed=lambda self, *arguments: Speed(0.0)), "returned 0.0 seconds a step; expected a"),
    (TrainsWhenMeasured, "measure_speed changes the model"),
    (LeavesGradients, "measure_speed leaves gradients in the model"),
    (DrawsWhenMeasured, "measure_speed draws random numbers"),
    (plant(Quiet, silent={"evaluated"}), "never calls the hook evaluated"),
    (plant(Quiet, silent={"run_started"}), "never calls the hook run_started"),
    (CallsTwice, "calls step_done for the steps"),
    (SavesNothing, "fit returned NoneType; expected a FitResult"),
    (SavesOtherNames, "no checkpoint with the model's weights"),
    (StopsEarly, "calls step_done for the steps 1, 2, ..., 35"),
    (gives(lambda result: {"val_loss": 0.5}), r"fit reports val_loss 0.5000, but the best checkpoint has"),
    (gives(lambda result: {"train_loss": math.nan}), "fit reports train_loss nan; expected nats a symbol"),
    (
        gives(lambda result: {"curve": (Measurement(9, 1, 1.0), Measurement(9, 1, 1.0))}),
        "a curve of the steps 9, 9;",
    ),
    (measures(lambda measurement: {"step": 7}), r"the measurement at step 20 says that it is of step 7"),
    (measures(lambda measurement: {"symbols": 7}), r"counts 7 symbols read; expected 1280"),
    (measures(lambda measurement: {"val_loss": math.nan}), r"has the held-out loss nan; expected nats a symbol"),
    (SeedsNothing, "the same seed gives other weights the second time"),
    (IgnoresCtrlC, "does not stop fit; expected TrainingStopped"),
    (DiesOfCtrlC, "ends fit with KeyboardInterrupt; save everything and raise TrainingStopped"),
    (KeepsNoMoments, "it ends with other weights than without the stop"),
]


@pytest.mark.parametrize(**name_faults(TRAINER_FAULTS))
def test_fault_of_a_trainer_is_named(cls: type[Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_trainer(cls, BPTTConfig(rate=0.01))


def test_trainer_that_learns_nothing_is_named() -> None:
    with pytest.raises(AssertionError, match="learns nothing: the held-out loss is"):
        check_trainer(BPTTTrainer, BPTTConfig(rate=1e-9))


@pytest.mark.parametrize("config", [None, BPTTConfig(optimizer="muon", schedule="cosine", warmup=3, average="ema")])
def test_trainer_of_gentext_passes(config: Any) -> None:
    check_trainer(BPTTTrainer, config)
