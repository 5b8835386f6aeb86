"""generator.onnx: writes, inside onnxruntime, exactly what its chain writes in NumPy."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from compiled_model import EVERY_LINK, CompiledModel, request, written

from gentext.components.samplers import checked_chunks
from gentext.describe import load_tokenizer
from gentext.errors import ConfigError, FileFormatError, PluginError
from gentext.export.generator.compiler import Compiler
from gentext.export.network.bounds import find_bounds
from gentext.export.network.fp16 import to_fp16
from gentext.export.network.int8 import to_int8
from gentext.export.proto import check_graph, serialize_model, subgraphs
from gentext.generation.compiled import generate_compiled
from gentext.generation.model_calls import first_feeds
from gentext.generation.row_table import RowTable
from gentext.manager import host
from gentext.plugins.samplers.onnx import OnnxGenerator, OnnxSampler
from gentext.registry import Distribution, Registry
from gentext.sampling.chain import build_chain
from gentext.sampling.stored import stored_chain
from gentext.stepping import generate_stepwise
from gentext.stop import StopAutomaton


def large_constants(graph: onnx.GraphProto) -> list[int]:
    """Return the sizes of all constants of 256 elements or more, those of inner graphs too."""
    tensors = [*graph.initializer]
    inner = []
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                tensors.append(attribute.t)
            if attribute.HasField("g"):
                inner += large_constants(attribute.g)
    sizes = [int(np.prod(tensor.dims)) for tensor in tensors]
    return [size for size in sizes if size >= 256] + inner


def operators(graph: onnx.GraphProto) -> list[str]:
    """Return the operators of a graph and of its branches."""
    return [
        operator
        for node in graph.node
        for operator in [node.op_type, *(inner for branch in subgraphs(node) for inner in operators(branch))]
    ]


@pytest.mark.parametrize("names", [(), ("top_k",), EVERY_LINK[1:], EVERY_LINK, EVERY_LINK[::-1]])
@pytest.mark.parametrize("rows", [1, 3, 16])
def test_compiled_writes_what_numpy_writes(compiled_model: CompiledModel, names: tuple[str, ...], rows: int) -> None:
    chain = compiled_model.chain(*names)
    opened = compiled_model.open(chain)
    sampling = request(chain, rows, 150)
    compiled_rows = written(generate_compiled(opened.session, opened.bundle, sampling), rows)
    stepped_rows = written(generate_stepwise(opened, opened.bundle, sampling), rows)
    assert compiled_rows[:2] == stepped_rows[:2]
    for logprobs, reference in zip(compiled_rows[2], stepped_rows[2], strict=True):
        np.testing.assert_allclose(logprobs, reference, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature.temperature": [0.7, 1.3, 0.2]},
        {"temperature.temperature": [0.7, 1.0, 0.2]},
        {"temperature.temperature": [0.7, 0.0, 0.2]},
        {"temperature.temperature": [1.0, 1.0, 1.0]},
        {"temperature.dynatemp_range": [0.0, 0.5, 0.0]},
        {"top_k.top_k": [5, 0, 3]},
        {"top_k.top_k": [5, 0, 3], "temperature.dynatemp_range": [0.5, 0.0, 0.1]},
    ],
)
def test_each_call_gets_a_loop_that_has_what_it_uses(compiled_model: CompiledModel, changes: dict[str, Any]) -> None:
    names = ("dry", "no_repeat_ngram", "penalties", "mirostat", *EVERY_LINK[1:])
    chain = build_chain(host().registry, names, compiled_model.bundle.vocab_size, {"temperature": {"temperature": 0.8}})
    opened = compiled_model.open(chain)
    sampling = request(chain, 3, 60, mixed=False)
    for path, numbers in changes.items():
        link, name = path.split(".")
        array = sampling.params[link][name]
        sampling.params[link][name] = np.array(numbers, array.dtype)[:, None]  # type: ignore[index]
    compiled_rows = written(generate_compiled(opened.session, opened.bundle, sampling), 3)
    assert compiled_rows[:2] == written(generate_stepwise(opened, opened.bundle, sampling), 3)[:2]


def test_first_loop_leaves_out_what_the_defaults_do_not_use(compiled_model: CompiledModel) -> None:
    chain = build_chain(
        host().registry, ("temperature",), compiled_model.bundle.vocab_size, {"temperature": {"temperature": 0.8}}
    )
    loops = [node for node in compiled_model.compiler(chain).compile_loop().graph.node if node.op_type == "Loop"]
    first, last = (operators(next(subgraphs(loop))) for loop in loops[:2])
    # No entropy, as no row moves its temperature, and no search of the best symbol, as no temperature is 0.
    assert "Log" in last and "Log" not in first
    assert first.count("ArgMax") == last.count("ArgMax") - 1


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ended_out", lambda codes: codes + 5),
        ("ended_out", lambda codes: codes - 1),
        ("ended_out", lambda codes: codes[:1]),
        ("tokens", lambda tokens: tokens[:, :1]),
        ("logprobs", lambda logprobs: logprobs[0]),
    ],
)
def test_results_that_no_generator_returns(
    compiled_model: CompiledModel, name: str, change: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = compiled_model.chain("top_k")
    opened = compiled_model.open(chain)
    change_results(opened, name, change, monkeypatch)
    with pytest.raises(FileFormatError, match=rf"the graph of the file returned {name} .*export it again"):
        list(generate_compiled(opened.session, opened.bundle, request(chain, 2, 5)))


@pytest.mark.parametrize("number", [1000, -1000])
def test_tokens_that_are_no_symbols(
    compiled_model: CompiledModel, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chunks of a request are checked as those of every sampler; the other tables of rows check by themselves."""
    chain = compiled_model.chain("top_k")
    opened = compiled_model.open(chain)
    change_results(opened, "tokens", lambda tokens: tokens + number, monkeypatch)
    with pytest.raises(PluginError, match=r"onnx\.OnnxGenerator: a chunk has tokens from .*; expected -1, or 0 to 18"):
        list(checked_chunks(opened, request(chain, 2, 5)))
    table = RowTable(opened.session, opened.bundle)
    table.add(first_feeds(opened.session.signature, 2), np.zeros((2, 2), np.uint64), np.zeros(2, np.int64))
    with pytest.raises(FileFormatError, match=r"the graph of the file returned tokens from .*export it again"):
        table.call(np.full((1, 2), -1))


