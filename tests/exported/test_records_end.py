"""Models of records: the boundary symbol, which is read first and drawn last, in files and in every way to write."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled_model import EVERY_LINK, build_compiled_model, request, written
from conftest import SHALLOW, run_gen, train_records
from helpers import examples
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from serving import running_server
from test_bad_files import rewritten
from test_slots import finish, make_request, make_slots
from test_text_tree import make_tree

import gentext
from gentext import TextModel
from gentext.describe import load_run_tokenizer, tokenizer_of
from gentext.errors import FileFormatError
from gentext.exported.boundary import BoundaryTokenizer, RecordsMeta
from gentext.exported.metadata import Bundle
from gentext.exported.onnx_file import read_metadata
from gentext.generation.compiled import generate_compiled
from gentext.plugins.tokenizers.byte import ByteTokenizer
from gentext.run import open_run
from gentext.stepping import generate_stepwise
from gentext.stop import StopAutomaton


@pytest.fixture(scope="module")
def bundle(tiny_records_run: Path) -> Bundle:
    path = tiny_records_run / "model.onnx"
    return Bundle.from_metadata(read_metadata(path), path)


# -- files ------------------------------------------------------------------------------------


def test_boundary_in_files(bundle: Bundle, tiny_records_run: Path) -> None:
    assert bundle.records == open_run(tiny_records_run).read_records()
    assert bundle.boundary == bundle.start == bundle.vocab_size - 1
    assert bundle.token_bytes[-1] == b""
    assert bundle.characters_by_token == [symbol.decode() for symbol in bundle.token_bytes]
    for tokenizer in (tokenizer_of(bundle), load_run_tokenizer(open_run(tiny_records_run))):
        assert isinstance(tokenizer, BoundaryTokenizer)
        assert tokenizer.boundary == bundle.boundary
        assert bundle.join_symbols(tokenizer.encode("abc.")) == b"abc."


def test_boundary_behind_any_tokenizer() -> None:
    tokenizer = BoundaryTokenizer(ByteTokenizer.from_state({}))
    every_byte = bytes(range(128)).decode()
    assert 256 not in tokenizer.encode(every_byte)
    assert (tokenizer.vocab_size, tokenizer.token_bytes(256), tokenizer.token_bytes(255)) == (257, b"", b"\xff")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": 0}, "the start symbol is 0"),
        ({"records": RecordsMeta(3, 5, "lines")}, "the boundary symbol is 3; expected the last"),
        ({"records": RecordsMeta(-1, 5, "lines")}, "the boundary symbol is -1"),
        ({"token_bytes": b"x"}, "has bytes"),
        ({"unknown": True}, "stands for unknown characters"),
        ({"longest": -1}, "the longest record has -1"),
        ({"longest": 2**40}, "the longest record has"),
        ({"header": "x" * (2**20 + 1)}, "too many"),
        ({"layout": "x" * 5000}, "too many"),
    ],
    ids=str,
)
def test_boundary_is_checked(bundle: Bundle, change: dict[str, Any], message: str) -> None:
    assert bundle.records is not None
    if "token_bytes" in change:
        change = {"token_bytes": [*bundle.token_bytes[:-1], change["token_bytes"]]}
    elif "unknown" in change:
        change = {"tokenizer": dataclasses.replace(bundle.tokenizer, unknown=bundle.boundary)}
    elif not {"start", "records"} & set(change):
        change = {"records": dataclasses.replace(bundle.records, **change)}
    with pytest.raises(FileFormatError, match=message):
        dataclasses.replace(bundle, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"records": []}, "records are no table"),
        ({"records": {"boundary": "x"}}, "records are no table"),
        ({"records": {"boundary": 3, "longest": 1, "layout": "lines"}}, "the boundary symbol is 3"),
        ({"start": 0}, "start symbol 0, expected the boundary"),
    ],
    ids=str,
)
def test_damaged_records_of_a_run(
    change: dict[str, Any], message: str, tiny_records_run: Path, tmp_path: Path, gen: Any
) -> None:
    shutil.copytree(tiny_records_run, tmp_path / "run")
    path = tmp_path / "run" / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    code, _, err = gen("export", tmp_path / "run")
    assert code == 1 and "tokenizer.json: damaged" in err and message in err and err.count("gen: error") == 1, err


# -- the first symbol -------------------------------------------------------------------------


def write_texts(source: Path, sampler: str = "onnx", **options: Any) -> list[tuple[Any, ...]]:
    """Return texts that a model writes side by side, how each ended, and its tokens."""
    texts = gentext.load(source, sampler=sampler).write_many(count=60, seed=1, length=9, **options)
    return [(text.text, text.finish, text.tokens) for text in texts]


def test_no_record_is_empty(eager_records_run: Path) -> None:
    """The first symbol is drawn among the others, in every way to write; its probability is the model's own."""
    compiled = gentext.load(eager_records_run / "generator.onnx")
    assert compiled.bundle.never_empty
    records = compiled.write_many(count=60, seed=1, length=9)
    expected = [(record.text, record.finish, record.tokens) for record in records]
    assert all(text for text, _, _ in expected) and sum(finish == "end" for _, finish, _ in expected) > 40
    assert write_texts(eager_records_run / "model.onnx") == write_texts(eager_records_run, "torch") == expected
    assert [compiled.write(seed=1, stream=stream, length=9) for stream in range(60)] == [
        text for text, _, _ in expected
    ]
    assert all(record.text for record in compiled.records(200, seed=1))
    for record, score in zip(records, compiled.score_many([record.text for record in records]), strict=True):
        if record.finish == "end":
            assert sum(record.logprobs) == pytest.approx(score.logprob, abs=1e-4)
    assert ("", "end", (2,)) in write_texts(eager_records_run / "generator.onnx", primes=["a"]), (
        "the prime is the record"
    )
    best = gentext.load(eager_records_run / "model.onnx").best(count=9)
    assert len(best) == 6 and all(text.text for text in best), "a and b, and two of them"


