"""The check for trainers: a small model learns, stops at Ctrl-C, and goes on as if nothing had happened. (torch)"""

from __future__ import annotations

import copy
import dataclasses
import math
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gentext.config import config_class
from gentext.errors import RunError, TrainingStopped, reason
from gentext.events import Progress, SilentHooks
from gentext.interfaces import Batcher, FitResult, Measurement, Model, Speed, Trainer, TrainingPlan, World
from gentext.plugins.batchers.stream import StreamBatcher, StreamConfig
from gentext.plugins.models.lstm import LSTMConfig, LSTMModel
from gentext.plugins.pytorch import load_best_checkpoint, load_last_checkpoint, load_weights, mean_loss
from gentext.run import Run
from gentext.settings import Settings
from gentext.testing.rules import create, name_of, require
from gentext.testing.runs import SmallCorpus

#: Called as ``target(config, settings)``.
TrainerFactory = Callable[[Any, Settings], Trainer]
#: Options of the model.
MODEL_OPTIONS: dict[str, Any] = {"hidden": 16, "layers": 1, "embedding": 8, "dropout": 0.1}
#: How far the held-out loss that a trainer reports may be from the loss of its best checkpoint, in nats: it may be
#: measured in a single stream or in parallel ones.
MAX_LOSS_DIFFERENCE = 0.1
#: Nats by which training must lower the held-out loss.
MIN_GAIN = 0.01


@dataclasses.dataclass
class _Diary(SilentHooks):
    """The hooks of a run, which write down how they are called."""

    stop_at: int | None = None
    """The step after which the user presses Ctrl-C."""
    calls: list[tuple[str, Progress]] = dataclasses.field(default_factory=list)

    def _call_hook(self, hook: str, **arguments: Any) -> None:
        progress: Progress = arguments["progress"]
        self.calls.append((hook, progress))
        if hook == "step_done" and progress.step == self.stop_at:
            signal.raise_signal(signal.SIGINT)

    def steps(self, hook: str) -> list[int]:
        return [progress.step for name, progress in self.calls if name == hook]


class _Kit:
    """What a trainer is tried with: a text, a batcher, and models that all begin with the same weights."""

    def __init__(self, name: str, cls: TrainerFactory, config: Any, steps: int, seed: int, folder: Path) -> None:
        self.name, self.cls, self.config, self.steps, self.folder = name, cls, config, steps, folder
        self.settings = Settings(steps=steps, seed=seed, device="cpu", precision="fp32", threads=1)
        self.corpus = SmallCorpus.read()
        self.plan = TrainingPlan(
            steps=steps,
            measured_at=(steps // 2,),
            measured_symbols=self.corpus.val.symbols,
            held_out=len(self.corpus.held_out),
            seconds=1.0,
            step_seconds=1.0 / steps,
        )
        self.batcher: Batcher = StreamBatcher(StreamConfig(4, 16), self.corpus.train, World())

    def start(self) -> tuple[Trainer, Model]:
        """Return a trainer that was started, and a new model."""
        trainer: Trainer = create(self.cls, self.config, self.settings)
        line: object = trainer.start()
        is_line = isinstance(line, str) and bool(line.strip()) and "\n" not in line
        require(is_line, f"{self.name}: start returned {line!r:.80}; expected one line that names device and precision")
        return trainer, LSTMModel(LSTMConfig(**MODEL_OPTIONS), self.corpus.vocab_size)

    def fit(self, run: Run, diary: _Diary, *, resume: bool) -> tuple[FitResult, Model]:
        """Train in a run's folder, from its beginning or from its newest checkpoint."""
        trainer, model = self.start()
        corpus = self.corpus
        result: object = trainer.fit(model, self.batcher, corpus.train, corpus.val, run, diary, self.plan, resume)
        is_result = isinstance(result, FitResult)
        require(is_result, f"{self.name}: fit returned {type(result).__name__}; expected a FitResult")
        assert isinstance(result, FitResult)
        return result, model

    def create_run(self, folder: str) -> Run:
        return self.corpus.create_run(self.folder / folder, self.settings, MODEL_OPTIONS)


def check_trainer(cls: TrainerFactory, config: Any = None, steps: int = 40, seed: int = 1) -> None:
    """Check the rules for trainers; AssertionError names the first that is broken.

    It trains a model of a few thousand parameters for ``steps`` steps on the CPU, three times. ``config`` defaults to
    ``cls.Config()``. Ctrl-C is tried in the main thread alone, in which Python handles signals.
    """
    name = name_of(cls)
    config = config_class(cls)() if config is None else config
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(), tempfile.TemporaryDirectory() as folder:
            kit = _Kit(name, cls, config, steps, seed, Path(folder))
            _check_speed(kit)
            weights = _check_whole_run(kit)
            _check_same_run(kit, weights)
            if threading.current_thread() is threading.main_thread():
                _check_resumed_run(kit, weights)
    finally:
        torch.set_num_threads(threads)


def _check_speed(kit: _Kit) -> None:
    """`measure_speed` must say how long a step takes, and leave no trace."""
    trainer, model = kit.start()
    weights, random_state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    speed: object = trainer.measure_speed(model, kit.batcher, kit.corpus.train)
    is_speed = isinstance(speed, Speed)
    require(is_speed, f"{kit.name}: measure_speed returned {type(speed).__name__}; expected a Speed")
    assert isinstance(speed, Speed)
    is_duration = isinstance(speed.step, float) and 0 < speed.step < math.inf
    require(is_duration, f"{kit.name}: measure_speed returned {speed.step!r} seconds a step; expected a number above 0")
    changed = _changed_tensors(weights, model.state_dict())
    require(not changed, f"{kit.name}: measure_speed changes the model ({', '.join(changed)}); leave it as it was")
    has_gradients = any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in model.parameters())
    require(not has_gradients, f"{kit.name}: measure_speed leaves gradients in the model; call zero_grad")
    require(
        torch.equal(random_state, torch.random.get_rng_state()),
        f"{kit.name}: measure_speed draws random numbers, so that training depends on it; use fork_rng",
    )


