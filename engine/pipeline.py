"""The story of training: options, text, symbols, batches, model, fit. What `gen train` calls."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.resources
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gentext import advice
from gentext import run as runs
from gentext.bundle import start_symbol
from gentext.chain import DEFAULT_CHAIN
from gentext.config import Table, build_config, config_class, merge, parse_setting, read_toml, to_table
from gentext.console import say, warn
from gentext.describe import configured_chain, load_tokenizer
from gentext.errors import (
    ConfigError,
    CorpusError,
    MissingExtra,
    RunError,
    TrainingStopped,
    UsageError,
    nearest,
    reason,
)
from gentext.interfaces import FitResult, Ids, Tokenizer, World
from gentext.manager import host
from gentext.run import Run
from gentext.settings import BUDGETS, Settings

if TYPE_CHECKING:
    from gentext.data.corpus import Corpus

#: Components that a config chooses by name, and the built-in ones taken when it does not.
SECTIONS = {"tokenizer": "char", "batcher": "stream", "model": "lstm", "trainer": "bptt"}
DEFAULT_PRESET = "small"
DEFAULT_CORPUS = "python-docs"
HELD_OUT_LIMIT = 1_000_000
#: What PyTorch says when memory is short.
NO_MEMORY = re.compile(r"out of memory|can't allocate|not enough memory", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """What the command line says about a training run."""

    corpus: str | None = None
    run: Path | None = None
    preset: str | None = None
    config: Path | None = None
    settings: Sequence[str] = ()
    """``section.key=value`` texts."""
    flags: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of `Settings` that were typed."""
    resume: bool = False


@dataclasses.dataclass(frozen=True)
class _Text:
    """A corpus as symbols, cut into the part that is learned and the part that is held out."""

    tokenizer: Tokenizer
    train: Ids
    val: Ids
    characters: int
    """How many are learned from; a symbol may be several of them, or a part of one."""
    held_out: str


def presets() -> list[str]:
    """Return the names of the presets."""
    return sorted(one.name.removesuffix(".toml") for one in _preset_folder().iterdir() if one.name.endswith(".toml"))


def train(options: TrainOptions) -> tuple[Run, FitResult]:
    """Train as the options say, and let the life-cycle hooks export at the end."""
    if options.resume:
        return _resume(options)
    runs.check_free(options.run)
    config = resolve(options)
    corpus = DEFAULT_CORPUS if options.corpus is None else options.corpus
    return _train(config, corpus, options.run, resume=None)


def resolve(options: TrainOptions) -> Table:
    """Return the config: preset < file < --set < flags. Component options are checked later."""
    table = merge({kind: {"name": name} for kind, name in SECTIONS.items()}, {"chain": {"links": list(DEFAULT_CHAIN)}})
    layers = [read_preset(DEFAULT_PRESET if options.preset is None else options.preset)]
    layers += [read_toml(options.config)] if options.config else []
    layers.append(merge(*map(parse_setting, options.settings)))  # one layer: their order does not matter
    layers.append({"run": dict(options.flags)})
    known = [*SECTIONS, "chain", "run"]
    for layer in layers:
        for section, value in layer.items():
            if section not in known:
                raise ConfigError(f"unknown section [{section}].{nearest(section, known)} Sections: {', '.join(known)}")
            if not isinstance(value, Mapping):
                raise ConfigError(f"{section} = {value!r}: expected a table, for example [{section}]")
        table = _lay_over(table, layer)
    return table


def read_preset(name: str) -> Table:
    """Read a preset, or raise ConfigError naming those there are."""
    if name not in presets():
        raise ConfigError(f"no preset {name!r}. Available: {', '.join(presets())}.{nearest(name, presets())}")
    with importlib.resources.as_file(_preset_folder() / f"{name}.toml") as path:
        return read_toml(path)


def _preset_folder() -> Any:
    return importlib.resources.files("gentext.plugins") / "presets"


