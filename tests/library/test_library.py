"""gentext as a library: what a notebook calls, beside what the commands write."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import raiser

import gentext
from gentext import console
from gentext.errors import (
    ConfigError,
    CorpusError,
    FileFormatError,
    GenError,
    PluginError,
    PrimeError,
    RunError,
    TrainingStopped,
    UnknownComponent,
    UsageError,
)
from gentext.interfaces import SourceKind
from gentext.plugins.trainers.bptt import BPTTTrainer
from gentext.run import GENERATOR_FILE, HELD_OUT_FILE, MODEL_FILE
from gentext.runs.source import find_source, openable_sources

Gen = Callable[..., tuple[int, str, str]]

#: Settings under which a training run takes a fraction of a second.
TINY: dict[str, Any] = {
    "model.hidden": 8,
    "model.embedding": 4,
    "model.ngram_length": 4,
    "model.ngram_rows": 16,
    "model.ngram_embedding": 2,
    "batcher.batch": 2,
    "batcher.length": 8,
    "run.threads": 1,
}


@pytest.fixture(scope="module")
def model(tiny_run: Path) -> gentext.TextModel:
    return gentext.load(tiny_run)


@pytest.fixture(autouse=True)
def nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Fail a test of the library that writes on stdout or stderr, unless the test reads that itself."""
    yield
    assert capfd.readouterr() == ("", "")


def test_a_text_reads_no_metadata_of_packages(model: gentext.TextModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """They took a fifth of the time of a short text."""
    monkeypatch.setattr(metadata, "version", raiser(AssertionError("read")))
    assert len(model.write("a", length=3, seed=1)) == 3


# -- the same texts as the commands -------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "flags"),
    [
        ({}, []),
        ({"temperature": 0.7, "top_k": 3}, ["--temperature", 0.7, "--top-k", 3]),
        ({"top_k": np.int64(2), "top_p": np.float32(0.5)}, ["--top-k", 2, "--top-p", 0.5]),
        ({"penalties_repeat_penalty": 1.3}, ["--repeat-penalty", 1.3]),
        ({"params": {"penalties.repeat_penalty": 1.3, "top_k.top_k": 4}}, ["--repeat-penalty", 1.3, "--top-k", 4]),
        ({"chain": ["top_k", "temperature"], "top_k": 2}, ["--chain", "top_k,temperature", "--top-k", 2]),
        ({"chain": []}, ["--chain", ""]),
        ({"stop": "ab"}, ["--stop", "ab"]),
        ({"stop": ["ab", "c"]}, ["--stop", "ab", "--stop", "c"]),
    ],
)
@pytest.mark.parametrize("file", ["", MODEL_FILE, GENERATOR_FILE])
def test_texts_are_those_of_the_command(
    file: str, parameters: dict[str, Any], flags: list[Any], gen: Gen, tiny_run: Path
) -> None:
    model = gentext.load(tiny_run / file)
    options = ["--prime", "abc. ", "--seed", 5, "--length", 40, *flags]
    code, out, err = gen("sample", tiny_run / file, *options)
    assert code == 0, err
    text = model.write("abc. ", seed=5, length=40, **parameters)
    assert out == f"abc. {text}\n"
    pieces = model.stream("abc. ", seed=5, length=40, **parameters)
    assert "".join(pieces) == text
    assert (pieces.seed, pieces.result.text) == (5, text)
    code, out, err = gen("sample", tiny_run / file, *options, "--count", 3, "--json")
    assert code == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    texts = model.write_many(["abc. "], count=3, seed=5, length=40, **parameters)
    for row, written in zip(rows, texts, strict=True):
        for field in ("stream", "seed", "prime", "text", "finish"):
            assert row[field] == getattr(written, field)
        assert row["tokens"] == list(written.tokens)
        assert row["logprobs"] == [round(logprob, 6) for logprob in written.logprobs]


def test_each_prime_has_its_streams(model: gentext.TextModel) -> None:
    primes = ["a", "", "abc. "]
    texts = model.write_many(primes, count=4, seed=9, length=30, stop="ba")
    assert [written.stream for written in texts] == list(range(12))
    assert [written.prime for written in texts] == [prime for prime in primes for _ in range(4)]
    for written in texts:
        alone = model.write(written.prime, seed=9, stream=written.stream, length=30, stop="ba")
        assert alone == written.text
    [again] = model.write_many(["abc. "], seed=9, stream=10, length=30, stop="ba")
    assert again == texts[10]
    assert model.write_many([]) == []
    with pytest.raises(AttributeError):
        again.text = "another"  # type: ignore[misc]


