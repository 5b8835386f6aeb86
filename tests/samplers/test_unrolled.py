"""generator-unrolled.onnx and the buffers around it, on a CPU: the same text as the loop's, to the bit."""

from __future__ import annotations

import dataclasses
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
from helpers import examples, fails, raiser
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import helper

from gentext.errors import ExportError, FileFormatError
from gentext.export.generator.unrolled import make_capturable
from gentext.export.proto import serialize_model
from gentext.generation.compiled import generate_compiled
from gentext.generation.model_calls import next_feeds
from gentext.plugins.samplers.cuda_generator import BufferedOutput, UnrolledGenerator, bucket_size
from gentext.plugins.samplers.onnx import OnnxGenerator
from gentext.plugins.samplers.session import GeneratorSession, open_file, open_unrolled
from gentext.stepping import generate_stepwise
from gentext.stop import StopAutomaton

Gen = Callable[..., tuple[int, str, str]]
Opener = Callable[..., tuple[OnnxGenerator, UnrolledGenerator]]
K = 8


@pytest.fixture
def open_generators(compiled_model: CompiledModel) -> Opener:
    """Opens the loop and the unrolled generator of a chain."""

    def open_both(*names: str) -> tuple[OnnxGenerator, UnrolledGenerator]:
        chain = compiled_model.chain(*names)
        opened = compiled_model.open(chain)
        path = opened.session.path.with_name(f"{opened.session.path.stem}-unrolled.onnx")
        if not path.exists():
            path.write_bytes(serialize_model(compiled_model.compiler(chain).compile_unrolled(K)))
        return opened, UnrolledGenerator(opened.session, open_unrolled(opened.session, "cpu"), "cpu")

    return open_both


@pytest.mark.parametrize("names", [(), ("top_k",), EVERY_LINK[1:], EVERY_LINK])
@pytest.mark.parametrize("rows", [1, pytest.param(3, marks=pytest.mark.slow), 64])
def test_unrolled_writes_what_the_loop_writes(
    compiled_model: CompiledModel, open_generators: Opener, names: tuple[str, ...], rows: int
) -> None:
    opened, model = open_generators(*names)
    sampling = request(compiled_model.chain(*names), rows, 100)
    compiled_rows = written(generate_compiled(model, opened.bundle, sampling), rows)
    assert compiled_rows == written(opened.generate(sampling), rows)
    assert model.positions == K, "it did not fall back"
    if rows == 3:
        assert compiled_rows[:2] == written(generate_stepwise(opened, opened.bundle, sampling), rows)[:2]


@pytest.mark.parametrize("rows", [1, pytest.param(3, marks=pytest.mark.slow), 64])
@pytest.mark.parametrize("sizes", [(1, 7, 64), (33, 1, 8)], ids=str)
def test_calls_of_any_size_give_the_same_bits(
    compiled_model: CompiledModel, open_generators: Opener, rows: int, sizes: tuple[int, ...]
) -> None:
    opened, model = open_generators(*EVERY_LINK)
    one_call = call_feeds(opened, request(compiled_model.chain(*EVERY_LINK), rows, 1), sum(sizes))
    expected = opened.session.call(one_call)
    feeds, start = one_call, 0
    tokens = []
    for size in sizes:
        positions = {name: one_call[name][start : start + size] for name in ("forced", "noise")}
        results = model.call({**feeds, **positions})
        tokens.append(results["tokens"])
        feeds, start = {**one_call, **next_feeds(model.signature, results)}, start + size
    assert model.positions == K
    np.testing.assert_array_equal(np.concatenate(tokens), expected["tokens"])
    for name in set(expected) - {"tokens", "logprobs"}:
        np.testing.assert_array_equal(results[name], expected[name], name)