def change_results(opened: OnnxGenerator, name: str, change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the session of a generator return an output of that name changed."""
    call = opened.session.call

    def call_changed(feeds: Any) -> Any:
        results = call(feeds)
        return results | {name: change(results[name])}

    monkeypatch.setattr(opened.session, "call", call_changed)


@pytest.mark.parametrize("precision", ["fp32", "int8", "fp16"])
def test_neighbours_and_chunks_change_nothing(
    compiled_model: CompiledModel, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = compiled_model.chain(*EVERY_LINK)
    opened = compiled_model.open(chain, precision)
    sampling = request(chain, 16, 200)
    together, _, _ = written(generate_compiled(opened.session, opened.bundle, sampling), 16)
    monkeypatch.setattr("gentext.generation.compiled.FIRST_CALLS", ())
    monkeypatch.setattr("gentext.generation.row_table.MAX_POSITIONS", 7)
    for row in (0, 7, 15):
        params = {
            link: {name: array[row : row + 1] for name, array in arrays.items()}
            for link, arrays in sampling.params.items()
        }
        alone = dataclasses.replace(sampling, primes=[sampling.primes[row]], seeds=[sampling.seeds[row]], params=params)
        assert written(generate_compiled(opened.session, opened.bundle, alone), 1)[0] == [together[row]]


@pytest.mark.parametrize("in_graph", [True, False])
def test_a_parameter_out_of_range_in_one_row_is_named(compiled_model: CompiledModel, in_graph: bool) -> None:
    chain = compiled_model.chain(*EVERY_LINK)
    opened = compiled_model.open(chain)
    sampling = request(chain, 3, 5)
    sampling.params["top_p"]["top_p"][1] = 1.5
    with pytest.raises(ConfigError, match=r"top_p.top_p of row 1 = 1.5: expected a number from 0 up to 1"):
        next(
            iter(
                generate_compiled(opened.session, compiled_model.bundle, sampling)
                if in_graph
                else generate_stepwise(opened, compiled_model.bundle, sampling)
            )
        )
    sampling.params["top_p"]["top_p"] = np.ones((2, 1), np.float32)
    with pytest.raises(ConfigError, match=r"top_p.top_p has the shape \(2, 1\); expected \(3, 1\)"):
        next(
            iter(
                generate_compiled(opened.session, compiled_model.bundle, sampling)
                if in_graph
                else generate_stepwise(opened, compiled_model.bundle, sampling)
            )
        )


def test_weights_stand_once_in_the_file(compiled_model: CompiledModel) -> None:
    compiler = compiled_model.compiler(compiled_model.chain("top_k"))
    weights = sorted(large_constants(compiled_model.step.graph))
    assert len(weights) >= 4
    assert sorted(large_constants(compiler.compile_loop().graph)) == weights
    assert sorted(large_constants(compiler.compile_unrolled(8).graph)) == weights


@pytest.mark.parametrize("stop", ["e", "ab", "aa", "a.\n", " b"])
def test_stop_strings_end_a_row_and_disturb_no_other(compiled_model: CompiledModel, stop: str) -> None:
    chain = compiled_model.chain("temperature")
    opened = compiled_model.open(chain)
    sampling = request(chain, 8, 300, stop=StopAutomaton([stop, "never here"]), mixed=False)
    compiled_rows = written(generate_compiled(opened.session, opened.bundle, sampling), 8)
    assert compiled_rows[:2] == written(generate_stepwise(opened, opened.bundle, sampling), 8)[:2]
    free = written(generate_compiled(opened.session, opened.bundle, dataclasses.replace(sampling, stop=None)), 8)
    for row in range(8):
        assert compiled_rows[0][row] == free[0][row][: len(compiled_rows[0][row])]
        if compiled_rows[1][row] == "stop":
            prime_and_text = [*sampling.primes[row].tolist(), *compiled_rows[0][row]]
            assert b"".join(opened.bundle.token_bytes[token] for token in prime_and_text).endswith(stop.encode())


def test_bounded_activations_are_found(compiled_model: CompiledModel) -> None:
    bounds = find_bounds(compiled_model.step.graph, compiled_model.bundle)
    assert bounds["h_out"] == 1, "the hidden state of an LSTM is a product of a sigmoid and a tanh"
    assert "c_out" not in bounds, "the cell state is a sum"
    assert "logits" not in bounds


def test_normalised_activations_have_a_constant_scale(compiled_model: CompiledModel) -> None:
    """Also beside a state that is far smaller, and where one unit is far larger than the others."""
    rng = np.random.default_rng(0)
    arrays = {
        "scale": np.array([*rng.uniform(0.5, 2, 31), 20], np.float32),
        "shift": rng.normal(size=32).astype(np.float32),
        "weight": (rng.normal(size=(64, 48)) / np.repeat([1, 0.02], [63, 1])[:, None] / 8).astype(np.float32),
    }
    step = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21]>
        step (float[N, 32] x, float[N, 32] h) => (float[N, 48] logits, float[N, 32] h_out)
        <float[N, 32] normalised, float[N, 32] bounded, float[N, 64] both> {
            normalised = LayerNormalization(x, scale, shift)
            bounded = Tanh(h)
            both = Concat <axis = 1> (normalised, bounded)
            logits = MatMul(both, weight)
            h_out = Identity(bounded)
        }"""
    )
    step.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    integer_step = to_int8(step, compiled_model.bundle)
    assert "ReduceMax" not in {node.op_type for node in integer_step.graph.node}
    feeds = {"x": rng.normal(size=(200, 32)).astype(np.float32), "h": rng.normal(size=(200, 32)).astype(np.float32)}
    exact, rounded = (
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)[0]
        for model in (step, integer_step)
    )
    assert np.abs(rounded - exact).mean() < 0.06 * np.abs(exact).mean()


