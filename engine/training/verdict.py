"""The verdict at the end of a run: what its losses mean, and what to try next.

Karpathy's tips, as the notebook quotes them: a training loss far below the held-out loss means over-fitting (a smaller
network, more dropout); about equal losses mean under-fitting (more units or layers). They are about a model that has
read its text, and about losses that no longer change. So the rules here ask first whether the text was read once,
whether the loss still falls, and whether a difference is larger than its noise. `judge` is a pure function.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import Literal

from gentext.interfaces import Measurement
from gentext.training.advice import READ_ONCE, format_duration, format_keys, format_passes
from gentext.training.learning_curve import CLEAR, FALLING, Growth, Trend, fall_over_doubling, find_growth, find_trend

Kind = Literal[
    "unmeasured",
    "nothing learned",
    "not read once",
    "still falling",
    "over-fitting",
    "rising",
    "unclear",
    "under-fitting",
    "well fitted",
]

#: Growth of the gap between held-out and training loss since the first pass, in nats, above which a model over-fits.
OVERFITTING_GROWTH = 0.10
#: The same, below which it under-fits, if the text was read this often.
UNDERFITTING_GROWTH, UNDERFITTING_PASSES = 0.03, 3.0
#: The highest dropout that is recommended, and by how much it is raised.
MAX_DROPOUT, DROPOUT_STEP = 0.5, 0.2


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """What the verdict on a run depends on. Losses are in nats a symbol."""

    train_symbols: int
    """Length of the text to learn from."""
    symbols_read: int
    """Symbols that training has read, over all passes."""
    steps: int
    budget_steps: int
    """More than ``steps`` where the trainer ran out of patience."""
    best_step: int
    """Step of the checkpoint that is kept, the one with the lowest held-out loss."""
    val_loss: float
    """Its loss on the held-out text."""
    train_loss: float
    """Its loss on as much training text."""
    curve: Sequence[Measurement] = ()
    """All measurements, in the order of their steps."""
    vocab_size: int | None = None
    """Number of different symbols."""
    unigram_loss: float | None = None
    """Held-out loss of a model that knows only how frequent each symbol is in the text to learn from."""
    options: Collection[str] = ()
    """Options of the model: only these are recommended."""
    dropout: float = 0.0
    """Dropout in use."""
    symbols_per_second: float | None = None
    """Speed of training."""
    arrangement: str = ""
    """What `gentext.corpus.arrangement` says of a text whose end is unlike the rest; empty for any other."""

    @property
    def passes(self) -> float:
        """How often the text was read."""
        return self.symbols_read / self.train_symbols


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A verdict, and its lines for the user."""

    kind: Kind
    lines: list[str]


def judge(facts: RunFacts) -> Verdict:
    """Return the verdict on a run."""
    if not (math.isfinite(facts.train_loss) and math.isfinite(facts.val_loss)):
        return Verdict("unmeasured", [])
    usable = tuple(point for point in facts.curve if point.symbols > 0 and math.isfinite(point.val_loss))
    facts = dataclasses.replace(facts, curve=usable)
    ignorance = _describe_ignorance(facts)
    if ignorance:
        return Verdict("nothing learned", [_nothing_learned(facts, ignorance)])
    if facts.passes < READ_ONCE:
        return Verdict("not read once", _not_read_once(facts))
    if facts.arrangement:  # the held-out loss does not show how well the model fits
        return Verdict("unclear", [_unclear(facts, facts.arrangement)])
    return _judge_fit(facts)


# -- the verdicts -----------------------------------------------------------------------------


def _describe_ignorance(facts: RunFacts) -> str:
    """Return what a model that has learned nothing would lose, in words; empty where this model is better."""
    if facts.vocab_size and facts.val_loss > math.log(facts.vocab_size):
        return f"guessing evenly among {facts.vocab_size:,} symbols costs {math.log(facts.vocab_size):.4f}"
    if facts.unigram_loss and facts.val_loss > facts.unigram_loss:
        return f"knowing only how frequent each symbol is costs {facts.unigram_loss:.4f}"
    return ""


def _nothing_learned(facts: RunFacts, ignorance: str) -> str:
    last_losses = [point.val_loss for point in facts.curve[-2:]]
    if len(last_losses) < 2:
        advice = "Train longer, or with a lower trainer.rate"
    elif last_losses[0] - last_losses[1] > FALLING:
        advice = f"The loss still fell after {format_passes(facts.passes)}: train longer"
    else:
        advice = "Train anew with a lower trainer.rate"
    return f"nothing learned: {_format_losses(facts)}; {ignorance}. {advice}"


def _not_read_once(facts: RunFacts) -> list[str]:
    steps = math.ceil(facts.steps / facts.passes)
    rate = facts.symbols_per_second
    duration = f", about {format_duration(facts.train_symbols / rate)}" if rate else ""
    verdict = (
        f"the text was not read once ({format_passes(facts.passes)}): {_format_losses(facts)}. "
        f"More time first: a whole pass takes {steps:,} steps{duration}"
    )
    return [verdict, *_describe_fall(facts)]


