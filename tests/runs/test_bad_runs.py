"""Damaged runs and checkpoints: one clear line, and the last whole checkpoint serves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from helpers import examples, fails, spelled
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from gentext.errors import RunError
from gentext.plugins.pytorch.checkpoint import read_checkpoint
from gentext.run import Run

Gen = Callable[..., tuple[int, str, str]]

BUDGET = "--steps 2 --no-export"
#: A size whose layers would need hundreds of gigabytes.
HUGE = "--set model.hidden=65536"


# -- runs -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def short_run(
    tmp_path_factory: pytest.TempPathFactory, gen: Gen, tiny_text: Path, tiny_options: tuple[str, ...]
) -> Path:
    """A finished run that was not exported, with several checkpoints."""
    path = tmp_path_factory.mktemp("short") / "run"
    code, _, err = gen(
        "train", tiny_text, "--run", path, *tiny_options, *BUDGET.split(), "--set", "trainer.eval_every=1"
    )
    assert code == 0, err
    return path


@pytest.fixture
def copy(short_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(short_run, tmp_path / "copy"))


def put(path: Path, content: bytes) -> None:
    """Replace a file without touching what hard links share with it."""
    path.unlink()
    path.write_bytes(content)


def tensors(run: Path) -> dict[str, bytes]:
    """The newest checkpoint's tensors, to the bit."""
    loaded = safetensors.torch.load_file(max(run.glob("checkpoints/last-*")))
    return {name: one.numpy().tobytes() for name, one in loaded.items()}


RESUME = "train --resume --run {copy}"
EXPORT = "export {copy}"
TORCH = "sample {copy} --sampler torch --length 3"

#: File of a run, its new content, commands, and what their line says.
DAMAGES: list[tuple[str, bytes | None, list[str], str]] = [
    ("tokenizer.json", b"", [RESUME, EXPORT, TORCH], "tokenizer.json: damaged"),
    ("tokenizer.json", b'{"name": "char", "st', [RESUME], "tokenizer.json: damaged"),
    ("tokenizer.json", b"[" * 100_000, [RESUME], "tokenizer.json: damaged"),
    ("tokenizer.json", b'{"version": "1.0", "model": {}}', [RESUME], "tokenizer.json: damaged"),
    ("tokenizer.json", b'{"name": "char", "state": {"symbols": "ba"}}', [RESUME, EXPORT], "train the run again"),
    ("tokenizer.json", b'{"name": "chra", "state": {}}', [RESUME, TORCH], "no tokenizer 'chra'"),
    ("tokenizer.json", b'{"name": "byte", "state": {}, "start": 10}', [RESUME, EXPORT], "does not fit the run's model"),
    ("tokenizer.json", None, [RESUME, EXPORT, TORCH], "tokenizer.json: missing"),
    ("config.toml", b"", [RESUME, EXPORT, TORCH], "config.toml"),
    ("config.toml", b"\xff", [RESUME, EXPORT, "info {copy}"], "config.toml: not UTF-8"),
    ("config.toml", b"[model", [RESUME, EXPORT], "config.toml: not valid TOML"),
    ("config.toml", b"model = 3\n", [RESUME, EXPORT, TORCH], "config.toml: damaged, model is no table"),
    ("held_out.txt", b"", ["eval {copy}"], "was not exported yet"),
]


@pytest.mark.parametrize(("name", "content", "commands", "fragment"), DAMAGES)
def test_damaged_run(
    name: str, content: bytes | None, commands: list[str], fragment: str, gen: Gen, copy: Path
) -> None:
    put(copy / name, content or b"")
    if content is None:
        (copy / name).unlink()
    before = sorted(copy.rglob("*"))
    for command in commands:
        fails(1, gen(*spelled(command, {"copy": copy})), fragment)
    assert sorted(copy.rglob("*")) == before


def test_resume_falls_back_on_the_checkpoint_before(gen: Gen, copy: Path, short_run: Path) -> None:
    newest = max(copy.glob("checkpoints/last-*"))
    put(newest, newest.read_bytes()[:-1])
    code, _, err = gen("train", "--resume", "--run", copy)
    assert code == 0, err
    assert f"gen: warning: {newest}: damaged" in err
    assert "going on from the one before, step 1" in err
    assert tensors(copy) == tensors(short_run)


def test_folder_with_the_name_of_a_checkpoint_is_left_alone(gen: Gen, copy: Path) -> None:
    folder = copy / "checkpoints" / "last-step000099.safetensors"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    code, _, err = gen("train", "--resume", "--run", copy)
    assert code == 0, err
    assert (folder / "notes.txt").read_text() == "mine"


