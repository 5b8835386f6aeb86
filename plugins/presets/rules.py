"""The notebook's advice turned into rules: size, batch, rate and what holds back follow the text and the budget.

The presets `small` and `base` were made for 1 to 2 passes over 0.4 to 2 MB of text. There the rules leave them
as they are; outside they go on from there. They touch only what nobody has typed. Pure functions, without PyTorch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection

from gentext.advice import FAR
from gentext.config import ConfigTable

#: Presets that the rules may change; `notebook` stays the notebook exactly.
RULED = ("small", "base")

#: Steps of the shortest run measured: one pass over 0.4 MB in batches of 16 x 100.
FEWEST_STEPS = 220
#: Above so many steps (those of 21 passes over 1.8 MB) a batch is doubled: no update is missed, and machines like it.
MANY_STEPS = 24_000
#: The same in a budget of minutes, where larger batches read more text, and up to which batch they do.
MANY_TIMED_STEPS, LARGEST_TIMED_BATCH = 1_000, 64
#: A stream must last for some windows, or its state is always fresh.
FEWEST_WINDOWS = 10
SMALLEST_BATCH, LARGEST_BATCH = 4, 128
#: How far the rate follows the batch: halved at most, doubled at most.
RATE_RANGE = (0.5, 2.0)
#: The batch that the presets' rates were measured with.
BATCH = 16
#: Passes up to which the presets were measured, without dropout.
NO_DROPOUT = 5.0
#: Passes at which the dropout would be 0 if it began at once; each doubling from here adds a tenth.
DROPOUT_FROM = 3.0
#: Parameters a symbol of the presets on the texts they were measured with: what DROPOUT_FROM holds for.
USUAL_RATIO = 2.0
MOST_DROPOUT = 0.5
#: Passes from which Muon's steps, all of one size, make the weights too large, and the decay that holds them back.
DECAY_FROM, DECAY = 2.0, 1.0
SMALLEST_HIDDEN = 64


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the rules know of a text and of the machine."""

    symbols: int
    """How many there are to learn from."""
    vocab: int
    """How many different ones."""
    processes: int = 1
    """That share a batch."""
    hidden_matrices: bool = True
    """Whether the model tells Muon what to train."""


@dataclasses.dataclass(frozen=True)
class Change:
    """What a rule puts in the place of a preset's value."""

    key: str
    value: float
    why: str


def lstm_parameters(hidden: int, layers: int, embedding: int, vocab: int) -> int:
    """Return how many weights an `lstm` will have (the norms' few left out), before it is built."""
    first = 4 * hidden * ((embedding or vocab) + hidden + 2)
    other = 4 * hidden * (2 * hidden + 2)
    return first + (layers - 1) * other + vocab * (embedding + hidden + 1)


def for_text(config: ConfigTable, free: Collection[str], facts: Facts) -> list[Change]:
    """Return what the length of the text alone asks for; ``free`` are the keys that may change."""
    changes = []
    if "model.hidden" in free:
        hidden = preset = config["model"]["hidden"]
        while hidden > SMALLEST_HIDDEN and _ratio(config, facts, hidden) > FAR:
            hidden //= 2
        if hidden != preset:
            why = f"{preset} would be {_ratio(config, facts, preset):.0f} parameters a symbol"
            changes.append(Change("model.hidden", hidden, why))
    if "batcher.batch" in free:
        batch = preset = config["batcher"]["batch"]
        while batch // 2 >= _least(facts) and not _long_enough(facts, batch * config["batcher"]["length"]):
            batch //= 2
        if batch != preset:
            changes.append(Change("batcher.batch", batch, "a short text"))
    return changes


def for_budget(
    config: ConfigTable, free: Collection[str], facts: Facts, *, steps: int | None, symbols: int, timed: bool = False
) -> list[Change]:
    """Return what the budget asks for: ``steps`` when that is what the user gave, ``symbols`` to read otherwise.

    ``timed`` says that the symbols are those which a number of minutes reads.
    """
    changes = []
    batcher, trainer = config["batcher"], config["trainer"]
    if "batch" in batcher and "length" in batcher:
        batch, length = batcher["batch"], batcher["length"]
        if steps is None and "batcher.batch" in free:
            batch = _batch(batch, symbols // length, facts, length, timed)
            if batch != batcher["batch"]:
                before = symbols // (batcher["batch"] * length)
                changes.append(Change("batcher.batch", batch, f"{before:,} steps with {batcher['batch']}"))
        steps = symbols // (batch * length) if steps is None else steps
        if "trainer.rate" in free and batch != BATCH:
            low, high = RATE_RANGE
            rate = trainer["rate"] * min(high, max(low, math.sqrt(batch / BATCH)))
            changes.append(Change("trainer.rate", float(f"{rate:.2g}"), f"batch {batch}"))
        if "trainer.warmup" in free and steps < FEWEST_STEPS and trainer["warmup"] > steps // 10:
            changes.append(Change("trainer.warmup", steps // 10, f"{steps:,} steps"))
        passes, enough = steps * batch * length / facts.symbols, steps >= FEWEST_STEPS
        muon = trainer.get("optimizer") == "muon" and facts.hidden_matrices
        if muon and "trainer.weight_decay" in free and enough and passes >= DECAY_FROM:
            changes.append(Change("trainer.weight_decay", DECAY, f"{passes:.0f} passes"))
        if "model.dropout" in free and enough:
            dropout = _dropout(passes, _ratio(config, facts, config["model"]["hidden"]))
            if dropout > config["model"]["dropout"]:
                changes.append(Change("model.dropout", dropout, f"{passes:.0f} passes"))
    return changes


def line(changes: Collection[Change]) -> str:
    """Return what to tell about changes; a later one of a key counts."""
    last = {one.key: one for one in changes}
    said = ", ".join(f"{one.key}={one.value:g} ({one.why})" for one in last.values())
    return f"for this text and budget: {said}; --set takes another value"


def _batch(batch: int, rows: int, facts: Facts, length: int, timed: bool) -> int:
    """Return a batch that gives enough steps; ``rows`` are the windows that the budget reads."""
    while batch // 2 >= _least(facts) and rows // batch < FEWEST_STEPS:
        batch //= 2
    many, largest = (MANY_TIMED_STEPS, LARGEST_TIMED_BATCH) if timed else (MANY_STEPS, LARGEST_BATCH)
    while batch * 2 <= largest and rows // batch > many and _long_enough(facts, batch * 2 * length):
        batch *= 2
    return batch


def _long_enough(facts: Facts, step: int) -> bool:
    """Return whether the streams of a batch last for some windows."""
    return facts.symbols >= step * FEWEST_WINDOWS


def _dropout(passes: float, ratio: float) -> float:
    """Return a dropout that rises with the passes, and with the parameters that could learn the text by heart."""
    if passes <= NO_DROPOUT:
        return 0.0
    weight = min(2.0, max(0.5, math.sqrt(ratio / USUAL_RATIO)))
    value = 0.1 * math.log2(passes / DROPOUT_FROM) * weight
    return min(MOST_DROPOUT, round(round(value / 0.05) * 0.05, 2))


def _ratio(config: ConfigTable, facts: Facts, hidden: int) -> float:
    """Return the parameters a symbol to learn from."""
    model = config["model"]
    return lstm_parameters(hidden, model["layers"], model["embedding"], facts.vocab) / max(1, facts.symbols)


def _least(facts: Facts) -> int:
    """Return the smallest batch; each process needs a row."""
    return max(SMALLEST_BATCH, facts.processes)
