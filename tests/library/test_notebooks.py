"""What scores, texts, streams and models show in a notebook, and the history of a run."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gentext
from gentext.errors import MissingExtra, RunError
from gentext.notebooks import SHOWN_SYMBOLS, facts_html, surprise_html, text_html

HOSTILE = "<script>alert(1)</script>\x1b[2J&"


@pytest.fixture(scope="module")
def model(tiny_run: Path) -> gentext.TextModel:
    return gentext.load(tiny_run)


@pytest.mark.parametrize(
    "html",
    [
        surprise_html(HOSTILE, list(HOSTILE), [-1.0] * len(HOSTILE), HOSTILE),
        surprise_html("", [HOSTILE], [float("-inf")]),
        text_html(HOSTILE, HOSTILE, HOSTILE),
        facts_html(HOSTILE, {HOSTILE: HOSTILE, "lines": [HOSTILE]}),
    ],
    ids=["symbols", "one symbol", "text", "facts"],
)
def test_hostile_text_is_escaped(html: str) -> None:
    assert "<script" not in html and "\x1b" not in html and "&amp;" in html


def test_long_text_is_shortened() -> None:
    html = surprise_html("long", "ab" * SHOWN_SYMBOLS, [-1.0] * 2 * SHOWN_SYMBOLS)
    assert html.count("<span") == SHOWN_SYMBOLS and f"{SHOWN_SYMBOLS:,} more symbols" in html
    assert len(text_html("", "a" * 10**6)) < 2 * SHOWN_SYMBOLS
    assert len(facts_html("", {"a": "b" * 10**6, "c": ["d"] * 10**6, "e": 10**400})) < 1500


def test_surprise_is_the_colour(model: gentext.TextModel) -> None:
    score = model.score("abab")
    html = score._repr_html_()
    assert html.count("<span") == 4 and f"{-score.logprobs[0] / 0.6931471805599453:.2f} bits" in html
    assert "rgba(214, 120, 20, 0.85)" in surprise_html("", "a", [-100.0])
    assert "rgba(214, 120, 20, 0.00)" in surprise_html("", "a", [0.0])


def test_an_inspection_has_the_surprise_of_the_score(model: gentext.TextModel, tmp_path: Path) -> None:
    inspected = model.inspect("abab", top=2)
    np.testing.assert_allclose(inspected.reading.logprobs, model.score("abab").logprobs, atol=1e-6)
    assert inspected.symbols == list("abab") and "4 symbols" in repr(inspected)
    assert inspected._repr_html_().count("<span") == 4
    inspected.save(tmp_path / "page.html")
    assert "4 symbols" in (tmp_path / "page.html").read_text("utf-8")
    assert gentext.InspectedText is type(inspected)


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("", {}, "no text to inspect"),
        (b"abab", {}, "expected a text"),
        ("abab", {"top": 0}, "top = 0: expected a whole number from 1 to 20"),
        ("abab", {"top": "5"}, "top = '5': expected a whole number"),
        ("abab", {"unit": "h.0.1"}, "expected a list of names"),
        ("abab", {"unit": ["zz"]}, "no such hidden unit; expected"),
        ("abab", {"unknown": "?"}, "unknown"),
    ],
    ids=["empty", "bytes", "top", "text as top", "text as units", "unit", "unknown"],
)
def test_an_impossible_inspection_is_an_error(
    model: gentext.TextModel, text: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(gentext.GenError, match=re.escape(message)) as error:
        model.inspect(text, **arguments)
    assert "\n" not in str(error.value)


def test_texts_and_streams_show_what_is_written(model: gentext.TextModel) -> None:
    [text] = model.write_many(["ab"], length=20, seed=1)
    assert text._repr_html_().count("<span") == 20 and "seed 1" in text._repr_html_()
    stream = model.stream("ab", length=20, seed=1)
    next(stream)
    assert "seed 1" in repr(stream) and "<span" in stream._repr_html_()


def test_model_shows_its_losses_and_public_names(model: gentext.TextModel) -> None:
    html = model._repr_html_()
    assert f">{model.card['val_loss']:.5g}<" in html and "verdict" in html
    assert {"write", "score", "history", "plot"} <= set(dir(model))
    assert not [name for name in dir(model) if name.startswith(("_", "prepare"))]
    assert dir(gentext) == sorted(gentext.__all__)


def test_history_and_plot(model: gentext.TextModel, tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [one.step for one in model.history] == sorted(one.step for one in model.history) != []
    figure: Any = model.plot()
    assert type(figure).__name__ == "Figure"
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else find_spec(name, *rest)
    )
    with pytest.raises(MissingExtra, match="plot"):
        model.plot()


def test_file_without_its_run_has_no_history(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_run / "model.onnx", tmp_path)
    model = gentext.load(tmp_path / "model.onnx")
    for ask in (lambda: model.history, model.plot):
        with pytest.raises(RunError, match="its history is not known"):
            ask()