def test_files_of_older_versions_write_empty_records(eager_records_run: Path, tmp_path: Path) -> None:
    def make_older(bundle: Bundle) -> Bundle:
        assert bundle.records is not None
        return dataclasses.replace(bundle, records=dataclasses.replace(bundle.records, never_empty=False))

    def drop_key(records: str) -> str:
        return json.dumps({name: value for name, value in json.loads(records).items() if name != "never_empty"})

    stepped = rewritten(eager_records_run / "model.onnx", tmp_path / "model.onnx", "records", drop_key)
    compiled = build_compiled_model(tmp_path, eager_records_run)
    compiled = dataclasses.replace(compiled, bundle=make_older(compiled.bundle))
    generator = compiled.open(compiled.chain("top_p", "temperature")).session.path
    texts = write_texts(stepped)
    assert texts == write_texts(generator) and ("", "end", (2,)) in texts


# -- the end of a row -------------------------------------------------------------------------

#: A chain with states, noise and tables, in which nothing may count the boundary symbol.
LINKS = "match,penalties,dry,no_repeat_ngram,ban,bias,top_k,mirostat,xtc,temperature"


@pytest.fixture(scope="module")
def model(tiny_records_run: Path, tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    path = tmp_path_factory.mktemp("records-chain") / "generator.onnx"
    code, _, err = run_gen("export", tiny_records_run, "--chain", LINKS, "--output", path.parent)
    assert code == 0, err
    return gentext.load(path)


@pytest.mark.parametrize("names", [(), EVERY_LINK, ("no_repeat_ngram", "dry", "mirostat")], ids=str)
@pytest.mark.parametrize("stops", [(), ("ab", ".")], ids=str)
def test_compiled_rows_end_as_those_of_numpy(
    tiny_records_run: Path, names: tuple[str, ...], stops: tuple[str, ...], tmp_path: Path
) -> None:
    compiled = build_compiled_model(tmp_path, tiny_records_run)
    chain, rows, boundary = compiled.chain(*names), 64, compiled.bundle.boundary
    opened = compiled.open(chain)
    stop, tables = StopAutomaton(stops) if stops else None, chain.table_arrays(tokenizer_of(compiled.bundle))
    sampling = request(chain, rows, 60, stop=stop, tables=tables, top_count=3, echo=True)
    assert boundary is not None
    sampling = dataclasses.replace(sampling, primes=[prime % boundary for prime in sampling.primes])
    compiled_rows = written(generate_compiled(opened.session, opened.bundle, sampling), rows)
    stepped_rows = written(generate_stepwise(opened, opened.bundle, sampling), rows)
    assert compiled_rows[:2] == stepped_rows[:2]
    for logprobs, reference in zip(compiled_rows[2], stepped_rows[2], strict=True):
        np.testing.assert_allclose(logprobs, reference, atol=1e-4)
    tokens, finishes, _ = compiled_rows
    assert finishes.count("end") > 3 and finishes.count("stop" if stops else "length") > 3
    for row, row_finish in zip(tokens, finishes, strict=True):
        assert (row[-1] == boundary) is (row_finish == "end") and boundary not in row[:-1]


@pytest.mark.slow
def test_unrolled_file_ends_rows(tiny_records_run: Path, tmp_path: Path) -> None:
    code, _, err = run_gen("export", tiny_records_run, "--unroll", 16, "--precision", "fp32", "--output", tmp_path)
    assert code == 0, err
    assert (tmp_path / "generator-unrolled.onnx").is_file(), "the export compares it with the chain in NumPy"


PARAMETERS: list[dict[str, Any]] = [
    *({}, {"temperature": 1.3}, {"mirostat": 2}),
    *({"dry_multiplier": 1.0, "top_k": 3}, {"no_repeat_ngram_size": 2}),
]


@st.composite
def texts(draw: st.DrawFn) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "prime": draw(st.sampled_from(["", "", "a", "ab. "])),
        "length": draw(st.sampled_from([1, 2, 17, 60])),
        "seed": draw(st.sampled_from([0, 5])),
        "stream": draw(st.integers(0, 99)),
        "top_logprobs": draw(st.sampled_from([0, 2])),
        **draw(st.sampled_from(PARAMETERS)),
    }
    if arguments["length"] > 2 and draw(st.booleans()):
        return arguments | {"match": draw(st.sampled_from(["[a-f ]{3,40}", "(ab|cd)+", "x?[b-d]*."]))}
    return arguments | {"stop": draw(st.sampled_from([(), ("a",), (" ", "\n")]))}


