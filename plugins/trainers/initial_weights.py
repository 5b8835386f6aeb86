"""Loads the weights of another run into a new model; the two texts may have different symbols. (torch)

Symbols are identified by their bytes. A symbol of both texts keeps its rows of the loaded weights. The rows of a new
symbol stay as the new model was initialized.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from gentext.capabilities import SupportsSymbolAxes
from gentext.config import ConfigTable
from gentext.describe import load_run_tokenizer
from gentext.errors import PluginError, RunError
from gentext.interfaces import Model, Tokenizer
from gentext.plugins.pytorch.checkpoint import MODEL_PREFIX, check_weight_types, load_best_checkpoint
from gentext.run import Run, open_run

#: The id of each symbol by its bytes; None stands for the unknown symbol.
TokenBySymbol = dict[bytes | None, int]


@dataclasses.dataclass(frozen=True)
class InitialWeights:
    """Loads the weights of a run into a new model: the option ``--init-from``."""

    path: Path
    """Folder of the run."""

    def __call__(self, model: Model, tokenizer: Tokenizer, config: ConfigTable) -> str:
        """Put the run's best weights into a new model, and return a line about it.

        Raises RunError where tokenizer or model are of another kind or size, and PluginError where the symbols differ
        and the model does not name the tensors that have a row for each symbol.
        """
        run = open_run(self.path)
        _check_names(run, config)
        checkpoint = load_best_checkpoint(run)
        old_weights, new_weights = checkpoint.tensors_under(MODEL_PREFIX), dict(model.state_dict())
        if old_weights.keys() != new_weights.keys():
            differing = ", ".join(sorted(old_weights.keys() ^ new_weights.keys()))
            raise RunError(_size_differs(run, f"its tensors {differing[:100]}"))

        check_weight_types(model, checkpoint)
        old_symbols, new_symbols = _token_by_symbol(load_run_tokenizer(run)), _token_by_symbol(tokenizer)
        same_symbols = list(old_symbols.items()) == list(new_symbols.items())
        symbol_axes = {} if same_symbols else _symbol_axes(model, config)
        row_mapping = _RowMapping(old_symbols, new_symbols)
        for name, old_weight in old_weights.items():
            new_weights[name] = row_mapping.map_rows(run, name, old_weight, new_weights[name], symbol_axes.get(name))
        model.load_state_dict(new_weights)
        shared_count = len(row_mapping.shared_symbols)
        return (
            f"begun with the weights of {run.path}, step {checkpoint.meta['step']}: {shared_count} symbols are known, "
            f"{len(new_symbols) - shared_count} are new; the optimizer starts anew"
        )


def _check_names(run: Run, config: ConfigTable) -> None:
    """Raise RunError where tokenizer or model of the run have another name than those of the config."""
    run_tokenizer_name, _ = run.read_tokenizer()
    run_model_name = run.config.get("model", {}).get("name")
    for kind, run_name in (("tokenizer", run_tokenizer_name), ("model", run_model_name)):
        name = config[kind]["name"]
        if name != run_name:
            raise RunError(
                f"init_from = {run.path}: its {kind} is {run_name!r}, not {name!r}; take {kind}.name={run_name}"
            )


def _token_by_symbol(tokenizer: Tokenizer) -> TokenBySymbol:
    tokens = range(tokenizer.vocab_size)
    return {None if token == tokenizer.unknown else tokenizer.token_bytes(token): token for token in tokens}


def _symbol_axes(model: Model, config: ConfigTable) -> dict[str, int]:
    if not isinstance(model, SupportsSymbolAxes):
        raise PluginError(
            f"the model {config['model']['name']!r} has no method symbol_axes, which says which tensors have a row for "
            f"each symbol; without it init_from needs a text with exactly the same symbols"
        )
    return dict(model.symbol_axes())


class _RowMapping:
    """Copies the rows of shared symbols from the tensors of an old model into those of a new one."""

    def __init__(self, old_symbols: TokenBySymbol, new_symbols: TokenBySymbol) -> None:
        self.shared_symbols = [symbol for symbol in new_symbols if symbol in old_symbols]
        self.old_count = len(old_symbols)
        self.old_tokens = torch.tensor([old_symbols[symbol] for symbol in self.shared_symbols], dtype=torch.int64)
        self.new_tokens = torch.tensor([new_symbols[symbol] for symbol in self.shared_symbols], dtype=torch.int64)

    def map_rows(self, run: Run, name: str, old_weight: Tensor, new_weight: Tensor, axis: int | None) -> Tensor:
        """Return a tensor of the new model with what the old one has learned.

        ``axis`` is that of the symbols, or None. Raises RunError where the tensors have other sizes along other axes.
        """
        expected_shape = list(old_weight.shape)
        if axis is not None and old_weight.dim() > axis and expected_shape[axis] == self.old_count:
            expected_shape[axis] = new_weight.shape[axis] if new_weight.dim() > axis else self.old_count
        if expected_shape != list(new_weight.shape):
            raise RunError(
                _size_differs(run, f"{name} is {list(old_weight.shape)} there, {list(new_weight.shape)} here")
            )
        if axis is None:
            return old_weight
        return new_weight.index_copy(axis, self.new_tokens, old_weight.index_select(axis, self.old_tokens))


def _size_differs(run: Run, difference: str) -> str:
    return (
        f"init_from = {run.path}: its model has another size ({difference}); use the same settings of [model], "
        f"which are in {run.path}/config.toml"
    )
