"""The notebook's advice turned into rules.

Adapts model size, batch, rate, warm-up, dropout and weight decay to the length of the text and to the budget.

The presets `small` and `base` were measured with 1 to 2 passes over 0.4 to 2 MB of text. Within that range the rules
change nothing, unless a budget of minutes, or the text in it, is short for the size of the model. `tiny` has the same
recipe, and is read more often. The rules never change a setting that the user has set. The functions are pure, and need
no PyTorch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection

from gentext.adjustments import Budget, Change, TrainingFacts
from gentext.capabilities import SupportsHiddenMatrices, SupportsLogitScale
from gentext.config import ConfigTable
from gentext.plugins.models.lstm_size import lstm_parameters, ngram_parameters
from gentext.plugins.presets.dropout import (
    MIN_NGRAM_DROPOUT_PASSES,
    dropout_for_passes,
    is_short_text,
    ngram_dropout_for_passes,
)
from gentext.training.advice import MAX_RATIO

#: Smallest number of units to which a layer is reduced.
MIN_HIDDEN = 64
#: Symbols of text that training should read for each parameter of a network. Where a budget of minutes is too short for
#: that, a smaller network reads more of the text in it, and ends with a lower loss. The layers lose so many units at a
#: time, and keep this part of those of the preset.
MIN_SYMBOLS_PER_PARAMETER, HIDDEN_STEP, MIN_HIDDEN_SHARE = 6.0, 32, 0.7
#: Parameters for each symbol of a short text, at most, in a budget of minutes. A larger network learns the text by
#: heart, and a smaller one has read it more often by then. The layers keep this part of the units of the preset.
MAX_SHORT_TEXT_PARAMETERS_PER_SYMBOL, MIN_SHORT_TEXT_HIDDEN_SHARE = 0.9, 0.5
#: Symbols of the text for each row of a table of n-grams, at least, and the smallest table.
MIN_SYMBOLS_PER_ROW, MIN_NGRAM_ROWS = 20, 256
#: The models whose parameters the rules can count.
MODELS = ("lstm", "lstm_ensemble")
#: Steps of the shortest run measured: one pass over 0.4 MB in batches of 16 x 100.
MIN_STEPS = 220
#: With more steps than these, which are those of 21 passes over 1.8 MB, a batch is doubled: it costs no loss and is
#: faster.
MAX_STEPS = 24_000
#: The same in a budget of minutes, where larger batches read more text.
MAX_TIMED_STEPS = 1_000
#: Smallest number of windows of a stream: with fewer, the carried state would be reset all the time.
MIN_WINDOWS = 10
#: Rows of a batch that the rules choose at least and at most; at most in a budget of minutes.
MIN_BATCH, MAX_BATCH, MAX_TIMED_BATCH = 4, 128, 64
#: Rows of the batch that the presets' rates were measured with, and symbols of a row.
MEASURED_BATCH, MEASURED_LENGTH = 16, 100
#: Rows of a batch of records, at most: many short ones have as many symbols together as the rows of a text.
MAX_RECORD_BATCH = 1024
#: The rate follows the square root of the batch: halved at most, doubled at most.
MIN_RATE_FACTOR, MAX_RATE_FACTOR = 0.5, 2.0
#: Bytes of the logits of a batch, in float32, above which it is made smaller, for a text with very many symbols. A step
#: needs them about five times over.
LOGIT_BYTES, MAX_LOGITS_BYTES = 4, 1 << 28
#: The shortest windows that the rules choose.
MIN_LENGTH = 16
#: Passes from which the weight decay is raised, and its value then; over records always. Muon's steps all have the same
#: size, so in long runs the weights would grow too large. Over records the decay falls with the rate: a constant one
#: keeps the probabilities away from how frequent symbols are. Over a text that makes them safer, but calibration is
#: better: above some passes the decay of a text that is calibrated falls, too.
MIN_DECAY_PASSES, FALLING_DECAY_PASSES, WEIGHT_DECAY = 2.0, 5.0, 1.0
#: Passes above which the logits of a text are calibrated: of a model that reads n-grams, which learns a text by heart
#: sooner, and of another one.
NGRAM_CALIBRATION_PASSES, CALIBRATION_PASSES = 4.0, 5.0
#: Symbols of a text that is read often by which the logits are scaled: at most so many, and at most this part of it.
#: Fewer than the least number would give a scale that is off by more than it corrects.
MAX_CALIBRATION, MAX_CALIBRATION_SHARE, MIN_CALIBRATION = 10_000, 0.02, 2_000
#: Parameters a symbol of a text below which a model can hardly learn it by heart, and the weight decay then. It needs
#: its weights for the text, so dropout and a larger decay only make it worse: `tiny` has 0.15 for *Anna Karenina*,
#: `small` 0.5.
MIN_PARAMETERS_PER_SYMBOL, SMALL_MODEL_WEIGHT_DECAY = 0.25, 0.3
#: Passes of a short text in a budget of minutes from which training ends where the held-out loss no longer falls: after
#: so many measurements without a lower one. A longer text may wait as long for the end of the schedule to help.
MIN_PATIENCE_PASSES, PATIENCE = 2.0, 3
#: With more steps than these over records, a larger batch raises the rate by this factor at most, which was measured in
#: 15,000 steps.
MAX_RECORD_STEPS, LONG_RECORDS_RATE_FACTOR = 5_000, 4 / 3


def adjust_to_text(config: ConfigTable, free: Collection[str], facts: TrainingFacts) -> list[Change]:
    """Return the changes that follow from the size of the corpus alone; ``free`` are the keys that may change."""
    changes = []
    if "model.hidden" in free:
        preset_hidden = config["model"]["hidden"]
        hidden = _hidden_for_text(config, facts)
        if hidden != preset_hidden:
            ratio = _parameters_per_symbol(config, facts, preset_hidden)
            changes.append(Change("model.hidden", hidden, f"{preset_hidden} would be {ratio:.0f} parameters a symbol"))
    if "model.ngram_rows" in free and _reads_ngrams(config):
        preset_rows = ngram_rows = config["model"]["ngram_rows"]
        while ngram_rows // 2 >= MIN_NGRAM_ROWS and ngram_rows * MIN_SYMBOLS_PER_ROW > facts.symbols:
            ngram_rows //= 2
        if ngram_rows != preset_rows:
            changes.append(Change("model.ngram_rows", ngram_rows, f"{facts.symbols:,} symbols"))
    if "batcher.batch" in free:
        batch = _batch_for_records(config, facts) if facts.records else _batch_for_text(config, facts)
        if batch != config["batcher"]["batch"]:
            changes.append(Change("batcher.batch", batch, _describe_corpus(facts)))
    if "batcher.length" in free:
        preset_length = length = config["batcher"]["length"]
        rows = config["batcher"].get("batch", 1)
        while length // 2 >= MIN_LENGTH and rows * length * facts.vocab_size * LOGIT_BYTES > MAX_LOGITS_BYTES:
            length //= 2
        if length != preset_length:
            changes.append(Change("batcher.length", length, f"{facts.vocab_size:,} symbols"))
    return changes


def adjust_to_budget(config: ConfigTable, free: Collection[str], facts: TrainingFacts, budget: Budget) -> list[Change]:
    """Return the changes that follow from the budget; none for a batcher without ``batch`` and ``length``."""
    batcher, trainer, model = config["batcher"], config["trainer"], config["model"]
    if "batch" not in batcher or "length" not in batcher:
        return []
    changes = []
    if budget.timed and "model.hidden" in free:
        hidden, budget = _hidden_for_budget(config, facts, budget)
        if hidden != model["hidden"]:
            reason = "a short text" if is_short_text(facts) else f"little time for {model['hidden']}"
            changes.append(Change("model.hidden", hidden, reason))
    batch, length = batcher["batch"], batcher["length"]
    if facts.records:
        length = min(length, _mean_length(facts))
    if budget.steps is None and "batcher.batch" in free:
        batch = _batch_for_budget(batch, length, facts, budget)
        if batch != batcher["batch"]:
            preset_steps = int(budget.symbols / (batcher["batch"] * length))
            changes.append(Change("batcher.batch", batch, f"{preset_steps:,} steps with {batcher['batch']}"))
    steps = int(budget.symbols / (batch * length)) if budget.steps is None else budget.steps
    passes = steps * batch * length / facts.symbols

    # Rows of as many symbols as those of the text with which the rates were measured.
    equal_rows = batch * length / MEASURED_LENGTH if facts.records else batch
    if "trainer.rate" in free:
        rate = _rate_for_batch(trainer["rate"], equal_rows)
        if facts.records and steps > MAX_RECORD_STEPS:
            rate = min(rate, float(f"{LONG_RECORDS_RATE_FACTOR * trainer['rate']:.2g}"))
        if rate != trainer["rate"]:
            changes.append(Change("trainer.rate", rate, f"batch {batch}"))
    if "trainer.warmup" in free and steps < MIN_STEPS and trainer["warmup"] > steps // 10:
        changes.append(Change("trainer.warmup", steps // 10, f"{steps:,} steps"))
    if "trainer.patience" in free and budget.timed and is_short_text(facts) and passes >= MIN_PATIENCE_PASSES:
        changes.append(Change("trainer.patience", PATIENCE, f"{passes:.0f} passes"))
    if steps < MIN_STEPS:  # too few to over-fit, however often a short text is read
        return changes
    if "model.ngram_dropout" in free and _reads_ngrams(config) and passes >= MIN_NGRAM_DROPOUT_PASSES:
        ngram_dropout = ngram_dropout_for_passes(passes, is_short=is_short_text(facts))
        if ngram_dropout > model["ngram_dropout"]:
            changes.append(Change("model.ngram_dropout", ngram_dropout, f"{passes:.0f} passes"))
    is_small_model = _is_too_small_to_overfit(config, facts)
    calibration = None
    uses_muon = trainer.get("optimizer") == "muon" and _names_hidden_matrices(facts)
    if uses_muon and (facts.records or passes >= MIN_DECAY_PASSES):
        reason = "records" if facts.records else f"{passes:.0f} passes"
        if "trainer.weight_decay" in free:
            weight_decay = SMALL_MODEL_WEIGHT_DECAY if is_small_model else WEIGHT_DECAY
            changes.append(Change("trainer.weight_decay", weight_decay, reason))
        calibration = _calibration_for_passes(config, free, facts, passes)
        if calibration is not None:
            changes.append(calibration)
        falls = facts.records or (calibration is not None and passes > FALLING_DECAY_PASSES)
        if falls and "trainer.decay_schedule" in free:
            changes.append(Change("trainer.decay_schedule", "falling", reason))
    if "model.dropout" in free and not is_small_model:
        ratio = _parameters_per_symbol(config, facts, model["hidden"])
        dropout = dropout_for_passes(passes, ratio, is_calibrated=calibration is not None)
        if dropout > model["dropout"]:
            changes.append(Change("model.dropout", dropout, f"{passes:.0f} passes"))
    return changes


def _hidden_for_text(config: ConfigTable, facts: TrainingFacts) -> int:
    """Return the units of a layer, halved until parameters and symbols are of one order of magnitude."""
    hidden: int = config["model"]["hidden"]
    while hidden // 2 >= MIN_HIDDEN and _parameters_per_symbol(config, facts, hidden) > MAX_RATIO:
        hidden //= 2
    return hidden


def _hidden_for_budget(config: ConfigTable, facts: TrainingFacts, budget: Budget) -> tuple[int, Budget]:
    """Return the units of a layer for a budget of minutes, and the budget with what such a network reads in it.

    The time for a symbol is about proportional to the parameters.
    """
    preset_hidden: int = config["model"]["hidden"]
    work = budget.symbols * _count_parameters(config, facts, preset_hidden)
    max_parameters = math.sqrt(work / MIN_SYMBOLS_PER_PARAMETER)
    hidden = _reduce_hidden(config, facts, max_parameters, MIN_HIDDEN_SHARE)
    if is_short_text(facts):
        max_parameters = MAX_SHORT_TEXT_PARAMETERS_PER_SYMBOL * facts.symbols
        hidden = min(hidden, _reduce_hidden(config, facts, max_parameters, MIN_SHORT_TEXT_HIDDEN_SHARE))
    return hidden, dataclasses.replace(budget, symbols=round(work / _count_parameters(config, facts, hidden)))


def _reduce_hidden(config: ConfigTable, facts: TrainingFacts, max_parameters: float, min_share: float) -> int:
    """Return the units of a layer, less a step as often as there are too many parameters; at least a part of them."""
    hidden: int = config["model"]["hidden"]
    min_hidden = max(MIN_HIDDEN, min_share * hidden)
    while hidden - HIDDEN_STEP >= min_hidden and _count_parameters(config, facts, hidden) > max_parameters:
        hidden -= HIDDEN_STEP
    return hidden


def _batch_for_text(config: ConfigTable, facts: TrainingFacts) -> int:
    """Return the rows of a batch, halved until its streams last for some windows."""
    batch: int = config["batcher"]["batch"]
    while batch // 2 >= _min_batch(facts) and not _streams_last(facts, batch * config["batcher"]["length"]):
        batch //= 2
    return batch


def _batch_for_records(config: ConfigTable, facts: TrainingFacts) -> int:
    """Return the rows of a batch of records: as many, of powers of 2, as have the symbols of a measured batch."""
    length = min(_mean_length(facts), config["batcher"]["length"])
    rows: int = 2 ** round(math.log2(max(1.0, MEASURED_BATCH * MEASURED_LENGTH / length)))
    max_rows = MAX_LOGITS_BYTES // (LOGIT_BYTES * config["batcher"]["length"] * facts.vocab_size)
    rows = min(rows, MAX_RECORD_BATCH, 2 ** int(math.log2(max(1, max_rows))))
    while rows // 2 >= _min_batch(facts) and rows > facts.records:
        rows //= 2
    return max(rows, _min_batch(facts))


def _mean_length(facts: TrainingFacts) -> float:
    """Return the symbols of a record, on average."""
    return facts.symbols / facts.records


def _describe_corpus(facts: TrainingFacts) -> str:
    return f"records of {_mean_length(facts):.3g} symbols" if facts.records else "a short text"


def _batch_for_budget(batch: int, length: float, facts: TrainingFacts, budget: Budget) -> int:
    """Return the rows of a batch, halved or doubled until the number of steps is neither too low nor too high."""
    windows = budget.symbols / length
    while batch // 2 >= _min_batch(facts) and windows / batch < MIN_STEPS:
        batch //= 2
    max_steps = MAX_TIMED_STEPS if budget.timed else MAX_STEPS
    max_batch = MAX_TIMED_BATCH if budget.timed else MAX_BATCH
    if facts.records:
        max_batch = min(MAX_RECORD_BATCH, int(max_batch * MEASURED_LENGTH / length))
    max_batch = min(max_batch, int(MAX_LOGITS_BYTES / (LOGIT_BYTES * length * facts.vocab_size)))
    while batch * 2 <= max_batch and int(windows / batch) > max_steps and _streams_last(facts, batch * 2 * length):
        batch *= 2
    return batch


def _rate_for_batch(rate: float, batch: float) -> float:
    """Return the learning rate, of two digits, that goes with a batch: with the square root of its rows."""
    factor = min(MAX_RATE_FACTOR, max(MIN_RATE_FACTOR, math.sqrt(batch / MEASURED_BATCH)))
    return float(f"{rate * factor:.2g}")


def _calibration_for_passes(
    config: ConfigTable, free: Collection[str], facts: TrainingFacts, passes: float
) -> Change | None:
    """Return the change by which a text that is read often has an end that is not learned, for the logits' scale."""
    can_scale = isinstance(facts.model, type) and issubclass(facts.model, SupportsLogitScale)
    if "trainer.calibration" not in free or not can_scale:
        return None
    min_passes = NGRAM_CALIBRATION_PASSES if _reads_ngrams(config) else CALIBRATION_PASSES
    if facts.records or passes <= min_passes or _is_too_small_to_overfit(config, facts):
        return None
    symbols = min(MAX_CALIBRATION, int(MAX_CALIBRATION_SHARE * facts.symbols))
    return Change("trainer.calibration", symbols, f"{passes:.0f} passes") if symbols >= MIN_CALIBRATION else None


