"""Records and scores as tables of pyarrow, which are read from lazy iterators."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path

import pytest

import gentext
from gentext.errors import MissingExtra, UsageError


def test_records_become_a_table(tiny_records_run: Path) -> None:
    model = gentext.load(tiny_records_run)
    records = list(model.records(5, seed=1))
    stream = model.records(5, seed=1)
    assert next(stream) == records[0]
    table = stream.to_arrow()
    assert table.column_names == ["number", "text", "logprob", "seed", "stream"]
    assert table.column("text").to_pylist() == [record.text for record in records[1:]]
    assert stream.to_arrow().num_rows == 0


def test_scores_become_a_table_and_stay_lazy(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = gentext.load(tiny_run)
    scores = list(model.score_many(["ab", "ba"]))
    table = model.score_many(["ab", "ba"]).to_arrow()
    assert table.column("bits").to_pylist() == [score.bits for score in scores]
    endless = model.score_many(itertools.repeat("ab"))
    assert next(endless).bits == scores[0].bits
    if importlib.util.find_spec("pandas") is None:
        unread = model.score_many(["ab"])
        with pytest.raises(UsageError, match="needs pandas"):
            unread.to_pandas()
        assert len(list(unread)) == 1, "no row is lost"
    else:
        assert list(model.score_many(["ab"]).to_pandas()["text"]) == ["ab"]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match="parquet"):
        model.score_many(["ab"]).to_arrow()
