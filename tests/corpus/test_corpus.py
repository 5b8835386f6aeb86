"""Reading a text: encodings, line ends, folders, the catalogue, and what goes wrong."""

from __future__ import annotations

import dataclasses
import fractions
import functools
import hashlib
import http.server
import inspect
import io
import json
import socket
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import typer
from helpers import examples
from hypothesis import assume, example, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from gentext import console
from gentext.cli.corpora import corpora
from gentext.data.catalogue import CATALOGUE, CatalogueEntry, is_available
from gentext.data.corpus import iter_text, read_corpus
from gentext.data.decoding import encode_text
from gentext.errors import CorpusError

#: Any text without NUL, with many line ends of all kinds.
TEXTS = st.lists(
    st.sampled_from(["\r", "\n", "\r\n"]) | st.text(st.characters(exclude_characters="\0", codec="utf-8"))
).map("".join)
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus") / "scratch.txt"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("GEN_DATA_DIR", str(folder))
    return folder


@pytest.fixture
def add_entry(monkeypatch: pytest.MonkeyPatch) -> Callable[..., CatalogueEntry]:
    """Returns a function that adds a text to the catalogue, with an address at which no server answers."""
    with socket.socket() as free_socket:
        free_socket.bind(("127.0.0.1", 0))
        port = free_socket.getsockname()[1]
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")

    def add(content: bytes, filename: str) -> CatalogueEntry:
        digest = hashlib.sha256(content).hexdigest()
        entry = CatalogueEntry("fake", "a fake", None, "none", digest, f"http://127.0.0.1:{port}/x", filename)
        monkeypatch.setitem(CATALOGUE, "fake", entry)
        return entry

    return add


def refuse_download(*args: object, **kwargs: object) -> None:
    raise AssertionError("nothing may be downloaded")


@examples()
@given(text=TEXTS, encoding=st.sampled_from(ENCODINGS), block=st.integers(1, 7))
@example(text="a\r\nb\r", encoding="utf-8", block=2)
@example(text="\N{BYTE ORDER MARK}\N{SNAKE}", encoding="utf-16", block=1)
def test_any_text_survives_any_block_size(scratch: Path, text: str, encoding: str, block: int) -> None:
    # At the beginning of a file in plain UTF-8, this character is taken for a byte order mark.
    without_mark = text.removeprefix("\N{BYTE ORDER MARK}") if encoding == "utf-8" else text
    expected = without_mark.replace("\r\n", "\n").replace("\r", "\n")
    assume(expected)
    scratch.write_bytes(text.encode(encoding))
    pieces = list(iter_text(str(scratch), block))
    assert "".join(pieces) == expected
    assert all(pieces)


@examples()
@given(content=st.binary().filter(lambda content: b"\0" not in content), block=st.integers(1, 7))
@example(content=b"\xc3\xa9\r\xe2\x82", block=1)
def test_broken_bytes_come_through_where_they_are_escaped(scratch: Path, content: bytes, block: int) -> None:
    content = b"a" + content  # so that it begins like no other encoding
    scratch.write_bytes(content)
    pieces = iter_text(str(scratch), block, escape_errors=True)
    assert encode_text("".join(pieces)) == content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def test_corpus_knows_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "poem.txt"
    path.write_bytes(b"\xef\xbb\xbfgr\xc3\xbcn\r\n")
    corpus = read_corpus(str(path))
    assert (corpus.name, corpus.origin, corpus.text, corpus.characters) == ("poem", str(path), "grün\n", 5)
    assert corpus.sha256 == hashlib.sha256("grün\n".encode()).hexdigest()


@pytest.mark.parametrize("block", [1, 2, 3, 5, 64])
@pytest.mark.parametrize(
    ("content", "offset", "byte"),
    [
        (b"plain\r\n\xc3\xa9 caf\xe9 noir", 13, "0xe9"),
        (b"\xef\xbb\xbfok \xff", 6, "0xff"),
        (b"cut off \xe2\x82", 8, "0xe2"),
        ("\ufeffab".encode("utf-16-le") + b"\x00\xdcc\x00", 6, "0x00"),
    ],
)
def test_bad_byte_is_named_by_its_place_in_the_file(
    scratch: Path, content: bytes, offset: int, byte: str, block: int
) -> None:
    scratch.write_bytes(content)
    with pytest.raises(CorpusError, match=rf"scratch\.txt: not UTF-\S+ at byte {offset} \({byte}\)"):
        list(iter_text(str(scratch), block))


def test_what_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f"
    for content, message in [(b"a\0b", "looks binary"), (b"", "empty"), (b"\xef\xbb\xbf", "empty")]:
        path.write_bytes(content)
        with pytest.raises(CorpusError, match=message):
            read_corpus(str(path))
    with pytest.raises(CorpusError, match=r"no such file.*Did you mean 'tinyshakespeare'\? Catalogue: python-help"):
        read_corpus("tinyshakespear")
    with pytest.raises(CorpusError, match="no file has such a name; if these 5,000 characters are the text"):
        read_corpus("x" * 5000)


