"""Many texts from one command: batches that fit into memory, texts in order, separators, escapes."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import fails, one_line, start

import gentext
from gentext.exported import batch_size
from gentext.exported.metadata import Bundle, StateMeta, TokenizerMeta
from gentext.files.escapes import decode_escapes
from gentext.generation.generate import generate
from gentext.generation.rows import RowRequest, RowState, Slot, SlotPiece
from gentext.generation.slots import Slots
from gentext.generation.texts import TextBatch, all_texts, text_batches
from gentext.interfaces import Chunk, Request
from gentext.requests.options import writing_options
from gentext.run import GENERATOR_FILE, MODEL_FILE
from gentext.sampling.chain import Chain
from gentext.stop import find_unwritable

Gen = Callable[..., tuple[int, str, str]]

#: Options of a command that says nothing on stderr.
SILENT = ("--seed", 5, "--device", "cpu")


@pytest.fixture
def batch_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of each batch that is begun; batches have at most 210 characters."""
    rows: list[int] = []

    def recorded_generate(*arguments: Any, **options: Any) -> Any:
        rows.append(len(options["primes"]))
        return generate(*arguments, **options)

    monkeypatch.setattr(batch_size, "BATCH_CHARACTERS", 210)
    monkeypatch.setattr("gentext.generation.texts.generate", recorded_generate)
    return rows


