"""The catalogue: texts with a name, which are part of Python or are downloaded.

A downloaded file is stored under its own name in the folder that ``GEN_DATA_DIR`` names, else in
the user's cache. A file that is already there, with the right sha256, is used as it is: without a
network, and without writing into the folder.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import itertools
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from gentext.console import Bar, progress, say
from gentext.data.decoding import files_below, join_files, read_blocks
from gentext.errors import CorpusError, reason
from gentext.files.folders import environment_folder
from gentext.files.temporary import TEMPORARY_FOLDER, locked_folder, remove_abandoned


@dataclasses.dataclass(frozen=True)
class CatalogueEntry:
    """One text of the catalogue. A text without an address is part of every CPython."""

    name: str
    summary: str
    characters: int | None
    """Number of characters with LF line ends; an estimate for a text that changes with Python's version."""
    license: str
    sha256: str | None = None
    """Hash of the downloaded file."""
    url: str | None = None
    filename: str | None = None
    """Name of the file in the data folder; a .zip holds one text."""


_ENTRIES = (
    CatalogueEntry(
        name="python-help",
        summary="What Python's help() prints: the docstrings of the standard library and the reference (the default)",
        characters=2_200_000,
        license="PSF-2.0",
    ),
    CatalogueEntry(
        name="python-docs",
        summary="The language reference that comes with every CPython",
        characters=465_000,
        license="PSF-2.0",
    ),
    CatalogueEntry(
        name="python-stdlib",
        summary="The sources of Python's standard library, without tests",
        characters=9_900_000,
        license="PSF-2.0",
    ),
    CatalogueEntry(
        name="anna",
        summary="Leo Tolstoy, Anna Karenina, in English",
        characters=1_985_223,
        license="public domain",
        sha256="568bb39fc78aca98e9db91c4329dcd1aa5ec4c3df3aca2064ce5d6f023ae16c9",
        url="https://raw.githubusercontent.com/udacity/deep-learning-v2-pytorch/master/"
        "recurrent-neural-networks/char-rnn/data/anna.txt",
        filename="anna.txt",
    ),
    CatalogueEntry(
        name="tinyshakespeare",
        summary="40,000 lines from the plays of William Shakespeare",
        characters=1_115_394,
        license="public domain",
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        filename="tinyshakespeare.txt",
    ),
    CatalogueEntry(
        name="text8",
        summary="English Wikipedia of 2006 as lower-case letters and spaces: a benchmark",
        characters=100_000_000,
        license="GFDL, CC BY-SA 3.0",
        sha256="a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
        url="http://mattmahoney.net/dc/text8.zip",
        filename="text8.zip",
    ),
    CatalogueEntry(
        name="enwik8",
        summary="10^8 bytes of English Wikipedia with its markup: a benchmark, for the byte tokenizer",
        characters=None,
        license="GFDL, CC BY-SA 3.0",
        sha256="547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
        url="http://mattmahoney.net/dc/enwik8.zip",
        filename="enwik8.zip",
    ),
)

CATALOGUE: dict[str, CatalogueEntry] = {entry.name: entry for entry in _ENTRIES}

#: Folders of the standard library that hold tests, generated files, or packages that are no part of it.
_SKIPPED_FOLDERS = {
    "__pycache__",
    "dist-packages",
    "encodings",
    "idle_test",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
}
#: Docstrings of so few characters hardly say more than the name of what they describe.
SHORT_DOCSTRING = 40


def _python_topics() -> list[str]:
    """Return the pages of the language reference, in the order of their names."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise CorpusError("this Python comes without pydoc_data; give a file instead") from None
    return [topics[name] for name in sorted(topics)]


def _python_docs() -> Iterator[str]:
    yield "\n".join(_python_topics())


def _docstrings(source: str) -> Iterator[str]:
    """Yield the docstrings of a module, its classes and its functions; none where this Python cannot parse it."""
    try:
        module = ast.parse(source)
    except SyntaxError:
        return
    for node in ast.walk(module):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def _python_help() -> Iterator[str]:
    """Yield each docstring and each page of the reference once.

    They are sorted by their hashes, which mixes modules and pages: so the end, which is held out, is like the rest.
    """
    sources = itertools.chain.from_iterable(map(_read_source, _library_paths()))
    docstrings = itertools.chain.from_iterable(map(_docstrings, sources))
    entries = {text.strip() for text in (*docstrings, *_python_topics()) if len(text) > SHORT_DOCSTRING}
    yield "\n\n".join(sorted(entries, key=lambda text: hashlib.sha256(text.encode()).digest()))


def _read_source(path: Path) -> list[str]:
    """Return the text of a source file as pieces: none when it is empty or not UTF-8."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return []
    return [text] if text else []