def _reads_ngrams(config: ConfigTable) -> bool:
    return bool(config["model"].get("ngram_length", 0) > 1)


def _is_too_small_to_overfit(config: ConfigTable, facts: TrainingFacts) -> bool:
    """Return whether a model of a text has hardly any parameters for each symbol; False for models of plugins."""
    if facts.records or config["model"]["name"] not in MODELS:
        return False
    return _parameters_per_symbol(config, facts, config["model"]["hidden"]) < MIN_PARAMETERS_PER_SYMBOL


def _parameters_per_symbol(config: ConfigTable, facts: TrainingFacts, hidden: int) -> float:
    return _count_parameters(config, facts, hidden) / max(1, facts.symbols)


def _count_parameters(config: ConfigTable, facts: TrainingFacts, hidden: int) -> int:
    """Return the parameters of a network with so many units; of one of them, where there are several.

    The tables of n-grams do not count: of each, a position reads a single row.
    """
    model = config["model"]
    weights_of_ngrams = ngram_parameters(model.get("ngram_length", 0), 0, model.get("ngram_embedding", 0), hidden)
    return lstm_parameters(hidden, model["layers"], model["embedding"], facts.vocab_size) + weights_of_ngrams


def _names_hidden_matrices(facts: TrainingFacts) -> bool:
    """Return whether Muon will train anything of the model."""
    return isinstance(facts.model, type) and issubclass(facts.model, SupportsHiddenMatrices)


def _streams_last(facts: TrainingFacts, symbols_per_step: float) -> bool:
    """Return whether the streams of a batch last for some windows."""
    return facts.symbols >= symbols_per_step * MIN_WINDOWS


def _min_batch(facts: TrainingFacts) -> int:
    """Return the smallest batch that the rules choose; each process needs a row."""
    return max(MIN_BATCH, facts.processes)
