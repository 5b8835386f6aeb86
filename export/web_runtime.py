"""onnxruntime for browsers: the two files of the npm package onnxruntime-web that an exported folder needs.

They are not part of gentext. The npm client fetches the package, or the user names a copy of it. Whatever they come
from, their bytes must be those of the version that gentext was tested with.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from gentext.data.encoded import cache_folder
from gentext.errors import ExportError
from gentext.files.atomic import atomic_write_all
from gentext.files.folders import temporary_folder
from gentext.files.reading import read_regular_file

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
#: The names that the files have in the package's folder ``dist``.
SCRIPT_FILE, WASM_FILE = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
#: The SHA-256 of each file.
DIGESTS = {
    SCRIPT_FILE: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    WASM_FILE: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
#: Bytes of a file of the package at most, and of the whole package as npm packs it. They have 14 and 33 MB.
MAX_FILE_BYTES, MAX_PACKAGE_BYTES = 2**26, 2**28
#: Seconds that npm may take.
NPM_SECONDS = 600
ADVICE = f"name a copy of {PACKAGE} {VERSION}: --ort-web PATH"


def read_runtime(path: Path | None) -> dict[str, bytes]:
    """Return the files by name: of a copy of the package, or else of the cache, or as the npm client fetches them.

    :param path: the folder of the unpacked package, its folder ``dist``, or its packed file .tgz.

    Raises ExportError where they cannot be had, or are those of another version.
    """
    if path is not None:
        return _check_files(_read_packed(path) if path.is_file() else _read_unpacked(path), str(path))
    folder = cache_folder().parent / f"{PACKAGE}-{VERSION}"
    try:
        return _check_files(_read_unpacked(folder), str(folder))
    except ExportError:
        files = _check_files(_fetch_package(), f"what npm fetched as {PACKAGE}@{VERSION}")
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_all({folder / name: content for name, content in files.items()})
    return files


def _check_files(files: Mapping[str, bytes], origin: str) -> dict[str, bytes]:
    """Return the files, whose bytes are those of the version."""
    for name, digest in DIGESTS.items():
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise ExportError(f"{origin}: {name} is not that of {PACKAGE} {VERSION}, or it is damaged; {ADVICE}")
    return dict(files)


def _read_unpacked(folder: Path) -> dict[str, bytes]:
    """Return the files in the folder of the package, or in its folder ``dist``."""
    package = folder / "package.json"
    if package.is_file():
        _check_version(_read_file(package), str(folder))
        folder = folder / "dist"
    return {name: _read_file(folder / name) for name in DIGESTS}


def _read_file(path: Path) -> bytes:
    try:
        return read_regular_file(path, MAX_FILE_BYTES)
    except OSError as error:
        raise ExportError(f"{path}: cannot be read ({error.strerror or error}); {ADVICE}") from None


def _check_version(package: bytes, origin: str) -> None:
    """Raise ExportError where a package.json is that of another package or version."""
    try:
        name, version = json.loads(package)["name"], json.loads(package)["version"]
    except (ValueError, KeyError, TypeError):
        raise ExportError(f"{origin}: its package.json is damaged; {ADVICE}") from None
    if (name, version) != (PACKAGE, VERSION):
        raise ExportError(f"{origin}: holds {name} {version}; {ADVICE}")


def _read_packed(path: Path) -> dict[str, bytes]:
    """Return the files in a package as npm packs it."""
    if path.stat().st_size > MAX_PACKAGE_BYTES:
        raise ExportError(f"{path}: has more than {MAX_PACKAGE_BYTES >> 20} MB; {ADVICE}")
    try:
        with tarfile.open(fileobj=io.BytesIO(path.read_bytes()), mode="r:gz") as package:
            _check_version(_read_member(package, "package.json"), str(path))
            return {name: _read_member(package, f"dist/{name}") for name in DIGESTS}
    except (OSError, EOFError, KeyError, tarfile.TarError) as error:
        raise ExportError(f"{path}: damaged, or no npm package ({error}); {ADVICE}") from None


def _read_member(package: tarfile.TarFile, name: str) -> bytes:
    member = package.getmember(f"package/{name}")
    file = package.extractfile(member)
    if file is None or member.size > MAX_FILE_BYTES:
        raise KeyError(f"{name} is no file of the expected size")
    return file.read()


def _fetch_package() -> dict[str, bytes]:
    """Let the npm client fetch the package, from wherever it is set up to fetch packages."""
    npm = shutil.which("npm")
    if npm is None:
        raise ExportError(
            f"{PACKAGE} {VERSION} is fetched with npm, which is not installed; install Node.js, or {ADVICE}"
        )
    with temporary_folder() as folder:
        command = [
            npm,
            "pack",
            f"{PACKAGE}@{VERSION}",
            "--ignore-scripts",
            "--silent",
            "--pack-destination",
            str(folder),
        ]
        try:
            process = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=NPM_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise ExportError(f"npm took more than {NPM_SECONDS} s to fetch {PACKAGE} {VERSION}; {ADVICE}") from None
        packed = sorted(folder.glob("*.tgz"))
        if process.returncode or not packed:
            lines = [line for line in process.stderr.splitlines() if line.strip()]
            reason = lines[0].removeprefix("npm error ") if lines else f"exit status {process.returncode}"
            raise ExportError(f"npm cannot fetch {PACKAGE} {VERSION} ({reason}); {ADVICE}")
        return _read_packed(packed[0])
