"""Texts of any size: cut into pieces, encoded once into a cache, and all errors of the cache."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import configured, examples
from hypothesis import given
from hypothesis import strategies as st

from gentext.corpus import text as texts
from gentext.corpus.split_corpus import SplitCorpus
from gentext.corpus.text import read_text
from gentext.data import decoding, encoded, stream
from gentext.errors import CorpusError, PluginError
from gentext.plugins.tokenizers.byte import ByteTokenizer
from gentext.plugins.tokenizers.char import CharConfig, CharTokenizer
from gentext.runs.resolve import ConfiguredComponent

Gen = Callable[..., tuple[int, str, str]]

LINES = "to be or not to be\nthat is the question\n" * 40
ALPHABET = st.text("ab \n\u00e9\U0001f642", min_size=1, max_size=300)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a text, and a cache of its own below ``cache``."""
    monkeypatch.setenv("GEN_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text(LINES)
    return tmp_path


def read(place: Path, cls: Any = CharTokenizer, config: Any = CharConfig(), source: str = "text.txt") -> SplitCorpus:  # noqa: B008
    return read_text(str(place / source), component(cls, config), 0.1, None, None)


def component(cls: Any, config: Any = None) -> ConfiguredComponent:
    """A tokenizer under the name of the built-in one that it is, or inherits from."""
    return configured("tokenizer", "char" if issubclass(cls, CharTokenizer) else "byte", cls, config)


def cached(place: Path) -> list[Path]:
    return list((place / "cache" / "encoded").iterdir())


# -- pieces -----------------------------------------------------------------------------------


@examples(60)
@given(
    text=ALPHABET.filter(lambda text: len(set(text)) > 1 and len(text) > 30),
    tokenizer_class_and_config=st.sampled_from(
        [(CharTokenizer, CharConfig(1)), (CharTokenizer, CharConfig(5)), (ByteTokenizer, None)]
    ),
    piece=st.integers(1, 40),
    block=st.integers(1, 40),
    limit=st.integers(2, 40),
)
def test_pieces_encode_as_the_whole_text_does(
    text: str, tokenizer_class_and_config: Any, piece: int, block: int, limit: int
) -> None:
    cls, config = tokenizer_class_and_config
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        patch.setenv("GEN_CACHE_DIR", name)
        patch.setattr(stream, "PIECE_SIZE", piece)
        patch.setattr(texts, "HELD_OUT_LIMIT", limit)
        patch.setattr(encoded, "BLOCK_SIZE", block)
        patch.setattr(decoding.read_blocks, "__defaults__", (block,))
        (Path(name) / "text.txt").write_text(text, encoding="utf-8", newline="")
        try:
            tokenizer = cls.build([text], config)
        except CorpusError:
            return
        if tokenizer.vocab_size < 2:
            return
        train_end = int(len(text) * 0.9)
        for _ in ("encoded", "from the cache"):
            split = read(Path(name), cls, config)
            assert split.tokenizer.state() == tokenizer.state()
            assert split.table["sha256"] == hashlib.sha256(text.encode()).hexdigest()
            assert split.table["characters"] == len(text)
            assert np.array_equal(split.train.tokens, tokenizer.encode(text[:train_end]))
            assert split.held_out[0] == text[train_end:][-limit:]
            assert np.array_equal(split.val.tokens, tokenizer.encode(split.held_out[0]))
            assert np.array_equal(split.counts, np.bincount(split.train.tokens, minlength=tokenizer.vocab_size))
            assert split.train.tokens.dtype == np.uint8 and not split.train.tokens.flags.writeable


@pytest.mark.parametrize(("symbols", "dtype"), [(256, np.uint8), (257, np.uint16), (65537, np.uint32)])
def test_ids_are_of_the_smallest_type(place: Path, symbols: int, dtype: Any) -> None:
    text = "".join(chr(0x10000 + index) for index in range(symbols)) * 2
    (place / "wide.txt").write_text(text, encoding="utf-8")
    for _ in ("encoded", "from the cache"):
        split = read(place, source="wide.txt")
        assert split.train.tokens.dtype == split.val.tokens.dtype == dtype
        assert split.train.tokens[symbols - 1] == symbols - 1


# -- the cache --------------------------------------------------------------------------------


def flip(data: bytearray, position: int) -> None:
    data[position] ^= 1


def out_of_range(data: bytearray, _: int) -> None:
    """An id that no symbol has, under checksums that are right."""
    data[encoded.IDS_OFFSET + 5] = 255
    data[60:64] = struct.pack("<I", zlib.crc32(data[encoded.IDS_OFFSET :]))
    data[64:68] = struct.pack("<I", zlib.crc32(data[:64]))


def other_ids(data: bytearray, _: int) -> None:
    """What a tokenizer of the same name and state would have made before it was changed."""
    data[encoded.IDS_OFFSET + 5] = (data[encoded.IDS_OFFSET + 5] + 1) % 10
    data[60:64] = struct.pack("<I", zlib.crc32(data[encoded.IDS_OFFSET :]))
    data[64:68] = struct.pack("<I", zlib.crc32(data[:64]))


@pytest.mark.parametrize(
    ("damage", "position", "problem"),
    [
        (flip, 0, "its header is damaged"),
        (flip, 40, "its header is damaged"),
        (flip, 59, "its header is damaged"),
        (flip, 66, "its header is damaged"),
        (flip, 700, "its checksum is wrong"),
        (flip, -1, "its checksum is wrong"),
        (lambda data, byte: data.append(byte), 0, "bytes, expected"),
        (lambda data, _: data.pop(), 0, "bytes, expected"),
        (lambda data, _: data.clear(), 0, "its header is damaged"),
        (out_of_range, 0, "it has an id 255, of 14 symbols"),
        (other_ids, 0, "its tokenizer has changed"),
    ],
)
def test_damaged_cache_is_made_anew(
    place: Path,
    damage: Callable[[bytearray, int], None],
    position: int,
    problem: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = read(place)
    [path] = cached(place)
    undamaged = path.read_bytes()
    data = bytearray(undamaged)
    damage(data, position)
    path.unlink()
    path.write_bytes(data)
    assert capsys.readouterr().err == ""
    actual = read(place)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path}: cannot be used (") and problem in line
    assert np.array_equal(actual.train.tokens, expected.train.tokens)
    assert [path.read_bytes() for path in cached(place)] == [undamaged]
    read(place)
    assert capsys.readouterr().err == ""


def test_cache_knows_what_it_is_about(place: Path) -> None:
    read(place)
    read(place, CharTokenizer, CharConfig(50))
    read(place, ByteTokenizer)
    read_text(str(place / "text.txt"), component(CharTokenizer, CharConfig()), 0.2, None, None)
    assert len(cached(place)) == 4
    (place / "copy.txt").write_text(LINES.replace("\n", "\r\n"))
    read(place, source="copy.txt")
    assert len(cached(place)) == 4
    old_file = cached(place)[0]
    os.utime(old_file, (0, time.time() - encoded.MAX_AGE_SECONDS - 60))
    (place / "text.txt").write_text(LINES * 2)
    read(place)
    assert old_file not in cached(place) and len(cached(place)) == 4


def test_only_files_of_the_cache_are_removed(place: Path) -> None:
    """``GEN_CACHE_DIR`` may name a folder of one's own, and even the cache may hold what gentext did not write."""
    read(place)
    digest = "0123456789abcdef" * 4
    cache_names = [f"{digest}.ids", f".{digest}.ids.a_b2c3d4.tmp"]
    foreign_names = [
        *("my.ids", "thesis.ids.txt", "notes.ids2024.csv", ".ids", ".my.ids.a_b2c3d4.tmp"),
        *(f"{digest}.ids.txt", f"{digest}.ids.tmp", f"my-{digest}.ids", f"{digest}0.ids", f"{digest[1:]}.ids"),
        *(f"{digest.upper()}.ids", f"{digest}.idsx", f"{digest}_ids", f"{digest}.ids\n"),
        *(f".{digest}.ids.tmp", f".{digest}.ids.short.tmp", f".{digest}.ids.a_b2c3d4.tmp.txt", f".{digest}.ids"),
    ]
    parent_folder, folder = place / "cache", place / "cache" / "encoded"
    old_time = time.time() - 40 * 24 * 3600
    for path in [folder / name for name in cache_names + foreign_names] + [
        parent_folder / name for name in cache_names + foreign_names
    ]:
        path.write_text("a year of work")
        os.utime(path, (old_time, old_time))
    subfolder = folder / f"{digest[::-1]}.ids"
    subfolder.mkdir()
    (subfolder / f"{digest}.ids").write_text("a year of work")
    for path in (subfolder / f"{digest}.ids", subfolder):
        os.utime(path, (old_time, old_time))
    (place / "text.txt").write_text(LINES * 2)
    read(place)
    assert {path.name for path in parent_folder.iterdir()} == {"encoded", *cache_names, *foreign_names}
    remaining_names = {path.name for path in folder.iterdir()}
    assert remaining_names.isdisjoint(cache_names)
    assert remaining_names >= {*foreign_names, subfolder.name} and len(remaining_names) == len(foreign_names) + 3
    assert [path.name for path in subfolder.iterdir()] == [f"{digest}.ids"]


def test_cache_that_cannot_be_written(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = read(place)
    capsys.readouterr()
    monkeypatch.setenv("GEN_CACHE_DIR", str(place / "text.txt" / "cache"))
    assert np.array_equal(read(place).train.tokens, expected.train.tokens)
    [line] = capsys.readouterr().err.splitlines()
    assert "cannot be written (Not a directory); the encoded text goes into a temporary file" in line
    monkeypatch.setattr(tempfile, "tempdir", str(place / "missing"))
    assert np.array_equal(read(place).train.tokens, expected.train.tokens)
    assert "the encoded text is kept in memory" in capsys.readouterr().err.splitlines()[1]


def test_two_that_encode_at_once(place: Path) -> None:
    (place / "long.txt").write_text(LINES * 500)
    code = (
        "import hashlib, sys\n"
        "from gentext.runs.resolve import configured_component\n"
        "from gentext.corpus.text import read_text\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "tokenizer = configured_component({'tokenizer': {'name': 'char'}}, 'tokenizer')\n"
        "text = read_text(sys.argv[1], tokenizer, 0.1, None, None)\n"
        "print(hashlib.sha256(text.train.tokens.tobytes()).hexdigest())\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(place / "long.txt")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    results = [process.communicate() for process in processes]
    assert [err for _, err in results] == ["", ""]
    expected = hashlib.sha256(read(place, source="long.txt").train.tokens.tobytes()).hexdigest()
    assert [out.strip() for out, _ in results] == [expected, expected]
    assert len(cached(place)) == 1


# -- texts that make trouble ------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed_text", [LINES + "more", LINES[:-9], LINES.upper(), LINES.replace("be", "eb"), "", None]
)
def test_text_that_changes_while_it_is_read(place: Path, changed_text: str | None) -> None:
    path = place / "text.txt"

    class Meddler(CharTokenizer):
        @classmethod
        def build(cls, chunks: Iterable[str], config: CharConfig) -> CharTokenizer:
            learned = CharTokenizer.build(chunks, config)
            path.unlink() if changed_text is None else path.write_text(changed_text)
            return learned

    with pytest.raises(
        CorpusError, match="changed while it was read" if changed_text else "expected some text|no such file"
    ):
        read_text(str(path), component(Meddler, CharConfig()), 0.1, None, None)
    assert cached(place) == []


def test_tokenizer_that_breaks_its_promise(place: Path) -> None:
    class Liar(ByteTokenizer):
        answer: Any = None

        def encode(self, text: str) -> Any:
            return np.full(len(text), self.answer)

    for answer in (256, -1, 0.5, "a"):
        Liar.answer = answer
        with pytest.raises(PluginError, match="'byte' must encode a text as whole numbers from 0 to 255"):
            read_text(str(place / "text.txt"), component(Liar), 0.1, None, None)


def test_tokenizer_may_read_the_text_twice(place: Path) -> None:
    class Twice(CharTokenizer):
        @classmethod
        def build(cls, chunks: Iterable[str], config: CharConfig) -> CharTokenizer:
            next(iter(chunks))
            assert "".join(chunks) == "".join(chunks) == LINES
            return CharTokenizer.build(chunks, config)

    assert np.array_equal(read(place, Twice).train.tokens, read(place).train.tokens)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes as POSIX has them")
@pytest.mark.parametrize("in_memory", [10, 1 << 24])
def test_pipe_is_read_once(place: Path, in_memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_BYTES_IN_MEMORY", in_memory)
    os.mkfifo(place / "pipe")
    for content in (LINES.encode("utf-8-sig"), "\ufeff\ufeffab".encode() * 100, LINES.encode() + b"\xe9t\xe9" * 9):
        writer = threading.Thread(target=(place / "pipe").write_bytes, args=(content,))
        writer.start()
        (place / "text.txt").write_bytes(content)
        try:
            expected = read(place)
        except CorpusError as error:
            with pytest.raises(CorpusError, match=re.escape(str(error).partition("text.txt: ")[2])):
                read(place, source="pipe")
        else:
            actual = read(place, source="pipe")
            assert (actual.table["sha256"], actual.held_out) == (expected.table["sha256"], expected.held_out)
            assert np.array_equal(actual.train.tokens, expected.train.tokens)
        writer.join()
    assert all(path.suffix == ".ids" for path in cached(place))


def test_run_measures_what_it_keeps(place: Path, gen: Gen, tiny_options: tuple[str, ...]) -> None:
    run = place / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "HELD_OUT_LIMIT", 100)
        budget = ("--steps", 2, "--val-frac", 0.2, "--no-export", "--verbose")
        code, _, err = gen("train", place / "text.txt", "--run", run, *tiny_options, *budget)
    assert code == 0, err
    assert "held out are 320 characters, of which 100 are measured" in err
    assert (run / "held_out.txt").read_text() == LINES[-100:]
