"""The check of an exported file: any change of its bytes is noticed when it is opened."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from helpers import examples, fails
from hypothesis import given
from hypothesis import strategies as st

import gentext
from gentext.errors import ExportError, FileFormatError
from gentext.export import proto as proto_module
from gentext.export.proto import serialize_model
from gentext.exported.onnx_file import read_checked_metadata, read_metadata

Gen = Callable[..., tuple[int, str, str]]

FILES = ("model.onnx", "generator.onnx")
SAMPLE = ("--length", 20, "--seed", 1)


def changed_proto(path: Path, entries: dict[str, str]) -> onnx.ModelProto:
    """Return a file's proto with other metadata: some entries replaced."""
    proto = onnx.load(path)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    onnx.helper.set_model_props(proto, metadata | entries)
    return proto


@pytest.mark.parametrize("name", FILES)
def test_check_is_the_crc_of_all_bytes(name: str, tiny_run: Path) -> None:
    """As docs/formats.md describes it, computed by another way: onnx finds the digits."""
    content = (tiny_run / name).read_bytes()
    metadata = read_metadata(tiny_run / name)
    assert metadata == {entry.key: entry.value for entry in onnx.load(tiny_run / name).metadata_props}
    digits = metadata["gentext.check"].encode()
    key_and_digits = b"gentext.check\x12\x08" + digits
    assert content.count(key_and_digits) == 1
    zeroed = content.replace(key_and_digits, key_and_digits.replace(digits, b"00000000"))
    assert digits == b"%08x" % zlib.crc32(zeroed)


@examples(300)
@given(data=st.data())
def test_any_flipped_bit_is_noticed(
    data: st.DataObject, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray((tiny_run / data.draw(st.sampled_from(FILES))).read_bytes())
    metadata_begin = content.index(b"gentext.")  # about: headers and weights are before it
    begin, end = data.draw(st.sampled_from([(0, 200), (0, metadata_begin), (metadata_begin, len(content))]))
    index = data.draw(st.integers(begin, end - 1))
    content[index] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "flipped.onnx"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"^\S+flipped\.onnx: (damaged|not made by gentext|file format)"):
        read_checked_metadata(path)


def flip_weight(path: Path) -> None:
    """Flip the lowest bit of a weight, and leave the check as it was."""
    proto = onnx.load(path)
    weights = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weights.raw_data = bytes([weights.raw_data[0] ^ 1]) + weights.raw_data[1:]
    path.write_bytes(proto.SerializeToString())


@pytest.mark.parametrize("name", FILES)
def test_every_command_checks(name: str, gen: Gen, tiny_run: Path, tiny_text: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    path = run / name
    flip_weight(path)
    source = run if name == "generator.onnx" else path
    page = ["inspect", source, "--text", "ab", "-o", tmp_path / "page.html"]
    commands = [["sample", source], ["info", run], ["eval", source, tiny_text], page, ["bench", path]]
    for command in commands:
        fails(1, gen(*command), f"{path}: damaged, its bytes do not fit its check", "gen export RUN", "--no-verify")
    with pytest.raises(FileFormatError, match="verify=False"):
        gentext.load(source)
    for command in commands[:4]:
        code, _, err = gen(*command, "--no-verify")
        assert code == 0, err
    code, text, err = gen("sample", source, *SAMPLE, "--no-verify")
    assert code == 0, err
    assert gentext.load(source, verify=False).write(length=20, seed=1) + "\n" == text


def test_shares_of_an_unverified_file(gen: Gen, tiny_run: Path, tmp_path: Path) -> None:
    """The session that many rows get is opened as the first one was."""
    path = Path(shutil.copy(tiny_run / "generator.onnx", tmp_path))
    flip_weight(path)
    code, _, err = gen("sample", path, "--count", 40, "--threads", 2, *SAMPLE, "--no-verify")
    assert code == 0, err


@pytest.mark.parametrize(
    ("digits", "fragment"),
    [
        (None, "lacks 'gentext.check'"),
        ("", "do not fit its check"),
        ("0" * 8, "do not fit its check"),
        ("0" * 7, "do not fit its check"),
        ("upper", "do not fit its check"),
        ("longer", "do not fit its check"),
    ],
)
def test_wrong_checks(digits: str | None, fragment: str, gen: Gen, tiny_run: Path, tmp_path: Path) -> None:
    proto = onnx.load(tiny_run / "model.onnx")
    [entry] = [entry for entry in proto.metadata_props if entry.key == "gentext.check"]
    own_digits = entry.value
    if digits is None:
        proto.metadata_props.remove(entry)
    else:
        entry.value = {"upper": own_digits.upper(), "longer": f"{own_digits}0"}.get(digits, digits)
    if entry.value == own_digits and digits is not None:
        pytest.skip("the digits have no letters")
    path = tmp_path / "wrong.onnx"
    path.write_bytes(proto.SerializeToString())
    fails(1, gen("sample", path), "wrong.onnx: damaged", fragment, "--no-verify")
    assert gen("sample", path, *SAMPLE, "--no-verify")[0] == 0


def test_two_checks(gen: Gen, tiny_run: Path, tmp_path: Path) -> None:
    proto = onnx.load(tiny_run / "model.onnx")
    entry = proto.metadata_props.add()
    entry.key, entry.value = "gentext.check", "00000000"
    path = tmp_path / "twice.onnx"
    path.write_bytes(proto.SerializeToString())
    fails(1, gen("sample", path), "twice.onnx: damaged", "'gentext.check' stands twice")


def test_metadata_that_are_no_text(gen: Gen, tiny_run: Path, tmp_path: Path) -> None:
    """One line, whether or not the check is looked at."""
    content = (tiny_run / "model.onnx").read_bytes()
    path = tmp_path / "latin.onnx"
    path.write_bytes(content.replace(b"gentext.kind", b"gentext.kin\xff"))
    for command in (["sample", path], ["info", path], ["sample", path, "--no-verify"]):
        fails(1, gen(*command), "latin.onnx: damaged, or no .onnx file ('utf-8' codec can't decode byte 0xff")


def test_file_that_changes_while_it_is_opened(
    gen: Gen, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph that runs is that of the file whose bytes were checked."""
    from gentext.plugins.samplers import session

    path, open_session = Path(shutil.copy(tiny_run / "model.onnx", tmp_path)), session.open_session

    def open_other(*arguments: object) -> object:
        card = json.loads(read_metadata(path)["gentext.card"]) | {"export": "another"}
        path.write_bytes(serialize_model(changed_proto(path, {"gentext.card": json.dumps(card)})))
        return open_session(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(session, "open_session", open_other)
    fails(1, gen("sample", path), "model.onnx: has changed while it was opened")


def test_model_above_the_limit_of_protobuf(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single file cannot hold it: one line, where onnx raises an error of its own."""
    monkeypatch.setattr(onnx.checker, "MAXIMUM_PROTOBUF", 1000)
    with pytest.raises(ExportError, match="too large for one file of 2 GiB"):
        proto_module.check_graph(onnx.load(tiny_run / "model.onnx"))
