"""`gen distill`: a student learns from a trained run, from written text that is a function of the seed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import fails
from test_train import KILLED, assert_same

import gentext
from gentext.config import read_toml
from gentext.corpus.taught_corpus import TaughtCorpus
from gentext.corpus.teacher import lesson_seed, open_teacher
from gentext.interfaces import World
from gentext.plugins.distill.batcher import WrittenBatcher, WrittenConfig
from gentext.plugins.distill.trainer import DistillConfig, DistillLearner
from gentext.plugins.pytorch.checkpoint import build_model, load_best_checkpoint
from gentext.plugins.pytorch.device import choose_compute
from gentext.plugins.pytorch.distributed import ProcessGroup
from gentext.plugins.trainers.options import StepOptions
from gentext.run import open_run
from gentext.sampling.chain import Chain
from gentext.settings import Settings
from gentext.token_corpus import TokenCorpus

pytestmark = pytest.mark.usefixtures("warm_processes", "whole_samples")
#: A student of a fraction of a second, whose rows read real text too, and whose loss has both parts.
STUDENT = (
    *("--hidden", "8", "--soft", "0.7", "--temperature", "2", "--real", "0.5"),
    *("--set", "model.embedding=4", "--set", "model.dropout=0.3", "--set", "trainer.eval_every=8"),
    *("--set", "batcher.batch=2", "--set", "batcher.length=8", "--set", "batcher.windows=3"),
    *("--precision", "fp32", "--set", "run.threads=1", "--steps", "16", "--no-export"),
)
Gen = Callable[..., Any]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory, gen: Gen, tiny_run: Path) -> Path:
    """A student that nobody disturbs."""
    run = tmp_path_factory.mktemp("students") / "run"
    code, _, err = gen("distill", tiny_run, "--run", run, *STUDENT)
    assert code == 0, err
    return run


def taught(run: Path, symbols: int = 500, *, is_written: bool = False) -> TaughtCorpus:
    tokens = np.random.default_rng(0).integers(0, 19, symbols)
    return TaughtCorpus(tokens, teacher=open_teacher(run), is_written=is_written)


def test_student_is_an_ordinary_run(gen: Gen, tiny_run: Path, student: Path, tmp_path: Path) -> None:
    config, teacher_config = read_toml(student / "config.toml"), read_toml(tiny_run / "config.toml")
    assert config["corpus"]["teacher"] == str(tiny_run.resolve())
    assert config["corpus"]["sha256"] == teacher_config["corpus"]["sha256"]
    assert config["tokenizer"] == teacher_config["tokenizer"]
    for name in ("tokenizer.json", "held_out.txt"):
        assert (student / name).read_bytes() == (tiny_run / name).read_bytes()
    assert "its teacher" in (student / "verdict.txt").read_text()
    assert gen("export", student, "-o", tmp_path, "--precision", "fp32")[0] == 0
    assert len(gen("sample", tmp_path / "generator.onnx", "--length", 20, "--seed", 1)[1].removesuffix("\n")) == 20


def test_killed_student_ends_bit_for_bit(gen: Gen, tmp_path: Path, tiny_run: Path, student: Path) -> None:
    """It is killed in the middle of a written text, after a checkpoint, and goes on by the ordinary command."""
    run = tmp_path / "killed"
    jobs = [(["distill", str(tiny_run), "--run", str(run), *STUDENT], "step_done", 10)]
    done = subprocess.run([sys.executable, KILLED], input=json.dumps(jobs), capture_output=True, text=True)
    assert done.stdout.split() == [str(-signal.SIGKILL)], done.stderr
    code, _, err = gen("train", "--resume", "--run", run)
    assert code == 0, err
    assert "going on at step 8 of 16" in err and "not bit for bit" not in err
    assert_same(run, student)


def test_library_trains_the_students_of_the_command(
    tmp_path: Path, tiny_run: Path, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"model.embedding": 4, "model.dropout": 0.3, "trainer.eval_every": 8, "run.threads": 1}
    settings |= {"batcher.batch": 2, "batcher.length": 8, "batcher.windows": 3}
    shares = {"hidden": 8, "soft": 0.7, "temperature": 2.0, "real": 0.5}
    options: dict[str, Any] = {**shares, "settings": settings, "precision": "fp32", "steps": 16, "export": False}
    model = gentext.distill(tiny_run, run=tmp_path / "run", **options)
    assert_same(tmp_path / "run", student)
    assert len(model.write(length=20, seed=1)) == 20 and any("its teacher" in line for line in model.messages)
    gentext.distill(run=tmp_path / "run", resume=True)
    with pytest.raises(gentext.GenError, match=r"run to learn from: gentext\.distill"):
        gentext.distill(**options)
    with pytest.raises(gentext.GenError, match=r"trainer\.soft = 1\.5"):
        gentext.distill(tiny_run, run=tmp_path / "other", **{**options, "soft": 1.5})
    for name, value in {"MASTER_ADDR": "here", "MASTER_PORT": "1", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(gentext.GenError, match=r"torchrun, start: -m gentext\.cli distill"):
        gentext.distill(tiny_run, run=tmp_path / "other", **options)
    assert not (tmp_path / "other").exists()


def test_student_that_is_smaller_is_trained_without_a_warning(tmp_path: Path, tiny_run: Path) -> None:
    settings = {"model.embedding": 2, "model.ngram_rows": 2, "model.ngram_embedding": 1, "run.threads": 1}
    settings |= {"batcher.batch": 2, "batcher.length": 8}
    student = gentext.distill(tiny_run, run=tmp_path / "run", hidden=2, settings=settings, steps=1, export=False)
    assert student.messages and not any("a larger model" in line for line in student.messages)


def test_batches_are_functions_of_teacher_seed_and_step(tiny_run: Path) -> None:
    corpus = taught(tiny_run)
    config = WrittenConfig(batch=6, length=5, windows=3, real=0.34)
    batcher, other = (WrittenBatcher(config, corpus) for _ in range(2))
    halves = [WrittenBatcher(config, corpus, World(rank, 2)) for rank in range(2)]
    steps = [divmod(step, batcher.steps_per_epoch) for step in (0, 1, 2, 3, 40)]
    for epoch, step in reversed(steps):
        batch, again = batcher.batch(7, epoch, step), other.batch(7, epoch, step)
        parts = [half.batch(7, epoch, step, rank) for rank, half in enumerate(halves)]
        for array, same, *shares in zip(batch, again, *parts, strict=True):
            assert np.array_equal(array, same) and np.array_equal(array, np.concatenate(shares))
    assert not np.array_equal(batcher.batch(7, 0, 0)[0][2:], batcher.batch(8, 0, 0)[0][2:])


def test_rows_read_the_texts_that_the_teacher_writes(tiny_run: Path) -> None:
    """Texts of one row follow one another, each from its beginning; a row of the real text is as it is there."""
    corpus, teacher = taught(tiny_run), open_teacher(tiny_run)
    batcher = WrittenBatcher(WrittenConfig(batch=3, length=5, windows=2, real=0.33), corpus)
    batches = [batcher.batch(1, 0, step) for step in range(6)]
    x, y, fresh = (np.stack(arrays) for arrays in zip(*batches, strict=True))
    written = teacher.write(lesson_seed(1), range(6), 10)  # texts 0 and 1 are the first of rows 1 and 2
    assert np.array_equal(y[:, 1:].transpose(1, 0, 2).reshape(2, 3, 10), written.reshape(3, 2, 10).swapaxes(0, 1))
    assert (x[::2, 1:, 0] == teacher.start).all() and np.array_equal(x[1::2, 1:, 0], y[::2, 1:, -1])
    assert fresh[:, 1:].all(axis=1).tolist() == [True, False] * 3 and fresh[:, 0].tolist() == [True] + [False] * 5
    assert np.array_equal(x[:, 0].ravel(), corpus.tokens[:30])


def test_records_of_a_teacher(gen: Gen, tiny_records_run: Path, tmp_path: Path) -> None:
    """Each row reads one written record from its beginning to its end; the rows of real ones are the records' own."""
    code, _, err = gen("distill", tiny_records_run, "--run", tmp_path / "run", *STUDENT)
    assert code == 0 and "bits a record" in err, err
    assert gen("train", "--resume", "--run", tmp_path / "run")[0] == 0
    teacher = open_teacher(tiny_records_run)
    boundary = teacher.start
    rows = [np.append(np.full(size, 3), boundary) for size in (4, 9, 30)] * 9
    records = TokenCorpus.of_records(np.concatenate(rows), boundary)
    corpus = TaughtCorpus(records.tokens, boundary, records.offsets, teacher=teacher)
    batcher = WrittenBatcher(WrittenConfig(batch=4, length=40, real=0.25), corpus)
    batches = [batcher.batch(1, *divmod(step, batcher.steps_per_epoch), 0) for step in range(16)]
    written = teacher.write(lesson_seed(1), range(16 * 3), 40)
    texts = sorted(tuple(row[row >= 0]) for _, y, _ in batches for row in y[1:])
    assert texts == sorted(tuple(row[row >= 0]) for row in written)
    for x, y, fresh in batches:
        assert fresh.all() and (x[:, 0] == boundary).all() and set(y[0]) <= {-1, 3, boundary}
        assert (x[:, 1:] == np.where((y[:, 1:] >= 0) & (y[:, :-1] >= 0), y[:, :-1], boundary)).all()
        ended = (y[1:] >= 0).sum(axis=1) < 40
        assert (((y[1:] == boundary).sum(axis=1) == 1) == ended)[ended].all()


