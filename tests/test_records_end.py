"""Models of records: the boundary symbol, which is read first and drawn last, in files and in every way to write."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gentext.boundary import BoundaryTokenizer, RecordsMeta
from gentext.bundle import Bundle
from gentext.describe import load_run_tokenizer, tokenizer_of
from gentext.errors import FileFormatError
from gentext.onnx_file import read_metadata
from gentext.plugins.tokenizers.byte import ByteTokenizer
from gentext.run import open_run


@pytest.fixture(scope="module")
def bundle(tiny_records_run: Path) -> Bundle:
    path = tiny_records_run / "model.onnx"
    return Bundle.from_metadata(read_metadata(path), path)


# -- files ------------------------------------------------------------------------------------


def test_boundary_in_files(bundle: Bundle, tiny_records_run: Path) -> None:
    assert bundle.records == open_run(tiny_records_run).read_records()
    assert bundle.boundary == bundle.start == bundle.vocab_size - 1
    assert bundle.token_bytes[-1] == b""
    assert bundle.characters_by_token == [symbol.decode() for symbol in bundle.token_bytes]
    for tokenizer in (tokenizer_of(bundle), load_run_tokenizer(open_run(tiny_records_run))):
        assert isinstance(tokenizer, BoundaryTokenizer)
        assert tokenizer.boundary == bundle.boundary
        assert bundle.join_symbols(tokenizer.encode("abc.")) == b"abc."


def test_boundary_behind_any_tokenizer() -> None:
    tokenizer = BoundaryTokenizer(ByteTokenizer.from_state({}))
    every_byte = bytes(range(128)).decode()
    assert 256 not in tokenizer.encode(every_byte)
    assert (tokenizer.vocab_size, tokenizer.token_bytes(256), tokenizer.token_bytes(255)) == (257, b"", b"\xff")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": 0}, "the start symbol is 0"),
        ({"records": RecordsMeta(3, 5, "lines")}, "the boundary symbol is 3; expected the last"),
        ({"records": RecordsMeta(-1, 5, "lines")}, "the boundary symbol is -1"),
        ({"token_bytes": b"x"}, "has bytes"),
        ({"unknown": True}, "stands for unknown characters"),
        ({"longest": -1}, "the longest record has -1"),
        ({"longest": 2**40}, "the longest record has"),
        ({"header": "x" * (2**20 + 1)}, "too many"),
        ({"layout": "x" * 5000}, "too many"),
    ],
    ids=str,
)
def test_boundary_is_checked(bundle: Bundle, change: dict[str, Any], message: str) -> None:
    assert bundle.records is not None
    if "token_bytes" in change:
        change = {"token_bytes": [*bundle.token_bytes[:-1], change["token_bytes"]]}
    elif "unknown" in change:
        change = {"tokenizer": dataclasses.replace(bundle.tokenizer, unknown=bundle.boundary)}
    elif not {"start", "records"} & set(change):
        change = {"records": dataclasses.replace(bundle.records, **change)}
    with pytest.raises(FileFormatError, match=message):
        dataclasses.replace(bundle, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"records": []}, "records are no table"),
        ({"records": {"boundary": "x"}}, "records are no table"),
        ({"records": {"boundary": 3, "longest": 1, "layout": "lines"}}, "the boundary symbol is 3"),
        ({"start": 0}, "start symbol 0, expected the boundary"),
    ],
    ids=str,
)
def test_damaged_records_of_a_run(
    change: dict[str, Any], message: str, tiny_records_run: Path, tmp_path: Path, gen: Any
) -> None:
    shutil.copytree(tiny_records_run, tmp_path / "run")
    path = tmp_path / "run" / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    code, _, err = gen("export", tmp_path / "run")
    assert code == 1 and "tokenizer.json: damaged" in err and message in err and err.count("gen: error") == 1, err