def test_quantised_weights_cannot_saturate(compiled_model: CompiledModel) -> None:
    integers = [array for name, array in int8_constants(compiled_model).items() if name.endswith(".w")]
    assert len(integers) == 2  # the head of so few symbols is too small to be worth it
    assert {array.dtype for array in integers} == {np.dtype(np.int8)}
    assert max(int(np.abs(array).max()) for array in integers) == 63


def test_the_vectors_of_ngrams_are_stored_in_8_bits(compiled_model: CompiledModel) -> None:
    """And the product that reads them has a constant scale, since they are in [-1, 1] as the hidden state is."""
    ngram_shape = (3 * 64, 8)
    [exact] = [
        array
        for array in map(onnx.numpy_helper.to_array, compiled_model.step.graph.initializer)
        if array.shape == ngram_shape
    ]
    [rounded] = [array for array in int8_constants(compiled_model).values() if array.shape == ngram_shape]
    assert rounded.dtype == np.uint8 and 0 < np.abs(exact).max() <= 1
    assert np.abs((rounded.astype(np.float64) - 128) / 127 - exact).max() < 0.5001 / 127
    operators = {node.op_type for node in to_int8(compiled_model.step, compiled_model.bundle).graph.node}
    assert not {"ReduceMax", "DequantizeLinear"} & operators