def test_links_of_the_teachers_file_change_no_written_text(tiny_run: Path) -> None:
    """Its chain, turned off, draws what no chain draws: by the model's probabilities at temperature 1."""
    teacher = open_teacher(tiny_run)
    chain, numbers = teacher._neutral_chain
    assert {"top_k", "temperature"} <= set(chain.names)
    assert numbers["top_k"]["top_k"] == 0 and numbers["temperature"]["temperature"] == 1
    bare = open_teacher(tiny_run)
    object.__setattr__(bare, "_neutral_chain", (Chain([]), {}))
    assert np.array_equal(teacher.write(3, [0, 5], 40), bare.write(3, [0, 5], 40))


def learner(run: Path, config: DistillConfig) -> DistillLearner:
    """A learner of the teacher's size with random weights, and eight rows."""
    corpus, settings = taught(run), Settings(device="cpu", precision="fp32", threads=1)
    teacher, student = (build_model(open_run(run), load_best_checkpoint(open_run(run))) for _ in range(2))
    torch.manual_seed(0)
    for parameter in student.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    batcher = WrittenBatcher(WrittenConfig(batch=8, length=10, windows=5), corpus)
    compute, group = choose_compute(settings), ProcessGroup(World())
    return DistillLearner(config, settings, compute, group, student, batcher, corpus, teacher)


