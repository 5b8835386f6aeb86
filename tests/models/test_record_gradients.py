"""Steps over records: together they follow the gradient of the mean loss of all symbols."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from gentext.interfaces import World
from gentext.plugins.batchers.records import RecordBatcher, RecordsConfig
from gentext.plugins.models.lstm import LSTMConfig, LSTMModel
from gentext.plugins.pytorch.device import choose_compute
from gentext.plugins.pytorch.distributed import ProcessGroup
from gentext.plugins.trainers.learner import Learner
from gentext.plugins.trainers.options import BPTTConfig, StepOptions
from gentext.settings import Settings
from gentext.token_corpus import TokenCorpus


def test_steps_of_an_epoch_follow_the_gradient_of_the_mean_loss() -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(0, 12, 50)
    tokens = np.concatenate([np.append(random.integers(0, 5, length), 5) for length in lengths]).astype(np.uint8)
    corpus = TokenCorpus.of_records(tokens, 5)
    torch.manual_seed(0)
    model = LSTMModel(LSTMConfig(hidden=8, layers=1, dropout=0), 6)
    settings = Settings(device="cpu", precision="fp32", threads=1)
    batcher = RecordBatcher(RecordsConfig(batch=4, length=20), corpus)
    config = BPTTConfig(optimizer="adamw", clip=0)
    learner = Learner(config, settings, choose_compute(settings), ProcessGroup(World()), model, batcher, corpus)
    sums = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for step in range(batcher.steps_per_epoch):
        learner.step(step, StepOptions(rate=0.0, weight_decay=0.0, is_averaged=False))
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            sums[name] += parameter.grad

    model.zero_grad()
    x, y = map(torch.from_numpy, corpus.cut(np.arange(50), 0, 20))
    logits, _ = model(x, model.initial_state(50))
    functional.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=-1).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(sums[name] / batcher.steps_per_epoch, parameter.grad, atol=1e-6, rtol=1e-4)
