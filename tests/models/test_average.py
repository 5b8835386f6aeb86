"""Averages of weights, and the options of a step: the formulas, and what a checkpoint holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gentext.config import build_config
from gentext.plugins.trainers.average import WeightAverage, decay_of
from gentext.plugins.trainers.options import BPTTConfig, choose_step_options


class Tied(nn.Module):
    """Two names for one weight, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.register_buffer("reads", torch.zeros(()))


def walk(model: Any, average: WeightAverage, steps: int) -> list[torch.Tensor]:
    """Change the weights at random, and return what they were after each step."""
    weights = []
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter))
        average.update()
        weights.append(model.first.weight.detach().clone())
    return weights


@pytest.mark.parametrize("decay", [None, 0.5, 0.99])
def test_average_is_that_of_the_formula_and_the_weights_come_back(decay: float | None) -> None:
    torch.manual_seed(1)
    model: Any = Tied()
    average = WeightAverage(model, decay)
    with average.applied():
        assert not average.model_parameters()
    weights = walk(model, average, 30)
    if decay is None:
        expected = torch.stack(weights).mean(0)
    else:
        expected = weights[0]
        for count, weight in enumerate(weights[1:], 1):
            share = min(decay, (1 + count) / (10 + count))
            expected = share * expected + (1 - share) * weight
    with average.applied():
        torch.testing.assert_close(model.first.weight, expected)
        assert model.second.weight is model.first.weight
    assert torch.equal(model.first.weight, weights[-1])
    with pytest.raises(ZeroDivisionError), average.applied():
        raise ZeroDivisionError
    assert torch.equal(model.first.weight, weights[-1])


def test_average_goes_on_from_a_checkpoint() -> None:
    torch.manual_seed(1)
    model: Any = Tied()
    average = WeightAverage(model, 0.9)
    walk(model, average, 12)
    copy: Any = Tied()
    with average.applied():
        copy.load_state_dict(model.state_dict())
    resumed = WeightAverage(copy, 0.9)
    stored = {name: parameter.detach().clone() for name, parameter in average.model_parameters().items()}
    for broken in (stored | {"first.bias": torch.zeros(2)}, {"first.bias": stored["first.bias"]}, {}):
        with pytest.raises(ValueError):
            WeightAverage(Tied(), 0.9).load(broken, 12)  # type: ignore[arg-type]
    for count in (-1, True, 1.5, None, 0):
        with pytest.raises(ValueError):
            WeightAverage(Tied(), 0.9).load(stored, count)  # type: ignore[arg-type]
    resumed.load(stored, average.count)
    for each, parameters in ((average, model), (resumed, copy)):
        torch.manual_seed(2)
        walk(parameters, each, 5)
    assert all(map(torch.equal, model.state_dict().values(), copy.state_dict().values()))
    with average.applied(), resumed.applied():
        assert all(map(torch.equal, model.state_dict().values(), copy.state_dict().values()))


@given(st.integers(1, 1000), st.data())
def test_options_of_a_step(steps: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, steps - 1))

    def options(**settings: Any) -> Any:
        return choose_step_options(build_config(BPTTConfig, {"weight_decay": 0.5, **settings}, "trainer"), step, steps)

    assert options().weight_decay == 0.5 and options().rate == 1e-3 and not options().is_averaged
    falling, rising = (options(decay_schedule=name).weight_decay for name in ("falling", "rising"))
    assert 0 <= falling <= 0.5 and falling + rising == pytest.approx(0.5)
    assert (falling > rising) == (2 * step < steps) or falling == pytest.approx(rising)
    assert options(average="ema").is_averaged
    assert options(average="tail", average_begin=0.75).is_averaged == (4 * step >= 3 * steps)


def test_decay_as_a_number_of_steps() -> None:
    assert (decay_of(0.9), decay_of(1), decay_of(100)) == (0.9, 0.0, 0.99)
