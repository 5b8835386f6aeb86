"""Writes a folder in which a model writes in the browser: any server of files can serve it. It needs no PyTorch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from gentext.console import warn
from gentext.data.page_files import ENGINE_FILE, page_files
from gentext.errors import FileFormatError, RunError
from gentext.export.web_runtime import PACKAGE, SCRIPT_FILE, VERSION, WASM_FILE, read_runtime
from gentext.exported.metadata import Bundle
from gentext.exported.onnx_file import read_checked_metadata
from gentext.files.atomic import atomic_write_all
from gentext.run import GENERATOR_FILE

#: The precision that writes fastest in a browser and draws there what it draws elsewhere: docs/figures.md.
WEB_PRECISION = "fp32"
#: Tokenizers that the page can encode a prompt with.
WEB_TOKENIZERS = ("char", "byte")


def check_free_folder(folder: Path) -> None:
    """Raise RunError for a folder that has files, or for what is no folder."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        raise RunError(f"--web {folder}: there are files already; expected a new folder or an empty one")


def export_web(find_generator: Callable[[], Path], folder: Path, runtime: Path | None) -> list[str]:
    """Write the page, a generator and onnxruntime for browsers into a new folder.

    :param find_generator: returns the file of the generator; it is called once everything else is there.
    :param runtime: a copy of onnxruntime-web; None: as `read_runtime` finds it.

    Returns the lines to show to the user. Raises FileFormatError for a file that is no generator, ExportError without
    onnxruntime, RunError where the folder has files or cannot be written.
    """
    check_free_folder(folder)
    contents: dict[str, bytes] = read_runtime(runtime)
    generator = find_generator()
    bundle = _read_bundle(generator)
    contents |= {name: path.read_bytes() for name, path in page_files().items()}
    contents[GENERATOR_FILE] = generator.read_bytes()
    settings = {"engine": "wasm", "generator": GENERATOR_FILE, "ort": SCRIPT_FILE, "wasm": WASM_FILE}
    contents[ENGINE_FILE] = json.dumps(settings, indent=1).encode()
    _write_files(folder, contents)
    precision = bundle.card.get("precision", WEB_PRECISION)
    if precision != WEB_PRECISION:
        warn(
            f"the generator is in {precision}: a browser writes it more slowly than {WEB_PRECISION}, and other texts "
            f"than gen sample; a run can be exported in {WEB_PRECISION}"
        )
    if bundle.tokenizer.name not in WEB_TOKENIZERS:
        warn(f"the tokenizer {bundle.tokenizer.name!r} does not run in a browser, so the page cannot read a prompt")
    size = sum(map(len, contents.values())) / 1e6
    return [
        f"exported {folder} ({size:.1f} MB, {precision}, {PACKAGE} {VERSION}); to try it: "
        f"python3 -m http.server --directory {folder}"
    ]


def _read_bundle(generator: Path) -> Bundle:
    """Return the metadata of a generator."""
    bundle = Bundle.from_metadata(read_checked_metadata(generator), generator)
    if bundle.kind != "generator":
        raise FileFormatError(f"{generator}: holds the kind {bundle.kind!r}; expected a {GENERATOR_FILE}")
    return bundle


def _write_files(folder: Path, contents: dict[str, bytes]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--web {folder}: cannot be made ({error.strerror}); name another folder") from None
    atomic_write_all({folder / name: content for name, content in contents.items()})