def _library_paths() -> Iterator[Path]:
    """Yield the source files of the standard library, sorted."""
    for path in files_below(Path(os.__file__).parent, _SKIPPED_FOLDERS):
        # _sysconfigdata is written by the build: it holds the paths of one machine.
        if path.suffix == ".py" and "_sysconfigdata" not in path.name:
            yield path


def _python_stdlib() -> Iterator[str]:
    return join_files(map(_read_source, _library_paths()))


_EMBEDDED_READERS: dict[str, Callable[[], Iterator[str]]] = {
    "python-help": _python_help,
    "python-docs": _python_docs,
    "python-stdlib": _python_stdlib,
}


def read_embedded(entry: CatalogueEntry) -> Iterator[str]:
    """Return the pieces of a text that is part of Python."""
    return _EMBEDDED_READERS[entry.name]()


def data_dir() -> Path:
    """Return the folder of downloaded texts; it need not exist."""
    folder = environment_folder("GEN_DATA_DIR")
    if folder is not None:
        return folder
    import pooch  # type: ignore[import-untyped]

    return Path(pooch.os_cache("gentext"))


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in read_blocks(file):
            digest.update(block)
    return digest.hexdigest()


def is_available(entry: CatalogueEntry) -> bool:
    """Return whether the text can be read without a network."""
    if entry.filename is None:
        return True
    path = data_dir() / entry.filename
    try:
        return path.is_file() and _file_sha256(path) == entry.sha256
    except OSError:
        return False


def fetch_file(entry: CatalogueEntry) -> Path:
    """Return the file of an entry, and download it first where it is missing.

    Raises CorpusError when the file of that name has another hash, or the download fails.
    """
    path = data_dir() / str(entry.filename)
    if not path.exists():
        return _download_file(entry, path)
    try:
        sha256 = _file_sha256(path)
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror}); it should be {entry.name}") from None
    if sha256 != entry.sha256:
        raise CorpusError(
            f"{path}: not the {entry.name} of the catalogue: its sha256 begins with {sha256[:12]}, expected "
            f"{str(entry.sha256)[:12]}. Move it away to download the right one, or give its path to use it"
        )
    return path


def _download_file(entry: CatalogueEntry, path: Path) -> Path:
    import pooch

    say(f"downloading {entry.name} from {entry.url} to {path}")
    pooch.get_logger().setLevel("WARNING")  # at a lower level it prints the same line
    try:
        with progress(f"downloading {entry.name}", unit="MB") as bar:
            downloader = pooch.HTTPDownloader(progressbar=_DownloadBar(bar), chunk_size=1 << 16)
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_abandoned(path.parent, TEMPORARY_FOLDER)
            with locked_folder(path.parent) as folder:
                pooch.retrieve(str(entry.url), f"sha256:{entry.sha256}", path.name, folder, downloader=downloader)
                os.replace(folder / path.name, path)
    except OSError as error:  # the base class of requests' errors
        raise _download_error(entry, path, reason(_first_error(error))) from None
    except ValueError:
        raise _download_error(entry, path, "what is there now has another sha256") from None
    return path


class _DownloadBar:
    """A bar as pooch wants it, in bytes."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar

    @property
    def total(self) -> float:
        return (self._bar.total or 0) * 1e6

    @total.setter
    def total(self, size: float) -> None:
        self._bar.total = size / 1e6 or None  # 0 where the server does not tell the size

    def update(self, size: int) -> None:
        self._bar.advance(size / 1e6)

    def reset(self) -> None:
        self._bar.done = 0

    def close(self) -> None:
        """The bar is closed where it was made."""


def _download_error(entry: CatalogueEntry, path: Path, cause: str) -> CorpusError:
    return CorpusError(
        f"{entry.name}: cannot download {entry.url} to {path} ({cause}). Let GEN_DATA_DIR name a folder that "
        f"can be written or, without a network, one into which you put {path.name} with sha256 {entry.sha256}"
    )


def _first_error(error: BaseException) -> BaseException:
    """Return the first error of a chain: of network errors, only the first one is worth reading."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def open_file(path: Path) -> IO[bytes]:
    """Open the file of an entry to read the bytes of its text."""
    if path.suffix != ".zip":
        return path.open("rb")
    with zipfile.ZipFile(path) as archive:  # the file stays open until the member is closed
        return archive.open(archive.namelist()[0])
