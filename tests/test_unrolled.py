"""generator-unrolled.onnx and the buffers around it, on a CPU: the same text as the loop's, to the bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from compiled_model import EVERY_LINK, CompiledModel, call_feeds, request, written
from helpers import fails, raiser
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import helper

from gentext.compiled import compiled, next_feeds
from gentext.errors import ExportError, FileFormatError
from gentext.export.generator.unrolled import make_capturable
from gentext.plugins.samplers.cuda_generator import UnrolledGenerator, bucket_size
from gentext.plugins.samplers.onnx import OnnxGenerator
from gentext.plugins.samplers.session import GeneratorSession, open_file, open_unrolled
from gentext.stepping import stepped
from gentext.stop import StopAutomaton

Gen = Callable[..., tuple[int, str, str]]
Opener = Callable[..., tuple[OnnxGenerator, UnrolledGenerator]]
K = 8


@pytest.fixture
def both(compiled_model: CompiledModel) -> Opener:
    """Opens the loop and the unrolled generator of a chain."""

    def open_both(*names: str) -> tuple[OnnxGenerator, UnrolledGenerator]:
        chain = compiled_model.chain(*names)
        opened = compiled_model.open(chain)
        path = opened.session.path.with_name(f"{opened.session.path.stem}-unrolled.onnx")
        if not path.exists():
            path.write_bytes(compiled_model.compiler(chain).unrolled(K).SerializeToString())
        return opened, UnrolledGenerator(opened.session, open_unrolled(opened.session, "cpu"), "cpu")

    return open_both


@pytest.mark.parametrize("names", [(), ("top_k",), EVERY_LINK[1:], EVERY_LINK])
@pytest.mark.parametrize("rows", [1, 3, 64])
def test_unrolled_writes_what_the_loop_writes(
    compiled_model: CompiledModel, both: Opener, names: tuple[str, ...], rows: int
) -> None:
    opened, model = both(*names)
    asked = request(compiled_model.chain(*names), rows, 100)
    inside = written(compiled(model, opened.bundle, asked), rows)
    assert inside == written(opened.generate(asked), rows)
    assert model.positions == K, "it did not fall back"
    if rows == 3:
        assert inside[:2] == written(stepped(opened, opened.bundle, asked), rows)[:2]


@pytest.mark.parametrize("rows", [1, 3, 64])
@pytest.mark.parametrize("sizes", [(1, 7, 64), (33, 1, 8)], ids=str)
def test_calls_of_any_size_give_the_same_bits(
    compiled_model: CompiledModel, both: Opener, rows: int, sizes: tuple[int, ...]
) -> None:
    opened, model = both(*EVERY_LINK)
    whole = call_feeds(opened, request(compiled_model.chain(*EVERY_LINK), rows, 1), sum(sizes))
    wanted = opened.session.call(whole)
    carried, at, said = whole, 0, []
    for size in sizes:
        cut = {name: whole[name][at : at + size] for name in ("forced", "noise")}
        results = model.call({**carried, **cut})
        said.append(results["tokens"])
        carried, at = {**whole, **next_feeds(model.signature, results)}, at + size
    assert model.positions == K
    np.testing.assert_array_equal(np.concatenate(said), wanted["tokens"])
    for name in set(wanted) - {"tokens", "logprobs"}:
        np.testing.assert_array_equal(results[name], wanted[name], name)


def test_neighbours_and_interruptions_change_nothing(compiled_model: CompiledModel, both: Opener) -> None:
    """Two requests at once take each other's buffers; the states of the one that waits move out of them."""
    opened, model = both(*EVERY_LINK)
    chain = compiled_model.chain(*EVERY_LINK)
    asked = [request(chain, 20, 60, seed=1), request(chain, 40, 60, seed=2)]
    alone = [written(opened.generate(one), len(one.primes)) for one in asked]
    first, second = (compiled(model, opened.bundle, one) for one in asked)
    assert bucket_size(20) == bucket_size(40)
    chunks: list[list[Any]] = [[], []]
    for one, other in zip(first, second, strict=True):
        chunks[0].append(one)
        chunks[1].append(other)
    assert [written(iter(mine), len(one.primes)) for mine, one in zip(chunks, asked, strict=True)] == alone


def test_threads_share_the_buffers(compiled_model: CompiledModel, both: Opener) -> None:
    opened, model = both(*EVERY_LINK)
    requests = [request(compiled_model.chain(*EVERY_LINK), rows, 60, seed=rows) for rows in (20, 33, 40, 50)]
    alone = [written(opened.generate(each), len(each.primes)) for each in requests]
    with ThreadPoolExecutor(len(requests)) as threads:
        texts = threads.map(lambda each: written(compiled(model, opened.bundle, each), len(each.primes)), requests)
    assert list(texts) == alone
    assert model.positions == K, "it did not fall back"


def test_stop_strings(compiled_model: CompiledModel, both: Opener) -> None:
    opened, model = both("temperature")
    for stop in (["e"], ["ab", "a.\n", "never here"]):
        asked = request(compiled_model.chain("temperature"), 9, 100, stop=StopAutomaton(stop), mixed=False)
        inside = written(compiled(model, opened.bundle, asked), 9)
        assert inside == written(opened.generate(asked), 9)
        assert "stop" in inside[1]