def _changed_tensors(expected: dict[str, Tensor], actual: dict[str, Tensor]) -> list[str]:
    return [key for key in expected if key not in actual or not torch.equal(expected[key], actual[key])]


def _last_weights(kit: _Kit, run: Run) -> dict[str, Tensor]:
    """Return the weights in a run's newest checkpoint, which must fit the model."""
    try:
        checkpoint = load_last_checkpoint(run)
        load_weights(LSTMModel(LSTMConfig(**MODEL_OPTIONS), kit.corpus.vocab_size), checkpoint)
    except RunError as error:
        raise AssertionError(
            f"{kit.name}: the run has no checkpoint with the model's weights, whose names begin with model. "
            f"({reason(error)})"
        ) from error
    return checkpoint.tensors_under("model.")


def _check_whole_run(kit: _Kit) -> dict[str, Tensor]:
    """Train to the end; return the weights of the last checkpoint."""
    run, diary = kit.create_run("whole"), _Diary()
    _, untrained = kit.start()
    untrained_loss = mean_loss(untrained, kit.corpus.val)
    result, _ = kit.fit(run, diary, resume=False)
    _check_hooks(kit, diary, first_step=0)
    weights = _last_weights(kit, run)
    last_step = load_last_checkpoint(run).meta["step"]
    require(last_step == kit.steps, f"{kit.name}: the last checkpoint is of step {last_step}, expected {kit.steps}")
    require(result.steps == kit.steps, f"{kit.name}: fit reports {result.steps} steps, expected {kit.steps}")
    for field, loss in (("val_loss", result.val_loss), ("train_loss", result.train_loss)):
        require(math.isfinite(loss), f"{kit.name}: fit reports {field} {loss}; expected nats a symbol")
    measured_at = [measurement.step for measurement in result.curve]
    require(
        measured_at == sorted(set(measured_at)),
        f"{kit.name}: fit reports a curve of the steps {_shorten(measured_at)}; expected rising steps, each once",
    )
    best = LSTMModel(LSTMConfig(**MODEL_OPTIONS), kit.corpus.vocab_size)
    load_weights(best, load_best_checkpoint(run))
    best_loss = mean_loss(best.eval(), kit.corpus.val)
    require(
        abs(best_loss - result.val_loss) <= MAX_LOSS_DIFFERENCE,
        f"{kit.name}: fit reports val_loss {result.val_loss:.4f}, but the best checkpoint has {best_loss:.4f}",
    )
    require(
        best_loss < untrained_loss - MIN_GAIN,
        f"{kit.name}: learns nothing: the held-out loss is {best_loss:.4f} after {kit.steps} steps, "
        f"and {untrained_loss:.4f} before",
    )
    return weights