def test_student_learns_its_teachers_probabilities(tiny_run: Path) -> None:
    """Its divergence from them falls to a fraction, on text that it has not read."""
    student = learner(tiny_run, DistillConfig(optimizer="adamw"))
    x = torch.from_numpy(student.batcher.batch(0, 500, 0, 0)[0])

    @torch.no_grad()
    def divergence() -> float:
        pair = (student.model, student.teacher)
        logits, teacher_logits = (model(x, model.initial_state(len(x)))[0].log_softmax(-1) for model in pair)
        return float((teacher_logits.exp() * (teacher_logits - logits)).sum(-1).mean())

    before = divergence()
    for step in range(120):
        student.step(step, StepOptions(rate=0.02, weight_decay=0.0, is_averaged=False))
    assert 0 <= divergence() < before / 4


def test_loss_mixes_probabilities_and_text(tiny_run: Path) -> None:
    student = learner(tiny_run, DistillConfig(soft=0.25, temperature=2))
    x, y, fresh = (torch.from_numpy(array) for array in student.batcher.batch(0, 0, 0, 0))
    y[1, 4:] = -1  # no target
    logits = torch.randn(2, 8, 10, 19)  # of two members
    teacher_logits, _ = student.teacher(x, student.teacher.initial_state(8))
    member_losses = []
    for member_logits in logits:
        soft = -(torch.softmax(teacher_logits / 2, -1) * torch.log_softmax(member_logits / 2, -1)).sum(-1)[y >= 0].sum()
        hard = torch.nn.functional.cross_entropy(member_logits[y >= 0], y[y >= 0], reduction="sum")
        member_losses.append(0.25 * 4 * soft + 0.75 * hard)
    expected = sum(member_losses) / 2
    assert torch.allclose(student._sum_losses(logits, x, y, fresh), expected, rtol=1e-5)


def test_without_the_teachers_text(gen: Gen, tmp_path: Path, tiny_run: Path) -> None:
    """Only what the teacher writes is read then, and what its run holds out is held out; a resume needs no text."""
    teacher, run = tmp_path / "teacher", tmp_path / "run"
    shutil.copytree(tiny_run, teacher)
    config = (teacher / "config.toml").read_text()
    origin = read_toml(teacher / "config.toml")["corpus"]["origin"]
    (teacher / "config.toml").write_text(config.replace(origin, str(tmp_path / "gone.txt")))
    fails(1, gen("distill", teacher, "--run", tmp_path / "other", *STUDENT), "batcher.real = 0.5", "put it back")
    code, _, err = gen("distill", teacher, "--run", run, *STUDENT, "--real", 0)
    assert code == 0, err
    assert "is not there any more" in err
    assert (run / "held_out.txt").read_bytes() == (teacher / "held_out.txt").read_bytes()
    assert gen("train", "--resume", "--run", run)[0] == 0
    (teacher / "held_out.txt").unlink()
    code, _, err = gen("distill", teacher, "--run", tmp_path / "third", *STUDENT, "--real", 0)
    assert code == 0 and "a text that the teacher writes is held out" in err, err
    assert (tmp_path / "third" / "held_out.txt").stat().st_size > 10_000


