"""The story of training: options, text, symbols, batches, model, fit. What `gen train` calls."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from gentext import advice
from gentext import run as runs
from gentext.bundle import start_symbol
from gentext.config import ConfigTable, build_config, to_table
from gentext.console import say, warn
from gentext.describe import configured_chain
from gentext.errors import (
    ConfigError,
    MissingExtra,
    PluginError,
    RunError,
    TrainingStopped,
    UsageError,
    reason,
)
from gentext.events import Silence
from gentext.interfaces import FitResult, Ids, World
from gentext.manager import host
from gentext.plugins.presets import rules as sizing
from gentext.resolve import SECTIONS, Start, TrainOptions, component, resolve, untyped
from gentext.run import Run
from gentext.settings import BUDGETS, Settings, check_extras
from gentext.text import SplitText, read_text

DEFAULT_CORPUS = "python-docs"
#: What PyTorch says when memory is short.
NO_MEMORY = re.compile(r"out of memory|can't allocate|not enough memory", re.IGNORECASE)


def train(options: TrainOptions) -> tuple[Run, FitResult]:
    """Train as the options say, and export at the end unless `Settings.export` is false."""
    if options.corpus == "-" and World.of_process().size > 1:
        raise UsageError("standard input serves one process only: with torchrun, name a file or a folder")
    if options.resume and options.start:
        raise UsageError("--init-from begins a new run, --resume goes on with one: give one of them")
    if options.resume:
        return _resume(options)
    if not World.of_process().rank:  # whose run it is
        runs.check_free(options.run)
    config, free = resolve(options), untyped(options)
    if options.start:
        free.discard("model.hidden")  # the weights to begin with have a size
    corpus = DEFAULT_CORPUS if options.corpus is None else options.corpus
    return _train(config, corpus, options.run, resume=None, start=options.start, free=free)


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


def _train(
    config: ConfigTable,
    source: str,
    path: Path | None,
    resume: tuple[Run, ConfigTable] | None,
    start: Start | None = None,
    free: Set[str] = frozenset(),
) -> tuple[Run, FitResult]:
    parts = {kind: component(config, kind) for kind in SECTIONS}
    settings = build_config(Settings, config.get("run", {}), "run")
    check_extras(settings)
    text = read_text(source, config["tokenizer"]["name"], parts["tokenizer"], settings.val_frac, resume)
    world = World.of_process()
    configured_chain(host().registry, config.get("chain", {}), text.tokenizer.vocab_size)
    ruled, measured = _rule(config, text, settings, world, free)
    made = measured or _make(config, text, settings, world)
    trainer, model = made.trainer, made.model
    if not resume and hasattr(model, "prepare"):
        model.prepare(text.counts)
    begun = start(model, text.tokenizer, config) if start else None
    steps, seconds = made.plan(text.train)
    if resume or world.rank:
        run = resume[0] if resume else Run(path or runs.runs_folder())
    else:
        run = runs.create(path, text.corpus["name"])
        config["run"] = {key: value for key, value in to_table(settings).items() if key not in BUDGETS}
        config["run"]["steps"] = steps
        config["corpus"] = text.corpus
        _write_start(run, config, text)
    for line in filter(None, (begun, ruled)):
        say(line)
    _introduce(run, made.device, model, text, steps, seconds, config["model"])
    hooks = Silence() if world.rank else host().hooks
    try:
        with _enough_memory():
            result = trainer.fit(model, made.batcher, text.train, text.val, run, hooks, steps, resume is not None)
        hooks.run_finished(run, settings, result)
        if settings.export:
            hooks.export_run(run, settings)
    except KeyboardInterrupt:
        if world.rank:
            raise
        raise TrainingStopped(f"stopped before the end; {_go_on(run)}") from None
    except RunError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise RunError(f"{error}. When that is put right, {_go_on(run)}") from error
    finally:
        hooks.run_closed(run)
    return run, result


@dataclasses.dataclass
class _Made:
    """A trainer that has started, and what it is to train."""

    trainer: Any
    device: str
    model: Any
    batcher: Any
    planned: tuple[int, float] | None = None

    def plan(self, train: Ids) -> tuple[int, float]:
        """Return steps and seconds of one, measured once."""
        if self.planned is None:
            with _enough_memory():
                self.planned = self.trainer.plan(self.model, self.batcher, train)
        return self.planned


def _make(config: ConfigTable, text: SplitText, settings: Settings, world: World) -> _Made:
    parts = {kind: component(config, kind) for kind in SECTIONS}
    batcher = _batcher(config, parts, text.train, settings.seed, world)
    cls, options = parts["trainer"]
    trainer = cls(options, settings)
    took = trainer.start()
    cls, options = parts["model"]
    with _enough_memory():
        return _Made(trainer, took, cls(options, text.tokenizer.vocab_size), batcher)


def _rule(
    config: ConfigTable, text: SplitText, settings: Settings, world: World, free: Set[str]
) -> tuple[str | None, _Made | None]:
    """Let the rules of `gentext.plugins.presets.rules` change what is free in the config.

    Returns what to tell about it, and what was made to measure minutes by, where it still holds.
    """
    told = hasattr(component(config, "model")[0], "hidden_matrices")
    facts = sizing.Facts(len(text.train), text.tokenizer.vocab_size, world.size, told)
    changes = sizing.for_text(config, free, facts)
    _lay(changes, config)
    made, symbols = None, round((settings.epochs or 1.0) * facts.symbols)
    if free and settings.minutes is not None:
        made, symbols = _measure(config, text, settings, world)
        batch = sizing.for_budget(config, free & {"batcher.batch"}, facts, steps=None, symbols=symbols, timed=True)
        if batch:  # another batch reads faster or slower: how many passes it makes must be measured
            changes += batch
            _lay(batch, config)
            made, symbols = _measure(config, text, settings, world)
            free = free - {"batcher.batch"}
    late = sizing.for_budget(config, free, facts, steps=settings.steps, symbols=symbols)
    _lay(late, config)
    changes += late
    return sizing.line(changes) if changes else None, None if late else made


def _measure(config: ConfigTable, text: SplitText, settings: Settings, world: World) -> tuple[_Made, int]:
    """Return what was made to measure a budget in minutes by, and the symbols that it reads."""
    made = _make(config, text, settings, world)
    return made, made.plan(text.train)[0] * made.batcher.rows * made.batcher.length


def _lay(changes: list[sizing.Change], config: ConfigTable) -> None:
    for one in changes:
        section, key = one.key.split(".")
        config[section][key] = one.value


def _batcher(config: ConfigTable, parts: dict[str, Any], train: Ids, seed: int, world: World) -> Any:
    """Return the batcher. Of several processes each takes its part of a batch, which a plugin may not know of."""
    cls, options = parts["batcher"]
    batcher = cls(options, len(train), world)
    if world.size == 1:
        return batcher
    if not getattr(parts["trainer"][0], "distributed", False):
        raise PluginError(
            f"the trainer {config['trainer']['name']!r} works alone, but there are {world.size} processes; "
            f"train without torchrun, or with trainer.name=bptt"
        )
    rows = len(batcher.batch(train, seed, 0, 0, world.rank)[0])
    if rows * world.size != batcher.rows:
        raise PluginError(
            f"the batcher {config['batcher']['name']!r} gave each of {world.size} processes {rows} of {batcher.rows} "
            f"rows; expected an equal part. Choose another size of batch, or train without torchrun"
        )
    return batcher


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


def _write_start(run: Run, config: ConfigTable, text: SplitText) -> None:
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
        "start": start_symbol(symbols, text.counts, tokenizer.unknown),
    }
    runs.write_text(run.path / runs.TOKENIZER, json.dumps(state, ensure_ascii=False, indent=1) + "\n")
    runs.write_text(run.path / runs.HELD_OUT, text.held_out)
    runs.write_text(run.path / runs.CONFIG, tomli_w.dumps(config))


def _introduce(
    run: Run, took: str, model: Any, text: SplitText, steps: int, seconds: float, options: ConfigTable
) -> None:
    parameters = sum(int(one.numel()) for one in model.parameters())
    say(f"device: {took}")
    say(
        f"text: {len(text.train):,} symbols to learn from, {len(text.val):,} held out, "
        f"{text.tokenizer.vocab_size} different; model: {parameters:,} parameters"
    )
    unread = text.corpus["characters"] - text.characters - len(text.held_out)
    if unread:
        say(
            f"held out are {unread + len(text.held_out):,} characters, of which the last {len(text.held_out):,} are "
            f"measured; a smaller --val-frac leaves more to learn from"
        )
    say(f"budget: {steps:,} steps, about {_duration(steps * seconds)}; run: {run.path}")
    for line in advice.before_training(parameters, text.characters, len(text.held_out), options):
        warn(line)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
