"""Advice before the first step, from the sizes of the text and of the model and from the budget.

Karpathy's tips, as the notebook quotes them: parameters and characters should be of about the same order of magnitude,
and the held-out text must be large enough for its loss to mean something. Neither matters as long as the budget does
not read the text once. `gentext.training.verdict` is about the end of a run.
"""

from __future__ import annotations

from collections.abc import Collection

#: Below this many symbols the held-out loss is too noisy to compare models by.
MIN_HELD_OUT_SYMBOLS = 20_000
#: Parameters a symbol, or symbols a parameter, above which they are not of one order of magnitude.
MAX_RATIO = 10
#: Passes below which the text is not read once, and above which a model can learn much of it by heart.
READ_ONCE, READ_OFTEN = 0.95, 2.0


def before_training(
    parameters: int,
    symbols: int,
    held_out: int,
    passes: float,
    seconds_of_pass: float,
    options: Collection[str],
    *,
    is_endless: bool = False,
) -> list[str]:
    """Return warnings for before the first step; usually none.

    ``symbols`` and ``held_out`` are the lengths of the text to learn from and of the other. The budget reads the text
    ``passes`` times, and each of them takes about ``seconds_of_pass``. ``options`` are the options of the model: only
    these are recommended. With ``is_endless``, all passes read new text, so nothing is said about their number.
    """
    lines = []
    if held_out < MIN_HELD_OUT_SYMBOLS:
        lines.append(
            f"the held-out text has only {held_out:,} symbols: its loss will be noisy. "
            f"A longer text or a larger val_frac helps"
        )
    if is_endless:
        return lines
    if passes < READ_ONCE:
        lines.append(
            f"the budget reads {format_passes(passes)}: a whole pass takes about {format_duration(seconds_of_pass)}"
        )
    elif parameters > MAX_RATIO * symbols and passes >= READ_OFTEN:
        lines.append(
            f"{parameters / max(symbols, 1):.0f} parameters a symbol, and {format_passes(passes)}: the model can learn "
            f"the text by heart. Watch the held-out loss; a smaller model or more dropout "
            f"helps{format_keys(options, 'hidden', 'dropout')}"
        )
    elif symbols > MAX_RATIO * parameters:
        lines.append(
            f"{symbols / max(parameters, 1):.0f} symbols a parameter: "
            f"the text has room for a larger model{format_keys(options, 'hidden', 'layers')}"
        )
    return lines


def format_keys(options: Collection[str], *names: str) -> str:
    """Return `` (model.hidden, ...)`` with those of some options that the model has, or nothing."""
    keys = ", ".join(f"model.{name}" for name in names if name in options)
    return f" ({keys})" if keys else ""


def format_passes(passes: float) -> str:
    """Return how often a text is read: ``57 % of a pass``, ``2.0 passes``."""
    if passes >= READ_ONCE:
        return f"{passes:.1f} passes"
    return f"{100 * passes:.2g} % of a pass"


def format_duration(seconds: float) -> str:
    """Return a time: ``50 s``, ``3 min 05 s``, ``2 h 10 min``."""
    minutes, seconds_left = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes_left:02d} min"
    return f"{minutes} min {seconds_left:02d} s" if minutes else f"{seconds_left} s"
