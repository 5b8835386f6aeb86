"""The rules of the presets `tiny`, `small` and `base` as a plugin. `notebook` has none: it stays the notebook."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from gentext.config import ConfigTable
from gentext.hookspecs import hookimpl

if TYPE_CHECKING:  # every command imports this file
    from gentext.adjustments import Change, TrainingFacts

PRESETS_WITH_RULES = ("tiny", "small", "base")


@hookimpl
def adjust_settings(config: ConfigTable, free: Collection[str], facts: TrainingFacts) -> list[Change]:
    from gentext.plugins.presets import rules

    if facts.preset not in PRESETS_WITH_RULES:
        return []
    if facts.budget is None:
        return rules.adjust_to_text(config, free, facts)
    return rules.adjust_to_budget(config, free, facts, facts.budget)