# -- batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [MODEL_FILE, GENERATOR_FILE])
def test_texts_do_not_depend_on_their_batches(file: str, tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = gentext.load(tiny_run / file)
    arguments: dict[str, Any] = {"count": 5, "seed": 9, "length": 30, "stop": "ba", "stream": 3}
    primes = ["a", "", "abc. "]
    in_one_batch = model.write_many(primes, **arguments)
    assert [written.stream for written in in_one_batch] == list(range(3, 18))
    for characters in (1, 2 * 35, 4 * 35, 7 * 35):
        monkeypatch.setattr(batch_size, "BATCH_CHARACTERS", characters)
        assert model.write_many(primes, **arguments) == in_one_batch


def test_a_batch_begins_when_those_before_are_written(tiny_run: Path, batch_rows: list[int]) -> None:
    model = gentext.load(tiny_run / MODEL_FILE)
    texts = all_texts(model.prepare_writing(["ab"], writing_options(count=11, length=50, seed=1)))
    assert batch_rows == []
    for text_number, written in enumerate(texts):
        assert written.stream == text_number
        assert sum(batch_rows) - batch_rows[-1] <= text_number < sum(batch_rows)
    assert batch_rows == [4, 4, 3]


def test_batches_are_of_one_size(tiny_run: Path, batch_rows: list[int]) -> None:
    list(
        all_texts(
            gentext.load(tiny_run / MODEL_FILE).prepare_writing([""], writing_options(count=9, length=50, seed=1))
        )
    )
    assert batch_rows == [3, 3, 3]


def test_large_states_and_many_symbols_make_small_batches() -> None:
    symbols = [b"%d" % token for token in range(1000)]
    for state_size, max_rows in ((24, 1024), (2**15 - 1000, 512), (2**20 - 1000, 16), (2**24 - 2000, 1)):
        state = StateMeta("h", [1, None, state_size], "float32")
        bundle = Bundle("model", TokenizerMeta("fake", {}), symbols, [state], 0, [], {})
        assert batch_size.choose_batch_rows(bundle, max_rows * 2, 1) == max_rows


def test_memory_does_not_grow_with_the_number_of_texts(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size, "BATCH_CHARACTERS", 2000)
    model = gentext.load(tiny_run)
    peaks = []
    for count in (20, 40, 400):
        options = writing_options(count=count, length=100, seed=1)
        tracemalloc.start()
        for _ in all_texts(model.prepare_writing([""], options)):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.5 * peaks[1]


def test_a_text_that_ends_makes_room_for_the_next(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of a compiled generator come in order, and no more of them are in memory than may be."""
    rows, begun, written = [], 0, 0

    class CountingSlots(Slots):
        def join(self, request: RowRequest, state: RowState | None = None) -> Slot:
            nonlocal begun
            begun += 1
            assert begun - written <= 12
            return super().join(request, state)

        def advance(self) -> list[SlotPiece]:
            rows.append(self.busy)
            return super().advance()

    monkeypatch.setattr("gentext.generation.bulk.Slots", CountingSlots)
    monkeypatch.setattr(batch_size, "BATCH_CHARACTERS", 12 * 60)
    monkeypatch.setattr(batch_size, "BATCH_ROWS", 4)
    model = gentext.load(tiny_run / GENERATOR_FILE)
    requested = model.prepare_writing([""], writing_options(count=40, length=60, seed=1, stop=("a",)))
    expected = [text for batch in text_batches(requested) for text in batch.complete_texts()]
    for text in all_texts(requested):
        assert text == expected[written]
        written += 1
    assert written == begun == 40
    assert rows.count(4) > len(rows) / 2, "rows are filled again"


class Shrinking:
    """A sampler whose row r ends after ``lengths[r]`` positions."""

    bundle = Bundle("model", TokenizerMeta("fake", {}), [b"a"], [], 0, [], {})
    device = "a test"

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = lengths
        self.position = 0

    def generate(self, request: Request) -> Iterator[Chunk]:
        for position in range(1, max(self.lengths) + 1):
            self.position = position
            tokens = np.array([[0 if position <= length else -1 for length in self.lengths]])
            finish = ["masked" if position >= length else "running" for length in self.lengths]
            yield Chunk(tokens, np.zeros(tokens.shape, np.float32), finish)  # type: ignore[arg-type]


def test_a_text_comes_as_soon_as_all_before_it_are_complete() -> None:
    sampler = Shrinking([3, 1, 2, 9, 5])
    texts, pieces = generate(sampler, Chain([]), primes=[np.empty(0, np.int64)] * 5, seed=0, length=None)
    batch = TextBatch(["p"] * 5, 0, texts, pieces)
    complete_at = [(len(written.text), sampler.position) for written in batch.complete_texts()]
    assert complete_at == [(3, 3), (1, 3), (2, 3), (9, 9), (5, 9)]


def test_remarks_come_once(gen: Gen, tiny_run: Path, batch_rows: list[int]) -> None:
    options = ("--length", 50, "--count", 11, "--chain", "top_k", "--stop", "#", *SILENT)
    code, _, err = gen("sample", tiny_run, *options)
    assert (code, batch_rows) == (0, [4, 4, 3])
    assert err.count("not compiled") == 1
    assert err.count("warning") == 1


# -- separators ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "between", "end"),
    [
        ([], "\n%%%\n", "\n"),
        (["--separator", r"\0"], "\0", ""),
        (["--separator", ""], "", ""),
        (["--separator", r"\n\t\\ \d é\n"], "\n\t\\ \\d é\n", ""),
    ],
)
def test_separators(
    options: list[str], between: str, end: str, gen: Gen, tiny_run: Path, batch_rows: list[int]
) -> None:
    command = ("sample", tiny_run, "--prime", "ab", "--length", 50, *SILENT)
    texts = [json.loads(line) for line in gen(*command, "--count", 7, "--json")[1].splitlines()]
    assert [written["stream"] for written in texts] == list(range(7))
    printed = [written["prime"] + written["text"] for written in texts]
    assert gen(*command, "--count", 7, *options) == (0, between.join(printed) + end, "")
    for streaming in ([], ["--no-stream"]):
        assert gen(*command, *options, *streaming) == (0, printed[0] + end, "")


@pytest.mark.parametrize(
    ("options", "warnings"),
    [
        (["--separator", "a"], 1),
        (["--separator", "b%%%"], 0),
        (["--prime", "a\n%%%\nb"], 1),
        (["--prime", "%%%\nb"], 1),
        (["--prime", "a%%%\nb"], 0),
        (["--prime", "a\n%%%\nb", "--count", 1, "--no-stream"], 0),
        (["--prime", "a\n%%%\nb", "--json"], 0),
    ],
)
def test_texts_with_a_separator_within(options: list[Any], warnings: int, gen: Gen, tiny_run: Path) -> None:
    command = ("sample", tiny_run, "--length", 50, "--count", 5, "--unknown", "skip", *SILENT)
    code, _, err = gen(*command, *options)
    assert (code, err.count("has a separator within itself")) == (0, warnings), err


# -- a file of texts ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--count", 3], ["--count", 3, "--separator", r"\r\n\0"], ["--json"]])
def test_file_has_what_is_printed(options: list[Any], gen: Gen, tiny_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts"
    path.write_text("former")
    words = ("sample", tiny_run, "--prime", "ab\n", "--length", 50, *SILENT, *options)
    assert gen(*words, "-o", path) == (0, "", "")
    assert path.read_bytes().decode() == gen(*words)[1]
    assert [*tmp_path.iterdir()] == [path]


def test_link_to_a_file_stays(gen: Gen, tiny_run: Path, tmp_path: Path) -> None:
    path, link = tmp_path / "texts", tmp_path / "link"
    path.touch()
    link.symlink_to(path)
    assert gen("sample", tiny_run, "--length", 9, *SILENT, "-o", link)[0] == 0
    assert link.is_symlink() and len(path.read_text()) == 10


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_device_is_written_at_once(gen: Gen, tiny_run: Path) -> None:
    words = ("sample", tiny_run, "--length", 9, *SILENT)
    assert gen(*words, "-o", "/dev/null")[0] == 0 and not Path("/dev/null").is_file()
    fails(1, gen(*words, "-o", "/dev/full"), "No space left on device")


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_command_leaves_the_file_as_it_was(
    number: int, gen: Gen, tiny_run: Path, tmp_path: Path, warm_processes: None
) -> None:
    path = tmp_path / "texts"
    path.write_text("former")
    process = start("sample", tiny_run, "--count", 100_000, "--length", 500, *SILENT, "-o", path)
    while process.poll() is None and not any(file.stat().st_size for file in tmp_path.iterdir() if file != path):
        time.sleep(0.01)
    process.send_signal(number)
    err = process.communicate()[1].decode()
    assert path.read_text() == "former"
    if number == signal.SIGINT:
        assert process.returncode == 1
        one_line(err, f"stopped by Ctrl-C; {path} is as it was before")
    assert gen("sample", tiny_run, "--length", 9, *SILENT, "-o", path)[0] == 0
    assert [*tmp_path.iterdir()] == [path] and len(path.read_text()) == 10


def test_files_that_cannot_be_written(gen: Gen, tiny_run: Path, tmp_path: Path) -> None:
    fails(2, gen("sample", tiny_run, "-o", tmp_path), f"{tmp_path} is a folder; expected the name of a file")
    fails(2, gen("sample", tiny_run, "-o", tmp_path / "no" / "t"), f"there is no folder {tmp_path / 'no'}; make it")
    fails(2, gen("sample", tiny_run, "--length", 0, "-o", tmp_path / "t"), "--length 0 and --output: expected one of")
    fails(2, gen("sample", tiny_run, "--unique", "-o", tmp_path / "t"), "--unique is for models of records")
    assert not [*tmp_path.iterdir()]


# -- stop strings on the command line -------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        (r"\n", "\n"),
        (r"\\n", r"\n"),
        (r"a\tb\r\n", "a\tb\r\n"),
        (r"\0\x41\xe9\u20ac\U0001f642", "\0A\xe9\u20ac\U0001f642"),
        (r"\101\'\"", "A'\""),
        (r"\d\q\x4\u12\U00110000", r"\d\q\x4\u12\U00110000"),
        ("é\\", "é\\"),
        ("\udcff", "\udcff"),
    ],
)
def test_escapes(typed: str, text: str) -> None:
    assert decode_escapes(typed) == text


def test_stop_with_an_escape(gen: Gen, tiny_run: Path) -> None:
    command = ("sample", tiny_run, "--length", 300, "--top-k", 0, "--no-stream", *SILENT)
    code, out, err = gen(*command, "--stop", r"\n")
    assert (code, err) == (0, "")
    assert out == gentext.load(tiny_run).write(seed=5, length=300, stop="\n", top_k=0) + "\n"
    assert out.count("\n") == 1 < gen(*command)[1].count("\n")
    assert gen(*command)[1].startswith(out)


def test_stop_that_the_model_cannot_write(gen: Gen, tiny_run: Path) -> None:
    stops = ("--stop", "a€Z", "--stop", r"\x41", "--stop", "a€Z", "--stop", "bc")
    code, _, err = gen("sample", tiny_run, "--length", 5, "--count", 3, *stops, *SILENT)
    assert code == 0
    assert err.splitlines() == [
        "gen: warning: --stop a€Z is never found: the model cannot write '€'",
        "gen: warning: --stop A is never found: the model cannot write 'A'",
    ]
    model = gentext.load(tiny_run)
    for _ in range(2):
        model.write(length=5, stop=[r"\n", "bc"])
        model.write_many(length=5, stop=r"\n")
        list(model.stream(length=5, stop=r"\n"))
    assert model.messages == [r"stop = '\\n' is never found: the model cannot write '\\'"]


def test_characters_in_parts_can_be_written() -> None:
    stops = ["é", "aè", "€x", "a"]
    assert find_unwritable(stops, [b"a", "é".encode()]) == {"aè": "è", "€x": "€"}
    assert find_unwritable(stops, [b"a", b"\xc3", b"\xa9"]) == {"aè": "è", "€x": "€"}
    assert find_unwritable(stops, [bytes([byte]) for byte in range(256)]) == {}
    assert find_unwritable(stops, [b"", b"x\xe2\x82", b"\xac"]) == {"é": "é", "aè": "a", "a": "a"}
