"""Writing records: the same ones whatever runs beside them, whole, new and different; files that are gone on with."""

from __future__ import annotations

import csv
import itertools
import json
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import SHALLOW, run_gen, train_records
from helpers import examples
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

import gentext
from gentext.corpus.novelty import HashSet, KnownRecords, hash_record
from gentext.data.records import format_row
from gentext.errors import GenError, PluginError, UsageError
from gentext.exported.boundary import RecordsMeta
from gentext.library.loading import TextModel
from gentext.records import record_output
from gentext.records.record_output import RecordFile, RecordFormat
from gentext.records.record_plan import TRY_STREAMS, RecordPlan, WrittenRecord
from gentext.records.record_rows import DrawnRecord, RecordTry
from gentext.records.record_writing import RecordStream

#: Fields of a table; line ends are LF in all that gentext writes.
FIELDS = st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), min_size=1, max_size=5)

WORDS = [first + second for first in ("ab", "ba", "c", "dd") for second in ("a", "bc", "d")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of short records, many of which repeat."""
    folder = tmp_path_factory.mktemp("words")
    return train_records(folder, random.Random(0).choices(WORDS, k=900), 60, *SHALLOW)


@pytest.fixture(scope="module")
def model(run: Path) -> TextModel:
    return gentext.load(run)


def test_records_depend_on_seed_and_number_alone(model: TextModel, run: Path) -> None:
    records = list(model.records(60, seed=3, temperature=1))
    assert [record.number for record in records] == [*range(60)]
    for record in records:
        number, attempt = record.stream % TRY_STREAMS, record.stream // TRY_STREAMS
        assert number == record.number and 0 <= attempt < 99
        [again] = model.write_many(seed=3, stream=record.stream, length=99, temperature=1)
        assert (again.text, again.finish, again.tokens, again.logprobs) == (
            *(record.text, "end", record.tokens, record.logprobs),
        )
        assert record.logprob == sum(record.logprobs)
    for slots in (1, 7, 64):
        assert list(model.records(60, seed=3, temperature=1, slots=slots)) == records
        [*beginning] = model.records(60, seed=3, temperature=1, slots=slots, prefix="bab")
        assert beginning == [*model.records(60, seed=3, temperature=1, prefix="bab")]
    [again] = model.write_many(["bab"], seed=3, stream=beginning[7].stream, length=99, temperature=1)
    assert ("bab" + again.text, again.logprobs) == (beginning[7].text, beginning[7].logprobs)
    unordered = list(model.records(60, seed=3, temperature=1, ordered=False, slots=7))
    assert sorted(unordered) == records
    shards = [list(model.records(60, seed=3, temperature=1, shard=(number, 3))) for number in range(3)]
    assert sorted(itertools.chain(*shards)) == records
    in_numpy = gentext.load(run, sampler="torch").records(60, seed=3, temperature=1, slots=9)
    assert [(record.text, record.stream) for record in in_numpy] == [(one.text, one.stream) for one in records]


@pytest.mark.parametrize("shard", [(0, 1), (0, 2), (1, 2)])
def test_new_and_different_records_in_any_slots(model: TextModel, run: Path, shard: tuple[int, int]) -> None:
    options = {"unique": True, "novel": True, "shard": shard, "accept": "[a-d]+"}
    by_slots = [list(model.records(60, seed=3, temperature=1, slots=slots, **options)) for slots in (1, 16, 256)]
    assert by_slots[0] == by_slots[1] == by_slots[2] and len(by_slots[0]) == 60 // shard[1]
    new_texts = [record.text for record in by_slots[0]]
    training = KnownRecords.read(run / "training.hashes")
    trained = set(itertools.compress(WORDS, training.contain(WORDS)))
    assert len(trained) > len(WORDS) // 2 and not training.contain(new_texts).any()
    expected: list[str] = []  # one after the other, by the rule
    for number in range(shard[0], 60, shard[1]):
        for attempt in itertools.count():
            [record] = model.write_many(seed=3, stream=number + attempt * TRY_STREAMS, length=99, temperature=1)
            is_new = record.text not in {*expected, *trained} and set(record.text) <= {*"abcd"} and record.text
            if is_new and record.finish == "end" and len(record.text) <= 8:
                expected.append(record.text)
                break
    assert new_texts == expected


class PlannedRecords:
    """Draws the texts of a table by place and attempt, and ends them in any order."""

    busy = 0

    def __init__(self, table: list[list[str]], rng: random.Random) -> None:
        self.count = rng.randint(1, 5)
        self._table, self._rng = table, rng
        self._begun: list[RecordTry] = []

    def advance(self, sources: list[RecordTry]) -> list[DrawnRecord]:
        self._begun += sources
        self._rng.shuffle(self._begun)
        ended, self._begun = self._begun[:2], self._begun[2:]
        self.busy = len(self._begun)
        return [DrawnRecord(source, self._table[source.place][source.attempt], "end", 0.0, (), ()) for source in ended]


@examples()
@given(
    st.lists(st.lists(st.sampled_from("abcdef"), min_size=4, max_size=4), min_size=1, max_size=9), st.integers(0, 99)
)
def test_of_equal_records_the_lowest_number_stays(table: list[list[str]], seed: int) -> None:
    expected: list[str] = []
    for tries in table:
        different = [text for text in tries if text not in expected]
        expected += different[:1]
        if not different:
            break
    rng = random.Random(seed)
    plan = RecordPlan(len(table), 1, [""] * len(table), 0, 9, unique=True, max_tries=4)
    stream = RecordStream(plan, PlannedRecords(table, rng), rng.randint(5, 9))
    written: list[str] = []
    if len(expected) == len(table):
        written = [record.text for record in stream]
    else:
        with pytest.raises(GenError, match=rf"record {len(expected)}: all of its 4 tries .*\(4 repeated\)"):
            written += (record.text for record in stream)
    assert written == expected


@examples(30)
@given(st.lists(st.integers(0, 2**64 - 1)), st.integers(0, 9))
def test_hash_set(hashes: list[int], seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gentext.corpus.novelty.NEWEST_HASHES", 3)
        hash_set = HashSet()
        for number in hashes:
            hash_set.add(number)
        others = [seed, *hashes, *(number ^ 1 for number in hashes)]
        assert hash_set.contain(np.array(others, np.uint64)).tolist() == [other in {*hashes} for other in others]
        assert hash_record("") != hash_record("a")


# -- the command -------------------------------------------------------------------------------

SAMPLE = ("--seed", 3, "--temperature", 1)


def test_command_writes_what_the_library_does(model: TextModel, run: Path, tmp_path: Path) -> None:
    records = list(model.records(30, seed=3, temperature=1, prefix="b"))
    words = ("sample", run, *SAMPLE, "--count", 30, "--prime", "b")
    code, out, err = run_gen(*words)
    assert code == 0, err
    assert out == "".join(f"{record.text}\n" for record in records)
    code, out, err = run_gen(*words, "--separator", r"\0")
    assert out == "".join(f"{record.text}\0" for record in records), err
    for name in ("jsonl", "csv"):
        code, out, err = run_gen(*words, "--format", name, "--fields", "number,logprob,seed,stream")
        lines = out.splitlines()
        rows = map(json.loads, lines) if name == "jsonl" else csv.DictReader(lines)
        for row, record in zip(rows, records, strict=True):
            assert (row["text"], int(row["number"]), int(row["stream"])) == (record.text, record.number, record.stream)
            assert float(row["logprob"]) == pytest.approx(record.logprob, abs=1e-6) and int(row["seed"]) == 3
    lines = [json.loads(line) for line in run_gen(*words, "--json")[1].splitlines()]
    assert [(line["prime"] + line["text"], line["tokens"]) for line in lines] == [
        (record.text, [*record.tokens]) for record in records
    ]
    (tmp_path / "some.jsonl").write_text('{"prefix": "b"}\n{"prefix": "a", "temperature": 0.2}\n')
    words = ("sample", run, *SAMPLE, "--count", 30, "--prefix-file", tmp_path / "some.jsonl")
    lines = run_gen(*words)[1].splitlines()
    assert lines[:30] == [record.text for record in records]
    cold = model.records(30, seed=3, temperature=0.2, prefixes=["b", "a"], slots=4)
    assert lines[30:] == [record.text for record in cold][30:]


def test_rows_of_a_table(tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = ["city,name,age", *(f"{rng.choice('RP')},{rng.choice(WORDS)},{rng.randint(1, 9)}" for _ in range(900))]
    (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n")
    words = [
        *SHALLOW,
        "--set",
        "model.hidden=24",
        "--set",
        "run.threads=1",
        "--steps",
        150,
        "--set",
        "batcher.batch=16",
    ]
    code, _, err = run_gen("train", tmp_path / "rows.csv", "--records", "csv", "--run", tmp_path / "run", *words)
    assert code == 0, err
    words = ["sample", tmp_path / "run", "--count", 20, *SAMPLE]
    code, out, err = run_gen(*words, "--given", "city=R")
    lines = out.splitlines()
    assert lines[0] == rows[0] and len(lines) == 21, err
    assert all(line.startswith("R,") and line.count(",") == 2 for line in lines[1:])
    code, out, err = run_gen(*words, "--fields", "number")
    assert [line.rsplit(",", 1)[1] for line in out.splitlines()] == ["number", *map(str, range(20))], err
    for setting, message in (("name=ab", "'city' stands before it"), ("cit=R", "Did you mean 'city'?")):
        assert run_gen(*words, "--given", setting)[0] == 2 and message in run_gen(*words, "--given", setting)[2]


def test_resumed_file_is_the_very_file(run: Path, tmp_path: Path) -> None:
    options = [*SAMPLE, "--count", 400, "--novel", "--accept", "[a-d]*", "--format", "csv", "--fields", "number"]
    whole, part = tmp_path / "whole.csv", tmp_path / "part.csv"
    for path in (whole, part):
        assert run_gen("sample", run, *options, "-o", path)[0] == 0
    content = whole.read_bytes()
    assert part.read_bytes() == content and content.count(b"\n") == 401
    for size in (0, 3, len(content) // 2, len(content) - 1, len(content)):
        part.write_bytes(content[:size])
        code, _, err = run_gen("sample", "--resume", "-o", part, "--slots", 5)
        assert code == 0 and part.read_bytes() == content, err
    for words, message in (
        (["sample", run, "-o", part], "exists already"),
        (["sample", run, "--count", 5, "--resume", "-o", part], "was begun with"),
        (["sample", "--resume", "-o", tmp_path / "other"], "missing"),
        (["sample", "--resume"], "expected -o FILE"),
    ):
        code, _, err = run_gen(*words)
        assert code and message in err and err.count("error") == 1 and part.read_bytes() == content


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fields=st.lists(st.lists(FIELDS, min_size=2, max_size=2), max_size=5),
    form=st.sampled_from(["text", "separated", "jsonl", "csv", "rows"]),
    cut=st.floats(0, 1),
    block=st.integers(1, 9),
)
def test_file_is_read_up_to_its_last_whole_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: list[list[str]], form: str, cut: float, block: int
) -> None:
    monkeypatch.setattr(record_output, "BLOCK_BYTES", block)
    header = "a,b" if form == "rows" else ""
    bundle: Any = SimpleNamespace(records=RecordsMeta(0, 9, "csv" if header else "jsonl:x", header))
    name = {"separated": "text", "rows": "csv"}.get(form, form)
    columns, separator = ["number"] * (name != "text"), "aa" if form == "separated" else None
    record_format = RecordFormat(bundle, name, columns, separator)
    texts = [format_row(row) if header else "".join(row) for row in fields]
    texts = [text for text in texts if name != "text" or not {"\n", "a"} & {*text}]
    rows = [
        record_format.format(WrittenRecord(number, text, -1.0, 1, number, "", "end", (), ())).encode()
        for number, text in enumerate(texts)
    ]
    content = b"".join([record_format.beginning.encode(), *rows])
    path = tmp_path / "written"
    path.write_bytes(content[: round(cut * len(content))])
    ends = [*itertools.accumulate(map(len, rows), initial=len(record_format.beginning))]
    whole = max((number for number, end in enumerate(ends) if end <= round(cut * len(content))), default=0)
    file = RecordFile(path)
    assert [record_format.parse(record) for record in file.read_whole(record_format)] == texts[:whole]
    file.write("behind")
    file.close()
    beginning = content[: ends[whole]] if ends[0] <= round(cut * len(content)) else b""
    assert path.read_bytes() == beginning + b"behind"


@pytest.mark.parametrize("name", ["text", "csv"])
def test_large_file_is_read_in_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(record_output, "BLOCK_BYTES", 2**14)
    bundle: Any = SimpleNamespace(records=RecordsMeta(0, 99, "lines", ""))
    record_format, path = RecordFormat(bundle, name), tmp_path / "written"
    path.write_bytes(record_format.beginning.encode() + (b"x" * 99 + b"\n") * 20_000)
    file = RecordFile(path)
    tracemalloc.start()
    assert sum(1 for _ in file.read_whole(record_format)) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    file.close()
    assert peak < path.stat().st_size / 4, peak


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_full_disk_and_kill(run: Path, tmp_path: Path, warm_processes: None) -> None:
    words = ["sample", str(run), "--seed", "3", "--temperature", "1", "--count", "3000", "--slots", "4"]
    code, _, err = run_gen(*words, "-o", "/dev/full")
    assert code == 1 and "No space left" in err and "Traceback" not in err
    path = tmp_path / "out.txt"
    with subprocess.Popen(
        [sys.executable, "-m", "gentext", *words, "-o", str(path)], stderr=subprocess.PIPE
    ) as process:
        while process.poll() is None and not (path.exists() and path.stat().st_size):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert path.stat().st_size
    code, _, err = run_gen("sample", "--resume", "-o", path)
    assert code == 0 and path.read_text() == run_gen(*words)[1], err


def test_bad_input(run: Path, tiny_run: Path, tmp_path: Path, model: TextModel) -> None:
    words = ("sample", run, "--count", 400, *SAMPLE)
    (tmp_path / "latin").write_bytes(b"ab\n\xe9\n")
    (tmp_path / "half.jsonl").write_text('{"prefix": "a"}\n{"prefix": "\\ud800"}\n')
    for options, status, message in (
        (["--prefix-file", tmp_path / "latin"], 1, "latin, line 2: not UTF-8 (0xe9)"),
        (["--prefix-file", tmp_path / "half.jsonl"], 1, "half.jsonl, line 2: the prime has '\\ud800'"),
        (["--shard", "8/8"], 2, "expected a shard from 0/8 to 7/8; they count from 0"),
        (["--shard", "x"], 2, "--shard x: expected a shard"),
        (["--accept", "("], 2, "no regular expression"),
        (["--unordered", "--unique"], 2, "expected one of them"),
        (["--length", "0"], 2, "--length 0"),
        (["--stop", "a"], 2, "records end where the model ends them"),
        (["--fields", "number"], 2, "expected --format jsonl or csv"),
        (["--format", "xml"], 2, "expected text, jsonl, csv"),
        (["--given", "a=b"], 2, "no rows of a table"),
        (["--filter", "nothing"], 1, "nothing"),
        (["--prime", "a", "--prefix-file", tmp_path / "none"], 2, "--prime and --prefix-file"),
        (["--prefix-file", tmp_path / "none"], 1, "cannot be read"),
        (["--separator", "a"], 1, "has the separator 'a' within itself"),
        (["--unique", "--accept", "[abcd]{1,2}", "--max-tries", 30], 1, "records are written"),
    ):
        code, _, err = run_gen(*words, *options)
        errors = [line for line in err.splitlines() if "error" in line]
        assert (code, len(errors)) == (status, 1) and message in errors[0], err
        assert "Traceback" not in err
    code, _, err = run_gen("sample", tiny_run, "--unique")
    assert code == 2 and "--unique is for models of records" in err
    with pytest.raises(UsageError, match="for models of records"):
        gentext.load(tiny_run).records(3)

    def refuse(texts: Any) -> Iterator[bool]:
        raise ZeroDivisionError("no")

    with pytest.raises(PluginError, match=r"filters\[0\]"):
        list(model.records(3, filters=[refuse]))
    assert [
        record.text for record in model.records(5, seed=3, temperature=1, filters=[lambda texts: [True] * len(texts)])
    ]
