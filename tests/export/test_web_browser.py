"""The folder of `gen export --web` in headless Chromium: what its page writes, and what can be wrong with it."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from browser import CHROMIUM, Browser, running_browser
from conftest import Gen
from node_packages import find_package
from static_server import QuietHandler, serve_folder

import gentext
from gentext.export import web_runtime
from gentext.run import GENERATOR_FILE

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]
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


def test_writes_records_as_python_does(
    gen: Gen, browser: Browser, tiny_records_run: Path, runtime: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    code, _, err = gen("export", tiny_records_run, "--web", site, "--ort-web", runtime)
    assert code == 0, err
    records = gentext.load(site / GENERATOR_FILE).write_many(count=12, seed=1, length=40)
    assert {record.finish for record in records} == {"end", "length"}
    with serve_folder(site) as address:
        browser.open(address)
        for stream, record in enumerate(records):
            result = write(browser, {"seed": 1, "stream": stream, "length": 40, "logprobs": 2})
            assert (result["text"], result["finish"]) == (record.text, record.finish)
            assert len(result["tokens"]) == len(record.tokens)
        stream = next(number for number, record in enumerate(records) if record.finish == "end" and record.text)
        assert write(browser, {"seed": 1, "stream": stream, "length": 40})["finish"] == "end"
        assert write(browser, {"session": True, "length": 40})["text"] == ""
        browser.run("document.querySelector('#text').focus()")
        for _ in range(20):
            browser.press("Tab")
            browser.wait_until_written()
            if browser.run("document.querySelector('.backdrop .end') !== null"):
                break
        assert browser.status == "The record has ended. Write begins another one."
    assert not browser.errors, browser.errors


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


def test_the_page_writes_what_matches(page: Browser, folder: Path) -> None:
    page.run(
        """{ const field = document.querySelector("#match"); field.value = "[ab]{5}( c+)?";
        field.dispatchEvent(new Event("change")); document.querySelector("#text").focus(); }"""
    )
    page.press("Tab")
    page.wait_until_written()
    assert re.fullmatch("[ab]{5}( c+)?", page.text), page.status
    page.run("document.querySelector('#match').value = 'a(?=b)'")
    page.press("Tab")
    page.wait_until_written()
    assert page.status == 'Match = "a(?=b)": look-ahead and look-behind cannot be used here.'


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


def test_a_server_that_does_not_know_mjs(browser: Browser, folder: Path) -> None:
    assert open_error(browser, folder, StrangeHandler) == 20


def test_without_webassembly(browser: Browser, folder: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(folder, site)
    worker = site / "worker.js"
    worker.write_text(f"delete self.WebAssembly;\n{worker.read_text()}")
    code, line = open_error(browser, site)
    assert code == "no_webassembly" and "has no WebAssembly" in line


def test_memory_refused(folder: Path, tmp_path: Path) -> None:
    with running_browser(tmp_path, "--js-flags=--wasm-max-mem-pages=64") as browser:
        code, line = open_error(browser, folder)
        assert code == "memory" and "memory" in line, line


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


def test_network_gone(browser: Browser, folder: Path) -> None:
    code, line = open_error(browser, folder, LosingHandler)
    assert code == "network" and GENERATOR_FILE in line
