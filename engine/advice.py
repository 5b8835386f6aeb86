"""Advice about over-fitting and under-fitting, which the notebook gives to its readers and gentext prints.

Karpathy's tips, as the notebook quotes them: parameters and characters should be of about the
same order of magnitude; a training loss far below the held-out loss means over-fitting (a smaller
network, more dropout); about equal means under-fitting (more units or layers); and the held-out
text must be large enough for its loss to mean something.
"""

from __future__ import annotations

import math
from collections.abc import Collection

#: Below this many characters the held-out loss is too noisy to compare models by.
MIN_HELD_OUT_CHARACTERS = 20_000
#: Difference of held-out and training loss, in nats a symbol, above which a model over-fits.
OVERFITTING_GAP = 0.10
#: The same, below which it under-fits: a larger model would do better.
UNDERFITTING_GAP = 0.03
#: Parameters a character, or characters a parameter, above which they are not of one order of magnitude.
MAX_RATIO = 10


def before_training(parameters: int, characters: int, held_out: int, options: Collection[str]) -> list[str]:
    """Return warnings for before the first step; usually none.

    ``held_out`` counts characters. ``options`` are the options of the model: only these are recommended.
    """
    lines = []
    if held_out < MIN_HELD_OUT_CHARACTERS:
        lines.append(
            f"the held-out text has only {held_out:,} characters: its loss will be noisy. "
            f"A longer text or a larger --val-frac helps"
        )
    if parameters > MAX_RATIO * characters:
        lines.append(
            f"{parameters / max(characters, 1):.0f} parameters a character: the model can learn the text by heart. "
            f"Watch the held-out loss; a smaller model or more dropout "
            f"helps{_format_keys(options, 'hidden', 'dropout')}"
        )
    elif characters > MAX_RATIO * parameters:
        lines.append(
            f"{characters / max(parameters, 1):.0f} characters a parameter: "
            f"the text has room for a larger model{_format_keys(options, 'hidden', 'layers')}"
        )
    return lines


def after_training(
    train_loss: float,
    val_loss: float,
    best_step: int,
    steps: int,
    options: Collection[str],
    vocab_size: int | None = None,
) -> list[str]:
    """Return the verdict at the end: nothing learned, over-fitting, under-fitting or neither, and what to try.

    ``vocab_size`` is the number of symbols; without it, the first of these verdicts cannot be reached. ``options`` are
    the options of the model: only these are recommended.
    """
    if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
        return []
    loss_gap = val_loss - train_loss
    losses = f"held-out {val_loss:.4f}, training {train_loss:.4f} (both without dropout)"
    if vocab_size and val_loss > math.log(vocab_size):
        guessing_loss = f"guessing evenly among {vocab_size} symbols costs {math.log(vocab_size):.4f}"
        verdict = f"nothing learned: {losses}; {guessing_loss}. Train longer, or with a lower trainer.rate"
    elif loss_gap > OVERFITTING_GAP:
        dropout = "more dropout (--set model.dropout=0.3), " if "dropout" in options else ""
        verdict = f"over-fitting: {losses}. Try {dropout}a smaller model or more text"
    elif loss_gap < UNDERFITTING_GAP:
        larger_model = f"a larger model{_format_keys(options, 'hidden', 'layers')}"
        verdict = f"under-fitting: {losses}. Train longer (--epochs), or try {larger_model}"
    else:
        larger_model = "A larger model with more dropout" if "dropout" in options else "A larger model"
        verdict = f"well fitted: {losses}. {larger_model} may still gain"
    lines = [verdict]
    if 0 < best_step < steps:
        lines.append(f"the best checkpoint is step {best_step} of {steps}: after it the held-out loss rose")
    return lines


def _format_keys(options: Collection[str], *names: str) -> str:
    """Return `` (model.hidden, ...)`` with those of some options that the model has, or nothing."""
    keys = ", ".join(f"model.{name}" for name in names if name in options)
    return f" ({keys})" if keys else ""