def test_folder_is_one_text_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {
        "b.txt": b"third",
        "a/z.txt": b"second\r\n",
        "a/b/1.md": b"first",
        "c/last.txt": "fünfte".encode("utf-16"),
        "bb.txt": b"",
        "c/data.bin": b"\0\1",
        "c/paper.PDF": b"%PDF-1.7",
        ".git/config": b"hidden",
        ".notes": b"hidden",
    }
    for name, content in files.items():
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    corpus = read_corpus(str(tmp_path / "texts"))
    assert (corpus.name, corpus.text) == ("texts", "first\nsecond\nthird\nfünfte")
    assert "skipped 2 files that are not text" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="no text in this folder"):
        read_corpus(str(tmp_path / "empty"))


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("né\r\n".encode()), encoding="ascii"))
    corpus = read_corpus("-")
    assert (corpus.name, corpus.text) == ("stdin", "né\n")


@pytest.mark.parametrize("filename", ["fake.txt", "fake.zip"])
def test_file_that_is_there_is_used_as_it_is(
    data: Path, add_entry: Callable[..., CatalogueEntry], monkeypatch: pytest.MonkeyPatch, filename: str
) -> None:
    content = b"read\r\nonly"
    if filename.endswith(".zip"):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("member", content)
        content = packed.getvalue()
    entry = add_entry(content, filename)
    assert not is_available(entry)
    (data / filename).write_bytes(content)
    data.chmod(0o555)
    modified_at = data.stat().st_mtime_ns
    monkeypatch.setattr("pooch.retrieve", refuse_download)
    assert is_available(entry)
    corpus = read_corpus("fake")
    assert (corpus.name, corpus.text) == ("fake", "read\nonly")
    assert data.stat().st_mtime_ns == modified_at


def test_file_with_another_hash_is_refused_and_kept(
    data: Path, add_entry: Callable[..., CatalogueEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = add_entry(b"the right one", "fake.txt")
    (data / "fake.txt").write_bytes(b"mine")
    monkeypatch.setattr("pooch.retrieve", refuse_download)
    sha256 = hashlib.sha256(b"mine").hexdigest()
    with pytest.raises(CorpusError, match=f"begins with {sha256[:12]}, expected {str(entry.sha256)[:12]}"):
        read_corpus("fake")
    assert not is_available(entry)
    assert (data / "fake.txt").read_bytes() == b"mine"


def test_a_download_shows_how_far_it_is(
    data: Path,
    add_entry: Callable[..., CatalogueEntry],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    content = b"some text\n" * 300_000
    entry = add_entry(content, "fake.txt")
    (tmp_path / "x").write_bytes(content)
    address = ("127.0.0.1", int(str(entry.url).split(":")[2].split("/")[0]))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.setattr(console, "SILENT_SECONDS", 0)
    with http.server.ThreadingHTTPServer(address, handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert len(read_corpus("fake").text) == len(content)
        server.shutdown()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("downloading fake: ")]
    assert len(lines) == 10 and all("MB/s" in line for line in lines)
    assert "100%" in lines[-1]


def test_no_network_says_what_to_do(data: Path, add_entry: Callable[..., CatalogueEntry]) -> None:
    entry = add_entry(b"far away", "fake.txt")
    with pytest.raises(CorpusError) as caught:
        read_corpus("fake")
    message = str(caught.value)
    for part in (str(entry.url), str(entry.sha256), "fake.txt", "GEN_DATA_DIR"):
        assert part in message
    assert "\n" not in message
    assert list(data.iterdir()) == []


def test_path_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "anna").write_text("mine")
    monkeypatch.chdir(tmp_path)
    assert read_corpus("anna").text == "mine"


def test_embedded_corpora_are_always_there() -> None:
    docs = read_corpus("python-docs")
    assert docs.characters > 300_000
    assert docs.name == "python-docs"
    assert docs == read_corpus("python-docs")
    assert "class Fraction" in "".join(iter_text("python-stdlib"))
    python_help = read_corpus("python-help")
    assert python_help == read_corpus("python-help")
    for entry in (str(inspect.getdoc(fractions.Fraction.limit_denominator)), topics["assert"].strip()):
        assert python_help.text.count(entry) == 1


def test_corpora_lists_the_catalogue(data: Path) -> None:
    app = typer.Typer()
    app.command()(corpora)
    table = CliRunner().invoke(app, [])
    rows = json.loads(CliRunner().invoke(app, ["--json"]).stdout)
    assert [row["name"] for row in rows] == list(CATALOGUE)
    assert {row["name"]: row["here"] for row in rows}.items() >= {"python-docs": True, "anna": False}.items()
    assert all(name in table.stdout for name in CATALOGUE)
    assert dataclasses.asdict(CATALOGUE["anna"]).items() <= next(row for row in rows if row["name"] == "anna").items()