def _lay_over(below: Table, above: Mapping[str, Any]) -> Table:
    """Merge two configs; another component, or another unit of budget, replaces what it does not share."""
    below = dict(below)
    for section in SECTIONS:
        name = above.get(section, {}).get("name")
        if name is not None and name != below.get(section, {}).get("name"):
            below[section] = {}
    if any(unit in above.get("run", {}) for unit in BUDGETS):
        below["run"] = {key: value for key, value in below.get("run", {}).items() if key not in BUDGETS}
    return merge(below, above)


def _component(config: Table, kind: str) -> tuple[Any, Any]:
    """Return the class of a config's component and its Config, checked."""
    table = dict(config[kind])
    name = table.pop("name")
    if not isinstance(name, str):
        raise ConfigError(f"{kind}.name = {name!r}: expected the name of a {kind}")
    cls = host().registry.get(kind, name)
    built = build_config(config_class(cls), table, kind)
    config[kind] = {"name": name, **to_table(built)}
    return cls, built


def _resume(options: TrainOptions) -> tuple[Run, FitResult]:
    given = [name for name in ("preset", "config", "settings", "flags") if getattr(options, name)]
    if given:
        raise UsageError("--resume goes on with the settings of the run; leave out everything but CORPUS and --run")
    run = runs.open_run(options.run) if options.run else runs.newest(exported=False)[0]
    if run is None:
        raise RunError(f"nothing to resume: no run in {runs.runs_folder()}/; name one with --run")
    config = run.config
    stored = config.pop("corpus", {})
    nameless = [kind for kind in SECTIONS if "name" not in config.get(kind, {})]
    nameless += [] if "name" in stored else ["corpus"]
    if nameless:
        raise RunError(f"{run.path / runs.CONFIG}: damaged, [{nameless[0]}] has no name; train the run again")
    origin = stored.get("origin") if options.corpus is None else options.corpus
    if not isinstance(origin, str) or (origin == "-" and options.corpus is None):
        raise UsageError(f"{run.path} was trained from standard input: pipe the same text in again, with CORPUS -")
    return _train(config, origin, run.path, resume=(run, stored))


def _train(config: Table, source: str, path: Path | None, resume: tuple[Run, Table] | None) -> tuple[Run, FitResult]:
    from gentext.data.corpus import read_corpus

    parts = {kind: _component(config, kind) for kind in SECTIONS}
    settings = build_config(Settings, config.get("run", {}), "run")
    try:
        corpus = read_corpus(source)
    except CorpusError as error:
        if resume is None:
            raise
        raise CorpusError(
            f"{error} If it moved, say where it is: gen train TEXT --resume --run {resume[0].path}"
        ) from None
    if resume and corpus.sha256 != resume[1].get("sha256"):
        raise RunError(
            f"{resume[0].path} was trained on another text: {resume[1].get('name')!r} with sha256 "
            f"{str(resume[1].get('sha256'))[:12]}..., this is {corpus.name!r} with {corpus.sha256[:12]}...; "
            f"give it the same text, or start a new run"
        )
    text = _prepare_text(parts["tokenizer"], corpus, settings, resume[0] if resume else None)
    cls, options = parts["batcher"]
    batcher = cls(options, len(text.train), World())
    configured_chain(host().registry, config.get("chain", {}), text.tokenizer.vocab_size)
    cls, options = parts["trainer"]
    trainer = cls(options, settings)
    took = trainer.start()
    cls, options = parts["model"]
    with _enough_memory():
        model = cls(options, text.tokenizer.vocab_size)
    counts = np.bincount(text.train, minlength=text.tokenizer.vocab_size).astype(np.int64)
    if not resume and hasattr(model, "prepare"):
        model.prepare(counts)
    with _enough_memory():
        steps, seconds = trainer.plan(model, batcher, text.train)
    run = resume[0] if resume else runs.create(path, corpus.name)
    if not resume:
        config["run"] = {key: value for key, value in to_table(settings).items() if key not in BUDGETS}
        config["run"]["steps"] = steps
        config["corpus"] = _corpus_table(corpus)
        _write_start(run, config, text, counts)
    _introduce(run, took, model, text, steps, seconds, config["model"])
    try:
        with _enough_memory():
            result = trainer.fit(model, batcher, text.train, text.val, run, host().hooks, steps, resume is not None)
        host().hooks.run_finished(run, settings, result)
    except KeyboardInterrupt:
        raise TrainingStopped(f"stopped before the end; {_go_on(run)}") from None
    except RunError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise RunError(f"{error}. When that is put right, {_go_on(run)}") from error
    finally:
        host().hooks.run_closed(run)
    return run, result


