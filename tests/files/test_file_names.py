"""Paths that are not UTF-8 are stored as URLs, from which they come back."""

from __future__ import annotations

import os

import pytest

from gentext.files.file_names import is_utf8, readable_name, restore_paths, store_paths


@pytest.mark.parametrize(
    ("path", "stored"),
    [
        (b"/texts/anna.txt", "/texts/anna.txt"),
        ("/Größe".encode(), "/Größe"),
        (b"/caf\xe9 %", "file:/caf%E9%20%25"),
        (b"file:x", "file:file%3Ax"),
    ],
)
def test_a_stored_path_comes_back(path: bytes, stored: str) -> None:
    table = {"origin": os.fsdecode(path), "val": None, "teacher": os.fsdecode(path), "name": "file:as it is"}
    kept = store_paths(table)
    assert (kept["origin"], kept["teacher"], kept["val"], kept["name"]) == (stored, stored, None, "file:as it is")
    assert restore_paths(kept) == table
    assert is_utf8(kept["origin"])


def test_a_name_is_shown_with_escapes() -> None:
    assert readable_name(os.fsdecode(b"caf\xe9")) == r"caf\udce9"