def test_a_failure_on_the_way_costs_a_line_and_no_symbol(
    compiled_model: CompiledModel, both: Opener, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened, model = both("top_k")
    asked = request(compiled_model.chain("top_k"), 3, 60)
    chunks = compiled(model, opened.bundle, asked)
    first = [next(chunks), next(chunks)]
    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", raiser(RuntimeError("out of memory\nat 0")))
    inside = written(iter([*first, *chunks]), 3)
    assert inside == written(opened.generate(asked), 3)
    assert model.positions is None
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("slower: RuntimeError: out of memory")


# -- the graph ---------------------------------------------------------------------------------


def test_nothing_that_a_gpu_refuses_to_capture(compiled_model: CompiledModel) -> None:
    compiler = compiled_model.compiler(compiled_model.chain(*EVERY_LINK))
    nodes = compiler.unrolled(K).graph.node
    assert not {node.op_type for node in nodes} & {"If", "Loop", "Scan", "ArgMax"}
    made_by = {name: node.op_type for node in nodes for name in node.output}
    assert {made_by[node.input[1]] for node in nodes if node.op_type == "TopK"} == {"Constant"}
    with pytest.raises(ExportError, match=r"control flow .*Loop"):
        make_capturable(compiler.looped())


ELEMENTS = {
    "float32": st.sampled_from([-np.inf, -1.5, 0.0, -0.0, 2.0, np.inf]),
    "int32": st.integers(-2, 2),
    "uint8": st.integers(0, 2),
    "int64": st.integers(2**62, 2**62 + 2),
}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(ELEMENTS)), st.integers(-2, 1), st.booleans(), st.data())
def test_first_of_the_largest(dtype: str, axis: int, keep: bool, data: Any) -> None:
    """What stands for ArgMax finds the first of equal elements, which a GPU's own need not do."""
    array = data.draw(arrays(dtype, (3, 4), elements=ELEMENTS[dtype]))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    shape = np.zeros((3, 4)).sum(axis=axis, keepdims=keep).shape
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["x"], ["y"]),
            helper.make_node("ArgMax", ["y"], ["i"], axis=axis, keepdims=int(keep)),
        ],
        "argmax",
        [helper.make_tensor_value_info("x", kind, [3, 4])],
        [helper.make_tensor_value_info("i", onnx.TensorProto.INT64, shape)],
    )
    model = make_capturable(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [found] = session.run(None, {"x": array})
    np.testing.assert_array_equal(found, array.argmax(axis=axis, keepdims=keep))


# -- the file ----------------------------------------------------------------------------------


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_run, tmp_path / "run")


def test_export_writes_it_beside_the_generator(run: Path, gen: Gen) -> None:
    code, _, err = gen("export", run, "--unroll", 5, "--chain", "top_k,temperature")
    assert code == 0, err
    assert "generator-unrolled.onnx" in err and "5 positions without control flow" in err
    loop = onnxruntime.InferenceSession(run / "generator.onnx", providers=["CPUExecutionProvider"])
    beside = onnxruntime.InferenceSession(run / "generator-unrolled.onnx", providers=["CPUExecutionProvider"])
    assert next(one.shape for one in beside.get_inputs() if one.name == "forced") == [5, "N"]
    names = [sorted(one.name for one in session.get_inputs()) for session in (loop, beside)]
    assert names[0] == names[1]
    fails(1, gen("sample", run / "generator-unrolled.onnx"), "generator-unrolled.onnx", "expected generator.onnx")
    fails(2, gen("export", run, "--unroll", 1000), "--unroll 1000", "256")
    fails(2, gen("export", run, "--unroll", 5, "--precision", "int8"), "--unroll with int8", "fp16")


def test_a_stale_file_is_removed_or_refused(run: Path, gen: Gen) -> None:
    beside = run / "generator-unrolled.onnx"
    assert gen("export", run, "--unroll", 3, "--chain", "top_k")[0] == 0
    stale = beside.read_bytes()
    assert gen("export", run, "--chain", "top_k")[0] == 0
    assert not beside.exists()
    assert gen("export", run, "--chain", "temperature")[0] == 0
    generator = opened(run)
    with pytest.raises(FileFormatError, match="no such file; gen export RUN --unroll 32 makes it"):
        open_unrolled(generator, "cpu")
    beside.write_bytes(stale)
    with pytest.raises(FileFormatError, match=r"made with another generator\.onnx"):
        open_unrolled(generator, "cpu")


def test_a_file_that_lies_about_its_positions(run: Path, gen: Gen) -> None:
    assert gen("export", run, "--unroll", 3, "--chain", "top_k")[0] == 0
    path = run / "generator-unrolled.onnx"
    proto = onnx.load(path)
    for lie in ("0", "1000000000", '"3"', "4"):
        told = onnx.ModelProto()
        told.CopyFrom(proto)
        [card] = [one for one in told.metadata_props if one.key == "gentext.card"]
        assert '"positions":3' in card.value
        card.value = card.value.replace('"positions":3', f'"positions":{lie}')
        path.write_bytes(told.SerializeToString())
        with pytest.raises(FileFormatError, match=r"positions, expected 1 to|disagree"):
            open_unrolled(opened(run), "cpu")


def opened(run: Path) -> GeneratorSession:
    session = open_file(run / "generator.onnx", "cpu")
    assert isinstance(session, GeneratorSession)
    return session
