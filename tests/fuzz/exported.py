"""Exported files: changed metadata, changed graphs, changed fields and changed bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import onnx
from fuzz.example import Example
from fuzz.material import Material
from fuzz.mutations import NUMBERS, changed_bytes, changed_data, clean_text, number, plain
from fuzz.seal import seal
from hypothesis import strategies as st
from onnx import TensorProto

#: What is done with the file.
COMMANDS: list[list[str]] = [
    ["info", "m.onnx"],
    ["info", "m.onnx", "--json"],
    ["sample", "m.onnx", "--length", "5", "--seed", "1", "--threads", "1"],
    ["sample", "m.onnx", "--length", "70", "--seed", "1", "--prime", "abc", "--stop", "a", "--count", "3"],
    ["sample", "m.onnx", "--length", "5", "--top-k", "3", "--temperature", "0", "--show-chain", "--json"],
    ["sample", "m.onnx", "--length", "5", "--chain", "penalties,top_k,temperature", "--prime", "", "--no-stream"],
    ["eval", "m.onnx", "short.txt"],
]
NODE_TYPES = ["Identity", "MatMul", "Loop", "If", "Scan", "Expand", "Tile", "Gather", "Range", "Unheard", ""]


def examples(material: Material) -> st.SearchStrategy[Example]:
    """One changed file, and some of the commands that read it."""
    source = st.sampled_from([material.model, material.generator])
    with_other_data = source.flatmap(
        lambda original: st.one_of(
            changed_metadata(original),
            changed_metadata(original),
            changed_fields(original),
            changed_bytes(original),
            changed_bytes(original).map(seal),
        )
    )
    with_other_graph = source.flatmap(changed_graph)
    commands = st.lists(st.sampled_from(COMMANDS), min_size=1, max_size=2, unique_by=tuple)

    def example(content: bytes, commands: list[list[str]], interrupt_after: float | None) -> Example:
        files = {"m.onnx": content, "short.txt": material.text[:300]}
        return Example(files, commands, interrupt_after=interrupt_after)

    # A graph may compute without end, and Ctrl-C must end it: docs/security.md. Nothing else may.
    return st.one_of(
        *[st.builds(example, with_other_data, commands, st.none())] * 5,
        st.builds(example, with_other_graph, commands, st.just(10.0)),
    )


@st.composite
def changed_metadata(draw: st.DrawFn, original: bytes) -> bytes:
    """A file whose metadata lies. Its check is right, so the lie is read."""
    proto = onnx.load_from_string(original)
    for _ in range(draw(st.integers(1, 2))):
        entry = draw(st.sampled_from([prop for prop in proto.metadata_props if prop.key != "gentext.check"]))
        change = draw(
            st.sampled_from(["data", "data", "data", "data", "text", "deep", "bytes", "remove", "repeat", "add"])
        )
        if change == "data":
            entry.value = draw(changed_json(entry.value))
        elif change == "text":
            entry.value = draw(clean_text | plain.map(json.dumps))
        elif change == "deep":
            opening, closing = draw(st.sampled_from(["[]", ('{"a":', "}")]))
            depth = draw(st.sampled_from([100, 2_000, 100_000]))
            entry.value = opening * depth + "0" + closing * depth
        elif change == "bytes":
            entry.value = draw(changed_bytes(entry.value.encode())).decode(errors="replace")
        elif change == "remove":
            proto.metadata_props.remove(entry)
        elif change == "repeat":
            proto.metadata_props.add(key=entry.key, value=draw(changed_json(entry.value)))
        else:
            proto.metadata_props.add(key=draw(clean_text), value=draw(clean_text))
    return seal(proto.SerializeToString())


@st.composite
def changed_json(draw: st.DrawFn, entry: str) -> str:
    """The text of changed JSON data; of other text, another text."""
    try:
        data = json.loads(entry)
    except (ValueError, RecursionError):  # of an earlier change
        return draw(clean_text)
    return json.dumps(draw(changed_data(data)))


@st.composite
def changed_graph(draw: st.DrawFn, original: bytes) -> bytes:
    """A file with another network than its metadata say: nodes, constants, inputs and outputs."""
    proto = onnx.load_from_string(original)
    for _ in range(draw(st.integers(1, 3))):
        graph = draw(st.sampled_from(graphs_in(proto.graph)))
        draw(st.sampled_from([change_node, change_node, change_tensor, change_tensor, change_port]))(draw, graph)
    return seal(proto.SerializeToString())


def graphs_in(graph: Any) -> list[Any]:
    """Return a graph and all within it, such as the body of a loop."""
    inner = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return [graph, *(one for part in inner for one in graphs_in(part))]


def change_node(draw: Callable[..., Any], graph: Any) -> None:
    if not graph.node:
        return
    index = draw(st.integers(0, len(graph.node) - 1))
    node = graph.node[index]
    names = sorted({name for one in graph.node for name in [*one.input, *one.output]} | {""})
    change = draw(st.sampled_from(["type", "remove", "repeat", "input", "output", "attribute", "move", "domain"]))
    if change == "type":
        node.op_type = draw(st.sampled_from(NODE_TYPES + [one.op_type for one in graph.node]))
    elif change == "remove":
        del graph.node[index]
    elif change == "repeat":
        graph.node.append(node)
    elif change == "input" and node.input:
        node.input[draw(st.integers(0, len(node.input) - 1))] = draw(st.sampled_from(names))
    elif change == "output" and node.output:
        node.output[draw(st.integers(0, len(node.output) - 1))] = draw(st.sampled_from(names))
    elif change == "attribute" and node.attribute:
        attribute = draw(st.sampled_from(node.attribute))
        attribute.i = draw(integers())
        attribute.ints.extend([draw(integers())])
        attribute.f = draw(st.floats(width=32))
    elif change == "move":
        graph.node.insert(draw(st.integers(0, len(graph.node) - 1)), graph.node.pop(index))
    else:
        node.domain = draw(st.sampled_from(["com.microsoft", "ai.onnx.ml", "nowhere"]))


def integers() -> st.SearchStrategy[int]:
    fitting = [one for one in NUMBERS if isinstance(one, int) and -(2**63) <= one < 2**63]
    return st.sampled_from(fitting) | st.integers(-5, 300)


def change_tensor(draw: Callable[..., Any], graph: Any) -> None:
    """Change an initializer or a constant: a weight, a size, a limit of a loop."""
    constants = [one.t for node in graph.node for one in node.attribute if one.HasField("t")]
    tensors = [*graph.initializer, *constants]
    if not tensors:
        return
    tensor = draw(st.sampled_from(tensors))
    change = draw(st.sampled_from(["dims", "type", "bytes", "fill", "name", "outside"]))
    if change == "dims":
        if tensor.dims:
            tensor.dims[draw(st.integers(0, len(tensor.dims) - 1))] = draw(integers())
        else:
            tensor.dims.extend([draw(integers())])
    elif change == "type":
        tensor.data_type = draw(st.integers(0, 25))
    elif change == "bytes":
        tensor.raw_data = draw(changed_bytes(tensor.raw_data))
    elif change == "fill":
        pattern = draw(st.sampled_from([b"\xff", b"\x7f", b"\x80", b"\0", b"\x00\x00\xc0\x7f"]))
        tensor.raw_data = (pattern * len(tensor.raw_data))[: len(tensor.raw_data)]
    elif change == "name":
        tensor.name = draw(clean_text)
    else:
        tensor.data_location = TensorProto.EXTERNAL
        place = draw(st.sampled_from(["short.txt", "m.onnx", "/etc/passwd", "../x", "/dev/zero", ""]))
        for key, value in (("location", place), ("offset", str(draw(number))), ("length", str(draw(number)))):
            tensor.external_data.add(key=key, value=value)


def change_port(draw: Callable[..., Any], graph: Any) -> None:
    """Change an input or an output of a graph."""
    if not [*graph.input, *graph.output]:
        return
    port = draw(st.sampled_from([*graph.input, *graph.output]))
    change = draw(st.sampled_from(["name", "type", "size", "axis", "remove", "repeat"]))
    kind = port.type.tensor_type
    if change == "name":
        port.name = draw(clean_text | st.sampled_from([one.name for one in graph.node[:9]]))
    elif change == "type":
        kind.elem_type = draw(st.integers(0, 20))
    elif change == "size" and kind.shape.dim:
        draw(st.sampled_from(kind.shape.dim)).dim_value = draw(integers())
    elif change == "axis":
        kind.shape.dim.add(dim_value=draw(integers()))
    else:
        ports = graph.input if port in graph.input else graph.output
        (ports.remove if change == "remove" else ports.append)(port)


@st.composite
def changed_fields(draw: st.DrawFn, original: bytes) -> bytes:
    """A file whose outermost fields are swapped, repeated, left out, or of a false length."""
    proto = onnx.load_from_string(original)
    fields = []
    for descriptor, content in proto.ListFields():
        part = onnx.ModelProto()
        if descriptor.name in ("opset_import", "metadata_props", "functions", "training_info"):
            getattr(part, descriptor.name).extend(content)
        elif descriptor.name == "graph":
            part.graph.CopyFrom(content)
        else:
            setattr(part, descriptor.name, content)
        fields.append(part.SerializeToString())
    fields = draw(st.permutations(fields))
    change = draw(st.sampled_from(["remove", "repeat", "cut", "insert", "none"]))
    index = draw(st.integers(0, len(fields) - 1))
    if change == "remove":
        del fields[index]
    elif change == "repeat":
        fields += [fields[index]] * draw(st.sampled_from([1, 3, 12_000]) if len(fields[index]) < 500 else st.just(1))
    elif change == "cut":
        fields[index] = fields[index][:-1]
    elif change == "insert":
        fields.insert(index, draw(st.binary(max_size=12)))
    content = b"".join(fields)
    return seal(content) if draw(st.booleans()) else content