@pytest.mark.slow
def test_text_in_the_teachers_folder_moves_with_it(gen: Gen, tmp_path: Path, tiny_run: Path, tiny_text: Path) -> None:
    """A teacher that has learned from a text in memory keeps it: see `gentext.data.in_memory`."""
    teacher, run = tmp_path / "teacher", tmp_path / "run"
    shutil.copytree(tiny_run, teacher)
    shutil.copy(tiny_text, teacher / "corpus.txt")
    config = (teacher / "config.toml").read_text()
    (teacher / "config.toml").write_text(config.replace(f'origin = "{tiny_text}"', 'file = "corpus.txt"'))
    code, _, err = gen("distill", teacher, "--run", run, *STUDENT)
    assert code == 0 and "only what the teacher writes" not in err, err
    teacher.rename(tmp_path / "moved")
    code, _, err = gen("distill", tmp_path / "moved", "--resume", "--run", run)
    assert code == 0, err


def test_bad_input(gen: Gen, tmp_path: Path, tiny_run: Path, student: Path) -> None:
    run = ("--run", tmp_path / "new")
    fails(2, gen("distill"), "expected the folder of a trained run")
    fails(1, gen("distill", tmp_path / "gone", *run), "no such run")
    fails(1, gen("distill", tiny_run / "model.onnx", *run), "expected the folder of a run")
    fails(1, gen("distill", student, *run), "gen export")
    for option, problem in {
        "--hidden=0": "model.hidden = 0",
        "--soft=1.5": "trainer.soft = 1.5",
        "--temperature=0": "trainer.temperature = 0",
        "--temperature=nan": "trainer.temperature = nan",
        "--temperature=1e300": "trainer.temperature = 1e+300",
        "--real=-1": "batcher.real = -1",
        "--set=tokenizer.name=byte": "tokenizer.name = byte: a student has its teacher's, which is char; leave it out",
        "--set=run.val_frac=0.3": "run.val_frac = 0.3: a student has its teacher's, which is 0.1; leave it out",
        "--set=batcher.windows=0": "batcher.windows = 0",
        "--set=batcher.windows=1000000": "a written text would have",
        "--set=batcher.batch=1000000": "a batch would have",
    }.items():
        fails(2 if "leave it out" in problem else 1, gen("distill", tiny_run, *run, option), problem)
    assert not (tmp_path / "new").exists()
    corpus = tmp_path / "text.txt"
    corpus.write_text("abc " * 500)
    fails(1, gen("train", corpus, *run, "--set", "trainer.name=distill"), "gen distill RUN")
    fails(1, gen("train", corpus, *run, "--set", "batcher.name=written"), "gen distill RUN")
    fails(2, gen("distill", tiny_run, "--resume", "--run", tiny_run), "has no teacher")


def test_damaged_and_changed_teachers(gen: Gen, tmp_path: Path, tiny_run: Path, student: Path) -> None:
    teacher, run = tmp_path / "teacher", tmp_path / "run"
    shutil.copytree(tiny_run, teacher)
    shutil.copytree(student, run)
    config = (run / "config.toml").read_text().replace(str(tiny_run.resolve()), str(teacher))
    (run / "config.toml").write_text(config)
    assert gen("train", "--resume", "--run", run)[0] == 0
    moved = teacher.rename(tmp_path / "moved")
    fails(1, gen("train", "--resume", "--run", run), "no such run", f"gen distill RUN --resume --run {run}")
    assert gen("distill", moved, "--resume", "--run", run)[0] == 0
    for checkpoint in (moved / "checkpoints").glob("*.safetensors"):
        checkpoint.write_bytes(checkpoint.read_bytes()[:-9])
    fails(1, gen("distill", moved, "--resume", "--run", run), "was changed")
    fails(1, gen("distill", moved, "--run", tmp_path / "new", *STUDENT), "damaged")
    tokenizer = (moved / "tokenizer.json").read_text()
    (moved / "tokenizer.json").write_text(tokenizer.replace("abc", "acb"))
    result = gen("distill", moved, "--run", tmp_path / "new", *STUDENT)
    fails(1, result, f"{moved / 'tokenizer.json'}: the stored state of tokenizer 'char' is damaged")
    assert "is another one now" not in result[2]
    (moved / "config.toml").write_text("[tokenizer]\n")
    fails(1, gen("distill", moved, "--run", tmp_path / "new", *STUDENT), "damaged")


def test_larger_student_is_warned_of(gen: Gen, tmp_path: Path, tiny_run: Path) -> None:
    words = ("--hidden", 40, "--steps", 1)
    code, _, err = gen("distill", tiny_run, "--run", tmp_path / "run", *STUDENT, *words)
    assert code == 0 and "gen: warning: the student has" in err, err
