"""Damaged, foreign and lying .onnx files: one clear line each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from helpers import fails
from onnx import TensorProto, helper

from gentext.export.proto import serialize_model

Gen = Callable[..., tuple[int, str, str]]


# -- .onnx files ------------------------------------------------------------------------------


def reading(change: Callable[[Any], Any]) -> Callable[[str], str]:
    """Turn a change of plain data, in place or by what it returns, into one of JSON text."""

    def edit(text: str) -> str:
        data = json.loads(text)
        changed = change(data)
        return json.dumps(data if changed is None else changed)

    return edit


def first(key: str, value: Any) -> Callable[[str], str]:
    """Set a key of the first entry of a list."""
    return reading(lambda entries: entries[0].__setitem__(key, value))


def top_k(key: str, value: Any) -> Callable[[str], str]:
    """Set a key of the parameter of the link top_k."""
    return reading(lambda chain: chain[1]["params"]["top_k"].__setitem__(key, value))


#: What a file's metadata may say falsely: entry, how it is changed, what the line says.
LIES: list[tuple[str, Callable[[str], str | None], str]] = [
    ("format", lambda _: "1", "file format 1, this gentext reads 4; export it again: gen export RUN"),
    ("format", lambda _: "3", "file format 3"),
    ("format", lambda _: None, "not made by gentext"),
    ("kind", lambda _: "other", "damaged metadata"),
    ("kind", lambda _: "generator", "metadata and its graph disagree"),
    ("card", lambda _: None, "lacks 'card'"),
    ("card", lambda _: '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "damaged metadata"),
    ("token_bytes", reading(lambda symbols: symbols.__setitem__(0, "zz")), "non-hexadecimal"),
    ("token_bytes", reading(lambda symbols: symbols.append("7a")), "metadata and its graph disagree"),
    ("token_bytes", lambda _: "[]", "no symbols"),
    ("start", lambda _: "99", "start symbol 99"),
    ("start", lambda _: "9" * 5000, "damaged metadata"),
    ("states", lambda _: "[", "damaged metadata"),
    ("states", first("shape", [2, None, 9]), "metadata and its graph disagree"),
    ("states", first("shape", [2**40, None, 2**40]), "too large"),
    ("states", first("shape", [-1, None, -8]), "has the shape"),
    ("states", first("shape", [2, 1, 8]), "one batch axis"),
    ("states", first("dtype", "float64"), "float64"),
    ("states", first("initial", "AAAA"), "does not fit its shape"),
    ("states", reading(lambda states: [*states, states[0]]), "twice"),
    ("chain", reading(lambda chain: [*chain, chain[0]]), "twice"),
    ("chain", top_k("default", -5), "out of its range"),
    ("chain", top_k("default", 1e300), "out of its range"),
    ("chain", first("state", {"seen": {"shape": [2**40]}}), "too large"),
    ("chain", first("tables", {"words": {"dims": [2**40]}}), "too large"),
    ("tokenizer", reading(lambda tokenizer: tokenizer.__setitem__("unknown", 300)), "unknown symbol 300"),
]


def rewritten(source: Path, target: Path, name: str, change: Callable[[str], str | None]) -> Path:
    """Write a model file with one entry of its metadata changed, or removed, and a check that fits."""
    proto = onnx.load(source)
    entries = {prop.key: prop.value for prop in proto.metadata_props}
    value = change(entries.pop(f"gentext.{name}"))
    del proto.metadata_props[:]
    helper.set_model_props(proto, entries if value is None else entries | {f"gentext.{name}": value})
    target.write_bytes(serialize_model(proto))
    return target


@pytest.mark.parametrize(("entry", "change", "fragment"), LIES)
def test_metadata_that_lies(
    entry: str, change: Callable[[str], str | None], fragment: str, gen: Gen, tiny_run: Path, tmp_path: Path
) -> None:
    path = rewritten(tiny_run / "model.onnx", tmp_path / "lie.onnx", entry, change)
    for command in ("info", "sample"):
        fails(1, gen(command, path), "lie.onnx", fragment)


def test_lies_that_only_matter_later(gen: Gen, tiny_run: Path, tmp_path: Path) -> None:
    model, generator, path = tiny_run / "model.onnx", tiny_run / "generator.onnx", tmp_path / "lie.onnx"
    request = ("sample", path, "--length", 5, "--seed", 1)
    # Without a prime no tokenizer is needed; with one it must be the file's own.
    rewritten(model, path, "tokenizer", reading(lambda tokenizer: tokenizer.__setitem__("name", "byte")))
    assert gen(*request)[0] == 0
    fails(1, gen(*request, "--prime", "abc"), "tokenizer 'byte' and its 19 symbols disagree")
    rewritten(model, path, "tokenizer", reading(lambda tokenizer: tokenizer.__setitem__("state", {})))
    fails(1, gen(*request, "--prime", "abc"), "'char' is damaged")
    rewritten(model, path, "chain", first("name", "mine"))
    fails(1, gen(*request), "no strategy 'mine'")
    rewritten(model, path, "card", lambda _: '{"corpus": "x", "config": {"run": 3}, "parameters": "y"}')
    assert [gen(*request)[0], gen("info", path)[0]] == [0, 0]
    # The shape of an input's default value is known to the graph alone.
    rewritten(generator, path, "chain", top_k("per_symbol", True))
    fails(1, gen(*request), "lie.onnx: onnxruntime cannot run it")


@pytest.mark.parametrize("name", ["model.onnx", "generator.onnx"])
def test_file_that_is_damaged(name: str, gen: Gen, tiny_run: Path, tmp_path: Path) -> None:
    data = (tiny_run / name).read_bytes()
    path = tmp_path / "cuda.onnx"  # a name that must not be taken for a problem of the driver
    for content in (b"", data[:100], data[: len(data) // 2], data[:-1], b"once upon a time\n" * 50):
        path.write_bytes(content)
        fails(1, gen("sample", path), "cuda.onnx: damaged, or no .onnx file", "expected an .onnx file from gen export")


@pytest.mark.parametrize("domain", ["", "com.strange"])
def test_file_that_needs_other_operators(gen: Gen, tiny_run: Path, tmp_path: Path, domain: str) -> None:
    proto = onnx.load(tiny_run / "generator.onnx")
    node = next(node for node in proto.graph.node if node.op_type == "LogSoftmax")
    node.op_type, node.domain = "Unheard", domain
    if domain:
        proto.opset_import.append(helper.make_opsetid(domain, 1))
    (tmp_path / "new.onnx").write_bytes(serialize_model(proto))
    fails(1, gen("sample", tmp_path / "new.onnx"), "new.onnx: onnxruntime", "lacks an operator", "install a newer one")


def test_file_of_somebody_else(gen: Gen, tiny_run: Path, tiny_text: Path, tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(proto.SerializeToString())
    for command in (["sample", path], ["info", path], ["eval", path, tiny_text]):
        fails(1, gen(*command), "foreign.onnx: not made by gentext")
    for name in ("model.onnx", "generator.onnx"):  # with the metadata of a real one
        del proto.metadata_props[:]
        proto.metadata_props.extend(onnx.load(tiny_run / name).metadata_props)
        path.write_bytes(serialize_model(proto))
        fails(1, gen("sample", path), "its metadata and its graph disagree")
