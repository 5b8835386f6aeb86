"""The user who does everything wrong: one clear line, exit status 1 or 2, nothing lost."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import fails, spelled

from gentext.run import Run

Gen = Callable[..., tuple[int, str, str]]

BUDGET = "--steps 2 --no-export"
#: A size whose layers would need hundreds of gigabytes.
HUGE = "--set model.hidden=65536"
#: A size whose steps take next to no time.
SMALL = "--set model.hidden=8 --set run.threads=1"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_run: Path, tiny_text: Path) -> dict[str, Path]:
    """Paths by the names that the tables below use."""
    base = tmp_path_factory.mktemp("place")
    files = {
        "empty": b"",
        "binary": b"\0\1\2" * 100,
        "one": b"a" * 5000,
        "short": b"hello world",
        "latin": "caf\xe9 ".encode("latin-1") * 100,
        "strange": "abc\N{SNOWMAN}abc".encode(),
        "bad.toml": b"[model]\nhidden = \n",
        "section.toml": b"[modle]\nhidden = 8\n",
        "two.toml": b"[run]\nsteps = 2\nminutes = 1.0\n",
        "model.txt": (tiny_run / "model.onnx").read_bytes(),
    }
    for name, content in files.items():
        (base / name).write_bytes(content)
    for folder in ("nothing", "scans", "folder.onnx"):
        (base / folder).mkdir()
    (base / "scans" / "page.pdf").write_bytes(b"%PDF-1.7")
    return {"base": base, "run": tiny_run, "text": tiny_text, "onnx": tiny_run / "model.onnx"}


@pytest.fixture
def no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a new run would go: a test that fails must leave nothing there."""
    monkeypatch.setenv("GEN_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


#: Commands that end with status 2, and what their line says.
USAGE = [
    ("trian", "No such command 'trian'. Did you mean 'train'? See: gen --help"),
    ("--sed 1", "--sed"),
    ("train {text} more", "(more)"),
    ("train {text} --stepss 3", "--stepss", "--steps"),
    ("train {text} --steps", "--steps"),
    ("train {text} --steps x", "--steps", "'x' is not a valid int"),
    ("train {text} --steps 2.5", "--steps", "'2.5'"),
    ("train {text} --epochs x", "--epochs", "'x'"),
    ("train {text} --seed x", "--seed", "'x'"),
    ("train {text} --seed 1.5", "--seed", "'1.5'"),
    ("train {text} --val-frac x", "--val-frac", "'x'"),
    ("train --resume --run {run} --preset small", "leave out everything but corpus and run"),
    ("train --resume --run {run} --epochs 2", "resume goes on", "settings of the run"),
    ("train --resume --run {run} --set model.hidden=3", "resume goes on with the settings"),
    ("export {run} --precision int3 -o {base}/new", "precision = 'int3': expected"),
    ("export {run} --limit nan", "--limit nan: expected 0 or more"),
    ("bench {run} --device gpu", "device = 'gpu': expected auto, cpu or cuda"),
    ("sample {run} more", "(more)"),
    ("sample {run} --prime a --prime-file {base}/short", "expected one of them"),
    ("sample {run} --length -1", "--length -1: expected 0 (without end) or more"),
    ("sample {run} --length x", "--length", "'x'"),
    ("sample {run} --count 0", "--count 0: expected 1"),
    ("sample {run} --count 1000000000", "--count 1000000000: expected 1 to"),
    ("sample {run} --length 0 --count 2", "--length 0", "--count 2"),
    ("sample {run} --seed x", "--seed", "'x'"),
    ("sample {run} --seed -1", "gen: error: --seed -1: expected a whole number from 0"),
    ("sample {run} --seed 1180591620717411303424", "seed 1180591620717411303424", "18446744073709551615"),
    ("sample {run} --device gpu", "device = 'gpu': expected auto, cpu or cuda"),
    ("sample {run} --unknown no --prime a", "--unknown no: expected error, skip or unknown"),
    ("sample {run} --stop ''", "--stop ''"),
    ("sample {run} --stop '\\ud800'", r"--stop '\ud800': not text in UTF-8"),
    ("sample {run} --count 2 --json --separator x", "--separator and --json: expected one of them"),
    ("sample {run} --count 2 --separator '\\udcff'", "--separator", "not text in UTF-8"),
    ("sample {run} --top-k -1", "--top-k -1: expected a whole number from 0"),
    ("sample {run} --top-k 2.5", "--top-k 2.5: expected a whole number"),
    ("sample {run} --top-k 1e30", "--top-k 1e30", "up to 9.22"),
    ("sample {run} --top-k five", "--top-k 'five': expected a number"),
    ("sample {run} --top-k nan", "--top-k nan"),
    ("sample {run} --top-k ''", "--top-k ''"),
    ("sample {run} --top-p 1.1", "--top-p 1.1: expected a number from 0 up to 1"),
    ("sample {run} --top-p -0.1", "--top-p -0.1"),
    ("sample {run} --min-p 2", "--min-p 2"),
    ("sample {run} --temperature -1", "--temperature -1: expected a number from 0"),
    ("sample {run} --temperature nan", "--temperature nan"),
    ("sample {run} --temperature inf", "--temperature inf"),
    ("sample {run} --temperature", "--temperature: expected a value"),
    ("sample {run} --tempreture 1", "no option --tempreture. Did you mean 'temperature'?"),
    ("sample {run} --lenght 1", "Did you mean 'length'?"),
    ("sample {run} --set model.hidden=3", "sampler"),
    ("eval {run} --device gpu", "device = 'gpu': expected auto, cpu or cuda"),
    ("plugins --jsn", "--jsn", "--json"),
]

#: Commands that end with status 1, and what their line says.
ERRORS = [
    ("export", "no run in", "make one with: gen train"),
    # texts
    ("train {base}/missing.txt", "missing.txt: no such file, and no corpus of that name"),
    ("train ''", "'': no such file"),
    ("train shakespeare", "Did you mean 'tinyshakespeare'?"),
    ("train {base}/empty", "empty; expected some text"),
    ("train {base}/binary", "looks binary", "UTF-8"),
    ("train {base}/latin", "not UTF-8 at byte 3 (0xe9)", "iconv"),
    ("train {base}/one --set tokenizer.name=char", "one symbol only"),
    ("train {base}/short", "9 symbols", "needs", "longer text"),
    ("train {base}/nothing", "no text in this folder"),
    ("train {base}/scans", "no text in this folder"),
    ("train -", "-: empty"),
    # files where folders are due, and the reverse
    ("train {text} --config {base}", "is a folder; expected a TOML file"),
    ("train {text} --config {base}/missing.toml", "no such file; expected a TOML file"),
    ("train {text} --config {base}/bad.toml", "bad.toml: not valid TOML", "line 2"),
    ("train {text} --config {base}/latin", "not UTF-8 at byte 3"),
    ("train {text} --config {base}/section.toml", "unknown section [modle]. Did you mean 'model'?"),
    ("train {text} --run {text}", "tiny.txt is a file; expected a folder for the run"),
    ("train {text} --run {base}/short/run " + BUDGET, "cannot be made", "name another folder for the run"),
    ("train {text} --run " + "x" * 300, "File name too long"),
    ("train {text} --run {run}", "is not empty; resume its run, or name another folder for the run"),
    ("train --resume --run {text}", "is a file; expected a run folder"),
    ("train --resume --run {base}/nothing", "is no run: it has no config.toml"),
    ("train --resume --run {base}/missing", "no such run"),
    ("train --resume", "nothing to resume", "name the folder of one"),
    ("train {base}/short --resume --run {run}", "was trained on another text", "same text"),
    ("sample", "no run in", "gen train"),
    ("sample {base}/missing", "no such run or file"),
    ("sample {text}", "expected a run folder or an .onnx file"),
    ("sample {base}/model.txt", "expected a run folder or an .onnx file"),
    ("sample {base}/nothing", "is no run"),
    ("sample {base}/folder.onnx", "is no run"),
    ("sample {onnx} --sampler torch", "torch sampler reads a run folder"),
    ("info {text}", "expected a run folder"),
    ("export {onnx}", "is a file; expected a run folder"),
    ("export {run} -o {text}", "is a file; expected a folder"),
    ("export {run} -o {base}/short/out", "cannot be made"),
    ("eval {run} {base}/missing", "no such file"),
    ("eval {onnx} {base}/empty", "empty"),
    ("eval {run} {base}/strange", "'\N{SNOWMAN}' at position 3"),
    ("sample {run} --prime-file {base}/missing", "--prime-file", "cannot be read", "expected a text file"),
    ("sample {run} --prime-file {base}", "--prime-file", "cannot be read"),
    ("sample {run} --prime-file {base}/latin", "not UTF-8 at byte 3; convert it"),
    # names
    ("train {text} --preset smal", "no preset 'smal'", "Did you mean 'small'?"),
    ("train {text} --preset ''", "no preset ''"),
    ("train {text} --set modle.hidden=3", "unknown section [modle]. Did you mean 'model'?"),
    ("train {text} --set model.hiden=3", "unknown key model.hiden. Did you mean 'hidden'?"),
    ("train {text} --set hidden=3", "setting hidden=3: expected section.key=value"),
    ("train {text} --set tokenizer.name=chars", "no tokenizer 'chars'", "Did you mean 'char'?"),
    ("train {text} --set batcher.name=streams", "no batcher 'streams'", "Did you mean 'stream'?"),
    ("train {text} --set model.name=lsmt", "no model 'lsmt'", "Did you mean 'lstm'?"),
    ("train {text} --set trainer.name=bpt", "no trainer 'bpt'", "Did you mean 'bptt'?"),
    ("train {text} --set 'chain.links=[\"top_kk\"]'", "no strategy 'top_kk'", "Did you mean 'top_k'?"),
    ('train {text} --set \'chain.links=["top_k","top_k"]\'', "names 'top_k' twice"),
    ("train {text} --set chain.top_k.top_k=-1", "top_k.top_k = -1: expected a whole number from 0"),
    ("train {text} --set chain.penalties.repeat_penalty=2", "chain.penalties", "the chain is match, top_k"),
    ("sample {run} --sampler onxx", "no sampler 'onxx'", "Did you mean 'onnx'?"),
    ("sample {run} --chain top_kk", "no strategy 'top_kk'", "Did you mean 'top_k'?"),
    ("sample {run} --chain top_k,top_p,top_k", "names 'top_k' twice"),
    ("plugins lsmt", "no component 'lsmt'. Did you mean 'lstm'?"),
    # numbers
    ("train {text} --steps 0", "steps = 0"),
    ("train {text} --steps -1", "steps = -1"),
    (f"train {{text}} --steps {10**30}", "run.steps = 1000000000000000000000000000000: expected", "1000000000"),
    (f"train {{text}} --steps {10**400}", "run.steps = 1000", "expected", "1000000000"),
    ("train {text} --epochs 1e300", "run.epochs = 1e+300: expected", "<= 1"),
    (
        f"train {{text}} {SMALL} --epochs 9e8",
        "run.epochs = 9e+08: that would be",
        "steps, and 1,000,000,000 are the most",
    ),
    ("train {text} --minutes 1e9", "run.minutes = 1000000000.0: expected", "<= 1"),
    ("train {text} --epochs 0", "epochs = 0"),
    ("train {text} --epochs -1", "epochs = -1"),
    ("train {text} --epochs nan", "epochs = nan: expected a finite number"),
    ("train {text} --minutes 0", "minutes = 0"),
    ("train {text} --minutes inf", "minutes = inf: expected a finite number"),
    ("train {text} --steps 2 --minutes 1", "steps = 2 and minutes = 1: expected one of"),
    ("train {text} --set run.steps=2 --set run.minutes=1", "steps = 2 and minutes = 1: expected one of"),
    ("train {text} --config {base}/two.toml", "steps = 2 and minutes = 1: expected one of"),
    ("train {text} --set run.val_frac=-0.1", "val_frac = -0.1"),
    ("train {text} --val-frac 1", "val_frac = 1"),
    ("train {text} --val-frac 2", "val_frac = 2"),
    ("train {text} --val-frac 0.00001", "too few", "longer text"),
    ("train {text} --seed -1", "seed = -1"),
    ("train {text} --seed 1180591620717411303424", "seed = 1180591620717411303424"),
    ("train {text} --device gpu", "device = 'gpu': expected auto, cpu or cuda"),
    ("train {text} --precision fp8", "precision = 'fp8': expected auto, fp32, bf16 or fp16"),
    ("train {text} --set model.hidden=0", "model.hidden = 0"),
    ("train {text} --set model.hidden=abc", "model.hidden = 'abc'"),
    ("train {text} --set model.hidden=true", "model.hidden = True"),
    ("train {text} --set model.hidden=1000000000", "model.hidden = 1000000000", "65536"),
    (f"train {{text}} {HUGE} --device cpu", "parameters need", "GB", "smaller model"),
    ("train {text} --set model.embedding=100000000000 --device cpu", "parameters need", "smaller model"),
    ("train {text} --set model.dropout=1.0", "model.dropout = 1.0"),
    ("train {text} --set trainer.rate=inf", "trainer.rate = inf"),
    ("train {text} --set trainer.rate=0", "trainer.rate = 0"),
    ("train {text} --set run.threads=1000000", "run.threads = 1000000", "1024"),
    ("train {text} --set batcher.batch=100000000", "100000000 x ", "lower batcher.batch"),
    ("train {text} --device cpu --precision fp16", "precision = fp16: only a GPU", "fp32 or auto"),
]


@pytest.mark.parametrize(("command", "fragments"), [(one[0], one[1:]) for one in USAGE])
def test_wrong_usage(command: str, fragments: tuple[str, ...], gen: Gen, place: dict[str, Path], no_run: Path) -> None:
    before = sorted(place["base"].rglob("*"))
    fails(2, gen(*spelled(command, place)), *fragments)
    assert not no_run.exists()
    assert sorted(place["base"].rglob("*")) == before


@pytest.mark.parametrize(("command", "fragments"), [(one[0], one[1:]) for one in ERRORS])
def test_what_cannot_be(
    command: str, fragments: tuple[str, ...], gen: Gen, place: dict[str, Path], no_run: Path
) -> None:
    before = sorted(place["base"].rglob("*"))
    fails(1, gen(*spelled(command, place)), *fragments)
    assert not no_run.exists()
    assert sorted(place["base"].rglob("*")) == before


def test_bare_command_shows_its_help(gen: Gen) -> None:
    code, out, err = gen()
    assert (code, err) == (2, "")
    assert "Usage: gen" in out


# -- primes -----------------------------------------------------------------------------------


def test_unknown_characters_of_a_prime(gen: Gen, tiny_run: Path) -> None:
    request = ("sample", tiny_run, "--length", 5, "--seed", 1, "--prime")
    fails(1, gen(*request, "abZc"), "'Z' at position 2", "--unknown skip")
    fails(1, gen(*request, "abZc", "--unknown", "unknown"), "no unknown symbol", "--unknown skip")
    code, out, err = gen(*request, "abZc", "--unknown", "skip")
    assert (code, len(out)) == (0, len("abZc") + 5 + 1), err
    assert "'Z' at position 2" in err
    assert out.removeprefix("abZc") == gen(*request, "abc")[1].removeprefix("abc")


def test_half_characters_on_the_command_line(gen: Gen, tiny_run: Path) -> None:
    # Bytes that are no UTF-8 reach a program as lone surrogates.
    request = ("sample", tiny_run, "--length", 5, "--seed", 1)
    fails(1, gen(*request, "--prime", "a\udcff"), r"'\udcff' at position 1")
    fails(2, gen(*request, "--stop", "\udcff"), r"--stop '\udcff'")
    fails(1, gen("train", "\ud800"), "no such file")
    fails(1, gen("train", "no\0where\n"), "no such file")
    for options in ([], ["--json"], ["--count", 2]):
        code, out, err = gen(*request, "--prime", "a\udcffb", "--unknown", "skip", *options)
        assert code == 0, err
        assert "a?b" in out


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_utf8_serve_as_any_other(gen: Gen, tiny_text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "d\udce9"
    folder.mkdir()
    text, page, table = folder / "caf\udce9.txt", folder / "p\udce9.html", folder / "o\udce9"
    text.write_bytes(tiny_text.read_bytes())
    training = ["train", text, "--val", text, "--steps", "2", *SMALL.split()]
    fails(1, gen(*training, "--run", folder / "run"), r"d\udce9/run: not UTF-8; name another folder for the run")
    assert not (folder / "run").exists()
    run = tmp_path / "run"
    assert gen(*training, "--run", run)[0] == 0
    assert Run(run).config["corpus"]["origin"] == str(text)
    assert gen("train", "--resume", "--run", run)[0] == 0
    shutil.copytree(run, folder / "run")
    fails(1, gen("sample", folder / "run"), "a path that is not UTF-8, which onnxruntime cannot read; rename it")
    for arguments in (
        ("eval", run, text, "--json"),
        ("score", run, text),
        ("score", run, text, "--format", "csv", "-o", table),
        ("inspect", run, text, "--length", "20", "-o", page, "--png", folder / "p\udce9.png"),
        ("info", run, "--json"),
    ):
        code, out, err = gen(*arguments)
        assert code == 0, err
        out.encode()
    assert r"caf\udce9" in page.read_text(encoding="utf-8")
    assert r"caf\udce9.txt" in table.read_text(encoding="utf-8")
