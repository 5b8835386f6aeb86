"""`gen export --web`: the folder, and what it is made of."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

import pytest
from conftest import Gen
from helpers import fails
from node_packages import find_package

from gentext.data.page_files import page_files
from gentext.data.shipped import shipped_models
from gentext.export import web, web_runtime
from gentext.run import GENERATOR_FILE


@pytest.fixture(scope="module")
def runtime() -> Path:
    """The npm package onnxruntime-web."""
    return find_package("onnxruntime-web")


def test_shipped_model(gen: Gen, tmp_path: Path, runtime: Path) -> None:
    site = tmp_path / "deep" / "site"
    code, _, err = gen("export", "shakespeare", "--web", site, "--ort-web", runtime)
    assert code == 0, err
    names = {"engine.json", GENERATOR_FILE, "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"}
    assert {path.name for path in site.iterdir()} == {*page_files(), *names}
    assert {"index.html", "engine.js", "worker.js", "noise.js"} <= page_files().keys()
    assert (site / GENERATOR_FILE).read_bytes() == shipped_models()["shakespeare"].read_bytes()
    assert "other texts than gen sample" in err, "the shipped model is in int8"


def test_the_folder_names_no_address() -> None:
    for path in page_files().values():
        if path.suffix in (".js", ".html", ".css"):
            text = path.read_text(encoding="utf-8").replace("http://www.w3.org/", "")
            assert "http://" not in text and "https://" not in text, path


def test_wrong_options(gen: Gen, tmp_path: Path, tiny_run: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    new = tmp_path / "new"
    fails(1, gen("export", tiny_run, "--web", tmp_path / "full"), "there are files already")
    fails(1, gen("export", tiny_run, "--web", tmp_path / "full" / "notes.txt"), "there are files already")
    fails(1, gen("export", "no-such-run", "--web", new), "no such run or file")
    fails(2, gen("export", tiny_run, "--web", new, "--unroll", 4), "--unroll")
    fails(2, gen("export", tiny_run, "--web", new, "--precision", "fp16"), "fp32 or int8")
    fails(2, gen("export", "shakespeare", "--web", new, "--chain", "top_k"), "name a run")
    fails(2, gen("export", tiny_run, "--ort-web", new), "--web")
    fails(1, gen("export", tiny_run, "--web", new, "--ort-web", tmp_path / "none"), "cannot be read", "--ort-web PATH")
    assert not new.exists()


def test_no_generator(gen: Gen, tmp_path: Path, tiny_run: Path, runtime: Path) -> None:
    new, file = tmp_path / "new", tmp_path / "file.onnx"
    command = ["export", file, "--web", new, "--ort-web", runtime]
    content = (tiny_run / GENERATOR_FILE).read_bytes()
    for broken, problem in (
        ((tiny_run / "model.onnx").read_bytes(), "expected a generator.onnx"),
        (content.replace(b"gentext.format\x12\x014", b"gentext.format\x12\x015"), "file format 5"),
        (content[:-1] + b"\x00", "damaged"),
        (b"", "damaged, or no .onnx file"),
    ):
        file.write_bytes(broken)
        fails(1, gen(*command), problem)
        assert not new.exists()


def test_run_in_another_precision_without_pytorch(
    gen: Gen, tmp_path: Path, tiny_run: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's own generator is taken, unless another one is asked for."""
    site = tmp_path / "site"
    monkeypatch.setattr(web, "WEB_PRECISION", "int8")  # the generator is in fp32
    monkeypatch.setitem(sys.modules, "gentext.export.exporter", None)  # it cannot be imported
    command = ["export", tiny_run, "--web", site, "--ort-web", runtime]
    fails(1, gen(*command, "--precision", "int8"), "train")
    code, _, err = gen(*command)
    assert code == 0 and "the run's own generator is taken" in err and "in fp32" in err, err
    assert (site / GENERATOR_FILE).read_bytes() == (tiny_run / GENERATOR_FILE).read_bytes()


def test_without_npm(gen: Gen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    command = ["export", "shakespeare", "--web", tmp_path / "new"]
    fails(1, gen(*command), "npm, which is not installed", "--ort-web PATH")
    write_program(tmp_path / "npm", "echo 'npm error code E404' >&2; exit 1")
    fails(1, gen(*command), "npm cannot fetch onnxruntime-web", "code E404")
    # What npm brings is checked, whatever it is.
    for name, version, problem in (
        ("onnxruntime-web", web_runtime.VERSION, "is not that of onnxruntime-web"),
        ("onnxruntime-web", "1.0.0", "holds onnxruntime-web 1.0.0"),
    ):
        write_package(tmp_path / "packed", name, version, dict.fromkeys(web_runtime.DIGESTS, b"other bytes"))
        write_program(tmp_path / "npm", f"/bin/cp {tmp_path}/packed onnxruntime-web.tgz")
        fails(1, gen(*command), problem)
    write_program(tmp_path / "npm", "echo nonsense > onnxruntime-web.tgz")
    fails(1, gen(*command), "damaged, or no npm package")
    assert not (tmp_path / "new").exists()


def test_npm_is_asked_once(gen: Gen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What npm has brought lies in the cache, where it is checked again."""
    files = {name: name.encode() for name in web_runtime.DIGESTS}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(web_runtime, "DIGESTS", digests)
    monkeypatch.setenv("GEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    write_package(tmp_path / "packed", web_runtime.PACKAGE, web_runtime.VERSION, files)
    write_program(tmp_path / "npm", f"echo called >> {tmp_path}/calls; /bin/cp {tmp_path}/packed onnxruntime-web.tgz")
    for number in range(3):
        code, _, err = gen("export", "shakespeare", "--web", tmp_path / str(number))
        assert code == 0, err
        assert (tmp_path / str(number) / "ort-wasm-simd-threaded.wasm").read_bytes() == files[web_runtime.WASM_FILE]
        if number == 1:
            [cached] = (tmp_path / "cache").glob("*/ort-wasm-simd-threaded.wasm")
            cached.write_bytes(b"damaged")
    assert (tmp_path / "calls").read_text().split() == ["called", "called"]


def write_program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def write_package(path: Path, name: str, version: str, files: dict[str, bytes]) -> None:
    """Write a package as npm packs it."""
    contents = {"package.json": json.dumps({"name": name, "version": version}).encode()}
    contents |= {f"dist/{file}": content for file, content in files.items()}
    with tarfile.open(path, "w:gz") as package:
        for member_name, content in contents.items():
            member = tarfile.TarInfo(f"package/{member_name}")
            member.size = len(content)
            package.addfile(member, io.BytesIO(content))
