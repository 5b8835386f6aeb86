"""Files without end, numbers without bound, data nested without bottom: one clear line each, in little memory."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import run_gen
from helpers import fails, one_line, read_until, spelled, start
from numpy.typing import NDArray

from gentext.data import corpus, stream
from gentext.errors import FileFormatError, UsageError
from gentext.exported.metadata import Bundle, LinkMeta, ParamMeta, StateMeta, TokenizerMeta
from gentext.files.reading import MAX_DEPTH, check_data, parse_json
from gentext.plugins.pytorch import checkpoint
from gentext.plugins.tokenizers.char import CharTokenizer
from gentext.requests.primes import encode_prime
from gentext.run import Run
from gentext.runs.source import open_exported
from gentext.scoring.score import TextLoss, score_text
from gentext.stop import StopAutomaton
from gentext.strategy import State, Table

Gen = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="devices, pipes and limits as POSIX has them")


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Let this process grow by two gigabytes at most: then it runs out of memory, and the machine does not."""
    import resource

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    previous = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**31, previous[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, previous)


@pytest.fixture(scope="module")
def unfinished_run(tmp_path_factory: pytest.TempPathFactory, tiny_text: Path, tiny_options: tuple[str, ...]) -> Path:
    """A run whose budget is longer than what was trained."""
    path = tmp_path_factory.mktemp("unfinished") / "run"
    options = (
        *tiny_options,
        "--steps",
        2,
        "--no-export",
        "--set",
        "trainer.eval_every=1",
        "--set",
        "trainer.average=ema",
    )
    code, _, err = run_gen("train", tiny_text, "--run", path, *options)
    assert code == 0, err
    config = (path / "config.toml").read_text(encoding="utf-8").replace("steps = 2", "steps = 3")
    (path / "config.toml").write_text(config.replace("tensorboard = false", "tensorboard = true"), encoding="utf-8")
    return path


@pytest.fixture
def copy(unfinished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(unfinished_run, tmp_path / "copy"))


# -- files without end ------------------------------------------------------------------------

ENDLESS = [
    ("sample {run} --prime-file /dev/zero", "--prime-file /dev/zero: cannot be read (larger than 4 MB)"),
    ("train {text} --config /dev/zero", "/dev/zero: cannot be read (larger than 1 MB); expected a TOML file"),
    ("sweep {text} --space /dev/zero", "/dev/zero: cannot be read (larger than 1 MB)"),
    ("train /dev/zero", "/dev/zero: looks binary"),
    ("eval {run} /dev/zero", "/dev/zero: looks binary"),
    ("info /dev/zero", "/dev/zero: expected a run folder or an .onnx file"),
]


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(("command", "fragment"), ENDLESS)
def test_file_without_end(command: str, fragment: str, gen: Gen, tiny_run: Path, tiny_text: Path) -> None:
    fails(1, gen(*spelled(command, {"run": tiny_run, "text": tiny_text})), fragment)


#: File of a run, commands, and what their line says of a device and of a pipe in its place.
RUN_FILES = [
    ("config.toml", ["train --resume --run {copy}", "info {copy}", "export {copy}"], "has no config.toml"),
    ("tokenizer.json", ["train --resume --run {copy}", "export {copy}"], "damaged (a pipe, a device or a socket)"),
    ("samples.txt", ["train --resume --run {copy}"], "cannot be read (a pipe, a device or a socket); move it away"),
    ("checkpoints/*", ["train --resume --run {copy}", "export {copy}"], "it is no file"),
]


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/dev/zero"), os.mkfifo], ids=["device", "pipe"])
@pytest.mark.parametrize(("name", "commands", "fragment"), RUN_FILES)
def test_run_of_endless_files(
    name: str, commands: list[str], fragment: str, make: Callable[[Path], None], gen: Gen, copy: Path
) -> None:
    for path in list(copy.glob(name)):
        path.unlink()
        make(path)
    for command in commands:
        fails(1, gen(*spelled(command, {"copy": copy})), fragment)


