"""Averages of a model's weights over training. (torch)

The weights of single steps differ by the noise of their batches, and their average has less of it: B. Polyak and
A. Juditsky, "Acceleration of stochastic approximation by averaging", 1992. Training itself goes on from the last
weights. The averages are what is measured, saved as the model's weights, and so exported.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from gentext.interfaces import Model
from gentext.plugins.trainers.state import check_tensor


def decay_of(number: float) -> float:
    """Return the share of an average that a step leaves, for such a share or for a number of steps from 1 on.

    An average whose steps leave 1 - 1/N reaches back over about N steps.
    """
    return number if number < 1 else 1 - 1 / number


class WeightAverage:
    """The average of a model's parameters, and how many steps it holds; none before the first `update`."""

    def __init__(self, model: Model, decay: float | None) -> None:
        """``decay`` is the share of the average that a step leaves at most; None: the mean of all steps."""
        self._model, self._decay = model, decay
        self._averages: list[Tensor] = []
        #: Steps whose weights were added.
        self.count = 0

    def update(self) -> None:
        """Add the model's parameters, as the last step left them."""
        parameters = list(self._model.parameters())
        if self.count == 0:
            self._averages = [parameter.detach().clone() for parameter in parameters]
        elif self._decay is None:
            get_swa_multi_avg_fn()(self._averages, parameters, self.count)
        else:
            # It reaches back less far at first, so that the random weights of the beginning are soon forgotten. The
            # formula is that of TensorFlow's ExponentialMovingAverage.
            decay = min(self._decay, (1 + self.count) / (10 + self.count))
            get_ema_multi_avg_fn(decay)(self._averages, parameters, self.count)
        self.count += 1

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averages, in place, and its own parameters back afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def model_parameters(self) -> dict[str, Tensor]:
        """Return the parameters from which training goes on, by name; empty where there is no average."""
        return {name: parameter for name, parameter in self._model.named_parameters() if self.count}

    def load(self, parameters: Mapping[str, Tensor], count: int) -> None:
        """Make the model's parameters the average of ``count`` steps, and ``parameters`` those of the model.

        Raises ValueError where they do not fit.
        """
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise ValueError(f"the averaged weights are those of {count!r:.20} steps")
        own_parameters = dict(self._model.named_parameters()) if count else {}
        if parameters.keys() != own_parameters.keys():
            raise ValueError("the weights from which training goes on are not those of the model")
        for name, parameter in own_parameters.items():
            check_tensor(name, parameters[name], parameter.shape, parameter.dtype)
        self.count, self._averages = count, [parameter.detach().clone() for parameter in own_parameters.values()]
        with torch.no_grad():
            for name, parameter in own_parameters.items():
                parameter.copy_(parameters[name])

    @torch.no_grad()
    def _swap(self) -> None:
        if self.count:
            for parameter, average in zip(self._model.parameters(), self._averages, strict=True):
                model_parameter = parameter.clone()
                parameter.copy_(average)
                average.copy_(model_parameter)