def _check_hooks(kit: _Kit, diary: _Diary, first_step: int) -> None:
    """The hooks of a run's life must be called in their order, with the number of steps done."""
    names = [name for name, _ in diary.calls]
    for hook in ("run_started", "step_done", "evaluated", "checkpoint_saved"):
        require(hook in names, f"{kit.name}: never calls the hook {hook}")
    is_started_once = names[0] == "run_started" and names.count("run_started") == 1
    require(
        is_started_once, f"{kit.name}: calls the hooks {', '.join(names[:3])}; expected run_started first, and once"
    )
    begun_at = diary.steps("run_started")[0]
    require(begun_at == first_step, f"{kit.name}: begins at step {begun_at}, expected {first_step}")
    done, expected = diary.steps("step_done"), [*range(first_step + 1, kit.steps + 1)]
    require(
        done == expected,
        f"{kit.name}: calls step_done for the steps {_shorten(done)}; expected {_shorten(expected)}, each once",
    )
    for hook, progress in diary.calls:
        if hook == "evaluated":
            is_measured = isinstance(progress.measurement, Measurement) and progress.sample is not None
            require(is_measured, f"{kit.name}: calls evaluated without a measurement and a sample")
            assert progress.measurement is not None
            _check_measurement(kit, progress.measurement, progress.step)
        if hook == "step_done":
            is_loss = isinstance(progress.loss, float) and math.isfinite(progress.loss)
            require(is_loss, f"{kit.name}: calls step_done with the loss {progress.loss!r}; expected a finite float")


def _check_measurement(kit: _Kit, measurement: Measurement, step: int) -> None:
    """A measurement must be of the step at which it is reported, and have a loss on the held-out text."""
    name = f"{kit.name}: the measurement at step {step}"
    require(measurement.step == step, f"{name} says that it is of step {measurement.step}")
    symbols = step * kit.batcher.rows * kit.batcher.length
    require(measurement.symbols == symbols, f"{name} counts {measurement.symbols} symbols read; expected {symbols}")
    loss = measurement.val_loss
    require(math.isfinite(loss), f"{name} has the held-out loss {loss}; expected nats a symbol")


def _shorten(steps: list[int]) -> str:
    return ", ".join(map(str, steps)) if len(steps) < 6 else f"{steps[0]}, {steps[1]}, ..., {steps[-1]} ({len(steps)})"


def _check_same_run(kit: _Kit, weights: dict[str, Tensor]) -> None:
    """The same seed must give the same weights, whatever random numbers were drawn before."""
    run = kit.create_run("same")
    torch.manual_seed(12345)
    kit.fit(run, _Diary(), resume=False)
    changed = _changed_tensors(weights, _last_weights(kit, run))
    require(
        not changed,
        f"{kit.name}: the same seed gives other weights the second time ({', '.join(changed)}); start must seed all "
        f"random numbers",
    )


def _check_resumed_run(kit: _Kit, weights: dict[str, Tensor]) -> None:
    """A run that was stopped by Ctrl-C, and goes on, must end bit for bit as one that was not."""
    run, stop_at = kit.create_run("resumed"), kit.steps // 2 + 1
    try:
        kit.fit(run, _Diary(stop_at=stop_at), resume=False)
    except TrainingStopped:
        pass
    except KeyboardInterrupt as error:
        raise AssertionError(
            f"{kit.name}: Ctrl-C at step {stop_at} ends fit with KeyboardInterrupt; save everything and raise "
            f"TrainingStopped, see gentext.interrupts"
        ) from error
    else:
        raise AssertionError(f"{kit.name}: Ctrl-C at step {stop_at} does not stop fit; expected TrainingStopped")
    _last_weights(kit, run)
    saved_step = load_last_checkpoint(run).meta["step"]
    require(
        saved_step >= stop_at,
        f"{kit.name}: Ctrl-C at step {stop_at} loses what was learned since step {saved_step}; save a checkpoint",
    )
    diary = _Diary()
    kit.fit(run, diary, resume=True)
    _check_hooks(kit, diary, saved_step)
    changed = _changed_tensors(weights, _last_weights(kit, run))
    require(
        not changed,
        f"{kit.name}: stopped at step {saved_step} and resumed, it ends with other weights than without the stop "
        f"({', '.join(changed)}); keep in the checkpoint all that a step depends on",
    )
