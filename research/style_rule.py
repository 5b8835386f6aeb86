"""The rule by which `research/defaults.py` chooses the default and the styles from what it has measured."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence

#: The bounds of a setting: the share of repeated 20-grams is at most so many times that of the held-out text, and the
#: share of real words at most so much smaller.
MAX_REPETITION_RATIO, MAX_WORD_LOSS = 1.5, 0.03


@dataclasses.dataclass(frozen=True)
class Measures:
    """The measures of one written text, or their means over several."""

    real_words: float
    """Share of its words that the training text has."""
    repetition: float
    """Share of its 20-grams that occur earlier in it."""
    novelty: float
    """Share of its 20-grams that the training text does not have."""
    longest_copy: float
    """Characters of its longest span that stands in the training text."""
    distance: float
    """Jensen-Shannon distance of its 5-grams to those of the held-out text."""


#: Name of a run -> measures.
MeasuresByRun = Mapping[str, Measures]


def mean(texts: Sequence[Measures]) -> Measures:
    """Return the means of the measures of some texts."""
    names = [field.name for field in dataclasses.fields(Measures)]
    return Measures(**{name: statistics.fmean(getattr(text, name) for text in texts) for name in names})


def repeats_little(setting: MeasuresByRun, held_out: MeasuresByRun) -> bool:
    """Return whether a setting keeps the bound on repetition with the models of all runs."""
    return all(setting[run].repetition <= MAX_REPETITION_RATIO * held_out[run].repetition for run in held_out)


def has_real_words(setting: MeasuresByRun, held_out: MeasuresByRun) -> bool:
    """Return whether a setting keeps the bound on real words with the models of all runs."""
    return all(setting[run].real_words >= held_out[run].real_words - MAX_WORD_LOSS for run in held_out)


def choose_styles(settings: Mapping[str, MeasuresByRun], held_out: MeasuresByRun) -> dict[str, str]:
    """Return the title of the setting of each style, by the means over the runs.

    careful: the most real words of the settings within the bound on repetition. balanced, the default: the least
    distance of those within both bounds. bold: the most new 20-grams of those within the bound on real words. Raises
    ValueError where no setting is within a bound.
    """
    means = {title: mean(list(by_run.values())) for title, by_run in settings.items()}
    quiet = [title for title, by_run in settings.items() if repeats_little(by_run, held_out)]
    readable = [title for title, by_run in settings.items() if has_real_words(by_run, held_out)]

    def best(titles: Sequence[str], merit: Callable[[Measures], float]) -> str:
        return max(titles, key=lambda title: merit(means[title]))

    return {
        "careful": best(quiet, lambda measures: measures.real_words),
        "balanced": best([title for title in quiet if title in readable], lambda measures: -measures.distance),
        "bold": best(readable, lambda measures: measures.novelty),
    }
