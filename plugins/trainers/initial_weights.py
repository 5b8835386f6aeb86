"""Begins a run with the weights of another one, whose text may have had other symbols. (torch)

Symbols are known by their bytes: those that both texts have keep their rows, new ones keep the fresh
rows that the new model was made with.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gentext.config import ConfigTable
from gentext.describe import load_tokenizer
from gentext.errors import PluginError, RunError
from gentext.interfaces import Tokenizer
from gentext.plugins.pytorch import checkpoint as ckpt
from gentext.run import Run, open_run


@dataclasses.dataclass(frozen=True)
class InitialWeights:
    """The run that ``--init-from`` names."""

    path: Path

    def __call__(self, model: Any, tokenizer: Tokenizer, config: ConfigTable) -> str:
        """Put the run's best weights into a new model, and return what was done, in a line.

        Raises RunError where tokenizer or model are of another kind or size, and PluginError where the symbols differ
        and the model does not say which tensors have a row for each.
        """
        run = open_run(self.path)
        table, (kind, state) = run.config.get("model", {}), run.read_tokenizer()
        for what, here, there in (
            ("tokenizer", config["tokenizer"]["name"], kind),
            ("model", config["model"]["name"], table.get("name")),
        ):
            if here != there:
                raise RunError(
                    f"--init-from {run.path}: its {what} is {there!r}, not {here!r}; take {what}.name={there}"
                )
        checkpoint = ckpt.load_best(run)
        before, now = _symbols(load_tokenizer(kind, state)), _symbols(tokenizer)
        known = {token: before[one] for one, token in now.items() if one in before}
        same = list(before.items()) == list(now.items())
        weights = _weights(run, model, checkpoint, {} if same else _axes(model, config), known, len(before))
        model.load_state_dict(weights)
        return (
            f"begun with the weights of {run.path}, step {checkpoint.meta['step']}: {len(known)} symbols are known, "
            f"{len(now) - len(known)} are new; the optimizer starts anew"
        )


def _symbols(tokenizer: Tokenizer) -> dict[bytes | None, int]:
    """Return the id of each symbol by its bytes; None stands for the unknown symbol."""
    tokens = range(tokenizer.vocab_size)
    return {None if token == tokenizer.unknown else tokenizer.token_bytes(token): token for token in tokens}


def _axes(model: Any, config: ConfigTable) -> dict[str, int]:
    if not hasattr(model, "symbol_axes"):
        raise PluginError(
            f"the model {config['model']['name']!r} has no method symbol_axes, which says which tensors have a row for "
            f"each symbol; without it --init-from needs a text with exactly the same symbols"
        )
    return dict(model.symbol_axes())


def _weights(
    run: Run, model: Any, checkpoint: ckpt.Checkpoint, axes: dict[str, int], known: dict[int, int], symbols: int
) -> dict[str, Tensor]:
    """Return the new model's state dict with all that the checkpoint knows."""
    old, new = checkpoint.part(ckpt.MODEL), model.state_dict()
    if old.keys() != new.keys():
        raise RunError(_differs(run, f"its tensors {', '.join(sorted(old.keys() ^ new.keys()))[:100]}"))
    ours, theirs = torch.tensor(list(known), dtype=torch.int64), torch.tensor(list(known.values()), dtype=torch.int64)
    for name, there in old.items():
        here, axis = new[name], axes.get(name)
        shape = list(there.shape)
        if axis is not None and there.dim() > axis and shape[axis] == symbols:
            shape[axis] = here.shape[axis] if here.dim() > axis else symbols
        if shape != list(here.shape):
            raise RunError(_differs(run, f"{name} is {list(there.shape)} there, {list(here.shape)} here"))
        new[name] = there if axis is None else here.index_copy(axis, ours, there.index_select(axis, theirs))
    return dict(new)


def _differs(run: Run, how: str) -> str:
    return (
        f"--init-from {run.path}: its model has another size ({how}); use the same settings of [model], "
        f"which are in {run.path}/config.toml"
    )
