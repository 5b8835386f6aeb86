"""The model lstm_ensemble: each member learns as it would alone, and together they predict better."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import TINY
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st

from gentext import load
from gentext.interfaces import World
from gentext.plugins.batchers.stream import StreamBatcher, StreamConfig
from gentext.plugins.models.lstm import LSTMConfig, LSTMModel
from gentext.plugins.models.lstm_ensemble import LSTMEnsemble, LSTMEnsembleConfig
from gentext.plugins.pytorch.device import choose_compute
from gentext.plugins.pytorch.distributed import ProcessGroup
from gentext.plugins.trainers.learner import Learner
from gentext.plugins.trainers.options import BPTTConfig, StepOptions
from gentext.settings import Settings
from gentext.token_corpus import TokenCorpus

V = 7
NETWORK: dict[str, Any] = {"hidden": 6, "layers": 2, "embedding": 4, "dropout": 0.0, "norm": True, "skip": True}
CORPUS = TokenCorpus(np.random.default_rng(0).integers(0, V, 200).astype(np.uint8))


@examples()
@given(members=st.integers(1, 4), rows=st.integers(1, 3), positions=st.integers(1, 5), seed=st.integers(0, 99))
def test_logits_are_the_means_of_the_members(members: int, rows: int, positions: int, seed: int) -> None:
    torch.manual_seed(seed)
    ensemble = LSTMEnsemble(LSTMEnsembleConfig(**NETWORK, members=members), V)
    tokens = torch.randint(V, (rows, positions))
    logits, state = ensemble(tokens, ensemble.initial_state(rows))
    outputs = [member(tokens, member.initial_state(rows)) for member in ensemble._networks()]
    torch.testing.assert_close(logits, torch.stack([logits for logits, _ in outputs]).mean(0))
    for number, tensor in enumerate(state):
        torch.testing.assert_close(tensor, torch.cat([member_state[number] for _, member_state in outputs]))


def _learner(model: LSTMModel | LSTMEnsemble) -> Learner:
    settings = Settings(device="cpu", precision="fp32", threads=1)
    batcher = StreamBatcher(StreamConfig(batch=4, length=10), CORPUS, World())
    config = BPTTConfig(optimizer="muon", clip=0)
    return Learner(config, settings, choose_compute(settings), ProcessGroup(World()), model, batcher, CORPUS)


def test_each_member_learns_as_it_would_alone() -> None:
    """Its gradient is its own, divided by the number of members, which changes no step of AdamW or Muon."""
    torch.manual_seed(0)
    ensemble = LSTMEnsemble(LSTMEnsembleConfig(**NETWORK, members=3), V)
    alone = LSTMModel(LSTMConfig(**NETWORK), V)
    alone.load_state_dict(ensemble.members[1].state_dict())
    learners = _learner(ensemble), _learner(alone)
    for step in range(6):
        for learner in learners:
            learner.step(step, StepOptions(rate=0.01, weight_decay=0.1, is_averaged=False))
    for name, parameter in alone.named_parameters():
        learned = ensemble.get_parameter(f"members.1.{name}")
        torch.testing.assert_close(learned, parameter, atol=2e-4, rtol=1e-3)
        assert not torch.allclose(learned, ensemble.get_parameter(f"members.0.{name}"), atol=1e-2), name


def test_from_text_to_text(gen: Callable[..., Any], tiny_text: Path, tmp_path: Path) -> None:
    """An ensemble is trained, exported, sampled and begun from another one, for other symbols, as any model is."""
    options = ["--preset", "base", *TINY]
    code, _, err = gen("train", tiny_text, *options, "--steps", "6", "--run", tmp_path / "run")
    assert code == 0, err
    model = load(tmp_path / "run")
    shapes = [state.spec.shape for state in model.bundle.states]
    assert shapes == [(4, None, 8), (4, None, 8), (1, None, 3)]  # two members of two layers, and n-grams of four
    assert len(model.write(length=20, seed=1)) == 20

    other_text = tmp_path / "other.txt"
    other_text.write_text(tiny_text.read_text() + "ÄÖÜ" * 40)
    options += ["--init-from", tmp_path / "run", "--run", tmp_path / "more"]
    code, _, err = gen("train", other_text, *options, "--steps", "2", "--no-export")
    assert code == 0, err
