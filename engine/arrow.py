"""Iterators of results that can become a table: of pyarrow, or through it of pandas."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeVar

from gentext.errors import MissingExtra, UsageError

Row = TypeVar("Row")


class TableIterator(Iterator[Row]):
    """An iterator over rows, which stays lazy; `to_arrow` and `to_pandas` read all rows that are left."""

    COLUMNS: ClassVar[Mapping[str, str]]
    """The attribute of a row that each column has, and its type in pyarrow."""

    def to_arrow(self) -> Any:
        """Read the rows that are left, and return them as a pyarrow.Table. Needs the extra ``parquet``."""
        try:
            import pyarrow
        except ModuleNotFoundError:
            raise MissingExtra("to_arrow", "parquet") from None
        columns: dict[str, list[object]] = {name: [] for name in self.COLUMNS}
        for row in self:
            for name, values in columns.items():
                values.append(getattr(row, name))
        types = {name: getattr(pyarrow, kind)() for name, kind in self.COLUMNS.items()}
        return pyarrow.table({name: pyarrow.array(values, types[name]) for name, values in columns.items()})

    def to_pandas(self) -> Any:
        """Read the rows that are left, and return them as a pandas.DataFrame. Needs pandas, too."""
        if importlib.util.find_spec("pandas") is None:  # asked before any row is read, so that none is lost
            raise UsageError("to_pandas needs pandas, which is not installed: pip install pandas")
        return self.to_arrow().to_pandas()