def _judge_fit(facts: RunFacts) -> Verdict:
    """Return the verdict on a run that has read its text at least once."""
    trend, growth = find_trend(facts.curve), find_growth(facts.curve, facts.train_symbols)
    stopped_early = facts.steps < facts.budget_steps  # the trainer saw no gain any more
    if growth is None:
        return Verdict("unclear", [_unclear(facts, "there are too few measurements to judge by")])
    text_lines = [] if growth.text_gap is None else [_describe_text_gap(growth.text_gap)]
    over_fits = growth.smallest > max(OVERFITTING_GROWTH, growth.noise)
    if trend == "falling" and not stopped_early:
        return Verdict("still falling", [*_still_falling(facts, over_fits), *text_lines])
    if over_fits:
        return Verdict("over-fitting", [*_over_fitting(facts, growth, trend), *text_lines])
    if trend == "rising":
        return Verdict("rising", [_rising(facts)])
    if growth.noise > CLEAR:
        reason = "the held-out text is too short to judge by. A longer text or a larger val_frac helps"
        return Verdict("unclear", [_unclear(facts, reason)])
    if growth.largest > OVERFITTING_GROWTH:
        reason = "without a measurement in the first pass, the gap may be the model's or the text's"
        return Verdict("unclear", [_unclear(facts, reason)])
    if trend == "unknown":
        reason = "too few measurements, or too noisy ones, to see whether the loss still falls"
        return Verdict("unclear", [_unclear(facts, reason)])
    if growth.largest < UNDERFITTING_GROWTH and facts.passes >= UNDERFITTING_PASSES:
        return Verdict("under-fitting", [_under_fitting(facts), *text_lines])
    return Verdict("well fitted", [_well_fitted(facts), *text_lines])


def _still_falling(facts: RunFacts, over_fits: bool) -> list[str]:
    gap_note, remedy = ("; the gap grows too", f", then {_smaller_model(facts)}") if over_fits else ("", "")
    verdict = (
        f"the held-out loss still fell at the end{gap_note}: {_format_losses(facts)} "
        f"after {format_passes(facts.passes)}. More time first (epochs, steps or minutes){remedy}"
    )
    return [verdict, *_describe_fall(facts)]


def _over_fitting(facts: RunFacts, growth: Growth, trend: Trend) -> list[str]:
    until = "" if _is_last_kept(facts) else f" until step {facts.curve[-1].step:,}, the last"
    verdict = (
        f"over-fitting: {_format_losses(facts)}. The gap grew by {growth.smallest:.2f} nats "
        f"{growth.since}{until}. Try {_smaller_model(facts)}"
    )
    return [verdict, _describe_best(facts)] if trend == "rising" else [verdict]


def _rising(facts: RunFacts) -> str:
    return f"{_format_losses(facts)}. {_describe_best(facts)}, and the gap did not grow. Try a lower trainer.rate"


def _unclear(facts: RunFacts, reason: str) -> str:
    return f"{_format_losses(facts)} after {format_passes(facts.passes)}; {reason}"


def _under_fitting(facts: RunFacts) -> str:
    keys = format_keys(facts.options, "hidden", "layers")
    lower_dropout = "less dropout, or " if facts.dropout else ""
    return (
        f"under-fitting: {_format_losses(facts)}, and no longer falling after {format_passes(facts.passes)}. "
        f"Try {lower_dropout}a larger model{keys}"
    )


def _well_fitted(facts: RunFacts) -> str:
    larger_model = "A larger model with more dropout" if "dropout" in facts.options else "A larger model"
    return (
        f"well fitted: {_format_losses(facts)}, and hardly falling after {format_passes(facts.passes)}. "
        f"{larger_model} may still gain"
    )


# -- their words ------------------------------------------------------------------------------


def _smaller_model(facts: RunFacts) -> str:
    """Return what helps against over-fitting, the cheapest first."""
    if "dropout" not in facts.options or facts.dropout >= MAX_DROPOUT:
        return "a smaller model or more text"
    dropout = min(MAX_DROPOUT, facts.dropout + DROPOUT_STEP)
    return f"more dropout (model.dropout={dropout:.2g}), a smaller model or more text"


def _describe_fall(facts: RunFacts) -> list[str]:
    """Return a line about what more time would give, where the curve shows it."""
    last_fall = fall_over_doubling(facts.curve)
    if last_fall is None or find_trend(facts.curve) != "falling":
        return []
    return [
        f"the held-out loss fell by about {last_fall:.2f} nats while the symbols read doubled for the last time; "
        f"roughly as much may come from twice the steps"
    ]


def _describe_best(facts: RunFacts) -> str:
    return f"the best checkpoint is step {facts.best_step:,} of {facts.steps:,}: after it the held-out loss rose"


def _describe_text_gap(gap: float) -> str:
    harder = "harder" if gap > 0 else "easier"
    return (
        f"{abs(gap):.2f} nats of the gap stood at the end of the first pass: the held-out text is {harder} than the "
        f"rest, which no setting of the model changes"
    )


def _format_losses(facts: RunFacts) -> str:
    """Return both losses of the checkpoint that is kept, with their standard errors where they are known.

    Its step is named where it is not the last one that was measured.
    """
    best_point = next((point for point in facts.curve if point.step == facts.best_step), None)
    val_error = f" ± {best_point.val_error:.4f}" if best_point and math.isfinite(best_point.val_error) else ""
    train_error = f" ± {best_point.train_error:.4f}" if best_point and math.isfinite(best_point.train_error) else ""
    step = "" if _is_last_kept(facts) else f" at step {facts.best_step:,}, which is kept"
    return f"held-out {facts.val_loss:.4f}{val_error}, training {facts.train_loss:.4f}{train_error}{step}"


def _is_last_kept(facts: RunFacts) -> bool:
    """Return whether the checkpoint that is kept is that of the last measurement."""
    return not facts.curve or facts.curve[-1].step == facts.best_step
