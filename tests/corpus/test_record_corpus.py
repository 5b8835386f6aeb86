"""gen train --records: what becomes a record, what is held out, and what is refused."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Gen
from helpers import configured, examples, fails
from hypothesis import given
from hypothesis import strategies as st

from gentext.corpus.novelty import KnownRecords, hash_record
from gentext.corpus.record_corpus import read_record_corpus
from gentext.corpus.split_corpus import SplitCorpus
from gentext.data.records import RecordReader, read_lines
from gentext.errors import CorpusError
from gentext.plugins.tokenizers.char import CharConfig, CharTokenizer
from gentext.runs.record_options import RecordOptions

CHAR = configured("tokenizer", "char", CharTokenizer, CharConfig())
#: Texts that a field of CSV or JSON may hold; line ends are LF in all that gentext reads.
FIELDS = st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), min_size=1, max_size=12)
LINES = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), min_size=1, max_size=12)


def read(path: Path, layout: str = "lines", val_frac: float = 0.2, val: str = "", **options: Any) -> SplitCorpus:
    return read_record_corpus(str(path), RecordOptions(layout, **options), CHAR, val_frac, val or None, None)


def texts(pieces: list[str], layout: str, **options: Any) -> list[str]:
    return [record.text for record in RecordReader("x", pieces, RecordOptions(layout, **options))]


def decode(corpus: SplitCorpus, part: str) -> list[str]:
    """Return the records of ``train`` or ``val``, from their tokens."""
    tokens = getattr(corpus, part)
    symbols = b"".join(
        b"\0" if token == tokens.boundary else corpus.tokenizer.token_bytes(token) for token in tokens.tokens.tolist()
    )
    return symbols.decode().split("\0")[:-1]


@examples(60)
@given(st.lists(LINES, min_size=1, max_size=9), st.integers(1, 30), st.booleans())
def test_lines_do_not_depend_on_pieces(lines: list[str], size: int, has_end: bool) -> None:
    text = "\n".join(lines) + "\n" * has_end
    pieces = [text[begin : begin + size] for begin in range(0, len(text), size)]
    assert list(read_lines(pieces)) == lines
    assert texts(pieces, "lines") == lines
    assert texts(["\n\n".join(lines)], "blank") == lines
    assert texts(["\n%%\n".join(lines) + "\n%%"], "sep:%%") == [line for line in lines if line != "%%"]


@examples(60)
@given(st.lists(st.tuples(FIELDS, FIELDS), min_size=1, max_size=9), st.sampled_from([",", "\t", ";"]))
def test_fields_come_as_they_are(rows: list[tuple[str, str]], delimiter: str) -> None:
    table = io.StringIO()
    csv.writer(table, delimiter=delimiter, lineterminator="\n").writerows([("name", "other"), *rows])
    assert texts([table.getvalue()], "csv:other") == [other for _, other in rows]
    reader = RecordReader("x", [table.getvalue()], RecordOptions("csv"))
    whole = [record.text for record in reader]
    read_again = list(csv.reader(io.StringIO("\n".join([reader.header, *whole]), newline=""), delimiter=delimiter))
    assert read_again == [["name", "other"], *map(list, rows)]
    objects = "".join(json.dumps({"name": name, "other": other}) + "\n" for name, other in rows)
    assert texts([objects], "jsonl:other") == [other for _, other in rows]


def test_what_is_held_out_depends_on_the_records_alone(tmp_path: Path) -> None:
    names = [f"name {number}" for number in range(500)]
    first, second = tmp_path / "a.txt", tmp_path / "b.txt.gz"
    first.write_text("\n".join(names))
    second.write_bytes(gzip.compress("\r\n".join([*names[::-1], *names]).encode() + b"\r\n\r\n"))
    once, twice = read(first), read(second)
    held_out = set(decode(once, "val"))
    assert 60 < len(held_out) < 140
    assert set(decode(twice, "val")) == held_out and sorted(decode(twice, "val")) == sorted([*held_out] * 2)
    assert decode(once, "train") == [name for name in names if name not in held_out]
    assert decode(read(second, dedup=True), "train") == [name for name in names[::-1] if name not in held_out]
    assert once.hashes is not None and once.hashes.tolist() == sorted(map(hash_record, decode(once, "train")))
    assert KnownRecords(once.hashes).contain(["name 1", "new"]).tolist() == ["name 1" not in held_out, False]
    again = read(first)  # from the cache
    assert np.array_equal(again.train.tokens, once.train.tokens) and again.held_out == once.held_out
    assert (again.counts == np.bincount(once.train.tokens, minlength=once.tokenizer.vocab_size)).all()


def test_a_file_of_its_own_is_held_out(tmp_path: Path) -> None:
    train, val = tmp_path / "train.txt", tmp_path / "val.txt"
    train.write_text("ab\nba\n")
    val.write_text("xy\n")  # its symbols are learned, too
    corpus = read(train, val=str(val))
    assert (decode(corpus, "train"), decode(corpus, "val")) == (["ab", "ba"], ["xy"])
    assert decode(read(train, val_frac=0), "train") == ["ab", "ba"]
    val.write_text("xy\nab\nxy\n")
    assert decode(read(train, val=str(val), dedup=True), "val").count("xy") == 1


def test_records_are_encoded_once_unless_the_code_of_the_tokenizer_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, encoded = tmp_path / "names.txt", []
    path.write_text("Anna\nBertha\nClara\n")
    encode = CharTokenizer.encode

    def encode_backwards(tokenizer: CharTokenizer, text: str) -> Any:
        return encode(tokenizer, text)[::-1]

    def encode_and_note(tokenizer: CharTokenizer, text: str) -> Any:
        encoded.append(text)
        return encode(tokenizer, text)

    assert decode(read(path, val_frac=0), "train") == ["Anna", "Bertha", "Clara"]
    monkeypatch.setattr(CharTokenizer, "encode", encode_and_note)
    read(path, val_frac=0)
    assert "Bertha" not in "".join(encoded)
    monkeypatch.setattr(CharTokenizer, "encode", encode_backwards)
    assert decode(read(path, val_frac=0), "train") == ["annA", "ahtreB", "aralC"]


def test_weights_count_records(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("word,count\nab,3\nc,0\nd,1\n")
    corpus = read(table, "csv:word", 0, weight="count")
    assert decode(corpus, "train") == ["ab", "d"] and corpus.train.repeats is not None
    assert corpus.train.repeats.tolist() == [3, 1] and corpus.train.symbols == 3 * 3 + 2
    assert corpus.counts.tolist() == [3, 3, 1, 4]


def test_odd_shapes(tmp_path: Path, gen: Gen, tiny_options: tuple[str, ...]) -> None:
    long, many, equal = tmp_path / "long", tmp_path / "many", tmp_path / "equal"
    long.write_text("ab" * 50_000 + "\nba\nab")
    many.write_text("\n".join(chr(0x4E00 + number) for number in range(5000)))
    equal.write_text("same\n" * 50)
    assert read(long, val_frac=0).records is not None and read(long, val_frac=0).train.lengths.max() == 100_001
    assert read(many).tokenizer.vocab_size == 5001
    for path in (long, equal):
        run = tmp_path / f"run {path.name}"
        words = ("--records", "lines", "--val-frac", 0, "--run", run, *tiny_options, "--steps", 3, "--no-export")
        code, _, err = gen("train", path, *words)
        assert code == 0, err
        assert (run / "held_out.jsonl").read_text() == "" and "nan" not in (run / "metrics.jsonl").read_text().lower()


@pytest.mark.parametrize(
    ("content", "words", "fragment"),
    [
        ("\n\n", ("lines",), "no records; expected some in the layout lines"),
        ("a\nb", ("csv:nmae",), "no column 'nmae'"),
        ("name,b\nc,d", ("csv:nmae",), "no column 'nmae'. Did you mean 'name'? Columns: name, b"),
        ('{"name": "a"}', ("jsonl:nmae",), "line 1: it has no field 'nmae'. Did you mean 'name'?"),
        ("a\nb\n", ("sep:%",), "no line is '%', so all of it is one record"),
        ("a,b\n1,2\n1,2,3\n", ("csv",), "line 3: 3 fields; the header has 2. skip_bad"),
        ('{"a": "b"}\n{"a"', ("jsonl:a",), "line 2: no JSON"),
        ("a,b\nx,1.5\n", ("csv:a", "--weight", "b"), "its weight 'b' is '1.5'; expected how many times"),
        ("same\n" * 9, ("lines",), "as val_frac, where 0 holds out none"),
        ("a\n", ("line",), "records = 'line': expected lines, blank, sep:TEXT, jsonl:FIELD, csv:COLUMN or csv"),
        ("a\n", ("lines", "--weight", "b"), "weight = 'b': only jsonl and csv have columns"),
        ("a\nb\n", ("lines", "--val-frac", "0", "--set", "batcher.name=stream"), "the batcher 'stream' cuts one text"),
    ],
)
def test_what_cannot_work_costs_one_line(
    tmp_path: Path, gen: Gen, content: str, words: tuple[str, ...], fragment: str
) -> None:
    (tmp_path / "text").write_text(content)
    code, out, err = gen("train", tmp_path / "text", "--records", *words, "--run", tmp_path / "run")
    last_line = err.splitlines()[-1]
    assert code in (1, 2) and not out and fragment in last_line and not (tmp_path / "run").exists(), err


def test_broken_records_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "t.csv"
    table.write_text('a,b\n1,2\n1\n"x"y,2\n3,4\n')
    corpus = read(table, "csv:a", 0, skip_bad=True)
    assert decode(corpus, "train") == ["1", "3"]
    lines = capsys.readouterr().err
    assert "line 3: left out: 1 fields; the header has 2" in lines and "2 broken records were left out" in lines
    with pytest.raises(CorpusError, match=r"damaged gzip file"):
        (tmp_path / "cut.gz").write_bytes(gzip.compress(b"a\nb\n" * 1000)[:-9])
        read(tmp_path / "cut.gz")


@pytest.mark.parametrize(
    ("layout", "content", "line"),
    [
        ("lines", b"ab\n\ncd\xe9\nef", 3),
        ("blank", b"ab\n\n\ncd\nx\xe9\xff\n\nef", 5),
        ("sep:%", b"ab\n%\ncd\nx\xe9\n%\nef", 4),
        ("jsonl:a", b'{"a": "ab"}\n{"a": "cd", "b": "\xe9"}\n{"a": "ef"}', 2),
        ("csv:a", b'a,b\nab,1\ncd,"\n\xe9"\nef,2', 4),
    ],
)
def test_records_of_broken_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], layout: str, content: bytes, line: int
) -> None:
    path = tmp_path / "texts"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=rf"^texts, line {line}: not UTF-8 \(0xe9\); .* skip_bad"):
        read(path, layout, 0)
    corpus = read(path, layout, 0, val=str(path), skip_bad=True)
    assert decode(corpus, "train") == ["ab", "ef"] == sorted(decode(corpus, "val"))
    lines = capsys.readouterr().err
    assert f"texts, line {line}: left out: not UTF-8 (0xe9)" in lines and "1 broken records were left out" in lines


def test_broken_bytes_elsewhere(tmp_path: Path) -> None:
    table, escaped = tmp_path / "table", tmp_path / "escaped"
    table.write_bytes(b"a,\xe9\n1,2\n")
    escaped.write_text('{"a": "b"}\n{"a": "\\ud800"}\n')
    with pytest.raises(CorpusError, match=r"^table, line 1: not UTF-8 \(0xe9\)"):
        read(table, "csv:a", 0, skip_bad=True)
    with pytest.raises(CorpusError, match=r"line 2: its 'a' escapes half a surrogate pair"):
        read(escaped, "jsonl:a", 0)


def test_held_out_records_are_measured(gen: Gen, tiny_records_run: Path, tmp_path: Path) -> None:
    code, out, _ = gen("eval", tiny_records_run, "--json")
    report = json.loads(out)
    last_row = json.loads((tiny_records_run / "metrics.jsonl").read_text().splitlines()[-1])
    assert code == 0 and report["nats_per_symbol"] == pytest.approx(last_row["val_loss"], abs=2e-4)
    rows = [json.loads(line) for line in (tiny_records_run / "held_out.jsonl").read_text().splitlines()]
    assert report["records"] == len(rows)
    (tmp_path / "held_out").write_text("\n".join(row["text"] for row in rows))
    assert json.loads(gen("eval", tiny_records_run, tmp_path / "held_out", "--json")[1]) == report | {
        "text": str(tmp_path / "held_out")
    }
    (tmp_path / "broken").write_bytes((tmp_path / "held_out").read_bytes() + b"\nab\xff\n")
    fails(1, gen("eval", tiny_records_run, tmp_path / "broken"), f"line {len(rows) + 1}: not UTF-8 (0xff)")
    code, out, err = gen("eval", tiny_records_run, tmp_path / "broken", "--json", "--skip-bad")
    assert code == 0 and json.loads(out) == report | {"text": str(tmp_path / "broken")} and "1 broken" in err
    code, _, err = gen("eval", tiny_records_run, "--notebook")
    assert code == 2 and "the notebook's formula is for one text" in err


def test_weights_count_in_the_loss(gen: Gen, tiny_records_run: Path, tmp_path: Path) -> None:
    weighted, repeated = tmp_path / "weighted", tmp_path / "repeated"
    for run in (weighted, repeated):
        shutil.copytree(tiny_records_run, run)
    texts = [json.loads(line)["text"] for line in (weighted / "held_out.jsonl").read_text().splitlines()][:2]
    rows = [{"text": text, "repeats": count} for text, count in zip(texts, (1, 3), strict=True)]
    (weighted / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (repeated / "held_out.jsonl").write_text("".join(json.dumps({"text": texts[n]}) + "\n" for n in (0, 1, 1, 1)))
    reports = [json.loads(gen("eval", run, "--json")[1]) for run in (weighted, repeated)]
    for figure in ("records", "symbols", "nats_per_symbol", "bits_per_record"):
        assert reports[0][figure] == pytest.approx(reports[1][figure], rel=1e-12)
    assert reports[0]["records"] == 4
    (weighted / "held_out.jsonl").write_text(json.dumps({"text": "a", "repeats": 0}))
    fails(1, gen("eval", weighted), "held_out.jsonl: damaged (a record counts 0 times)")
    fails(2, gen("eval", weighted, "--weight", "n"), "--weight is for a file of records")


def test_options_of_records_need_records(tmp_path: Path, gen: Gen) -> None:
    (tmp_path / "text").write_text("a\nb\n")
    for name, option in (("dedup", ("--dedup",)), ("weight", ("--weight", "n")), ("skip_bad", ("--skip-bad",))):
        advice = "expected the option records with it, which says how they lie in the file"
        result = gen("train", tmp_path / "text", *option)
        assert fails(2, result) == f"gen: error: {name} is for records: {advice}"