@examples(25, suppress_health_check=[HealthCheck.too_slow])
@given(
    wishes=st.lists(texts(), min_size=1, max_size=9),
    count=st.integers(1, 5),
    sizes=st.lists(st.sampled_from([1, 3, 40]), min_size=1),
)
def test_records_in_slots_are_those_that_they_are_alone(
    model: TextModel, wishes: list[dict[str, Any]], count: int, sizes: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        running = make_slots(model, count)
        patch.setattr(running.schedule, "choose_positions", lambda *_: sizes[running.busy % len(sizes)])
        slots, waiting = [], list(wishes)
        while waiting or running.busy:
            while waiting and running.free:
                slots.append(running.join(make_request(model, waiting.pop(0), keeps_state=True)))
            running.advance()
    for slot, wish in zip(slots, wishes, strict=True):
        [alone] = model.write_many([wish["prime"]], **{k: v for k, v in wish.items() if k != "prime"})
        assert (slot.text.text, slot.text.finish, slot.text.tokens) == (alone.text, alone.finish, [*alone.tokens])
        np.testing.assert_array_equal(slot.text.logprobs, alone.logprobs)
        assert (model.bundle.boundary in alone.tokens) is (alone.finish == "end")


@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_state_of_a_record_is_in_front_of_its_end(model: TextModel, size: int) -> None:
    """Whoever goes on with the same seed draws the end again; with a prime the record goes on."""
    running = make_slots(model, 3)
    running.schedule.choose_positions = lambda *_: size  # type: ignore[method-assign]
    wishes = [{"prime": "", "length": 60, "seed": 3, "stream": stream} for stream in range(12)]
    ended = 0
    for wish in wishes:
        request = make_request(model, wish, keeps_state=True)
        slot = running.join(request)
        finish(running)
        if slot.text.finish != "end":
            continue
        ended += 1
        state = running.state(slot)
        assert state is not None and state.drawn == slot.text.token_count - 1
        again = running.join(request, state)
        more = running.join(make_request(model, wish | {"prime": "ab", "echo": True, "length": 0}), state)
        finish(running)
        assert (again.text.text, again.text.finish, again.text.tokens) == ("", "end", [model.bundle.boundary])
        [whole] = model.write_many([slot.text.text + "ab"], echo=True, length=0)
        assert more.text.prime_logprobs == [*whole.prime_logprobs[-2:]]
    assert ended > 3


def test_text_of_a_record(model: TextModel, tiny_records_run: Path) -> None:
    records = model.write_many(count=40, seed=1, length=40, top_logprobs=2)
    ended = [record for record in records if record.finish == "end"]
    boundary = model.bundle.boundary
    assert len(ended) > 10 and {record.finish for record in records} == {"end", "length"}
    for record in records:
        is_ended = record.finish == "end"
        assert len(record.tokens) == len(record.logprobs) == len(record.text) + is_ended
        assert record.text == "".join(model.symbols[token] for token in record.tokens)
        assert record.top_symbols is not None and record.top_symbols.tokens.shape == (len(record.tokens), 2)
    assert all(record.tokens[-1] == boundary for record in ended)
    number = records.index(ended[0])
    stream = model.stream(seed=1, stream=number, length=40)
    assert "".join(stream) == ended[0].text and stream.result == ended[0]
    assert model.write(seed=1, stream=number, length=40) == ended[0].text
    in_torch = gentext.load(tiny_records_run, sampler="torch").write_many(count=8, seed=1, length=40)
    compiled = gentext.load(tiny_records_run).write_many(count=8, seed=1, length=40)
    assert [(one.text, one.finish, one.tokens) for one in in_torch] == [
        (one.text, one.finish, one.tokens) for one in compiled
    ]


def test_records_of_bytes(tmp_path: Path) -> None:
    """Symbols that are parts of characters: the same texts in PyTorch, in a batch and in slots."""
    records = [f"{word}{number}" for number in range(99) for word in ("né", "Größe", "", "∞ b")]
    run = train_records(tmp_path, records, 60, *SHALLOW, "--set", "tokenizer.name=byte", "--export-precision", "fp32")
    compiled, in_torch = gentext.load(run), gentext.load(run, sampler="torch")
    assert compiled.bundle.boundary == 256
    written_records = compiled.write_many(count=12, seed=1, length=30)
    for other in (in_torch.write_many(count=12, seed=1, length=30), compiled.write_many(count=99, seed=1, length=30)):
        assert [(one.text, one.finish, one.tokens) for one in written_records] == [
            (one.text, one.finish, one.tokens) for one in other[:12]
        ]
    assert "end" in {record.finish for record in written_records}


def test_preview_writes_records(tiny_records_run: Path) -> None:
    from gentext.plugins.pytorch import build_model, load_best_checkpoint
    from gentext.plugins.pytorch.sampler import preview

    run = open_run(tiny_records_run)
    shown = preview(build_model(run, load_best_checkpoint(run)), run, 300)
    assert 250 <= len(shown) <= 310 and shown.count("\n") >= 3


def test_bench_of_records(model: TextModel, tiny_records_run: Path) -> None:
    from gentext.library import bench
    from gentext.runs.source import open_exported

    for path in (tiny_records_run / "generator.onnx", tiny_records_run / "model.onnx"):
        assert bench.prepare_measurement(open_exported(path, "cpu"), 8, 0.02)() > 100


def test_records_in_turns(model: TextModel) -> None:
    ended = next(text for text in model.write_many(count=40, seed=3, length=60) if text.finish == "end" and text.text)
    tree = make_tree(model, seed=3, length=60, stream=ended.stream)
    text = "".join(tree.write(""))
    assert (text, tree.finish) == (ended.text, "end")
    assert np.isfinite(tree.character_logprobs(text)).all()
    assert "".join(tree.write(text)) == "" and tree.finish == "end", "the same seed draws the end again"
    half = text[: len(text) // 2 + 1]
    tree.choose_seed(4)
    other = half + "".join(tree.write(half))
    assert tree.branch(other, len(other), 1) in (text, other)
    assert "".join(tree.write(text + "ab")) or tree.finish == "end"


def test_records_of_a_server(tiny_records_run: Path, model: TextModel, tmp_path: Path) -> None:
    file = tiny_records_run / "generator.onnx"
    records = gentext.load(file).write_many(count=8, seed=1, length=40, top_logprobs=2)
    wish = {"prompt": "", "n": 8, "seed": 1, "max_tokens": 40}
    with running_server(f"records={file}", "--slots", "4") as server:
        answer = server.complete(**wish, logprobs=2)
        choices = answer["choices"]
        number = next(number for number, record in enumerate(records) if record.finish == "end")
        session = choices[number]["session"]
        again = server.complete(session=session, max_tokens=40, logprobs=2)["choices"][0]
        forked = server.complete(session=session, prompt="ab", max_tokens=5, seed=8)["choices"][0]
        streamed = server.post("/v1/completions", **wish, stream=True).text
    assert answer["usage"]["completion_tokens"] == sum(len(record.tokens) for record in records)
    for choice, record in zip(choices, records, strict=True):
        assert (choice["text"], choice["finish"]) == (record.text, record.finish)
        assert choice["finish_reason"] == ("stop" if record.finish == "end" else "length")
        assert choice["logprobs"]["tokens"] == [model.symbols[token] for token in record.tokens]
        np.testing.assert_allclose(choice["logprobs"]["token_logprobs"], record.logprobs, atol=1e-6)
    assert (again["text"], again["finish"], again["logprobs"]["tokens"]) == ("", "end", [""])
    assert len(forked["text"]) <= 5
    assert streamed.count('"finish":"end"') == sum(record.finish == "end" for record in records)


def test_bias_on_the_end(tiny_records_run: Path, tmp_path: Path, gen: Any) -> None:
    (tmp_path / "never.json").write_text('{"": -1000}')
    (tmp_path / "always.json").write_text('{"": 1000}')
    sample = ("sample", tiny_records_run, "--chain", "bias", "--json", "--count", 5, "--length", 40)
    code, out, err = gen(*sample, "--logit-bias-file", tmp_path / "always.json")
    assert code == 0, err
    assert [len(json.loads(line)["text"]) for line in out.splitlines()] == [1] * 5, "no record is empty"
    code, out, err = gen(*sample, "--logit-bias-file", tmp_path / "never.json", "--max-tries", 2)
    assert (code, out) == (1, "") and "record 0: all of its 2 tries were thrown away (2 cut)" in err


def test_ban_leaves_the_end_and_one_symbol(tiny_records_run: Path, bundle: Bundle, gen: Any) -> None:
    symbols = "".join(symbol.decode() for symbol in bundle.token_bytes)
    code, _, err = gen("sample", tiny_records_run, "--chain", "ban", "--ban", symbols)
    assert code != 0 and "every symbol of the model is banned" in err
    code, out, err = gen("sample", tiny_records_run, "--chain", "ban", "--ban", symbols[1:], "--count", 9, "--json")
    assert code == 0, err
    assert {*"".join(json.loads(line)["text"] for line in out.splitlines())} <= {symbols[0]}