def test_calls_fit_the_graph_and_leave_the_states_on_the_device(
    compiled_model: CompiledModel, open_generators: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prime is read in calls of as many positions as the graph has; the loop reads its end."""
    opened, model = open_generators(*EVERY_LINK)
    sampling = request(compiled_model.chain(*EVERY_LINK), 3, 2 * K)
    prime = np.arange(3 * K) % 19
    whole, short = (dataclasses.replace(sampling, primes=[prime[:size]] * 3) for size in (3 * K, 2 * K + 5))
    expected = [written(opened.generate(each), 3) for each in (whole, short)]
    sizes, call = list[int](), model.call
    monkeypatch.setattr(model, "call", lambda feeds: sizes.append(len(feeds["forced"])) or call(feeds))
    assert written(generate_compiled(model, opened.bundle, short), 3) == expected[1]
    assert sizes == [K, K, 5, K, K]
    monkeypatch.setattr(BufferedOutput, "copy_out", raiser(AssertionError("a buffer was needed twice")))
    monkeypatch.setattr(BufferedOutput, "__array__", raiser(AssertionError("a state was read")))
    assert written(generate_compiled(model, opened.bundle, whole), 3) == expected[0]
    assert model.positions == K, "it did not fall back"


def test_neighbours_and_interruptions_change_nothing(compiled_model: CompiledModel, open_generators: Opener) -> None:
    """Two requests at once take each other's buffers; the states of the one that waits move out of them."""
    opened, model = open_generators(*EVERY_LINK)
    chain = compiled_model.chain(*EVERY_LINK)
    requests = [request(chain, 20, 60, seed=1), request(chain, 40, 60, seed=2)]
    alone = [written(opened.generate(sampling), len(sampling.primes)) for sampling in requests]
    first, second = (generate_compiled(model, opened.bundle, sampling) for sampling in requests)
    assert bucket_size(20) == bucket_size(40)
    first_chunks, second_chunks = [], []
    for first_chunk, second_chunk in zip(first, second, strict=True):
        first_chunks.append(first_chunk)
        second_chunks.append(second_chunk)
    assert [written(iter(first_chunks), 20), written(iter(second_chunks), 40)] == alone


def test_threads_share_the_buffers(compiled_model: CompiledModel, open_generators: Opener) -> None:
    opened, model = open_generators(*EVERY_LINK)
    requests = [request(compiled_model.chain(*EVERY_LINK), rows, 60, seed=rows) for rows in (20, 33, 40, 50)]
    alone = [written(opened.generate(each), len(each.primes)) for each in requests]
    with ThreadPoolExecutor(len(requests)) as threads:
        texts = threads.map(
            lambda each: written(generate_compiled(model, opened.bundle, each), len(each.primes)), requests
        )
    assert list(texts) == alone
    assert model.positions == K, "it did not fall back"


def test_stop_strings(compiled_model: CompiledModel, open_generators: Opener) -> None:
    opened, model = open_generators("temperature")
    for stop in (["e"], ["ab", "a.\n", "never here"]):
        sampling = request(compiled_model.chain("temperature"), 9, 100, stop=StopAutomaton(stop), mixed=False)
        compiled_rows = written(generate_compiled(model, opened.bundle, sampling), 9)
        assert compiled_rows == written(opened.generate(sampling), 9)
        assert "stop" in compiled_rows[1]


def test_a_failure_on_the_way_costs_a_line_and_no_symbol(
    compiled_model: CompiledModel,
    open_generators: Opener,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    opened, model = open_generators("top_k")
    sampling = request(compiled_model.chain("top_k"), 3, 60)
    chunks = generate_compiled(model, opened.bundle, sampling)
    first = [next(chunks), next(chunks)]
    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", raiser(RuntimeError("out of memory\nat 0")))
    compiled_rows = written(iter([*first, *chunks]), 3)
    assert compiled_rows == written(opened.generate(sampling), 3)
    assert model.positions is None
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("slower: RuntimeError: out of memory")


# -- the graph ---------------------------------------------------------------------------------


def test_nothing_that_a_gpu_refuses_to_capture(compiled_model: CompiledModel) -> None:
    compiler = compiled_model.compiler(compiled_model.chain(*EVERY_LINK))
    nodes = compiler.compile_unrolled(K).graph.node
    assert not {node.op_type for node in nodes} & {"If", "Loop", "Scan", "ArgMax"}
    made_by = {name: node.op_type for node in nodes for name in node.output}
    assert {made_by[node.input[1]] for node in nodes if node.op_type == "TopK"} == {"Constant"}
    with pytest.raises(ExportError, match=r"control flow .*Loop"):
        make_capturable(compiler.compile_loop())


ELEMENTS = {
    "float32": st.sampled_from([-np.inf, -1.5, 0.0, -0.0, 2.0, np.inf]),
    "int32": st.integers(-2, 2),
    "uint8": st.integers(0, 2),
    "int64": st.integers(2**62, 2**62 + 2),
}


@examples(60)
@given(st.sampled_from(sorted(ELEMENTS)), st.integers(-2, 1), st.booleans(), st.data())
def test_first_of_the_largest(dtype: str, axis: int, keep: bool, data: Any) -> None:
    """The replacement of ArgMax finds the first of equal elements, which a GPU's own need not do."""
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
    [indices] = session.run(None, {"x": array})
    np.testing.assert_array_equal(indices, array.argmax(axis=axis, keepdims=keep))


# -- the file ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory, gen: Gen) -> tuple[Path, str]:
    """A run with an unrolled generator of 3 positions, and what the export said."""
    run = shutil.copytree(tiny_run, tmp_path_factory.mktemp("exported") / "run")
    code, _, err = gen("export", run, "--unroll", 3, "--chain", "top_k,temperature")
    assert code == 0, err
    return run, err


@pytest.fixture
def run(exported: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of that run."""
    return shutil.copytree(exported[0], tmp_path / "run")


def test_export_writes_it_beside_the_generator(exported: tuple[Path, str], run: Path, gen: Gen) -> None:
    err = exported[1]
    assert "generator-unrolled.onnx" in err and "3 positions without control flow" in err
    loop = onnxruntime.InferenceSession(run / "generator.onnx", providers=["CPUExecutionProvider"])
    unrolled = onnxruntime.InferenceSession(run / "generator-unrolled.onnx", providers=["CPUExecutionProvider"])
    assert next(port.shape for port in unrolled.get_inputs() if port.name == "forced") == [3, "N"]
    assert {port.name for port in loop.get_inputs()} == {port.name for port in unrolled.get_inputs()}
    fails(1, gen("sample", run / "generator-unrolled.onnx"), "generator-unrolled.onnx", "expected generator.onnx")
    fails(2, gen("export", run, "--unroll", 1000), "--unroll 1000", "256")
    fails(2, gen("export", run, "--unroll", 5, "--precision", "int8"), "--unroll with int8", "fp16")


def test_a_stale_file_is_removed_or_refused(run: Path, gen: Gen) -> None:
    unrolled = run / "generator-unrolled.onnx"
    stale = unrolled.read_bytes()
    assert gen("export", run, "--chain", "temperature")[0] == 0
    assert not unrolled.exists()
    generator = opened(run)
    with pytest.raises(FileFormatError, match="no such file; gen export RUN --unroll 32 makes it"):
        open_unrolled(generator, "cpu")
    unrolled.write_bytes(stale)
    with pytest.raises(FileFormatError, match=r"made with another generator\.onnx"):
        open_unrolled(generator, "cpu")


def test_a_file_that_lies_about_its_positions(run: Path, gen: Gen) -> None:
    path = run / "generator-unrolled.onnx"
    proto = onnx.load(path)
    for lie in ("0", "1000000000", '"3"', "4"):
        changed = onnx.ModelProto()
        changed.CopyFrom(proto)
        [card] = [entry for entry in changed.metadata_props if entry.key == "gentext.card"]
        assert '"positions":3' in card.value
        card.value = card.value.replace('"positions":3', f'"positions":{lie}')
        path.write_bytes(serialize_model(changed))
        with pytest.raises(FileFormatError, match=r"positions, expected 1 to|disagree"):
            open_unrolled(opened(run), "cpu")


def opened(run: Path) -> GeneratorSession:
    session = open_file(run / "generator.onnx", "cpu")
    assert isinstance(session, GeneratorSession)
    return session
