"""From a run to the Bundle that describes its model, as the run's exported files carry it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from gentext.components.tokenizers import read_symbols
from gentext.describe import load_run_tokenizer
from gentext.errors import FileFormatError, PluginError, RunError, reason
from gentext.exported.metadata import Bundle, StateMeta, TokenizerMeta, check_states
from gentext.files.versions import installed_version
from gentext.interfaces import Model, StateSpec, Tokenizer
from gentext.manager import host
from gentext.run import TOKENIZER_FILE, Run
from gentext.sampling.chain import Chain
from gentext.sampling.configured_chain import configured_chain, describe_links

#: Rows of the initial state with which a model is checked. Two, which shows where the batch axis is.
CHECKED_ROWS = 2
#: Measurements of a run that its card has at most.
MAX_CARD_MEASUREMENTS = 32


def describe(run: Run, model: Model) -> Bundle:
    """Return the Bundle of a run's model, as its exported files carry it.

    Raises RunError when the run's tokenizer is damaged.
    """
    tokenizer = load_run_tokenizer(run)
    chain = configured_chain(host().registry, run.config.get("chain", {}), tokenizer.vocab_size)
    return describe_model(run, model, tokenizer, chain)


def describe_model(run: Run, model: Model, tokenizer: Tokenizer, chain: Chain) -> Bundle:
    """Return what `describe` returns, for a run whose tokenizer and chain are built already."""
    name, state = run.read_tokenizer()
    start, records = run.read_start(), run.read_records()
    symbols = read_symbols(name, tokenizer)
    if not 0 <= start < len(symbols):
        raise RunError(
            f"{run.path / TOKENIZER_FILE}: damaged, start symbol {start} of {len(symbols)}; train the run again"
        )
    if records is not None and start != records.boundary:
        raise RunError(
            f"{run.path / TOKENIZER_FILE}: damaged, start symbol {start}, expected the boundary {records.boundary}; "
            f"train the run again"
        )
    if records is not None:  # a run of an older version does not say so, but no layout has ever had empty records
        records = dataclasses.replace(records, never_empty=True)
    return Bundle(
        kind="model",
        tokenizer=TokenizerMeta(name, dict(state), tokenizer.unknown),
        token_bytes=symbols,
        states=_describe_states(model),
        start=start,
        chain=describe_links(chain),
        card=make_card(run, model),
        records=records,
    )


def check_model(name: str, model: Model) -> None:
    """Raise PluginError for states of a model that cannot be exported, before hours of training are spent on it."""
    try:
        specs: object = model.state_spec
        if not isinstance(specs, Sequence) or not all(isinstance(spec, StateSpec) for spec in specs):
            raise PluginError(f"the state_spec of the model {name!r} must be a tuple of StateSpec, not {specs!r}")
        check_states([StateMeta(spec.name, list(spec.shape), spec.dtype) for spec in specs])
    except (FileFormatError, AttributeError, TypeError) as error:
        raise PluginError(f"the state_spec of the model {name!r} is wrong: {reason(error)}") from error
    declared = [f"{spec.name} {spec.dtype} {spec.with_batch(CHECKED_ROWS)}" for spec in specs]
    states: object = model.initial_state(CHECKED_ROWS)
    if not isinstance(states, tuple | list) or len(states) != len(specs):
        raise PluginError(f"initial_state of the model {name!r} must return a tuple of {len(specs)} tensors")
    try:
        returned = [
            f"{spec.name} {str(state.dtype).removeprefix('torch.')} {tuple(state.shape)}"
            for spec, state in zip(specs, states, strict=True)
        ]
    except AttributeError as error:
        raise PluginError(f"initial_state of the model {name!r} must return tensors: {reason(error)}") from error
    if returned != declared:
        raise PluginError(
            f"initial_state({CHECKED_ROWS}) of the model {name!r} returned {', '.join(returned)}; "
            f"its state_spec declares {', '.join(declared)}"
        )


def _describe_states(model: Model) -> list[StateMeta]:
    states = []
    for spec, tensor in zip(model.state_spec, model.initial_state(1), strict=True):
        row = np.take(tensor.detach().cpu().numpy(), 0, axis=spec.batch_axis)
        states.append(StateMeta.from_row(spec, row))
    return states


def make_card(run: Run, model: Model) -> dict[str, Any]:
    """Return the origin of a run's model: corpus, sizes, losses, config, versions."""
    import platform  # only an export needs it, and importing it takes time at every start

    config = run.config
    corpus_table = config.get("corpus", {})
    # Not its origin: a stranger who gets the file must not learn the folders of this machine.
    corpus = {key: corpus_table[key] for key in ("name", "sha256", "characters") if key in corpus_table}
    final_row: dict[str, Any] = next((row for row in reversed(run.read_metrics()) if row.get("finished")), {})
    return {
        "corpus": corpus,
        "parameters": sum(int(parameter.numel()) for parameter in model.parameters()),
        "steps": final_row.get("step"),
        **{key: final_row.get(key) for key in ("val_loss", "train_loss", "best_step")},
        "curve": _card_curve(run),
        "verdict": run.read_verdict(),
        "config": {**config, "corpus": corpus},
        "versions": {name: installed_version(name) for name in ("gentext", "torch", "onnx")}
        | {"python": platform.python_version()},
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _card_curve(run: Run) -> list[dict[str, float | None]]:
    """Return the measurements of a run, thinned out evenly where they are many; JSON has no NaN: it becomes null."""
    curve = run.read_curve()
    thinned = curve[:: -max(1, math.ceil(len(curve) / MAX_CARD_MEASUREMENTS))][::-1]  # the last one is always there
    rows = [dataclasses.asdict(measurement) for measurement in thinned]
    return [{name: None if math.isnan(number) else number for name, number in row.items()} for row in rows]