def test_fresh_seeds_differ_and_are_in_the_result(model: gentext.TextModel) -> None:
    first, second = model.write_many(length=20), model.write_many(length=20)
    assert first[0].seed != second[0].seed
    assert model.write(seed=first[0].seed, length=20) == first[0].text
    stream = model.stream(length=20)
    assert "".join(stream) == model.write(seed=stream.seed, length=20)


def test_stream_without_end(model: gentext.TextModel) -> None:
    stream = model.stream(length=None, seed=1)
    text = ""
    while len(text) < 700:
        text += next(stream)
    stream.close()
    assert list(stream) == []
    assert model.write(length=700, seed=1) == text[:700]
    assert stream.result.finish == "running"


def test_two_streams_take_turns(model: gentext.TextModel) -> None:
    streams = [model.stream("ab", seed=seed, length=300) for seed in (1, 2)]
    texts = ["", ""]
    for pieces in zip(*streams, strict=True):
        texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
    texts = [text + "".join(stream) for text, stream in zip(texts, streams, strict=True)]
    assert texts == [model.write("ab", seed=seed, length=300) for seed in (1, 2)]


# -- what a model is ----------------------------------------------------------------------------


def test_attributes(model: gentext.TextModel, tiny_run: Path) -> None:
    assert model.path == tiny_run
    assert model.vocab_size == len(model.symbols) == 19
    assert set(model.symbols) == set((tiny_run / HELD_OUT_FILE).read_text(encoding="utf-8"))
    assert list(model.chain) == ["match", "top_k", "top_p", "min_p", "temperature"]
    assert model.chain["top_p"] == {"top_p": 1.0}
    assert model.chain["temperature"] == {"temperature": 0.8, "dynatemp_range": 0.0, "dynatemp_exponent": 1.0}
    assert model.card["steps"] == 4
    assert model.device == "onnxruntime on CPU"
    assert repr(model) == (
        f"<gentext model {tiny_run}: 19 symbols, chain match, top_k, top_p, min_p, temperature, onnxruntime on CPU>"
    )