def test_pipes_still_serve(gen: Gen, tiny_run: Path, tiny_text: Path, tmp_path: Path) -> None:
    def piped(content: bytes) -> str:
        """Return a name as the shell gives for ``<(command)``."""
        reader, writer = os.pipe()
        os.write(writer, content)
        os.close(writer)
        return f"/dev/fd/{reader}"

    request = ("sample", tiny_run, "--length", 5, "--seed", 1)
    plain = gen(*request, "--prime", "abc")[1]
    assert gen(*request, "--prime-file", piped(b"abc"))[1] == plain
    assert gen(*request, "--prime-file", "-", stdin=b"abc")[1] == plain
    config = piped(b"[model]\nhidden = 0\n")
    fails(1, gen("train", tiny_text, "--config", config, "--run", tmp_path / "run"), "model.hidden = 0")


def test_piped_text_without_end(
    gen: Gen, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_text: Path
) -> None:
    text = tiny_text.read_bytes()
    monkeypatch.setattr(corpus, "MAX_PIPED_CHARACTERS", 10_000)
    fails(
        1,
        gen("eval", tiny_run, "-", "--notebook", stdin=text),
        "more than 10,000 characters and no end yet; give a file",
    )
    monkeypatch.setattr(stream, "MAX_BYTES_IN_MEMORY", 5_000)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(free=10_000))
    command = ("train", "-", "--run", tmp_path / "run", "--steps", 1)
    fails(1, gen(*command, stdin=text), "cannot be copied into a temporary file", "half of the room there is taken")


# -- the sizes and numbers of an exported file ------------------------------------------------


def bundle_of(symbols: list[bytes], states: list[StateMeta] | None = None, **link: object) -> Bundle:
    links = [LinkMeta("link", **link)] if link else []  # type: ignore[arg-type]
    return Bundle("model", TokenizerMeta("char", {}), symbols, states or [], 0, links, {})


