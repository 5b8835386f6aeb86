"""Temporary files that are removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gentext.files.temporary import remove_temporary_file


@pytest.mark.parametrize("name", [".model.onnx.0123abcd.gentext.tmp", ".model.onnx.abc_1234.tmp"])
def test_what_another_process_has_removed_is_no_error(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"")
    remove_temporary_file(path)
    assert not path.exists()
    remove_temporary_file(path)