def test_newest_run_is_the_default(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEN_RUNS", str(tiny_run.parent))
    model = gentext.load()
    assert model.path == tiny_run
    assert model.messages == [f"run: {tiny_run}"]


def test_samplers_by_name(tiny_run: Path) -> None:
    by_torch = gentext.load(str(tiny_run), sampler="torch")
    assert by_torch.device == "PyTorch on cpu"
    assert by_torch.write(seed=1, length=30, temperature=0) == gentext.load(tiny_run).write(
        seed=1, length=30, temperature=0
    )
    one_thread = gentext.load(tiny_run, options={"threads": 1})
    assert one_thread.write(seed=1, length=30) == gentext.load(tiny_run, threads=2).write(seed=1, length=30)


def test_what_the_commands_would_say_is_collected(model: gentext.TextModel) -> None:
    model.write(length=2, chain=["top_k"])
    model.write(length=2, chain=["top_k"])
    model.write("aXb", length=2, unknown="skip", temperature=0, top_k=2)
    uncompiled = [line for line in model.messages if "not compiled" in line]
    assert len(uncompiled) == 1
    assert "top_k has no effect: temperature leaves one symbol" in model.messages
    model.write(length=2, temperature=0, dynatemp_range=1, top_p=0.5)
    assert "top_p has no effect: temperature leaves one symbol" not in model.messages
    assert "1 characters of the prime are unknown and left out, first 'X' at position 1" in model.messages


def test_quiet_is_for_one_thread() -> None:
    spoken: list[str] = []

    def speak() -> None:
        with console.quiet() as lines:
            console.say("inside")
            spoken.extend(lines)

    with console.quiet() as lines:
        thread = threading.Thread(target=speak)
        thread.start()
        thread.join()
        console.warn("outside")
    assert (spoken, lines) == (["inside"], ["gen: warning: outside"])
    assert not console.is_quiet()


# -- losses -------------------------------------------------------------------------------------


def test_score_is_that_of_gen_eval(model: gentext.TextModel, gen: Gen, tiny_run: Path) -> None:
    code, out, err = gen("eval", tiny_run, "--json")
    assert code == 0, err
    report = json.loads(out)
    text = (tiny_run / HELD_OUT_FILE).read_text(encoding="utf-8")
    score = model.score(text)
    assert "".join(score.symbols) == text
    assert score.logprobs.shape == (len(text),)
    assert score.logprobs.max() < 0
    assert (score.characters, score.unknown) == (len(text), 0)
    for name in ("nats_per_character", "bits_per_character", "perplexity"):
        assert getattr(score, name) == report[name], name
    assert -score.logprobs.sum() / len(text) == pytest.approx(score.nats_per_character, rel=1e-12)
    assert score.bits_per_character == score.nats_per_character / math.log(2)


def test_score_leaves_out_unknown_characters(model: gentext.TextModel) -> None:
    expected, score = model.score("abba"), model.score("aZbbéaé", unknown="skip")
    assert (score.text, score.unknown, score.characters) == ("aZbbéaé", 3, 4)
    assert (score.symbols, score.logprobs.tolist()) == (expected.symbols, expected.logprobs.tolist())
    assert "3 characters of the text are unknown to the model and left out" in model.messages


def test_score_and_write_agree(model: gentext.TextModel) -> None:
    [written] = model.write_many(length=50, seed=3)
    score = model.score(written.text)
    assert score.logprobs == pytest.approx(written.logprobs, abs=1e-4)


# -- errors -------------------------------------------------------------------------------------

#: Arguments of `write`, and the whole message of their UsageError.
WRONG = [
    ({"top_k": -1}, "top_k = -1: expected a whole number from 0"),
    ({"top_k": 2.5}, "top_k = 2.5: expected a whole number from 0"),
    ({"top_k": "five"}, "top_k = 'five': expected a number"),
    ({"top_k": True}, "top_k = True: expected a number"),
    ({"temperature": "0.8"}, "temperature = '0.8': expected a number"),
    ({"temperature": math.nan}, "temperature = nan: expected a number from 0 up to 1e+06"),
    ({"params": {"top_p.top_p": 2}}, "top_p.top_p = 2: expected a number from 0 up to 1"),
    ({"length": 0}, "length = 0: expected a whole number from 1"),
    ({"length": 1.5}, "length = 1.5: expected a whole number from 1"),
    ({"seed": -1}, "seed = -1: expected a whole number from 0 to 18446744073709551615"),
    ({"seed": 0.5}, "seed = 0.5: expected a whole number from 0 to 18446744073709551615"),
    ({"stream": -1}, "stream = -1: expected a whole number from 0 to 18446744073709551615"),
    ({"stop": ""}, "stop = '': expected at least one character"),
    ({"stop": ["a", "\udcff"]}, r"stop = '\udcff': not text in UTF-8, so it would never be found"),
    ({"stop": 3}, "stop = 3: expected a text, or a list of texts"),
    ({"stop": ["a", 3]}, "stop = 3: expected a text"),
    ({"params": ["top_k"]}, "params = ['top_k']: expected a dict such as {'top_k.top_k': 5}"),
    ({"unknown": "no"}, "unknown = 'no': expected error, skip or unknown"),
    ({"chain": "top_k"}, "chain = 'top_k': expected a list of links"),
    (
        {"lenght": 5},
        "no parameter lenght. Did you mean 'length'? gen sample --help lists those of links; "
        "links of plugins: chain=[...]",
    ),
    (
        {"tempreture": 1},
        "no parameter tempreture. Did you mean 'temperature'? gen sample --help lists those of links; "
        "links of plugins: chain=[...]",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_wrong_arguments(arguments: dict[str, Any], message: str, model: gentext.TextModel) -> None:
    for method in (model.write, model.stream, model.write_many):
        with pytest.raises(UsageError) as caught:
            method(**arguments)
        assert str(caught.value).startswith(message)
        assert str(caught.value) == message or message.endswith(": ")


def test_wrong_requests(model: gentext.TextModel) -> None:
    with pytest.raises(UsageError, match=r"^primes = 'ab': expected a list of texts$"):
        model.write_many("ab")
    with pytest.raises(UsageError, match=r"^prime = None: expected a text$"):
        model.write_many(["a", None])  # type: ignore[list-item]
    with pytest.raises(UsageError, match=r"^text = 3: expected a text$"):
        model.score(3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^path = 3: expected the path of a run or of an \.onnx file$"):
        gentext.load(3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^count = 0: expected 1 to 50000; for more, run it again with another seed$"):
        model.write_many(["a", "b"], count=0)
    with pytest.raises(UsageError, match=r"^length = None: only the method stream writes without end"):
        model.write(length=None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^stream = 18446744073709551615: .* to 18446744073709551613$"):
        model.write_many(count=3, stream=2**64 - 1)
    with pytest.raises(PrimeError, match=r"'Z' at position 1.* use unknown = 'skip'$"):
        model.write("aZ")
    with pytest.raises(UnknownComponent, match=r"no strategy 'top_kk'"):
        model.write(chain=["top_kk"])
    with pytest.raises(
        CorpusError, match=r"^the text: 1 characters are not among the model's 19 symbols.* use unknown = 'skip' to"
    ):
        model.score("aZ")
    with pytest.raises(UsageError, match=r"^unknown = 'no': expected error or skip$"):
        model.score("a", unknown="no")
    with pytest.raises(CorpusError, match=r"^the text: no text to measure$"):
        model.score("Z", unknown="skip")
    with pytest.raises(CorpusError, match=r"^the text: no text to measure$"):
        model.score("")


def test_models_that_cannot_be_opened(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEN_RUNS", str(tmp_path / "none"))
    (tmp_path / "file.txt").write_text("text")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.toml").write_text("")
    with pytest.raises(RunError, match=r"^no run in .*none/; make one with: gen train; or .* sample shakespeare$"):
        gentext.load()
    with pytest.raises(RunError, match="no such run or file"):
        gentext.load(tmp_path / "missing")
    with pytest.raises(FileFormatError, match=r"expected a run folder or an \.onnx file"):
        gentext.load(tmp_path / "file.txt")
    with pytest.raises(RunError, match=r"was not exported yet: it has no model\.onnx\. Make one with: gen export"):
        gentext.load(tmp_path / "bare")
    with pytest.raises(RunError, match="the torch sampler reads a run folder; the sampler onnx opens files"):
        gentext.load(tiny_run / MODEL_FILE, sampler="torch")
    with pytest.raises(UsageError, match=r"^device = 'gpu': expected auto, cpu or cuda$"):
        gentext.load(tiny_run, device="gpu")
    for threads in (-1, "x", 1.5):
        with pytest.raises(UsageError, match=rf"^threads = {re.escape(repr(threads))}: expected 1 to"):
            gentext.load(tiny_run, threads=threads)
    with pytest.raises(ConfigError, match=r"unknown key sampler\.thread"):
        gentext.load(tiny_run, options={"thread": 1})


def test_without_onnxruntime(tiny_run: Path) -> None:
    """The base install has it; where it is missing all the same, the error says so."""
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "import gentext\n"
        "try: gentext.load(sys.argv[1])\n"
        "except gentext.GenError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, tiny_run], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "the sampler 'onnx'" in done.stdout and "onnxruntime" in done.stdout


# -- samplers declare what they open ---------------------------------------------------------------


def declared(*opens: Any) -> Any:
    return type("Declared", (), {"opens": opens})


def test_what_a_sampler_opens(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "model.bin"
    other.write_bytes(b"")
    assert set(openable_sources(object, "plain")) == {"run", "any file"}
    with pytest.raises(PluginError, match="'torch' declares that it opens 'folder'; expected some of run, exported"):
        openable_sources(declared("folder"), "torch")

    def opened(path: Path | None, *opens: SourceKind) -> Path | str:
        try:
            return find_source(path, opens, "mine")
        except GenError as error:
            return str(error)

    assert opened(other, "any file") == other
    assert "expected a run folder or an .onnx file" in str(opened(other, "onnx file", "run"))
    assert opened(tiny_run / MODEL_FILE, "onnx file") == tiny_run / MODEL_FILE
    for path in (tiny_run / MODEL_FILE, other):
        assert "the mine sampler reads a run folder; the sampler onnx opens files" in str(opened(path, "run"))
    assert "the sampler 'mine' opens files only" in str(opened(tiny_run, "any file"))
    assert "name a file" in str(opened(None, "onnx file"))
    monkeypatch.setenv("GEN_RUNS", str(tiny_run.parent))
    with console.quiet():
        assert opened(None, "exported run") == opened(None, "run") == tiny_run


# -- training -----------------------------------------------------------------------------------


def train(tiny_text: Path, run: Path, **options: Any) -> gentext.TextModel:
    return gentext.train(tiny_text, run=run, settings=TINY, precision="fp32", steps=4, **options)


def test_train_returns_an_opened_model(tiny_text: Path, tiny_run: Path, tmp_path: Path) -> None:
    model = train(tiny_text, tmp_path / "run")
    assert model.path == tmp_path / "run"
    assert model.write("ab", seed=1, length=40) == gentext.load(tiny_run).write("ab", seed=1, length=40)
    assert any("budget: 4 steps" in line for line in model.messages)
    assert any("symbols/s; everything is in" in line for line in model.messages)


def test_train_without_export_runs_the_checkpoint(tiny_text: Path, tiny_run: Path, tmp_path: Path) -> None:
    model = train(tiny_text, tmp_path / "run", export=False, init_from=tiny_run)
    assert model.device == "PyTorch on cpu"
    assert len(model.write(seed=1, length=10)) == 10
    with pytest.raises(RunError, match="not exported yet"):
        gentext.load(tmp_path / "run")


def test_train_with_progress_prints(tiny_text: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(tiny_text, tmp_path / "run", export=False, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "budget: 4 steps" in err and "step 4/4" in err


def test_train_refuses_what_the_command_refuses(tiny_text: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="steps = 4 and minutes = 1: expected one of"):
        train(tiny_text, tmp_path / "run", minutes=1)
    with pytest.raises(ConfigError, match=r"unknown key model\.hiden\. Did you mean 'hidden'\?"):
        gentext.train(tiny_text, settings={"model.hiden": 3})
    with pytest.raises(ConfigError, match=r"model\.hidden = <object .*: expected a number, a text, or a list"):
        gentext.train(tiny_text, settings={"model.hidden": object()})
    with pytest.raises(CorpusError, match="no such file, and no corpus of that name"):
        gentext.train(tmp_path / "missing.txt")


#: Trains on records in memory in a process that kills itself after two steps.
KILLED_TRAINING = """
import json, sys
from killed import Killer
import gentext
from gentext.manager import host
host()._manager.register(Killer("step_done", 2))
gentext.train(records=(record for record in json.load(sys.stdin)), **json.loads(sys.argv[1]))
"""


def read_best(run: Path) -> dict[str, bytes]:
    """Return the tensors of the only checkpoint of the best step; its metadata have seconds, which differ."""
    from safetensors.numpy import load_file

    [path] = run.glob("checkpoints/best-*")
    return {name: tensor.tobytes() for name, tensor in load_file(path).items()}


@pytest.mark.slow
def test_records_in_memory_are_kept(tmp_path: Path, gen: Gen, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed run ends as one that was not killed, and where it lies by now makes no difference."""
    records = [f"ab{number}\n\r\u2028c" for number in range(200)]
    options = {"settings": TINY, "precision": "fp32", "steps": 4, "export": False}
    gentext.train(records, run=tmp_path / "whole", **options)
    script = [sys.executable, "-c", KILLED_TRAINING, json.dumps({**options, "run": str(tmp_path / "run")})]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    result = subprocess.run(script, input=json.dumps(records).encode(), env=environment, stderr=subprocess.PIPE)
    assert result.returncode == -signal.SIGKILL, result.stderr.decode()
    (tmp_path / "run").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    code, _, err = gen("train", "--resume", "--run", "moved")
    assert code == 0, err
    assert read_best(tmp_path / "moved") == read_best(tmp_path / "whole")
    kept = [json.loads(line)["text"] for line in (tmp_path / "moved" / "corpus.jsonl").read_text().split("\n")[:-1]]
    assert kept == records


def test_a_run_on_records_in_memory_that_was_only_begun_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise TrainingStopped("before the first checkpoint")

    options = {"run": tmp_path / "run", "settings": TINY, "precision": "fp32", "steps": 2, "export": False}
    with monkeypatch.context() as patch:
        patch.setattr(BPTTTrainer, "fit", stop)
        with pytest.raises(TrainingStopped):
            gentext.train([f"ab{number}" for number in range(99)], **options)
    assert (tmp_path / "run" / "corpus.jsonl").exists()
    gentext.train([f"ba{number}" for number in range(99)], **options)
    assert b"ba98" in (tmp_path / "run" / "corpus.jsonl").read_bytes()


def test_text_in_memory_is_that_of_a_file(tiny_text: Path, tmp_path: Path) -> None:
    text = "\ufeff" + tiny_text.read_text().replace("\n", "\r\n")
    options = {"settings": TINY, "precision": "fp32", "steps": 4, "export": False}
    gentext.train(text=text, run=tmp_path / "memory", **options)
    gentext.train(tiny_text, run=tmp_path / "file", **options)
    assert read_best(tmp_path / "memory") == read_best(tmp_path / "file")
    assert (tmp_path / "memory" / "corpus.txt").read_bytes() == tiny_text.read_bytes()
    gentext.train(run=tmp_path / "memory", resume=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"corpus": "a long text\n" * 999},
            "no file has such a name; if these 11,988 characters are the text, .* text=",
        ),
        ({"corpus": "a" * 5000}, "no file has such a name"),
        ({"minuts": 1}, "gentext.train has no argument minuts. Did you mean 'minutes'"),
        ({"corpus": 5}, "corpus = 5: expected a path, or records"),
        ({"corpus": b"a"}, "corpus = b'a': expected a path"),
        ({"corpus": ["a"], "records": "lines"}, "leave out records"),
        ({"corpus": "a", "text": "b"}, "corpus and text: expected one of them"),
        ({"records": []}, "records: none in it"),
        ({"records": ["a", 5]}, r"records\[1\] = 5: expected a text"),
        ({"records": ["a", ""]}, r"records\[1\] is empty"),
        ({"records": ["\ud800"]}, r"records\[0\]: '\\ud800' is half a surrogate pair"),
        ({"records": {"a": 1}}, "expected records, as a list of texts, or a layout"),
        ({"records": ["a"], "weight": "n"}, "a list of records has neither"),
        ({"text": ""}, "expected some text"),
        ({"text": b"a"}, "text = b'a': expected a text"),
        ({"text": "a\0"}, "a NUL at character 1"),
        ({"text": "/"}, "a file has this name"),
        ({"text": "ab" * 99, "run": 5}, "run = 5: expected a path"),
        ({"text": "ab" * 99, "val": ["a"]}, r"val = \['a'\]: expected a path"),
        ({"text": "ab" * 99, "preset": 5}, "preset = 5: expected one of"),
        ({"text": "ab" * 99, "settings": ["a"]}, r"settings = \['a'\]: expected a dict"),
    ],
)
def test_what_cannot_be_learned_from(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(GenError, match=message):
        gentext.train(**arguments)


def test_train_alone(tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun's processes need `gen train`, which connects them."""
    for name, setting in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, setting)
    with pytest.raises(UsageError, match=r"with torchrun, start: -m gentext\.cli train"):
        train(tiny_text, tmp_path / "run")


# -- threads ------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [MODEL_FILE, GENERATOR_FILE])
def test_threads_write_as_if_alone(file: str, tiny_run: Path) -> None:
    model = gentext.load(tiny_run / file)
    alone = [model.write_many(["ab", ""], count=20, seed=seed, length=60) for seed in range(4)]
    with ThreadPoolExecutor(4) as threads:
        together = list(
            threads.map(lambda seed: model.write_many(["ab", ""], count=20, seed=seed, length=60), range(4))
        )
        streamed = list(threads.map(lambda seed: "".join(model.stream("ab", seed=seed, length=60)), range(4)))
        scores = list(threads.map(lambda text: model.score(text).nats, ["abc" * 100] * 4))
    assert together == alone
    assert streamed == [texts[0].text for texts in alone]
    assert len(set(scores)) == 1


#: Loads the plugins in several threads at once, in a process where nobody has loaded them.
LOADING = """
import sys, threading
import gentext
models, barrier = [], threading.Barrier(4)
def load():
    barrier.wait()
    models.append(gentext.load(sys.argv[1]))
threads = [threading.Thread(target=load) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len({model.write(seed=1, length=20) for model in models}), len(models))
"""


def test_threads_load_at_once(tiny_run: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LOADING, tiny_run], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1 4\n", "")


def test_train_in_a_thread(tiny_text: Path, tiny_run: Path, tmp_path: Path) -> None:
    """Training beside the main thread sets no signal handler there, and only one run trains at a time."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(train, tiny_text, tmp_path / "first")
        second = threads.submit(train, tiny_text, tmp_path / "second")
        written = threads.submit(gentext.load(tiny_run).write, "ab", seed=1, length=40)
        outcomes = [future.exception() or future.result() for future in (first, second)]
    models = [outcome for outcome in outcomes if isinstance(outcome, gentext.TextModel)]
    refusals = [str(outcome) for outcome in outcomes if isinstance(outcome, UsageError)]
    assert len(models) == 1
    assert refusals == ["another run trains in this process; wait for its end, or train in a process of its own"]
    assert models[0].write("ab", seed=1, length=40) == written.result()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    train(tiny_text, tmp_path / "third", export=False)