@examples(200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_is_noticed(data: st.DataObject, tmp_path: Path, short_run: Path) -> None:
    whole = bytearray(max(short_run.glob("checkpoints/last-*")).read_bytes())
    header = 8 + int.from_bytes(whole[:8], "little")
    begin, end = data.draw(st.sampled_from([(0, header), (header, len(whole))]))
    at = data.draw(st.integers(begin, end - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path / "last-step000002.safetensors"
    path.write_bytes(whole)
    with pytest.raises(RunError, match=r"damaged|not made by gentext"):
        read_checkpoint(path)


def test_flipped_bit_costs_one_checkpoint(gen: Gen, copy: Path, short_run: Path) -> None:
    newest = max(copy.glob("checkpoints/last-*"))
    [best] = copy.glob("checkpoints/best-*")
    content = bytearray(newest.read_bytes())
    content[-5] ^= 1
    for path in (newest, best):
        put(path, bytes(content))
    code, _, err = gen(*spelled(TORCH, {"copy": copy}))
    assert (code, err.count("its content does not fit its checksum")) == (0, 2)
    code, _, err = gen("train", "--resume", "--run", copy)
    assert code == 0, err
    assert err.count(f"gen: warning: {newest}: damaged (its content does not fit its checksum)") == 1
    assert "going on from the one before, step 1" in err
    assert tensors(copy) == tensors(short_run)


def test_checkpoint_without_a_checksum(gen: Gen, copy: Path) -> None:
    for path in copy.glob("checkpoints/*"):
        with safetensors.safe_open(path, "pt") as file:
            entries = {"gentext": file.metadata()["gentext"]}
        put(path, safetensors.torch.save(safetensors.torch.load_file(path), entries))
    for command in (RESUME, EXPORT, TORCH):
        fails(1, gen(*spelled(command, {"copy": copy})), "no checkpoint can be read", "damaged (it has no sha256)")


@pytest.mark.parametrize(
    ("content", "fragment"), [(b"", "damaged"), (b"\0" * 9, "damaged"), (None, "not made by gentext")]
)
def test_run_without_a_whole_checkpoint(content: bytes | None, fragment: str, gen: Gen, copy: Path) -> None:
    foreign = safetensors.torch.save({"weight": torch.zeros(2)})
    for path in copy.glob("checkpoints/*"):
        put(path, foreign if content is None else content)
    for command in (RESUME, EXPORT, TORCH):
        fails(1, gen(*spelled(command, {"copy": copy})), "no checkpoint can be read", fragment)
    shutil.rmtree(copy / "checkpoints")
    for command in (RESUME, EXPORT, TORCH):
        fails(1, gen(*spelled(command, {"copy": copy})), "has no checkpoint yet", "train anew")
    fails(1, gen("train", "{text}", "--run", copy), "is not empty; name another folder for the run")


def test_damaged_best_checkpoint_costs_a_warning(gen: Gen, copy: Path) -> None:
    [best] = copy.glob("checkpoints/best-*")
    put(best, b"")
    code, _, err = gen(*spelled(TORCH, {"copy": copy}))
    assert code == 0, err
    assert f"gen: warning: {best}: damaged" in err


@pytest.mark.parametrize(
    "lines",
    [
        b"\xff\0{\n",
        b'{"step": "x"}\n[1]\n"a"\n',
        b'{"step": 1, "rate": 1}\n{"step": 1, "val_loss": "low"}\n' + b"[" * 9**5,
    ],
)
def test_damaged_metrics_stop_nothing(lines: bytes, gen: Gen, copy: Path) -> None:
    whole = Run(copy).read_metrics()
    put(copy / "metrics.jsonl", lines + b"\n" + (copy / "metrics.jsonl").read_bytes() + b'{"step": 2, "val_l')
    assert [row for row in Run(copy).read_metrics() if "rate" not in row] == [row for row in whole if "rate" not in row]
    for command in ("info {copy}", RESUME):
        code, _, err = gen(*spelled(command, {"copy": copy}))
        assert code == 0, err


def test_text_that_has_moved(gen: Gen, copy: Path, tiny_text: Path) -> None:
    config = (copy / "config.toml").read_text(encoding="utf-8")
    (copy / "config.toml").write_text(config.replace(str(tiny_text), "gone.txt"), encoding="utf-8")
    fails(1, gen("train", "--resume", "--run", copy), "gone.txt: no such file", "gen train TEXT --resume")
    assert gen("train", tiny_text, "--resume", "--run", copy)[0] == 0
