"""How a text is cut into records: the options of ``gen train --records``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gentext.errors import ConfigError, UsageError

#: The layouts of records, with what a user types after them.
LAYOUTS = ("lines", "blank", "sep:TEXT", "jsonl:FIELD", "csv:COLUMN", "csv")


@dataclasses.dataclass(frozen=True)
class RecordOptions:
    """How a text is cut into records. Raises UsageError for a layout that is none, and a weight without columns."""

    layout: str
    """One of LAYOUTS."""
    dedup: bool = False
    """Keep one of several equal records."""
    weight: str = ""
    """The column, or field, that says how many times a record counts; empty: each counts once."""
    skip_bad: bool = False
    """Leave out records that are broken, and count them."""

    def __post_init__(self) -> None:
        kind, _, argument = self.layout.partition(":")
        expected = {layout.partition(":")[0]: layout for layout in LAYOUTS}
        needs_argument = kind in ("sep", "jsonl")
        if kind not in expected or bool(argument) < needs_argument or (argument and kind in ("lines", "blank")):
            raise UsageError(f"records = {self.layout!r}: expected {', '.join(LAYOUTS[:-1])} or {LAYOUTS[-1]}")
        if self.weight and kind not in ("jsonl", "csv"):
            raise UsageError(f"weight = {self.weight!r}: only jsonl and csv have columns, not {self.layout}")

    @property
    def kind(self) -> str:
        """The layout without what follows the colon."""
        return self.layout.partition(":")[0]

    @property
    def argument(self) -> str:
        """What follows the colon; empty for none."""
        return self.layout.partition(":")[2]


def collect_options(layout: str | None, *, dedup: bool, weight: str | None, skip_bad: bool) -> RecordOptions | None:
    """Return the options of records; None for one text. Raises UsageError for an option that only records have."""
    if layout is not None:
        return RecordOptions(layout, dedup, weight or "", skip_bad)
    options = {"dedup": dedup, "weight": weight is not None, "skip_bad": skip_bad}
    for name, is_set in options.items():
        if is_set:
            raise UsageError(
                f"{name} is for records: expected the option records with it, which says how they lie in the file"
            )
    return None


def read_options(table: Mapping[str, Any]) -> RecordOptions | None:
    """Return the options in the table ``[corpus]`` of a run; None for one text. Raises ConfigError."""
    if "records" not in table:
        return None
    try:
        return RecordOptions(
            str(table["records"]),
            bool(table.get("dedup", False)),
            str(table.get("weight", "")),
            bool(table.get("skip_bad", False)),
        )
    except UsageError as error:
        raise ConfigError(f"corpus.records: {error}; the run is damaged, train it again") from None