def test_vectors_that_are_also_an_output_stay_floats(compiled_model: CompiledModel) -> None:
    step = onnx.ModelProto.FromString(compiled_model.step.SerializeToString())
    sizes = {tensor.name: list(tensor.dims) for tensor in step.graph.initializer}
    [lookup] = [
        node for node in step.graph.node if node.op_type == "Gather" and sizes.get(node.input[0]) == [3 * 64, 8]
    ]
    step.graph.output.append(onnx.helper.make_tensor_value_info(lookup.output[0], onnx.TensorProto.FLOAT, None))
    constants = to_int8(step, compiled_model.bundle).graph.initializer
    assert lookup.input[0] in {tensor.name for tensor in constants}


#: Steps that read rows of a table of small numbers, or a state, in other places than a plain matrix product.
STEPS = {
    "as a bias, as layer 0 of a model without an embedding": "logits = Gemm(start, weight, vectors)",
    "in two places": """product = MatMul(vectors, weight)
        logits = Add(product, vectors)""",
    "in a branch": """product = MatMul(start, weight)
        logits = If (is_used) <
            then_branch = then () => (changed) { changed = Add(vectors, bias) },
            else_branch = else () => (unchanged) { unchanged = Identity(product) }
        >""",
    "with three axes": """large = Mul(start, twice)
        layers = Reshape(large, three_axes)
        products = MatMul(layers, weight)
        logits = Reshape(products, two_axes)""",
}