@pytest.mark.parametrize(
    ("states", "link"),
    [
        ([StateMeta(f"s{number}", [None, 2**22], "float32") for number in range(64)], {}),
        ([], {"tables": {f"t{number}": Table((2**22,)) for number in range(64)}}),
        ([], {"state": {f"s{number}": State((2**22,)) for number in range(64)}}),
        ([], {"uniforms": 2**25}),
        ([], {"params": {f"p{number}": ParamMeta(1, 1, per_symbol=True) for number in range(2**13)}}),
    ],
)
def test_sizes_are_summed_before_memory_is_taken(
    states: list[StateMeta], link: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(np, "full", lambda *_: pytest.fail("memory was allocated"))
    with pytest.raises(FileFormatError, match="together and are too large"):
        bundle_of([b"a"] * 2**12, states, **link)


def test_model_without_text_is_refused() -> None:
    with pytest.raises(FileFormatError, match="it writes no text"):
        bundle_of([b"", b""])
    with pytest.raises(FileFormatError, match="it writes no text"):
        Bundle("model", TokenizerMeta("char", {}, unknown=1), [b"", b"?"], [], 0, [], {})


@pytest.mark.parametrize(
    ("name", "text", "fragment"),
    [
        ("card", '{"parameters": ' + "9" * 400 + "}", "more than 64 bits"),
        ("card", '{"a": ' + "[" * 500 + "]" * 500 + "}", f"nested deeper than {MAX_DEPTH} levels"),
        ("card", '{"a": "' + "x" * 2**24 + '"}', "damaged metadata (card has"),
        ("tokenizer", '{"name": "char", "state": {"a": ' + "9" * 400 + "}}", "more than 64 bits"),
        ("states", json.dumps([{"name": "s", "shape": [None, *[1] * 100], "dtype": "float32"}]), "101 dimensions"),
    ],
)
def test_metadata_without_bound(name: str, text: str, fragment: str) -> None:
    metadata = bundle_of([b"a"]).to_metadata()
    with pytest.raises(FileFormatError) as caught:
        Bundle.from_metadata(metadata | {f"gentext.{name}": text}, Path("file.onnx"))
    assert fragment in str(caught.value)


# -- stop strings and primes ------------------------------------------------------------------


@pytest.mark.usefixtures("little_memory")
def test_stop_strings_in_linear_memory(gen: Gen, tiny_run: Path) -> None:
    letters = np.random.default_rng(0).choice(list("abcdefgh"), 100_000)
    for name in ("model.onnx", "generator.onnx"):
        request = ("sample", tiny_run / name, "--length", 20, "--seed", 1)
        assert gen(*request, "--stop", "".join(letters[:60_000]))[1] == gen(*request)[1]
        fails(2, gen(*request, "--stop", "".join(letters)), "the stop strings have 100,000 bytes together", "65,535")
    with pytest.raises(UsageError, match="at most 166 with 100,000 symbols"):
        StopAutomaton(["x" * 200]).token_table([b"a"] * 100_000)


@pytest.mark.usefixtures("little_memory")
def test_unknown_characters_are_left_out_of_a_long_prime() -> None:
    ids, note = encode_prime(CharTokenizer("ab", False), "aXbY" * 1_000_000, "skip")
    assert ids.tolist() == [0, 1] * 1_000_000
    assert note is not None and note.startswith("2000000 characters of the prime are unknown and left out")


# -- data nested too deeply, numbers too long -------------------------------------------------

DEEP_TOML = ["a = " + "[" * 2000 + "]" * 2000, "a = " + "{b = " * 2000 + "1" + "}" * 2000, "a" + ".a" * 2000 + " = 1"]
LONG_TOML = ["[model]\nhidden = " + "9" * 5000, "[model]\nhidden = 0x" + "f" * 5000]


@pytest.mark.parametrize("content", [*DEEP_TOML, *LONG_TOML])
def test_toml_without_bound(content: str, gen: Gen, copy: Path, tiny_text: Path, tmp_path: Path) -> None:
    path = tmp_path / "strange.toml"
    path.write_text(content, encoding="utf-8")
    for option in (("train", tiny_text, "--config", path), ("sweep", tiny_text, "--space", path)):
        fails(1, gen(*option), "strange.toml: not valid TOML: ")
    shutil.copy(path, copy / "config.toml")
    for command in ("train --resume --run {copy}", "export {copy}", "info {copy}"):
        fails(1, gen(*spelled(command, {"copy": copy})), "config.toml: not valid TOML: ")


def test_chain_of_many_links(gen: Gen, tiny_text: Path, tmp_path: Path) -> None:
    """Comparing each name with all others would take minutes."""
    links = ", ".join(f'"link{number}"' for number in range(60_000))
    (tmp_path / "long.toml").write_text(f"[chain]\nlinks = [{links}]\n", encoding="utf-8")
    fails(1, gen("train", tiny_text, "--config", tmp_path / "long.toml"), "no strategy 'link0'")


@pytest.mark.parametrize(
    ("setting", "fragment"),
    [
        ("a" + ".a" * 2000 + "=1", "2001 keys within each other"),
        ("model.hidden=" + "[" * 2000 + "]" * 2000, "nested deeper than"),
        ("model.hidden=0x" + "f" * 5000, "more than 64 bits"),
    ],
)
def test_setting_without_bound(setting: str, fragment: str, gen: Gen, tiny_text: Path) -> None:
    assert len(fails(1, gen("train", tiny_text, "--set", setting), fragment)) < 200


@pytest.mark.parametrize("depth", [100, 2000, 100_000])
def test_json_nested_deeply(depth: int, gen: Gen, copy: Path) -> None:
    nested = "[" * depth + "]" * depth
    with (copy / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(f'{{"step": 1, "val_loss": {nested}}}\n{{"step": 1, "symbols": 1e400, "val_loss": 1}}\n')
    assert gen("info", copy)[0] == 0
    (copy / "tokenizer.json").write_text(f'{{"name": "char", "state": {{"symbols": {nested}}}}}', encoding="utf-8")
    for command in ("train --resume --run {copy}", "export {copy}"):
        fails(1, gen(*spelled(command, {"copy": copy})), f"nested deeper than {MAX_DEPTH} levels")


def test_data_within_the_bounds() -> None:
    data: object = 2**64 - 1
    for _ in range(MAX_DEPTH):
        data = {"a": [data]} if isinstance(data, int) else [data]
    check_data([json.loads("[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)), 2**64 - 1, -1.5, None, "x"])
    with pytest.raises(ValueError, match="nested deeper"):
        check_data(data)
    for text in ("NaN", "[-Infinity]", "1e400", "9" * 5000, "[" * 10**6):
        with pytest.raises(ValueError):
            parse_json(text)


# -- losses -----------------------------------------------------------------------------------


def test_loss_that_is_no_number(tiny_run: Path) -> None:
    opened = open_exported(tiny_run / "model.onnx", "cpu")
    advance = opened.advance  # type: ignore[attr-defined]

    def damaged(tokens: NDArray[np.int64], state: object) -> tuple[NDArray[np.float32], object]:
        logits, state = advance(tokens, state)
        return np.full_like(logits, np.nan), state

    opened.advance = damaged  # type: ignore[attr-defined]
    with pytest.raises(FileFormatError, match="not a number"):
        score_text(opened, "abc")


def test_perplexity_beyond_any_float(
    gen: Gen, tiny_run: Path, tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert TextLoss(characters=2, symbol_count=2, nats=5000.0, unknown=0).perplexity == np.inf
    monkeypatch.setattr(TextLoss, "nats_per_character", 1000.0)
    assert "perplexity inf" in gen("eval", tiny_run, tiny_text)[1]
    code, out, _ = gen("eval", tiny_run, tiny_text, "--json")
    assert (code, json.loads(out, parse_constant=pytest.fail)["perplexity"]) == (0, None)


# -- folders ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "command"),
    [
        ("GEN_DATA_DIR", "train anna --run {new} --steps 1"),
        ("GEN_DATA_DIR", "corpora"),
        ("GEN_CACHE_DIR", "train {text} --run {new} --steps 1"),
        ("GEN_RUNS", "sample"),
        ("GEN_RUNS", "train {text} --steps 1"),
    ],
)
def test_home_of_nobody(
    variable: str, command: str, gen: Gen, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "~no-such-user/x")
    line = fails(1, gen(*spelled(command, {"text": tiny_text, "new": tmp_path / "new"})))
    assert f"{variable}=~no-such-user/x: the system knows no home folder" in line


@pytest.mark.usefixtures("warm_processes")
def test_run_that_is_moved_while_it_trains(tiny_text: Path, tiny_options: tuple[str, ...], tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = (*tiny_options, "--steps", 100_000, "--set", "trainer.eval_every=50", "--no-export")
    process = start("train", tiny_text, "--run", run, *options)
    read_until(process.stderr, b"step 50/")
    run.rename(tmp_path / "elsewhere")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    one_line(err.decode(), f"{run} was moved or removed while it was trained", "is lost", "--run ITS-NEW-PLACE")
    assert not run.exists()


def test_folder_of_checkpoints_that_is_removed(gen: Gen, copy: Path) -> None:
    kept = checkpoint.load_last_checkpoint(Run(copy))
    shutil.rmtree(copy / "checkpoints")
    path = checkpoint.save_checkpoint(Run(copy), kept.tensors, kept.meta, best=True)
    assert checkpoint.read_checkpoint(path).meta == kept.meta


@pytest.mark.parametrize("name", ["samples.txt", "metrics.jsonl", "tokenizer.json", ".lock"])
def test_folder_in_the_place_of_a_file(name: str, gen: Gen, copy: Path) -> None:
    (copy / name).unlink(missing_ok=True)
    (copy / name).mkdir()
    line = fails(1, gen("train", "--resume", "--run", copy), name)
    assert "directory" in line
    assert (copy / name).is_dir()


def test_training_goes_on_without_its_picture(gen: Gen, copy: Path) -> None:
    (copy / "curves.png").unlink(missing_ok=True)
    (copy / "curves.png").mkdir()
    code, _, err = gen("train", "--resume", "--run", copy)
    assert code == 0 and "curves.png: cannot be written" in err and "training goes on" in err, err


def test_file_in_the_place_of_a_folder(gen: Gen, copy: Path) -> None:
    (copy / "tensorboard").write_bytes(b"")
    fails(1, gen("train", "--resume", "--run", copy), "tensorboard: cannot be written (File exists)")


# -- checkpoints ------------------------------------------------------------------------------

Tensors = dict[str, torch.Tensor]


def rewrite(run: Path, change: Callable[[Tensors, dict[str, object]], None]) -> None:
    """Change the tensors and the metadata of all checkpoints, and seal them again."""
    for path in run.glob("checkpoints/*"):
        read = checkpoint.read_checkpoint(path)
        change(read.tensors, read.meta)
        meta = json.dumps(read.meta)
        sealed = {"gentext": meta, "sha256": checkpoint.compute_checksum(read.tensors, meta)}
        path.unlink()
        path.write_bytes(safetensors.torch.save(read.tensors, sealed))


def recast(prefix: str, dtype: torch.dtype) -> Callable[[Tensors, dict[str, object]], None]:
    def change(tensors: Tensors, meta: dict[str, object]) -> None:
        tensors |= {name: tensor.to(dtype) for name, tensor in tensors.items() if name.startswith(prefix)}

    return change


def without_rows(prefix: str) -> Callable[[Tensors, dict[str, object]], None]:
    def change(tensors: Tensors, meta: dict[str, object]) -> None:
        for name in tensors:
            if name.startswith(prefix) and tensors[name].dim():
                tensors[name] = tensors[name][:1].clone()

    return change


def set_meta(**entries: object) -> Callable[[Tensors, dict[str, object]], None]:
    return lambda _, meta: meta.update(entries)


RESUME, EXPORT, TORCH = "train --resume --run {copy}", "export {copy}", "sample {copy} --sampler torch --length 3"
INIT = "train {text} --init-from {copy} --run {new} --steps 1 --set model.hidden=8 --set model.embedding=4"
CHECKPOINTS = [
    (recast("model.", torch.int64), [RESUME, EXPORT, TORCH, INIT], "is torch.int64, expected torch.float32"),
    (recast("model.", torch.bool), [RESUME, EXPORT, TORCH, INIT], "is torch.bool, expected torch.float32"),
    (recast("model.", torch.complex64), [RESUME, EXPORT, TORCH, INIT], "is torch.complex64, expected torch.float32"),
    (without_rows("model."), [RESUME, EXPORT, TORCH], "does not fit the run's model"),
    (recast("optimizer.", torch.int64), [RESUME], "is torch.int64"),
    (without_rows("optimizer."), [RESUME], "expected torch.float32"),
    (recast("muon.", torch.bool), [RESUME], "is torch.bool"),
    (recast("unaveraged.", torch.float16), [RESUME], "is torch.float16"),
    (without_rows("unaveraged."), [RESUME], "expected torch.float32"),
    (lambda tensors, _: tensors.pop("unaveraged.head.bias"), [RESUME], "weights from which training goes on"),
    (set_meta(averaged=0), [RESUME], "weights from which training goes on"),
    (set_meta(averaged=-1), [RESUME], "those of -1 steps"),
    (recast("carried.", torch.complex64), [RESUME], "carried."),
    (without_rows("carried."), [RESUME], "carried."),
    (lambda tensors, _: tensors.update({"optimizer.99.step": torch.zeros(())}), [RESUME], "optimizer.99"),
    (lambda tensors, _: tensors.pop("optimizer.0.exp_avg"), [RESUME], "optimizer.0"),
    (set_meta(step=-1), [RESUME, EXPORT, TORCH], "damaged (step -1"),
    (set_meta(step=True), [RESUME, EXPORT], "damaged (step True"),
    (set_meta(step=10**15), [RESUME, EXPORT], "damaged (step 1000000000000000"),
    (set_meta(step=10**30), [RESUME, EXPORT], "more than 64 bits"),
    (set_meta(seconds="long"), [RESUME], "damaged or of another trainer"),
    (set_meta(best_step=-5), [RESUME], "damaged or of another trainer"),
    (set_meta(worse=1.5), [RESUME], "damaged or of another trainer"),
]


@pytest.mark.parametrize(("change", "commands", "fragment"), CHECKPOINTS)
def test_checkpoint_that_cannot_be(
    change: Callable[[Tensors, dict[str, object]], None],
    commands: list[str],
    fragment: str,
    gen: Gen,
    copy: Path,
    tiny_text: Path,
    tmp_path: Path,
) -> None:
    try:
        rewrite(copy, change)
    except KeyError as error:
        if error.args != (torch.complex64,):
            raise
        pytest.skip("this version of safetensors cannot write complex numbers")
    for command in commands:
        fails(1, gen(*spelled(command, {"copy": copy, "text": tiny_text, "new": tmp_path / "new"})), fragment)


def test_checkpoint_larger_than_memory(gen: Gen, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "memory_size", lambda _: 1000)
    for command in (RESUME, EXPORT):
        fails(1, gen(*spelled(command, {"copy": copy})), "no checkpoint can be read", "GB of memory")