def _go_on(run: Run) -> str:
    """Return what to do after training was cut short."""
    if not any(run.checkpoints.glob("*.safetensors")):
        return "train anew in another folder: nothing was saved yet"
    return f"go on with: gen train --resume --run {run.path}"


@contextlib.contextmanager
def _enough_memory() -> Iterator[None]:
    """Say in one line when a model or its batches do not fit; PyTorch raises RuntimeError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not NO_MEMORY.search(str(error)):
            raise
        raise ConfigError(
            f"not enough memory for this model and its batches ({reason(error)[:100]}); lower model.hidden, "
            f"model.layers, batcher.batch or batcher.length"
        ) from error


def _prepare_text(tokenizer: tuple[Any, Any], corpus: Corpus, settings: Settings, run: Run | None) -> _Text:
    """Learn the symbols of the whole text (or load a run's) and cut off the held-out tail."""
    cls, options = tokenizer
    learned: Tokenizer = load_tokenizer(*run.read_tokenizer()) if run else cls.build([corpus.text], options)
    if learned.vocab_size < 2:
        raise CorpusError(f"{corpus.name}: the text has one symbol only; there is nothing to learn")
    cut = int(len(corpus.text) * (1 - settings.val_frac))
    held_out = corpus.text[cut:]
    train, val = learned.encode(corpus.text[:cut]), learned.encode(held_out)
    if len(train) < 2 or len(val) < 2:
        raise CorpusError(
            f"{corpus.name}: {len(corpus.text)} characters are too few to learn from and to hold out "
            f"{settings.val_frac:.0%}; use a longer text"
        )
    return _Text(learned, train, val, cut, held_out)


def _corpus_table(corpus: Corpus) -> Table:
    return {
        "name": corpus.name,
        "origin": corpus.origin,
        "sha256": corpus.sha256,
        "characters": len(corpus.text),
    }


def _write_start(run: Run, config: Table, text: _Text, counts: Any) -> None:
    """Write what a run holds before its first step."""
    try:
        import tomli_w
    except ModuleNotFoundError:
        raise MissingExtra("training", "train") from None
    tokenizer = text.tokenizer
    symbols = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
    state = {
        "name": config["tokenizer"]["name"],
        "state": tokenizer.state(),
        "start": start_symbol(symbols, counts, tokenizer.unknown),
    }
    runs.write_text(run.path / runs.TOKENIZER, json.dumps(state, ensure_ascii=False, indent=1) + "\n")
    runs.write_text(run.path / runs.HELD_OUT, text.held_out[-HELD_OUT_LIMIT:])
    runs.write_text(run.path / runs.CONFIG, tomli_w.dumps(config))


def _introduce(run: Run, took: str, model: Any, text: _Text, steps: int, seconds: float, options: Table) -> None:
    parameters = sum(int(one.numel()) for one in model.parameters())
    say(f"device: {took}")
    say(
        f"text: {len(text.train):,} symbols to learn from, {len(text.val):,} held out, "
        f"{text.tokenizer.vocab_size} different; model: {parameters:,} parameters"
    )
    say(f"budget: {steps:,} steps, about {_duration(steps * seconds)}; run: {run.path}")
    for line in advice.before(parameters, text.characters, len(text.held_out), options):
        warn(line)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
