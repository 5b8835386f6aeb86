"""``gen inspect``: its figures are the model's, the page holds them and stands alone, and bad input costs one line."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Gen
from helpers import fails

import gentext
from gentext.inspection.reading import read_tokens, unit_names
from gentext.scoring.score import encode_text


def page_data(path: Path) -> dict[str, Any]:
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', path.read_text("utf-8"), re.DOTALL)
    parsed: dict[str, Any] = json.loads(data)
    return parsed


def numbers(text: str, dtype: str) -> Any:
    return np.frombuffer(base64.b64decode(text), dtype)


@pytest.fixture(scope="module")
def text(tiny_text: Path) -> str:
    return tiny_text.read_text(encoding="utf-8")[:1500]


@pytest.mark.parametrize("file", ["model.onnx", "generator.onnx"])
def test_figures_are_those_of_the_model(file: str, tiny_run: Path, text: str) -> None:
    model = gentext.load(tiny_run / file)
    from gentext.describe import tokenizer_of

    tokens = encode_text(model.bundle, tokenizer_of(model.bundle), text)
    reading = read_tokens(model._sampler, tokens, 3)
    assert np.allclose(reading.logprobs, model.score(text).logprobs, atol=1e-5)
    assert reading.unit_names == unit_names(model.bundle) and len(set(reading.unit_names)) == 2 * 8 * len(
        {name.split(".")[1] for name in reading.unit_names}
    )
    # The states are those that a session with the same text ends in.
    sampler: Any = model._sampler
    states = sampler.initial(1)
    for token in [model.bundle.start, *tokens.tolist()]:
        _, states = sampler.advance(np.array([[token]]), states)
    real_states = [np.ravel(state) for state in states if state.dtype == np.float32]  # hashes are no units
    assert np.array_equal(reading.activations[-1], np.concatenate(real_states))
    assert (np.diff(reading.top_logprobs, axis=1) <= 0).all()
    is_first = reading.top_tokens[:, 0] == tokens
    assert np.allclose(reading.top_logprobs[is_first, 0], reading.logprobs[is_first])


def test_page(tiny_run: Path, text: str, tmp_path: Path, gen: Gen) -> None:
    page, picture = tmp_path / "page.html", tmp_path / "picture.png"
    (tmp_path / "<b>.txt").write_text(text, encoding="utf-8")
    words = ("inspect", tiny_run, tmp_path / "<b>.txt", "-o", page, "--png", picture, "--unit", "c.0.3", "--top", 2)
    code, out, err = gen(*words)
    assert code == 0 and f"reads {len(text):,} symbols" in out and f"wrote {page}" in err
    data, html = page_data(page), page.read_text("utf-8")
    assert "<b>" not in html and "&lt;b&gt;" in html and "$title" not in html and "$data" not in html
    assert not re.search(r"https?://|@import|url\(|src=", html)  # it stands alone
    tokens = numbers(data["tokens"], "<u4")
    assert "".join(data["symbols"][token] for token in tokens) == text
    assert numbers(data["surprise"], "<f4").sum() == pytest.approx(
        -gentext.load(tiny_run).score(text).logprobs.sum(), rel=1e-4
    )
    assert len(numbers(data["topTokens"], "<u4")) == 2 * len(text) and data["units"][0]["name"] == "c.0.3"
    assert all(len(numbers(unit["series"], "i1")) == len(text) for unit in data["units"])
    names = [feature["name"] for feature in data["features"]]
    assert names[:2] == ["line end", "place in the line"] and len(out.splitlines()) == 1 + len(names)
    assert "quotes: too few places" in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(html) < 40_000 + 120 * len(text)


def test_where_texts_come_from(tiny_run: Path, tmp_path: Path, gen: Gen) -> None:
    page = tmp_path / "page.html"
    for words, stdin, expected in (
        (("-",), b"ab. ", 4),
        (("--text", "bacca"), b"", 5),
        (("--length", 30), b"", 30),
        (("-", "--length", 3), b"ab. " * 99, 3),
        (("--text", "ba世cca", "--unknown", "skip"), b"", 5),
        (("-", "--length", 3, "--unknown", "skip"), "世a世b.世 ".encode() * 99, 3),
    ):
        code, out, err = gen("inspect", tiny_run, *words, "-o", page, stdin=stdin)
        assert code == 0, err
        assert f" reads {expected} symbols" in out and ("--length takes more" in err) == ("--length" in words)
        assert ("are unknown to the model and left out" in err) == ("--unknown" in words)
        assert len(numbers(page_data(page)["tokens"], "<u4")) == expected


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ((), 2, "expected -o PAGE.html"),
        (("-o", "{tmp}/p.html", "--text", "a", "-"), 2, "expected one of them"),
        (("-o", "{tmp}/p.html", "--text", ""), 1, "no text to inspect"),
        (("-o", "{tmp}/p.html", "--text", "ab世"), 1, "first '世' at position 2; use --unknown skip to leave out"),
        (("-o", "{tmp}/p.html", "--text", "世", "--unknown", "skip"), 1, "no text to inspect"),
        (("-o", "{tmp}/p.html", "--text", "a", "--length", "0"), 2, "--length 0: expected 1 or more"),
        (("-o", "{tmp}/p.html", "--text", "a", "--top", "0"), 2, "--top 0: expected a whole number from 1 to 20"),
        (("-o", "{tmp}/p.html", "--text", "a", "--unit", "c.0.99"), 2, "--unit c.0.99: no such hidden unit"),
        (("-o", "{tmp}/no/p.html", "--text", "a"), 2, "there is no folder"),
        (("-o", "{tmp}", "--text", "a"), 2, "is a folder"),
        (("--png", "{tmp}", "--text", "a"), 2, "is a folder"),
        (("{tmp}/no.txt", "-o", "{tmp}/p.html"), 1, "no.txt"),
    ],
)
def test_bad_input(words: tuple[str, ...], status: int, message: str, tiny_run: Path, tmp_path: Path, gen: Gen) -> None:
    fails(status, gen("inspect", tiny_run, *(word.format(tmp=tmp_path) for word in words)), message)
    assert not list(tmp_path.iterdir())


def test_bad_models(tmp_path: Path, gen: Gen) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no model")
    fails(1, gen("inspect", tmp_path / "x.onnx", "--text", "a", "-o", tmp_path / "p.html"), "x.onnx")
    fails(1, gen("inspect", tmp_path / "none", "--text", "a", "-o", tmp_path / "p.html"), "none")


def test_in_a_browser(tiny_run: Path, tmp_path: Path, gen: Gen) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed")
    page = tmp_path / "page.html"
    code, _, err = gen("inspect", tiny_run, "--text", "ab.\nbac", "--unit", "h.0.1", "-o", page)
    assert code == 0, err
    keys = ["ArrowRight", "ArrowDown", "u"]
    script = "$('text').focus();" + "".join(
        f"$('text').dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}', bubbles: true}}));" for key in keys
    )
    page.write_text(page.read_text("utf-8").replace("paint();\n</script>", f"paint();{script}\n</script>"), "utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    process = subprocess.run([*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120)
    body = process.stdout.partition("<body>")[2].partition("<script")[0]
    assert len(re.findall(r"data-i=", body)) == 7, body
    assert re.search(r"<span[^>]* style=\"background: rgb\(var\(--", body), body
    assert re.search(r'data-i="(\d+)"[^>]*class="at"', body)[1] == "5"  # type: ignore[index]
    assert "symbol 6: probability" in body and "unit h.0.1 behind it" in body


def test_missing_package_of_the_picture_is_said_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gen: Gen
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    fails(1, gen("inspect", tmp_path / "no.onnx", "--png", tmp_path / "p.png"), "--png needs packages")


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_device_stays_a_device(gen: Gen, tiny_run: Path) -> None:
    words = ("inspect", tiny_run, "--text", "ab")
    assert gen(*words, "-o", "/dev/null", "--png", "/dev/null")[0] == 0 and Path("/dev/null").is_char_device()
    fails(1, gen(*words, "-o", "/dev/full"), "No space left on device")
    assert Path("/dev/full").is_char_device()
