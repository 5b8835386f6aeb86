"""Rows dealt out to the cores of a CPU: the same results as all of them together."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled_model import EVERY_LINK, CompiledModel, call_feeds, request, written
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st

from gentext.errors import FileFormatError
from gentext.generation.compiled import generate_compiled
from gentext.generation.model_calls import next_feeds
from gentext.interfaces import Request
from gentext.plugins.samplers import cpu_generator
from gentext.plugins.samplers.cpu_generator import Feeds, ParallelGenerator
from gentext.plugins.samplers.onnx import OnnxConfig, OnnxSampler
from gentext.plugins.samplers.session import GeneratorSession, open_file


@examples(8)
@given(st.integers(1, 70), st.integers(1, 5), st.lists(st.integers(1, 12), min_size=1, max_size=3))
def test_shares_give_what_the_whole_gives(
    compiled_model: CompiledModel, rows: int, cores: int, sizes: list[int]
) -> None:
    opened = compiled_model.open(compiled_model.chain(*EVERY_LINK))
    generator, session = ParallelGenerator(opened.session, cores), opened.session
    feeds = call_feeds(opened, request(compiled_model.chain(*EVERY_LINK), rows, 1), sum(sizes))
    shared_feeds = session_feeds = feeds
    for size in sizes:
        block = {name: feeds[name][:size] for name in ("forced", "noise")}
        results, expected = generator.call({**shared_feeds, **block}), session.call({**session_feeds, **block})
        assert results.keys() == expected.keys()
        for name, array in expected.items():
            if array.dtype == np.float32:  # a vector register holds other neighbours of a row, and rounds otherwise
                np.testing.assert_allclose(results[name], array, rtol=1e-5, atol=1e-5, err_msg=name)
            else:
                np.testing.assert_array_equal(results[name], array, name)
        shared_feeds = {**feeds, **next_feeds(session.signature, results)}
        session_feeds = {**feeds, **next_feeds(session.signature, expected)}


def test_many_rows_are_shared_and_few_are_not(compiled_model: CompiledModel, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = compiled_model.chain("temperature")
    session = compiled_model.open(chain).session
    rows: list[int] = []
    call = GeneratorSession.call
    monkeypatch.setattr(
        GeneratorSession,
        "call",
        lambda self, feeds, options=None: rows.append(len(feeds["token"])) or call(self, feeds, options),
    )
    for count in (1, 15, 16, 33):
        written(generate_compiled(ParallelGenerator(session, 3), session.bundle, request(chain, count, 1)), count)
    assert set(rows) == {1, 8, 11, 15}
    monkeypatch.setattr(cpu_generator, "MAX_FILE_BYTES", session.path.stat().st_size - 1)
    written(generate_compiled(ParallelGenerator(session, 3), session.bundle, request(chain, 33, 1)), 33)
    assert rows[-1] == 33


def test_threads_share_rows_only_when_there_are_several(compiled_model: CompiledModel) -> None:
    path = compiled_model.open(compiled_model.chain("temperature")).session.path
    for threads in (1, 2):
        opened = OnnxSampler(OnnxConfig(threads=threads)).open(path, "cpu")
        assert opened.session.threads == threads
        assert isinstance(opened.model, ParallelGenerator)
        assert opened.model.share_count(64) == threads


def test_where_tensors_come_from(compiled_model: CompiledModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of few rows come from malloc, those of many from onnxruntime's arena."""
    session = compiled_model.open(compiled_model.chain("temperature")).session
    arenas: list[tuple[int, bool]] = []
    call = GeneratorSession.call

    def recorded_call(self: GeneratorSession, feeds: Feeds, *options: Any) -> Feeds:
        arenas.append((len(feeds["token"]), self.session.get_session_options().enable_cpu_mem_arena))
        return call(self, feeds, *options)

    monkeypatch.setattr(GeneratorSession, "call", recorded_call)
    chain = compiled_model.chain("temperature")
    for rows in (1, 15, 16, 40):
        written(generate_compiled(ParallelGenerator(session, 1), session.bundle, request(chain, rows, 1)), rows)
    assert set(arenas) == {(1, False), (15, False), (16, True), (40, True)}


def test_a_file_that_has_changed_meanwhile(compiled_model: CompiledModel, tmp_path: Path) -> None:
    first, other = (compiled_model.open(compiled_model.chain(name)).session.path for name in ("temperature", "top_k"))
    path = tmp_path / "generator.onnx"
    shutil.copy(first, path)
    opened = OnnxSampler(OnnxConfig(threads=2)).open(path, "cpu")
    shutil.copy(other, path)
    with pytest.raises(FileFormatError, match="has changed since it was opened"):
        list(opened.generate(request(compiled_model.chain("temperature"), 20, 4)))


def test_threads_write_at_once_with_one_generator(
    compiled_model: CompiledModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thread gets the text that it gets alone, and what many rows need is opened once."""
    chain = compiled_model.chain(*EVERY_LINK)
    session = compiled_model.open(chain).session
    requests = [request(chain, rows, 40, seed=rows) for rows in (1, 16, 17, 40, 64, 64)]
    expected = [
        written(generate_compiled(ParallelGenerator(session, 2), session.bundle, each), len(each.primes))
        for each in requests
    ]

    opened = []

    def open_slowly(*arguments: Any, **options: Any) -> Any:
        opened.append(arguments)
        time.sleep(0.05)  # so that all threads wait for it
        return open_file(*arguments, **options)

    monkeypatch.setattr(cpu_generator, "open_file", open_slowly)
    generator = ParallelGenerator(session, 2)
    barrier = threading.Barrier(len(requests))

    def write(each: Request) -> Any:
        barrier.wait()
        return written(generate_compiled(generator, session.bundle, each), len(each.primes))

    with ThreadPoolExecutor(len(requests)) as threads:
        assert list(threads.map(write, requests)) == expected
    assert len(opened) == 1
