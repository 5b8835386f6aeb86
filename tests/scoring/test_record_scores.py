"""The log-probabilities of many records: equal to the bit in any company, and to those of single texts."""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SHALLOW, TINY, Gen, make_text
from helpers import examples, fails, one_line, read_until, start
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

import gentext
from gentext.errors import CorpusError, UsageError
from gentext.plugins.samplers.session import Session, open_model
from gentext.scoring import record_scores
from gentext.stepping import fresh_states

LINES = [line for line in make_text(6_000).split("\n") if line]


@functools.cache
def load(run: Path) -> gentext.TextModel:
    return gentext.load(run)


@functools.cache
def session(run: Path) -> Session:
    return open_model(run / "model.onnx", "cpu", 1)


def json_rows(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


# -- equal to the bit -------------------------------------------------------------------------


@examples(25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_logits_do_not_depend_on_the_call(tiny_run: Path, data: st.DataObject) -> None:
    """Rows of one call are independent of its other rows, its length, and where texts are cut into calls."""
    rows = data.draw(st.sampled_from([5, 16, 32, 64]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    model = session(tiny_run)
    tokens = rng.integers(0, model.bundle.vocab_size, (rows, data.draw(st.integers(1, 40))))
    whole, _ = model.run(tokens, fresh_states(model.bundle, rows))
    cut = data.draw(st.integers(0, tokens.shape[1] - 1))
    order = rng.permutation(rows)
    state = fresh_states(model.bundle, rows)
    parts = []
    for part in (tokens[order, :cut], tokens[order, cut:]):
        if part.shape[1]:
            logits, state = model.run(np.ascontiguousarray(part), state)
            parts.append(logits)
    assert np.array_equal(np.concatenate(parts, axis=1), whole[order])


@examples(15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 999), count=st.sampled_from([1, 2, 4, 5, 64]), workers=st.integers(1, 3))
def test_scores_do_not_depend_on_other_texts(tiny_records_run: Path, seed: int, count: int, workers: int) -> None:
    model, rng = load(tiny_records_run), random.Random(seed)
    long_text = "".join(LINES)[: rng.choice([3, 17, 300])]
    texts = [long_text, *(line[: rng.randrange(len(line) + 1)] for line in rng.choices(LINES, k=count - 1))]
    [alone] = model.score_many([long_text])
    rng.shuffle(texts)
    scores = list(model.score_many(texts, workers=workers))
    assert [score.text for score in scores] == texts
    assert np.array_equal(scores[texts.index(long_text)].logprobs, alone.logprobs)


def test_windows_change_nothing(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(tiny_run)
    scores = list(model.score_many(LINES))
    monkeypatch.setattr(record_scores, "WINDOW_TEXTS", 7)
    cut = list(model.score_many(iter(LINES)))
    assert [score.logprobs.tobytes() for score in cut] == [score.logprobs.tobytes() for score in scores]


# -- equal to the scores of single texts --------------------------------------------------------


def test_lines_are_texts_from_a_fresh_state(tiny_run: Path) -> None:
    model, alone = load(tiny_run), gentext.load(tiny_run / "model.onnx")
    for score in model.score_many(LINES[:40]):
        expected = alone.score(score.text)
        assert [model.symbols[token] for token in score.tokens] == expected.symbols
        np.testing.assert_allclose(score.logprobs, expected.logprobs, rtol=0, atol=2e-6)
        assert score.bits == pytest.approx(-score.logprob / np.log(2))
    [empty] = model.score_many([""])
    assert (empty.logprob, len(empty.tokens)) == (0, 0)


def test_records_count_their_end(tiny_records_run: Path) -> None:
    """A record is read after the boundary, which ends it too: its chance is that of the symbols one after another."""
    model, opened = load(tiny_records_run), session(tiny_records_run)
    boundary = opened.bundle.boundary
    for score in model.score_many(["", *LINES[:5]]):
        assert score.tokens[-1] == boundary
        inputs = np.array([[boundary, *score.tokens[:-1]]])
        logits, _ = opened.run(inputs, fresh_states(opened.bundle, 1))
        exponents = np.exp(logits[0].astype(np.float64))
        expected = np.log(exponents / exponents.sum(axis=1, keepdims=True))[range(len(score.tokens)), score.tokens]
        np.testing.assert_allclose(score.logprobs, expected, rtol=0, atol=2e-6)


def test_a_generator_alone(tiny_run: Path) -> None:
    model = gentext.load(tiny_run / "generator.onnx")
    for score, expected in zip(model.score_many(LINES[:9]), load(tiny_run).score_many(LINES[:9]), strict=True):
        np.testing.assert_allclose(score.logprobs, expected.logprobs, rtol=0, atol=0.1)  # it is in int8
    assert [line for line in model.messages if "slower to score with" in line]


def test_arguments_of_score_many(tiny_run: Path) -> None:
    model = load(tiny_run)
    with pytest.raises(UsageError, match="expected several texts"):
        model.score_many("text")
    scores = model.score_many(["name", "naïve", "name"])
    assert next(scores).text == "name"
    with pytest.raises(CorpusError, match=r"texts\[1\]: 2 characters .* first 'ï' at position 2"):
        next(scores)
    with pytest.raises(UsageError, match=r"^unknown = 'no': expected error or skip$"):
        model.score_many(["name"], unknown="no")
    [score] = model.score_many(["naïmée"], unknown="skip")
    [expected] = model.score_many(["name"])
    assert (score.text, score.logprob) == ("naïmée", expected.logprob)
    assert model.messages[-1] == "2 characters of the texts are unknown to the model and left out"


# -- the command --------------------------------------------------------------------------------


def test_stream_has_the_loss_of_gen_eval(gen: Gen, tiny_run: Path, tiny_text: Path) -> None:
    file = tiny_run / "model.onnx"
    _, out, _ = gen("eval", file, tiny_text, "--json")
    loss = json.loads(out)
    code, out, err = gen("score", tiny_run, tiny_text)
    assert code == 0, err
    [row] = json_rows(out)
    assert row["symbols"] == loss["symbols"]
    assert -row["logprob"] / row["symbols"] == pytest.approx(loss["nats_per_character"], rel=1e-12)
    _, out, _ = gen("score", tiny_run, "-", "--symbols", "--format", "csv", stdin=tiny_text.read_bytes()[:3000])
    rows = list(csv.DictReader(io.StringIO(out)))
    score = gentext.load(file).score(tiny_text.read_text(encoding="utf-8")[:3000])
    assert [row["symbol"] for row in rows] == score.symbols
    assert [float(row["logprob"]) for row in rows] == score.logprobs.tolist()


def test_records_in_any_layout(gen: Gen, tiny_records_run: Path, tmp_path: Path) -> None:
    expected = [(score.text, score.logprob, len(score.tokens)) for score in load(tiny_records_run).score_many(LINES)]
    fields = [json.dumps({"id": number, "name": line}) for number, line in enumerate(LINES)]
    (tmp_path / "lines.txt").write_text("\r\n\n".join(LINES), encoding="utf-8", newline="")
    (tmp_path / "fields.jsonl").write_text("\n".join(fields), encoding="utf-8")
    for name, options in {"lines.txt": [], "fields.jsonl": ["--records", "jsonl:name"]}.items():
        code, out, err = gen("score", tiny_records_run, tmp_path / name, *options)
        assert code == 0, err
        rows = json_rows(out)
        assert [(row["text"], row["logprob"], row["symbols"]) for row in rows] == expected
        assert [row["number"] for row in rows] == list(range(len(LINES)))
    _, out, _ = gen("score", tiny_records_run, tmp_path / "lines.txt", "--symbols", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == sum(symbols for _, _, symbols in expected)
    assert sum(float(row["logprob"]) for row in rows) == pytest.approx(sum(logprob for _, logprob, _ in expected))
    assert {row["symbol"] for row in rows if row["number"] == "0"} == {*LINES[0], ""}
    assert [row["line"] for row in rows if row["position"] == "0"][:3] == ["1", "3", "5"]


def test_ratio_of_two_models(gen: Gen, tiny_run: Path, tiny_records_run: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "lines.txt", tmp_path / "scores.parquet"
    source.write_text("\n".join(LINES), encoding="utf-8")
    code, out, err = gen("score", tiny_records_run, source, "--against", tiny_run, "--records", "lines", "--no-text")
    assert code == 0, err
    rows = json_rows(out)
    assert [row["logprob"] for row in rows] == [score.logprob for score in load(tiny_records_run).score_many(LINES)]
    assert [row["logprob_against"] for row in rows] == [score.logprob for score in load(tiny_run).score_many(LINES)]
    assert all(row["ratio"] == row["logprob"] - row["logprob_against"] and "text" not in row for row in rows)
    fails(2, gen("score", tiny_run, source, "--against", tiny_records_run), "cannot score a text as one stream")
    options = ["--against", tiny_run, "--symbols"]
    fails(2, gen("score", tiny_records_run, source, *options), "have different symbols")
    parquet = pytest.importorskip("pyarrow.parquet")
    code, _, err = gen("score", tiny_records_run, source, "--format", "parquet", "-o", target)
    assert code == 0, err
    assert [row["logprob"] for row in parquet.read_table(target).to_pylist()] == [row["logprob"] for row in rows]


def test_bad_records(gen: Gen, tiny_records_run: Path, tmp_path: Path) -> None:
    score, before = ["score", tiny_records_run], tmp_path / "before.csv"
    before.write_text("kept")
    source = "\n".join([*LINES[:2], "été", LINES[2]]).encode()
    result = gen(*score, "-", stdin=source)
    fails(1, result, "standard input, line 3", "first 'é' at position 0", "--skip-bad")
    assert [row["text"] for row in json_rows(result[1])] == LINES[:2]
    fails(1, gen(*score, "-", "-o", before, stdin=source), "line 3")
    assert before.read_text() == "kept"
    code, out, err = gen(*score, "-", "--skip-bad", stdin=source)
    assert code == 0
    assert [row["line"] for row in json_rows(out)] == [1, 2, 4]
    assert "gen: warning: 1 records with characters that the model does not know were left out" in err
    source = "\n".join(LINES[:2]).encode() + b"\nab\xff\n" + LINES[2].encode()
    result = gen(*score, "-", stdin=source)
    fails(1, result, "standard input, line 3: not UTF-8 (0xff)", "skip_bad")
    assert [row["text"] for row in json_rows(result[1])] == LINES[:2]
    code, out, err = gen(*score, "-", "--skip-bad", stdin=source)
    assert code == 0
    assert [row["line"] for row in json_rows(out)] == [1, 2, 4]
    assert "standard input, line 3: left out: not UTF-8 (0xff)" in err
    assert "1 broken records were left out" in err
    fails(1, gen(*score, "-", stdin=b""), "empty")
    fails(1, gen(*score, tmp_path / "none"), "no such file")
    fails(2, gen(*score, "-", "--format", "xml", stdin=source), "expected jsonl, csv or parquet")
    fails(2, gen(*score, "-", "--records", "rows", stdin=source), "records = 'rows': expected")
    fails(2, gen(*score, "-", "-o", tmp_path, stdin=source), "is a folder")
    fails(2, gen(*score, "-", "-o", tmp_path / "no" / "file", stdin=source), "there is no folder")


def test_unknown_characters_of_records_are_left_out(gen: Gen, tiny_run: Path, tmp_path: Path) -> None:
    """The row has the record as it stands, and the figures of what is left; other bad records stay bad."""
    expected = list(load(tiny_run).score_many([LINES[0], "name"]))
    lines, table = tmp_path / "lines.jsonl", tmp_path / "table.csv"
    texts = [f"é{LINES[0]}", "naßméeé"]
    lines.write_text("\n".join([json.dumps({"name": texts[0]}), "{", json.dumps({"name": texts[1]})]), encoding="utf-8")
    table.write_text(f'id,name\n1,"{texts[0]}"\n2\n3,{texts[1]}\n', encoding="utf-8")
    for file, layout in ((lines, "jsonl:name"), (table, "csv:name")):
        score = ["score", tiny_run, file, "--records", layout]
        fails(1, gen(*score), "first 'é' at position 0; use --unknown skip to leave out", "--skip-bad")
        code, out, err = gen(*score, "--skip-bad")
        assert (code, out) == (0, "")
        assert "use --unknown skip" in err and "2 records with characters" in err
        fails(1, gen(*score, "--unknown", "skip"), "skip_bad")
        code, out, err = gen(*score, "--unknown", "skip", "--skip-bad")
        assert code == 0, err
        assert [(row["text"], row["logprob"], row["symbols"]) for row in json_rows(out)] == [
            (text, score.logprob, len(score.tokens)) for text, score in zip(texts, expected, strict=True)
        ]
        assert f"4 characters of {file} are unknown to the model and left out" in err
        assert "1 broken records were left out" in err and "records with characters" not in err


def test_unknown_characters_of_two_models(gen: Gen, tiny_run: Path, tiny_records_run: Path, tmp_path: Path) -> None:
    """What one model does not know is left out for both, in records and in texts."""
    other_text, other_run = tmp_path / "other.txt", tmp_path / "other"
    other_text.write_text("abé " * 500, encoding="utf-8")
    code, _, err = gen("train", other_text, "--run", other_run, "--steps", 1, *TINY, *SHALLOW)
    assert code == 0, err
    for source, options in (("aébca\n", ["--records", "lines"]), ("aébca", [])):
        models = ["score", tiny_run, "-", "--against", other_run, "--unknown", "skip", *options]
        code, out, err = gen(*models, stdin=source.encode())
        assert code == 0, err
        [row] = json_rows(out)
        assert row["symbols"] == 3
        for column, run in (("logprob", tiny_run), ("logprob_against", other_run)):
            assert row[column] == pytest.approx(-gentext.load(run / "model.onnx").score("aba").nats, rel=1e-5)
        assert "2 characters of standard input are unknown to the model and left out" in err


@pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")
@pytest.mark.slow
def test_pipes(tiny_records_run: Path, tmp_path: Path) -> None:
    """The reader closes the pipe; Ctrl-C; the disk is full."""
    source = tmp_path / "lines.txt"
    words = make_text(200_000).split()
    source.write_text("\n".join(random.Random(1).choices(words, k=300_000)), encoding="utf-8")
    with start("score", tiny_records_run, source) as process:
        read_until(process.stdout, b"\n")
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 1
    assert b"gen: " not in err and b"Traceback" not in err
    process = start("score", tiny_records_run, source)
    read_until(process.stdout, b"\n")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    one_line(err.decode(), "stopped by Ctrl-C")
    with open("/dev/full", "wb") as full:
        process = start("score", tiny_records_run, source, stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    one_line(err.decode(), "the output: No space left on device")
