"""Rows dealt out to the cores of a CPU: the same results as all of them together."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from compiled_model import EVERY_LINK, CompiledModel, call_feeds, request, written
from hypothesis import given, settings
from hypothesis import strategies as st

from gentext.compiled import compiled, next_feeds
from gentext.errors import FileFormatError
from gentext.plugins.samplers import cpu_generator
from gentext.plugins.samplers.cpu_generator import ParallelGenerator
from gentext.plugins.samplers.onnx import OnnxConfig, OnnxSampler
from gentext.plugins.samplers.session import GeneratorSession


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 70), st.integers(1, 5), st.lists(st.integers(1, 12), min_size=1, max_size=3))
def test_shares_give_what_the_whole_gives(
    compiled_model: CompiledModel, rows: int, cores: int, sizes: list[int]
) -> None:
    opened = compiled_model.open(compiled_model.chain(*EVERY_LINK))
    model, whole = ParallelGenerator(opened.session, cores), opened.session
    feeds = call_feeds(opened, request(compiled_model.chain(*EVERY_LINK), rows, 1), sum(sizes))
    mine = theirs = feeds
    for size in sizes:
        cut = {name: feeds[name][:size] for name in ("forced", "noise")}
        found, wanted = model.call({**mine, **cut}), whole.call({**theirs, **cut})
        assert found.keys() == wanted.keys()
        for name, array in wanted.items():
            if array.dtype == np.float32:  # the rows of one vector register are another row's neighbours
                np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5, err_msg=name)
            else:
                np.testing.assert_array_equal(found[name], array, name)
        mine, theirs = {**feeds, **next_feeds(whole.signature, found)}, {**feeds, **next_feeds(whole.signature, wanted)}


def test_many_rows_are_shared_and_few_are_not(compiled_model: CompiledModel, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = compiled_model.chain("temperature")
    session = compiled_model.open(chain).session
    rows: list[int] = []
    call = GeneratorSession.call
    monkeypatch.setattr(
        GeneratorSession, "call", lambda self, feeds: rows.append(len(feeds["token"])) or call(self, feeds)
    )
    for count in (1, 15, 16, 33):
        written(compiled(ParallelGenerator(session, 3), session.bundle, request(chain, count, 1)), count)
    assert set(rows) == {1, 8, 11, 15}
    monkeypatch.setattr(cpu_generator, "LARGEST_FILE", session.path.stat().st_size - 1)
    written(compiled(ParallelGenerator(session, 3), session.bundle, request(chain, 33, 1)), 33)
    assert rows[-1] == 33


def test_threads_share_rows_only_when_there_are_several(compiled_model: CompiledModel) -> None:
    path = compiled_model.open(compiled_model.chain("temperature")).session.path
    for threads in (1, 2):
        opened = OnnxSampler(OnnxConfig(threads=threads)).open(path, "cpu")
        assert opened.session.threads == threads
        assert isinstance(opened.model, ParallelGenerator)
        assert opened.model.shares(64) == threads


def test_a_file_that_has_changed_meanwhile(compiled_model: CompiledModel, tmp_path: Path) -> None:
    first, other = (compiled_model.open(compiled_model.chain(name)).session.path for name in ("temperature", "top_k"))
    path = tmp_path / "generator.onnx"
    shutil.copy(first, path)
    opened = OnnxSampler(OnnxConfig(threads=2)).open(path, "cpu")
    asked = request(compiled_model.chain("temperature"), 20, 4)
    shutil.copy(other, path)
    with pytest.raises(FileFormatError, match="has changed since it was opened"):
        list(opened.generate(asked))
