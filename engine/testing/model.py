"""The check for models: the same logits whatever the batch and the cut of the text, also in a file. (torch)"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gentext.capabilities import (
    SupportsHiddenMatrices,
    SupportsLogitScale,
    SupportsMembers,
    SupportsPrepare,
    SupportsSymbolAxes,
)
from gentext.config import config_class
from gentext.errors import ExportError
from gentext.export.network.model import SCAN, export_model
from gentext.export.network.step import step_graph
from gentext.exported.metadata import Bundle, StateMeta, TokenizerMeta
from gentext.interfaces import Model
from gentext.runs import model_description
from gentext.testing.rules import create, name_of, report_broken_rules, require

#: Called as ``target(config, vocab_size)``.
ModelFactory = Callable[[Any, int], Model]
State = tuple[Tensor, ...]
#: Rows and positions of the checked batch: no two sizes alike, and none of them 1.
ROWS, POSITIONS = 4, 9
#: How far numbers may be apart that are computed in another order, relative and absolute.
RTOL, ATOL = 1e-4, 1e-5


def check_model(cls: ModelFactory, config: Any = None, vocab_size: int = 13, seed: int = 0) -> None:
    """Check the rules for models; AssertionError names the first that is broken.

    ``config`` defaults to ``cls.Config()``; a small model is checked faster. PyTorch's random numbers are the same
    afterwards as before.
    """
    name = name_of(cls)
    config = config_class(cls)() if config is None else config
    with torch.random.fork_rng(), _with_gradients():
        torch.manual_seed(seed)
        model = create(cls, config, vocab_size)
        require(isinstance(model, nn.Module), f"{name}: is no torch.nn.Module, but {type(model).__name__}")
        with report_broken_rules():
            model_description.check_model(name, model)
        tokens = torch.randint(0, vocab_size, (ROWS, POSITIONS))
        _check_optional_methods(name, model, vocab_size)
        model.eval()
        with torch.no_grad():
            _check_initial_state(name, model)
            _check_shapes(name, model, tokens, vocab_size)
            _check_unchanged_inputs(name, model, tokens)
            _check_repeated(name, model, tokens)
            _check_causal(name, model, tokens, vocab_size)
            _check_rows(name, model, tokens)
            _check_steps(name, model, tokens)
            _check_weights(name, model, create(cls, config, vocab_size), tokens)
        _check_gradients(name, model, tokens)
        _check_export(name, model.eval(), vocab_size)


@contextlib.contextmanager
def _with_gradients() -> Iterator[None]:
    """Compute gradients where they are asked for, even if the caller has turned them off."""
    with torch.enable_grad():
        yield


def _require_close(actual: Tensor, expected: Tensor, rule: str) -> None:
    """Raise AssertionError with the largest difference unless two tensors are equal but for rounding."""
    is_close = torch.allclose(actual.float(), expected.float(), rtol=RTOL, atol=ATOL)
    difference = float((actual.float() - expected.float()).abs().max())
    require(is_close, f"{rule}; the largest difference is {difference:.3g}")


def _check_initial_state(name: str, model: Model) -> None:
    """All rows must begin alike, since an exported file holds the state of one row."""
    for spec, three_rows, single_row in zip(
        model.state_spec, model.initial_state(3), model.initial_state(1), strict=True
    ):
        expected = single_row.expand(three_rows.shape)
        require(
            torch.equal(three_rows, expected),
            f"{name}: initial_state gives rows of {spec.name} that differ; all must begin alike, in any batch",
        )


def _check_shapes(name: str, model: Model, tokens: Tensor, vocab_size: int) -> None:
    state, tokens = model.initial_state(ROWS), tokens.clone()
    calls: dict[str, tuple[Callable[..., object], Tensor, tuple[int, ...]]] = {
        "forward": (model, tokens, (ROWS, POSITIONS, vocab_size)),
        "step": (model.step, tokens[:, 0], (ROWS, vocab_size)),
    }
    for method, (function, read_tokens, shape) in calls.items():
        returned = function(read_tokens, state)
        is_pair = isinstance(returned, tuple) and len(returned) == 2
        require(is_pair, f"{name}: {method} returned {type(returned).__name__}; expected logits and the new state")
        assert isinstance(returned, tuple)
        logits, next_state = returned
        require(
            isinstance(logits, Tensor) and tuple(logits.shape) == shape and logits.is_floating_point(),
            f"{name}: {method} returned logits {_describe(logits)}; expected floats of shape {shape}",
        )
        require(bool(logits.isfinite().all()), f"{name}: {method} returned logits that are infinite or NaN")
        is_tuple = isinstance(next_state, tuple) and len(next_state) == len(state)
        require(is_tuple, f"{name}: {method} must return the new state as a tuple of {len(state)} tensors")
        for spec, before, after in zip(model.state_spec, state, next_state, strict=True):
            is_alike = isinstance(after, Tensor) and after.shape == before.shape and after.dtype == before.dtype
            require(
                is_alike,
                f"{name}: {method} returned the state {spec.name} as {_describe(after)}; expected {_describe(before)}",
            )


def _describe(tensor: object) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__


def _check_unchanged_inputs(name: str, model: Model, tokens: Tensor) -> None:
    """The carried state and the tokens belong to the caller."""
    _, state = model(tokens, model.initial_state(ROWS))
    for method, function, read_tokens in (("forward", model, tokens), ("step", model.step, tokens[:, 0].clone())):
        state_before, tokens_before = copy.deepcopy(state), read_tokens.clone()
        function(read_tokens, state)
        for spec, before, after in zip(model.state_spec, state_before, state, strict=True):
            is_same = torch.equal(before, after)
            require(is_same, f"{name}: {method} changes the state {spec.name} that it reads in place; return a new one")
        require(torch.equal(tokens_before, read_tokens), f"{name}: {method} changes its tokens in place")


def _check_repeated(name: str, model: Model, tokens: Tensor) -> None:
    logits, _ = model(tokens, model.initial_state(ROWS))
    repeated_logits, _ = model(tokens, model.initial_state(ROWS))
    require(
        torch.equal(logits, repeated_logits),
        f"{name}: the same tokens give other logits when forward is called again in evaluation mode; nothing may be "
        f"random there, and the carried state must be all that it remembers",
    )


def _check_causal(name: str, model: Model, tokens: Tensor, vocab_size: int) -> None:
    """Logits may depend on earlier symbols and their own, and must depend on these."""
    logits, _ = model(tokens, model.initial_state(ROWS))
    changed_tokens = tokens.clone()
    position = POSITIONS // 2
    changed_tokens[:, position] = (changed_tokens[:, position] + 1) % vocab_size
    changed_logits, _ = model(changed_tokens, model.initial_state(ROWS))
    _require_close(
        changed_logits[:, :position],
        logits[:, :position],
        f"{name}: a symbol at position {position} changes logits before it; no position may read what follows",
    )
    reads_symbols = not torch.equal(changed_logits[:, position], logits[:, position])
    require(reads_symbols, f"{name}: the logits after a symbol do not depend on it")


def _check_rows(name: str, model: Model, tokens: Tensor) -> None:
    """A row must be the same alone as in a batch."""
    logits, state = model(tokens, model.initial_state(ROWS))
    for row in range(ROWS):
        row_logits, row_state = model(tokens[row : row + 1], model.initial_state(1))
        rule = f"{name}: row {row} differs when it is read alone: never mix rows (the batch axis)"
        _require_close(row_logits[0], logits[row], rule)
        for spec, row_tensor, tensor in zip(model.state_spec, row_state, state, strict=True):
            _require_close(
                row_tensor.select(spec.batch_axis, 0), tensor.select(spec.batch_axis, row), f"{rule}, {spec.name}"
            )


def _check_steps(name: str, model: Model, tokens: Tensor) -> None:
    """A sequence must give the same read as a whole, in two parts, and step by step."""
    logits, state = model(tokens, model.initial_state(ROWS))
    cut = POSITIONS // 3
    first_logits, middle_state = model(tokens[:, :cut], model.initial_state(ROWS))
    second_logits, last_state = model(tokens[:, cut:], middle_state)
    rule = f"{name}: forward gives other logits for a text in two parts, with the state carried over"
    _require_close(torch.cat([first_logits, second_logits], dim=1), logits, rule)
    _require_close_states(model, last_state, state, f"{name}: forward carries another state for a text in two parts")
    step_state = model.initial_state(ROWS)
    for position in range(POSITIONS):
        step_logits, step_state = model.step(tokens[:, position], step_state)
        rule = f"{name}: step gives other logits than forward at position {position}"
        _require_close(step_logits, logits[:, position], rule)
    _require_close_states(model, step_state, state, f"{name}: step by step, the state is another than forward's")


def _require_close_states(model: Model, actual: State, expected: State, rule: str) -> None:
    for spec, actual_tensor, expected_tensor in zip(model.state_spec, actual, expected, strict=True):
        _require_close(actual_tensor, expected_tensor, f"{rule}, in {spec.name}")


def _check_weights(name: str, model: Model, other: Model, tokens: Tensor) -> None:
    """A checkpoint must hold all that the logits depend on."""
    other.load_state_dict(model.state_dict())
    logits, _ = model(tokens, model.initial_state(ROWS))
    loaded_logits, _ = other.eval()(tokens, other.initial_state(ROWS))
    rule = f"{name}: a new model with the same state dict gives other logits; register all weights as nn.Parameter"
    _require_close(loaded_logits, logits, rule)


def _check_gradients(name: str, model: Model, tokens: Tensor) -> None:
    """A loss must reach parameters, and gradients must be numbers."""
    logits, _ = model.train()(tokens[:, :-1], model.initial_state(ROWS))
    require(logits.requires_grad, f"{name}: the logits do not depend on parameters, so nothing can be learned")
    functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    gradients = {key: parameter.grad for key, parameter in model.named_parameters() if parameter.requires_grad}
    for key, gradient in gradients.items():
        is_finite = gradient is None or bool(gradient.isfinite().all())
        require(is_finite, f"{name}: the gradient of {key} is infinite or NaN")
    model.zero_grad()


def _check_optional_methods(name: str, model: Model, vocab_size: int) -> None:
    """Check what `gentext.capabilities` describes, where the model has it."""
    if isinstance(model, SupportsPrepare):
        model.prepare(np.arange(1, vocab_size + 1, dtype=np.int64))
    if isinstance(model, SupportsLogitScale):
        _check_logit_scale(name, model, vocab_size)
    tensors = model.state_dict()
    if isinstance(model, SupportsSymbolAxes):
        for key, axis in model.symbol_axes().items():
            require(key in tensors, f"{name}: symbol_axes names {key!r}, which is not in the state dict")
            shape = tuple(tensors[key].shape)
            has_symbols = -len(shape) <= axis < len(shape) and shape[axis] == vocab_size
            require(has_symbols, f"{name}: symbol_axes says that axis {axis} of {key} {shape} is the symbols")
    if isinstance(model, SupportsHiddenMatrices):
        parameters = dict(model.named_parameters())
        for key, count in model.hidden_matrices().items():
            require(key in parameters, f"{name}: hidden_matrices names {key!r}, which is no parameter")
            shape = tuple(parameters[key].shape)
            is_stack = len(shape) == 2 and count >= 1 and shape[0] % count == 0
            require(is_stack, f"{name}: hidden_matrices says that {key} {shape} has {count} matrices of equal height")
    if isinstance(model, SupportsMembers):
        logits, _ = model.member_logits(torch.zeros((2, 3), dtype=torch.int64), model.initial_state(2))
        shape = tuple(logits.shape)
        has_members = len(shape) == 4 and shape[0] >= 1 and shape[1:] == (2, 3, vocab_size)
        require(has_members, f"{name}: member_logits returned {shape}; expected (members, 2, 3, {vocab_size})")


def _check_logit_scale(name: str, model: Model, vocab_size: int) -> None:
    """All logits must be scaled alike, wherever they come from."""
    assert isinstance(model, SupportsLogitScale)
    tokens = torch.arange(6).reshape(2, 3) % vocab_size
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    model.eval()
    with torch.no_grad():
        logits, _ = model(tokens, model.initial_state(2))
        model.scale_logits(0.5)
        scaled_logits, _ = model(tokens, model.initial_state(2))
    model.load_state_dict(weights)
    _require_close(scaled_logits, 0.5 * logits, f"{name}: scale_logits(0.5) must halve all logits, and nothing else")


def _check_export(name: str, model: Model, vocab_size: int) -> None:
    """The model must become a file, whose results the export compares with PyTorch's."""
    with torch.no_grad():
        rows = [
            np.take(tensor.numpy(), 0, axis=spec.batch_axis)
            for spec, tensor in zip(model.state_spec, model.initial_state(1), strict=True)
        ]
        bundle = Bundle(
            kind="model",
            tokenizer=TokenizerMeta("kit", {}),
            token_bytes=[b"%d " % token for token in range(vocab_size)],
            states=[StateMeta.from_row(spec, row) for spec, row in zip(model.state_spec, rows, strict=True)],
            start=0,
            chain=[],
            card={},
        )
        try:
            if export_model(model, bundle).method != SCAN:  # of which a step is a part
                step_graph(model, bundle)
        except ExportError as error:
            raise AssertionError(f"{name}: {error}") from error
