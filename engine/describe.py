"""From a run to the Bundle that describes its model, and from a Bundle to its tokenizer and chain."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from gentext.config import CONVERSION_LOCK, ConfigTable, build_config
from gentext.creation import create_component
from gentext.errors import ConfigError, FileFormatError, PluginError, RunError, nearest, reason, refuse_exit
from gentext.exported.boundary import BoundaryTokenizer
from gentext.exported.bundle import Bundle, LinkMeta, StateMeta, TokenizerMeta, check_states
from gentext.files.versions import installed_version
from gentext.handover import read_symbols
from gentext.interfaces import Model, StateSpec, Tokenizer
from gentext.manager import host
from gentext.registry import Registry
from gentext.run import TOKENIZER_FILE, Run
from gentext.sampling.chain import DEFAULT_CHAIN, Chain, build_chain
from gentext.strategy import PLACES, Place, Strategy

__all__ = ["tokenizer_of"]

#: Rows of the initial state with which a model is checked. Two, which shows where the batch axis is.
CHECKED_ROWS = 2
#: Stands for every built-in link where links are named, see `_expand_all`.
ALL_LINKS = "all"
#: Measurements of a run that its card has at most.
MAX_CARD_MEASUREMENTS = 32


@dataclasses.dataclass(frozen=True)
class ChainConfig:
    """The table ``[chain]``; ``[chain.LINK]`` holds a link's options and parameter defaults."""

    links: list[str] = dataclasses.field(default_factory=lambda: list(DEFAULT_CHAIN))
    """The links in order; ``"all"`` stands for every built-in one that the list does not name."""


def configured_chain(registry: Registry, table: ConfigTable, vocab_size: int) -> Chain:
    """Build the chain that a config's table ``[chain]`` describes."""
    link_options = {name: setting for name, setting in table.items() if isinstance(setting, Mapping)}
    fields = {name: setting for name, setting in table.items() if name not in link_options}
    names = _expand_all(registry, build_config(ChainConfig, fields, "chain").links)
    return build_chain(registry, names, vocab_size, link_options)


def load_tokenizer(name: str, state: Mapping[str, Any]) -> Tokenizer:
    """Build a tokenizer from its stored state.

    Raises RunError when that is damaged, PluginError when a plugin's class builds no tokenizer.
    """
    registered = host().registry.find("tokenizer", name)

    def restore() -> Any:
        try:
            return registered.load().from_state(state)
        except (KeyError, TypeError, ValueError, RunError) as error:
            problem = f"the stored state of tokenizer {name!r} is damaged ({error})"
            raise RunError(f"{problem}; train the run again") from None

    tokenizer: Tokenizer = create_component(registered, restore)
    return tokenizer


def load_run_tokenizer(run: Run) -> Tokenizer:
    """Build the tokenizer of a run, with the boundary symbol where it has records. Raises RunError."""
    (name, state), records = run.read_tokenizer(), run.read_records()
    try:
        tokenizer = load_tokenizer(name, state)
    except RunError as error:
        raise RunError(f"{run.path / TOKENIZER_FILE}: {error}") from None
    if records is None:
        return tokenizer
    with_boundary = BoundaryTokenizer(tokenizer)
    if problem := records.find_problem(with_boundary.vocab_size):
        raise RunError(f"{run.path / TOKENIZER_FILE}: damaged, {problem}; train the run again")
    return with_boundary


def tokenizer_of(bundle: Bundle) -> Tokenizer:
    """Build the tokenizer of a file, with the boundary symbol where it has records.

    Raises FileFormatError when its symbols are not those of the file.
    """
    tokenizer = load_tokenizer(bundle.tokenizer.name, bundle.tokenizer.state)
    if bundle.records is not None:
        tokenizer = BoundaryTokenizer(tokenizer)
    with refuse_exit(f"the tokenizer {bundle.tokenizer.name!r}"):
        symbols = read_symbols(bundle.tokenizer.name, tokenizer)
    if symbols != bundle.token_bytes or tokenizer.unknown != bundle.tokenizer.unknown:
        raise FileFormatError(
            f"the file's tokenizer {bundle.tokenizer.name!r} and its {bundle.vocab_size} symbols disagree; "
            f"the file is damaged, export it again"
        )
    return tokenizer


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


def describe_links(chain: Chain) -> list[LinkMeta]:
    """Return a chain as a file's metadata stores it."""
    with CONVERSION_LOCK:
        return msgspec.convert([link.describe() for link in chain], list[LinkMeta])


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


def builtin_strategies(registry: Registry) -> list[str]:
    """Return the names of the built-in links. A plugin's link is imported only when the chain or the file names it."""
    return [component.name for component in registry.registered("strategy") if component.distribution.builtin]


def _expand_all(registry: Registry, names: Sequence[str]) -> Sequence[str]:
    """Return link names, where ``all`` stands for the built-in links that are not named, in the order of their places.

    A chain has at most one link that stands last: ``all`` holds the first of these, and none where another is named.
    """
    if ALL_LINKS not in names:
        return names
    position = list(names).index(ALL_LINKS)
    before, behind = names[:position], names[position + 1 :]
    if ALL_LINKS in behind:
        raise ConfigError(f"the chain {', '.join(names)} names {ALL_LINKS!r} twice; once is enough")
    strategies = {name: registry.get("strategy", name) for name in [*before, *behind, *builtin_strategies(registry)]}
    last_names = [name for name, strategy in strategies.items() if _place_of(strategy) == "last"]
    unnamed = [name for name in strategies if name not in (*before, *behind, *last_names[1:])]
    expanded = [*before, *sorted(unnamed, key=lambda name: PLACES.index(_place_of(strategies[name]))), *behind]
    return sorted(expanded, key=lambda name: _place_of(strategies[name]) != "first")  # stable: it moves this one alone


def _place_of(strategy: object) -> Place:
    """Return the place of a strategy's class; what is no strategy, which `build_link` refuses, has the usual one."""
    if isinstance(strategy, type) and issubclass(strategy, Strategy) and strategy.place in PLACES:
        return strategy.place
    return Strategy.place


def chain_of(bundle: Bundle, registry: Registry, names: Sequence[str] | None = None) -> Chain:
    """Build a file's default chain (``names`` is None), or another one from link names, of which one may be ``all``.

    Links of the file's chain keep the file's options and defaults. Raises FileFormatError when the file
    and the installed strategy disagree, UnknownComponent when a strategy is not installed.
    """
    file_links = {link.name: link for link in bundle.chain}
    names = list(file_links) if names is None else _expand_all(registry, names)
    options = {name: _checked_options(registry, file_links[name]) for name in names if name in file_links}
    return build_chain(registry, names, bundle.vocab_size, options)


def _checked_options(registry: Registry, meta: LinkMeta) -> dict[str, Any]:
    """Return a stored link's options and defaults, checked against the installed strategy."""
    installed_params = registry.get("strategy", meta.name).params
    for name in meta.params:
        if name not in installed_params:
            raise FileFormatError(
                f"the file's link {meta.name!r} has a parameter {name!r} that the installed strategy does not know."
                f"{nearest(name, installed_params)} Install the version of the plugin that it was exported with"
            )
    return {**meta.config, **{name: param.default for name, param in meta.params.items()}}