@pytest.mark.parametrize("nodes", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("convert", [to_int8, lambda step, _: to_fp16(step)], ids=["int8", "fp16"])
def test_what_products_read_is_converted_in_any_place(compiled_model: CompiledModel, nodes: str, convert: Any) -> None:
    step = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 21]>
        step (int64[N] tokens, float[N, 32] h) => (float[N, 32] logits, float[N, 32] h_out) {{
            start = MatMul(h, weight)
            h_out = Tanh(start)
            vectors = Gather(table, tokens)
            {nodes}
        }}"""
    )
    rng = np.random.default_rng(0)
    constants = {"is_used": np.array(True), "twice": np.array(2, np.float32)}
    constants |= {"three_axes": np.array([2, -1, 32]), "two_axes": np.array([-1, 32])}
    for name, shape in {"table": (64, 32), "weight": (32, 32), "bias": (32,)}.items():
        constants[name] = rng.uniform(-1, 1, shape).astype(np.float32)
    step.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    converted_step = convert(step, compiled_model.bundle)
    check_graph(converted_step)
    feeds = {"tokens": rng.integers(0, 64, 6), "h": rng.uniform(-1, 1, (6, 32)).astype(np.float32)}
    exact, rounded = (
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)[0]
        for model in (step, converted_step)
    )
    assert np.abs(rounded - exact).mean() < 0.03 * np.abs(exact).mean()


def int8_constants(compiled_model: CompiledModel) -> dict[str, Any]:
    """Return the constants of the step in 8 bits, by name."""
    graph = to_int8(compiled_model.step, compiled_model.bundle).graph
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}


def test_half_of_the_weights_and_none_of_the_logits(compiled_model: CompiledModel) -> None:
    half = to_fp16(compiled_model.step)
    types = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    products = [node for node in half.graph.node if node.op_type in ("MatMul", "Gemm")]
    kinds = [types[node.input[1]] for node in products]
    assert kinds[-1] == onnx.TensorProto.FLOAT, "the product that gives the logits"
    assert kinds[:-1] and set(kinds[:-1]) == {onnx.TensorProto.FLOAT16}
    ngram_table = 3 * 64 * 8
    assert (
        sum(np.prod(tensor.dims) for tensor in half.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT)
        < 5000 + ngram_table
    )


STRANGERS = {"surprise": "gentext_surprise:Surprise", "novelty": "gentext_novelty.novelty:Novelty"}
STRANGERS |= {"typo": "gentext_novelty.typo:Typo", "exclude": "gentext_novelty.exclude:Exclude"}
FLAGS = {"surprise": {"tau": 2.0}, "novelty": {"novelty": 1.5}, "typo": {"typo": 0.3}, "exclude": {}}


@pytest.mark.parametrize("name", list(STRANGERS))
def test_strategies_of_other_authors_compile(
    compiled_model: CompiledModel, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written by people who never saw the compiler: a state and accept, own noise, a table."""
    for folder in ("gentext-surprise", "gentext-novelty"):
        monkeypatch.syspath_prepend(Path(__file__).parents[1] / "strangers" / folder)
    registry = Registry()
    module, _, attribute = STRANGERS[name].partition(":")
    strategy = getattr(importlib.import_module(module), attribute)
    registry.register_for("strategy", Distribution("stranger", "1"))(name, strategy, summary="for a test")
    options = {name: {"characters": "ea"}} if name == "exclude" else {}
    chain = build_chain(registry, [name], compiled_model.bundle.vocab_size, options)
    tokenizer = load_tokenizer(compiled_model.bundle.tokenizer.name, compiled_model.bundle.tokenizer.state)
    tables = chain.table_arrays(tokenizer)
    path = compiled_model.folder / f"{name}.onnx"
    path.write_bytes(
        serialize_model(Compiler(compiled_model.step, compiled_model.bundle, chain, tables).compile_loop())
    )
    opened = OnnxSampler().open(path, "cpu")
    assert isinstance(opened, OnnxGenerator)
    sampling = dataclasses.replace(request(chain, 5, 120), params=chain.param_arrays(5, {name: FLAGS[name]}))
    compiled_rows = written(generate_compiled(opened.session, opened.bundle, sampling), 5)
    assert (
        compiled_rows[:2]
        == written(generate_stepwise(opened, opened.bundle, dataclasses.replace(sampling, tables=tables)), 5)[:2]
    )
    # The file needs no plugin: its own description of the chain is enough to run it.
    stored = dataclasses.replace(sampling, chain=stored_chain(opened.bundle))
    assert written(opened.generate(stored), 5)[:2] == compiled_rows[:2]
    if name == "exclude":
        assert not {opened.bundle.token_bytes[token] for row in compiled_rows[0] for token in row} & {b"e", b"a"}
