"""The checks of gentext.testing for models and trainers find each planted fault, and name its rule."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from test_kit import Fault, name_faults, plant
from torch import Tensor, nn

from gentext.capabilities import SupportsHiddenMatrices
from gentext.errors import TrainingStopped
from gentext.interfaces import FitResult, Speed, StateSpec
from gentext.plugins.models.lstm import LSTMConfig, LSTMModel
from gentext.plugins.pytorch import save_checkpoint
from gentext.plugins.trainers.bptt import BPTTConfig, BPTTTrainer
from gentext.plugins.trainers.learner import Learner
from gentext.run import Run
from gentext.testing import check_model, check_trainer
from gentext.testing.trainer import _Diary

SMALL = LSTMConfig(hidden=8, layers=1, embedding=4, dropout=0.0)

# -- models -----------------------------------------------------------------------------------


class Sums(nn.Module):
    """The state is the sum of all vectors so far: small, and right but for a planted fault."""

    def __init__(self, config: Any, vocab_size: int) -> None:
        super().__init__()
        self.state_spec = (StateSpec("total", (None, 6)),)
        self.embedding = nn.Embedding(vocab_size, 6)
        self.head = nn.Linear(6, vocab_size)

    def initial_state(self, rows: int) -> tuple[Tensor, ...]:
        return (torch.zeros(rows, 6),)

    def vectors(self, tokens: Tensor) -> Tensor:
        return self.embedding(tokens)

    def forward(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        totals = state[0][:, None] + self.vectors(tokens).cumsum(dim=1)
        return self.head(torch.tanh(totals)), (totals[:, -1],)

    def step(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        total = state[0] + self.vectors(tokens)
        return self.head(torch.tanh(total)), (total,)


class ReadsAhead(Sums):
    def vectors(self, tokens: Tensor) -> Tensor:
        vectors = self.embedding(tokens)
        return vectors if tokens.dim() == 1 else vectors + vectors.roll(-1, 1)


class MixesRows(Sums):
    def vectors(self, tokens: Tensor) -> Tensor:
        vectors = self.embedding(tokens)
        return vectors - vectors.mean(dim=0, keepdim=True)


class DropsInEvaluation(Sums):
    def vectors(self, tokens: Tensor) -> Tensor:
        return nn.functional.dropout(self.embedding(tokens), 0.5)


class KeepsNoState(Sums):
    def forward(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        totals = self.vectors(tokens).cumsum(dim=1)
        return self.head(torch.tanh(totals)), (totals[:, -1],)


class KeepsAnotherState(Sums):
    def step(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        logits, _ = super().step(tokens, state)
        return logits, (self.vectors(tokens),)


class StepsOtherwise(Sums):
    def step(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        total = state[0] + self.vectors(tokens)
        return self.head(torch.relu(total)), (total,)


class ChangesItsState(Sums):
    def step(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        state[0].add_(self.vectors(tokens))
        return self.head(torch.tanh(state[0])), (state[0],)


class ChangesItsTokens(Sums):
    def step(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        result = super().step(tokens, state)
        tokens.zero_()
        return result


class LosesAWeight(Sums):
    def __init__(self, config: Any, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.scale = torch.rand(6) + 0.5

    def vectors(self, tokens: Tensor) -> Tensor:
        return self.embedding(tokens) * self.scale


class DecidesOnAValue(Sums):
    def step(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        total = state[0] + self.vectors(tokens)
        return self.head(torch.tanh(total) if float(total.sum()) < 1e9 else total), (total,)


class NoTensors(Sums):
    def forward(self, tokens: Tensor, state: tuple[Tensor, ...]) -> Any:
        logits, next_state = super().forward(tokens, state)
        return logits, list(next_state)


def logits_are(change: Any) -> type[Any]:
    def forward(self: Any, tokens: Tensor, state: tuple[Tensor, ...]) -> Any:
        logits, next_state = Sums.forward(self, tokens, state)
        return change(logits), next_state

    return plant(Sums, forward=forward)


def rising(self: Any, rows: int) -> tuple[Tensor, ...]:
    return (torch.arange(rows, dtype=torch.float32)[:, None].expand(rows, 6),)


MODEL_FAULTS: list[Fault] = [
    (type("Faulty", (), {"__init__": lambda self, config, vocab_size: None}), "is no torch.nn.Module"),
    (plant(Sums, initial_state=lambda self, rows: (torch.zeros(rows, 7),)), "its state_spec declares total float32"),
    (plant(Sums, initial_state=lambda self, rows: torch.zeros(rows, 6)), "must return a tuple of 1 tensors"),
    (plant(Sums, initial_state=rising), "rows of total that differ; all must begin alike"),
    (logits_are(lambda logits: logits[:, -1]), r"forward returned logits torch.float32 \(4, 13\); expected floats of"),
    (logits_are(lambda logits: logits.argmax(-1, keepdim=True).expand_as(logits)), "logits torch.int64"),
    (logits_are(lambda logits: logits / 0), "forward returned logits that are infinite or NaN"),
    (logits_are(lambda logits: logits.detach()), "the logits do not depend on parameters"),
    (logits_are(lambda logits: logits * 0), "the logits after a symbol do not depend on it"),
    (NoTensors, "forward must return the new state as a tuple of 1 tensors"),
    (plant(Sums, step=lambda self, tokens, state: self.head(state[0])), "step returned Tensor; expected logits and"),
    (ChangesItsState, "step changes the state total that it reads in place"),
    (ChangesItsTokens, "step changes its tokens in place"),
    (DropsInEvaluation, "nothing may be random there"),
    (ReadsAhead, "no position may read what follows"),
    (MixesRows, "never mix rows"),
    (KeepsNoState, "forward gives other logits for a text in two parts"),
    (StepsOtherwise, "step gives other logits than forward at position 0"),
    (KeepsAnotherState, "step gives other logits than forward at position 2"),
    (LosesAWeight, "register all weights as nn.Parameter"),
    (plant(Sums, symbol_axes=lambda self: {"head.weight": 1}), r"says that axis 1 of head.weight \(13, 6\) is the sym"),
    (plant(Sums, symbol_axes=lambda self: {"heads": 0}), "names 'heads', which is not in the state dict"),
    (plant(Sums, hidden_matrices=lambda self: {"head.bias": 1}), "has 1 matrices of equal height"),
]


@pytest.mark.parametrize(**name_faults(MODEL_FAULTS))
def test_fault_of_a_model_is_named(cls: type[Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_model(cls)


def test_model_that_cannot_be_traced_is_named(operators: None) -> None:
    with pytest.raises(AssertionError, match=r"the model cannot be exported|the model's step cannot be traced"):
        check_model(DecidesOnAValue)


def test_models_that_keep_the_rules_pass(operators: None) -> None:
    random_state = torch.random.get_rng_state()
    check_model(Sums)
    check_model(LSTMModel, SMALL)
    assert torch.equal(random_state, torch.random.get_rng_state())
    assert issubclass(LSTMModel, SupportsHiddenMatrices)


# -- trainers ---------------------------------------------------------------------------------


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


class ReportsAnotherLoss(BPTTTrainer):
    def fit(self, *arguments: Any, **options: Any) -> Any:
        return dataclasses.replace(super().fit(*arguments, **options), val_loss=0.5)


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
    (ReportsAnotherLoss, r"fit reports val_loss 0.5000, but the best checkpoint has"),
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


@pytest.mark.parametrize("config", [None, BPTTConfig(optimizer="muon", schedule="cosine", warmup=3)])
def test_trainer_of_gentext_passes(config: Any) -> None:
    check_trainer(BPTTTrainer, config)
