"""`gen export --web`: the folder, what it is made of, and what its page does in headless Chromium."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from browser import CHROMIUM, Browser, running_browser
from conftest import Gen
from helpers import fails
from node_packages import find_package
from static_server import QuietHandler, serve_folder

from gentext.data.page_files import page_files
from gentext.data.shipped import shipped_models
from gentext.export import web_runtime
from gentext.run import GENERATOR_FILE

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
#: Opens the engine of the page once, as `engine`.
OPEN = "window.engine ??= await (await import('/engine.js')).openEngine();"


@pytest.fixture(scope="module")
def runtime() -> Path:
    """The npm package onnxruntime-web."""
    return find_package("onnxruntime-web")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, gen: Gen, tiny_run: Path, runtime: Path) -> Path:
    """A run in a folder for browsers, in fp32."""
    path = tmp_path_factory.mktemp("web") / "site"
    code, _, err = gen("export", tiny_run, "--web", path, "--ort-web", runtime)
    assert code == 0, err
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with running_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, folder: Path) -> Iterator[Browser]:
    """The page of the folder."""
    with serve_folder(folder) as address:
        browser.open(address)
        yield browser


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


def write(page: Browser, request: dict[str, Any]) -> Any:
    """Return the result of a request to the page's engine, without its session, which stays in the page."""
    script = """
        const request = REQUEST;
        let streamed = "";
        if (request.session) request.session = window.session;
        const result = await engine.write({ ...request, onText: ({ text }) => (streamed += text) });
        window.session = result.session;
        return { ...result, seed: String(result.seed), session: null, streamed };
    """
    return page.run_body(OPEN + script.replace("REQUEST", json.dumps(request)))


@needs_chromium
def test_writes_what_python_writes(gen: Gen, page: Browser, folder: Path) -> None:
    for seed in range(5):
        result = write(page, {"prompt": "ab c", "seed": seed, "length": 300, "logprobs": 2})
        code, out, _ = gen(
            "sample", folder / GENERATOR_FILE, "--prime", "ab c", "--seed", seed, "--length", 300, "--json"
        )
        assert code == 0
        assert result["text"] == result["streamed"] == json.loads(out)["text"]
        assert "".join(token["text"] for token in result["tokens"]) == result["text"]
    first = write(page, {"seed": 9, "length": 100})
    further = write(page, {"session": True, "length": 200})
    assert first["text"] + further["text"] == write(page, {"seed": 9, "length": 300})["text"]


@needs_chromium
def test_a_text_can_be_ended(page: Browser) -> None:
    result = page.run_body(
        OPEN
        + """
        const controller = new AbortController();
        const onText = () => controller.abort();
        const { finish, text } = await engine.write({ seed: 1, length: 10 ** 9, onText, signal: controller.signal });
        return { finish, length: text.length };
        """
    )
    assert result["finish"] == "abort" and 0 < result["length"] < 100_000


@needs_chromium
def test_the_page_writes(page: Browser) -> None:
    """The page of `gen serve` does without a server what it does with one: colours, branches and undo."""
    page.type("ab cd ")
    page.press("Tab")
    page.wait_until_written()
    text = page.text
    assert len(text) > 100 and text.startswith("ab cd "), page.status
    page.press("Tab")
    page.wait_until_written()
    assert page.text.startswith(text) and len(page.text) > len(text)
    page.press("Control+z")
    assert page.text == text
    assert not page.errors, page.errors


@needs_chromium
def test_the_page_describes_its_model(page: Browser) -> None:
    model = page.run_body(OPEN + "return engine.describe()")
    temperature = next(param for param in model["chain"] if param["param"] == "temperature")
    assert (temperature["link"], temperature["default"], temperature["low"]) == ("temperature", 0.8, 0)
    assert "a" in model["symbols"] and model["abilities"]["top"] == 10
    assert page.run_body(OPEN + "return engine.write({ prompt: 'é' }).catch((error) => error.code)") == "prime"


class StrangeHandler(QuietHandler):
    """Serves .mjs as servers do that do not know it."""

    extensions_map: ClassVar[dict[str, str]] = {**QuietHandler.extensions_map, ".mjs": "application/octet-stream"}


#: What can be wrong with a folder or a browser: the code of the error, and what is done about it.
FAULTS = ["damaged", "format", "not_generator", "missing", "wasm", "settings"]


def open_error(browser: Browser, folder: Path, handler: type[QuietHandler] = QuietHandler) -> Any:
    """Return code and line of the error with which the engine of a folder opens, or what it writes."""
    with serve_folder(folder, handler) as address:
        browser.visit(address)
        script = """
            const { openEngine } = await import('/engine.js');
            try {
              return (await (await openEngine()).write({ seed: 1, length: 20 })).text.length;
            } catch (error) {
              return [error.code, error.message];
            }
        """
        return browser.run_body(script)


@needs_chromium
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_a_folder(browser: Browser, folder: Path, tmp_path: Path, tiny_run: Path, fault: str) -> None:
    site = tmp_path / "site"
    shutil.copytree(folder, site)
    file = site / GENERATOR_FILE
    content = file.read_bytes()
    if fault == "damaged":
        file.write_bytes(content[: len(content) // 2])
    elif fault == "format":
        file.write_bytes(content.replace(b"gentext.format\x12\x014", b"gentext.format\x12\x015"))
    elif fault == "not_generator":
        shutil.copy(tiny_run / "model.onnx", file)
    elif fault == "missing":
        file.unlink()
    elif fault == "wasm":
        (site / web_runtime.WASM_FILE).write_bytes(b"no module")
    else:
        (site / "engine.json").write_text("{")
    code, line = open_error(browser, site)
    assert code == {"missing": "network", "wasm": "damaged", "settings": "damaged"}.get(fault, fault), line
    assert "\n" not in line and ";" in line


@needs_chromium
def test_a_server_that_does_not_know_mjs(browser: Browser, folder: Path) -> None:
    assert open_error(browser, folder, StrangeHandler) == 20


@needs_chromium
def test_without_webassembly(browser: Browser, folder: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(folder, site)
    worker = site / "worker.js"
    worker.write_text(f"delete self.WebAssembly;\n{worker.read_text()}")
    code, line = open_error(browser, site)
    assert code == "no_webassembly" and "has no WebAssembly" in line


@needs_chromium
def test_memory_refused(folder: Path, tmp_path: Path) -> None:
    with running_browser(tmp_path, "--js-flags=--wasm-max-mem-pages=64") as browser:
        code, line = open_error(browser, folder)
        assert code == "memory" and "memory" in line, line


@needs_chromium
def test_opened_as_a_file(browser: Browser, folder: Path) -> None:
    browser.visit((folder / "index.html").as_uri())
    browser.wait("document.querySelector('[role=alert]')")
    assert "opened as a file" in browser.run("document.body.textContent")


class LosingHandler(QuietHandler):
    """Loses the connection in the middle of the model."""

    def do_GET(self) -> None:
        if not self.path.endswith(".onnx"):
            super().do_GET()
            return
        content = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        time.sleep(0.2)
        self.close_connection = True


@needs_chromium
def test_network_gone(browser: Browser, folder: Path) -> None:
    code, line = open_error(browser, folder, LosingHandler)
    assert code == "network" and GENERATOR_FILE in line
