"""sgd: the smallest trainer that there can be, on the CPU."""

import dataclasses
import functools
import time

import torch
from torch.nn import functional

from gentext.config import PositiveFloat
from gentext.errors import DeviceError
from gentext.events import Progress
from gentext.interfaces import FitResult, Measurement, Speed
from gentext.measuring import count_symbols
from gentext.plugins.pytorch import load_last_checkpoint, load_weights, mean_loss, preview, save_checkpoint


@dataclasses.dataclass(frozen=True)
class SGDConfig:
    """Options of the trainer ``sgd``."""

    rate: PositiveFloat = 0.5
    """Learning rate."""


class PlainSGD:
    """Carries no state between windows and has none of its own, so weights and a step resume it."""

    Config = SGDConfig

    def __init__(self, config, settings):
        self.config, self.settings = config, settings

    def start(self):
        if self.settings.device == "cuda":
            raise DeviceError("--device cuda: the trainer sgd runs on the CPU; use --device cpu or auto")
        torch.manual_seed(self.settings.seed)
        return "CPU, plain SGD"

    def measure_speed(self, model, batcher, train):
        began_at = time.perf_counter()
        self._loss(model, batcher, 0).backward()
        model.zero_grad()
        return Speed(step=time.perf_counter() - began_at)

    def fit(self, model, batcher, train, val, run, hooks, plan, resume):
        optimizer = torch.optim.SGD(model.parameters(), lr=self.config.rate)
        steps = plan.steps
        first_step, seconds_before = 0, 0.0
        if resume:
            checkpoint = load_last_checkpoint(run)
            load_weights(model, checkpoint)
            first_step, seconds_before = checkpoint.meta["step"], checkpoint.meta["seconds"]
        began_at = time.perf_counter() - seconds_before

        def progress(step, loss=float("nan"), **measured):
            return Progress(
                step=step,
                total_steps=steps,
                epoch=step // batcher.steps_per_epoch,
                loss=loss,
                rate=self.config.rate,
                tokens=count_symbols(batcher, step),
                seconds=time.perf_counter() - began_at,
                first_step=first_step,
                **measured,
            )

        hooks.run_started(run, self.settings, progress(first_step))
        for step in range(first_step, steps):
            loss = self._loss(model, batcher, step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            hooks.step_done(run, progress(step + 1, loss.item()))
        val_loss = mean_loss(model, val)
        last_loss = loss.item() if steps > first_step else float("nan")
        end = progress(steps, last_loss)
        measurement = Measurement(steps, end.tokens, val_loss, mean_loss(model, train, symbols=val.symbols))
        end = dataclasses.replace(end, measurement=measurement)
        hooks.evaluated(run, dataclasses.replace(end, sample=functools.partial(preview, model, run)))
        weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        meta = {"step": steps, "val_loss": val_loss, "seconds": end.seconds}
        hooks.checkpoint_saved(run, end, save_checkpoint(run, weights, meta, best=True))
        rate = end.tokens / end.seconds
        return FitResult(steps, val_loss, measurement.train_loss, steps, rate, (measurement,))

    def _loss(self, model, batcher, step):
        epoch, step_of_epoch = divmod(step, batcher.steps_per_epoch)
        x, y, _ = batcher.batch(self.settings.seed, epoch, step_of_epoch, 0)
        logits, _ = model(torch.from_numpy(x), model.initial_state(len(x)))
        return functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(y).flatten(), ignore_index=-1)
