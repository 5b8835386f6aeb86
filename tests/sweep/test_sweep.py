"""Sweeps: however one is cut short, it ends as if it had not been; a trial that fails does not end it."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers import fails, one_line, read_until, start
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.pool import NullPool

from gentext.errors import RunError
from gentext.plugins.sweep.space import read_space
from gentext.plugins.sweep.study import RANDOM_TRIALS, Study
from gentext.plugins.sweep.trial import Job, Trial

Gen = Callable[..., tuple[int, str, str]]
TRIALS = 3
SPACE = """
[model.hidden]
choices = [4, 8]
[trainer.rate]
low = 1e-3
high = 5e-2
log = true
"""


pytestmark = pytest.mark.usefixtures("warm_processes")
#: A Python that has loaded nothing.
COLD = sys.executable


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "space.toml"
    path.write_text(SPACE)
    return path


@pytest.fixture(scope="module")
def command(tiny_text: Path, tiny_options: tuple[str, ...], space: Path) -> list[str]:
    """The words of a sweep of three trials, but for its folder."""
    budget = ("--steps", "200", "--set", "trainer.eval_every=50", "--no-export", "--trials", str(TRIALS))
    return ["sweep", str(tiny_text), *tiny_options, "--space", str(space), *budget, "--sweep"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, gen: Gen, command: list[str]) -> Path:
    """The folder of a sweep that was not interrupted."""
    folder = tmp_path_factory.mktemp("sweeps") / "reference"
    code, _, err = gen(*command, folder)
    assert code == 0, err
    return folder


def trials(folder: Path) -> list[dict[str, Any]]:
    """Return the trials of sweep.json, without their times."""
    rows = json.loads((folder / "sweep.json").read_text())["trials"]
    return [{key: value for key, value in row.items() if key not in ("seconds", "symbols_per_second")} for row in rows]


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder by their paths in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_best_is_kept(reference: Path) -> None:
    rows = trials(reference)
    losses = [row["val_loss"] for row in rows]
    assert [row["state"] for row in rows] == ["finished"] * TRIALS and losses == sorted(losses)
    assert {row["trial"] for row in rows} == set(range(TRIALS))
    assert next(row for row in rows if row["trial"] == 0)["values"] == {"model.hidden": 8, "trainer.rate": 0.004}
    with (reference / "sweep.csv").open() as file:
        assert [row["val_loss"] for row in csv.DictReader(file)] == [str(loss) for loss in losses]
    assert (reference / "sweep.png").read_bytes().startswith(b"\x89PNG")
    trial = reference / f"trial-{rows[0]['trial']:03d}"
    assert (reference / "best" / "config.toml").read_bytes() == (trial / "config.toml").read_bytes()
    assert not list(reference.rglob("last-*"))


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_cut_short_it_ends_the_same(reference: Path, command: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    resume = ("sweep", "--resume", "--no-export", "--sweep", folder)
    process = start(*command, folder)
    read_until(process.stderr, b"trial 0:  50%")
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 1
    one_line(err, "stopped after 0 of 3 trials", f"go on with: gen sweep --resume --sweep {folder}")

    process = start(*resume)
    read_until(process.stderr, b"trial 1:  50%")
    process.kill()
    process.communicate(timeout=60)

    processes = [start(*resume) for _ in range(2)]  # one resumes the trial that was killed, one begins the next
    messages = [process.communicate(timeout=120)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], messages
    assert trials(folder) == trials(reference)
    assert (folder / "best" / "config.toml").is_file()
    assert all("trial 1:" in lines or "trial 2:" in lines for lines in messages), messages
    for number in (0, 1):
        assert "going on at step" in (folder / f"logs/trial-{number:03d}.txt").read_text()


def test_records(gen: Gen, tiny_options: tuple[str, ...], space: Path, tmp_path: Path) -> None:
    """Trials learn the records that gen train learns, also those that a resumed sweep begins; FILE is held out."""
    names, val, folder = tmp_path / "names.csv", tmp_path / "val.csv", tmp_path / "sweep"
    names.write_bytes(
        b"n,name\n" + b"".join(b"%d,%s\n" % (1 + k % 3, b"ab" * (k % 5 + 1)) for k in range(60)) + b"1,\xff\n"
    )
    val.write_text("n,name\n" + "5,ab\n1,abababab\n" * 3)
    corpus = ("--records", "csv:name", "--weight", "n", "--dedup", "--skip-bad", "--val", val)
    options = (*tiny_options, "--set", "batcher.length=16", "--steps", 20)
    sweep = ("--space", space, "--no-export", "--sweep", folder)
    code, _, err = gen("sweep", names, *corpus, *options, *sweep, "--trials", 1)
    assert code == 0, err
    code, out, err = gen("sweep", "--resume", "--sweep", folder, "--no-export", "--trials", 2)
    assert code == 0, err
    title, *table = [line.split() for line in out.splitlines()]
    assert " ".join(title[:6]) == "trial held out bits a record" and len(table) == 2
    for row in trials(folder):
        run = folder / f"trial-{row['trial']:03d}"
        # 5 + 1 records of 3 and of 9 symbols
        assert row["bits_per_record"] == pytest.approx(row["val_loss"] / math.log(2) * (5 * 3 + 9) / 6)
        assert f"{row['bits_per_record']:.2f} bits a record, held out" in (run / "verdict.txt").read_text()
        assert len((run / "held_out.jsonl").read_text().splitlines()) == 2  # equal ones once, counted 5 times and once
    settings = [f"{key}={setting}" for key, setting in row["values"].items()]
    words = [word for setting in settings for word in ("--set", setting)]
    config = ("--config", folder / "base.toml", *words, "--no-export", "--run", tmp_path / "run")
    code, _, err = gen("train", names, *corpus, *config)
    assert code == 0, err
    assert (tmp_path / "run" / "verdict.txt").read_bytes() == (run / "verdict.txt").read_bytes()
    val.write_text("n,name\n5,ba\n")
    fails(1, gen("sweep", "--resume", "--sweep", folder), "was begun with another text than", "val.csv")
    fails(2, gen("sweep", "--resume", "--sweep", folder, "--val", val), "--resume goes on with the settings")
    new = ("--steps", 4, "--sweep", tmp_path / "new")
    fails(1, gen("sweep", names, "--records", "csv:nme", *new), "no column 'nme'. Did you mean 'name'?")
    fails(1, gen("sweep", names, "--records", "csv:name", *new), "line 62: not UTF-8 (0xff)")
    fails(2, gen("sweep", names, "--dedup", *new), "dedup is for records")
    fails(2, gen("sweep", val, "--val-frac", 0, *new), "trials are compared by their held-out loss")
    fails(2, gen("sweep", names, *corpus[:-1], "-", *new), "--val -: every trial reads the text anew")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_more_trials_and_the_best_is_ready(reference: Path, gen: Gen, tmp_path: Path, space: Path) -> None:
    folder = shutil.copytree(reference, tmp_path / "sweep")
    result = gen("sweep", "--resume", "--sweep", folder, "--space", space)
    fails(2, result, "--resume goes on with the settings of the sweep")
    (folder / "best" / "plots").mkdir()
    for name in ("notes.txt", "plots/loss.svg"):
        (folder / "best" / name).write_text("a year of work")
    code, out, err = gen("sweep", "--resume", "--sweep", folder, "--trials", TRIALS + 1, "--json")
    assert code == 0, err
    assert contents(folder / "best-kept") == dict.fromkeys(["notes.txt", "plots/loss.svg"], b"a year of work")
    rows = json.loads(out)["trials"]
    assert len(rows) == TRIALS + 1
    assert err.count(": finished") == 1
    best = folder / "best"
    assert {"model.onnx", "generator.onnx"} <= {path.name for path in best.iterdir()}
    assert not [*folder.glob(".best*")]
    for words in (["sample", best, "--length", 9, "--seed", 1], ["eval", best, "--json"]):
        code, out, err = gen(*words)
        assert code == 0, err
    assert json.loads(out)["nats_per_character"] == pytest.approx(rows[0]["val_loss"], abs=0.02)


def test_failing_trials(gen: Gen, tiny_text: Path, tiny_options: tuple[str, ...], tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    space.write_text("[model.hidden]\nchoices = [8, 65536]\n[trainer.rate]\nchoices = [0.004, 1e38]\n")
    common = ("sweep", tiny_text, *tiny_options, "--space", space, "--steps", 4, "--no-export")
    code, out, err = gen(*common, "--sweep", tmp_path / "some", "--trials", 3, "--seed", 2, "--json")
    assert code == 0, err
    rows = json.loads(out)["trials"]
    assert [row["state"] for row in rows] == ["finished", "failed", "failed"]
    reasons = [row["reason"] for row in sorted(rows, key=lambda row: row["trial"])]
    assert reasons[0] is None and "loss became" in reasons[1] and "this machine has" in reasons[2], reasons
    assert [path.parent.parent.name for path in (tmp_path / "some").glob("trial*/checkpoints/*")] == ["trial-000"]
    failed = tmp_path / "some" / "trial-001" / "checkpoints"
    failed.mkdir(parents=True, exist_ok=True)
    own_names = ["last-step000002.safetensors", ".best-step000002-val1.2345.safetensors.a_b2c3d4.tmp"]
    foreign_names = ["mine.safetensors", "last-notes.txt", ".notes.tmp", "last-step000002.safetensors.txt"]
    for name in own_names + foreign_names:
        (failed / name).write_text("a year of work")
    code, _, err = gen("sweep", "--resume", "--no-export", "--sweep", tmp_path / "some")
    assert code == 0, err
    assert sorted(contents(failed)) == sorted(foreign_names)
    space.write_text("[trainer.rate]\nchoices = [1e38]\n")
    result = gen(*common, "--sweep", tmp_path / "none", "--trials", 1)
    fails(1, result, "no trial was finished", "sweep.csv")


# -- one trial ----------------------------------------------------------------------------------


def job(folder: Path, text: Path) -> Job:
    base = folder / "base.toml"
    base.write_text(
        "[batcher]\nname = 'stream'\nbatch = 2\nlength = 8\n[run]\nsteps = 9\nprecision = 'fp32'\nthreads = 1\n"
    )
    settings = ["model.hidden=8", "trainer.eval_every=3"]
    return Job(str(text), str(folder / "run"), "small", str(base), settings, str(folder / "lock"))


def test_trial_is_pruned_or_dies(tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", COLD)
    trial = Trial(job(tmp_path, tiny_text), tmp_path / "log")
    names = []
    for event in trial.events():
        names.append(event["event"])
        if event["event"] == "measured":
            if len(names) == 2:
                waiting = Trial(job(tmp_path, tiny_text), tmp_path / "waiting")  # for the lock, in vain
            trial.answer(prune=len(names) > 2)
            assert event["share"] == (len(names) - 1) / 3
    assert names == ["ready", "measured", "measured", "pruned"]
    trial.kill()
    waiting._process.kill()
    [*_, event] = waiting.events()
    waiting.kill()
    assert event["event"] == "failed" and "killed" in event["reason"] and not event["disk"]


def test_trial_that_begins_again_keeps_what_is_not_its_own(tiny_text: Path, tmp_path: Path) -> None:
    """A trial was killed before its first checkpoint, and somebody has put files into its folder."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    foreign_names = ["notes.txt", "checkpoints/mine.safetensors", ".draft.txt.a_b2c3d4.tmp", "config.toml.bak"]
    for name in ["config.toml", ".held_out.txt.a_b2c3d4.tmp", *foreign_names]:
        (folder / name).write_text("a year of work")
    for attempt in ("run-kept", "run-kept-1"):
        trial = Trial(job(tmp_path, tiny_text), tmp_path / "log")
        for event in trial.events():
            if event["event"] == "measured":
                trial.answer(prune=True)
        trial.kill()
        assert event["event"] == "pruned"
        assert contents(tmp_path / attempt) == dict.fromkeys(foreign_names, b"a year of work")
        assert f"{tmp_path / attempt}: kept" in (tmp_path / "log").read_text()
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / attempt, folder)
    assert contents(folder).keys() == set(foreign_names)


@pytest.mark.parametrize("foreign_names", [[], ["notes.txt"]])
def test_sweep_that_cannot_begin_removes_only_what_it_wrote(
    foreign_names: list[str], gen: Gen, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sweep"
    (folder / "gentext-a1b2c3d4.gentext.tmp").mkdir(parents=True)  # its process was killed before it

    def fail(path: Path, *_: object) -> None:
        for name in ["study.db", "study.db-journal", "base.toml", *foreign_names]:
            (path.parent / name).write_text("a year of work")
        (path.parent / "locks").mkdir()
        raise RunError("the disk is full")

    monkeypatch.setattr(Study, "create", fail)
    fails(1, gen(*command, folder), "the disk is full")
    assert folder.exists() == bool(foreign_names)
    assert sorted(contents(folder)) == foreign_names


# -- the study ----------------------------------------------------------------------------------


def test_prospects(tmp_path: Path) -> None:
    study = Study.create(tmp_path / "study.db", {}, {})
    for loss in (1.0, 1.1, 1.2, 1.3):
        number = study.begin_trial()
        for tenth in range(1, 11):
            assert not study.report_loss(number, tenth / 10, loss)
        study.finish_trial(number, "finished", loss)
    number = study.begin_trial()
    assert [study.report_loss(number, share, 2.0) for share in (0.1, 0.2, 0.29)] == [False, False, True]
    study.finish_trial(number, "pruned")
    assert [row.state for row in study.rows()] == ["finished"] * 4 + ["pruned"]
    assert study.rows()[-1].val_loss == 2.0


def test_draws_depend_on_seed_number_and_results(tmp_path: Path) -> None:
    space = read_space(None)
    drawn: list[list[dict[str, Any]]] = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        study = Study.create(tmp_path / name, {}, {"model.hidden": 384})
        drawn.append([])
        for loss in range(RANDOM_TRIALS + 2):
            study = Study(tmp_path / name) if name == "b" else study  # as after a kill
            number = study.begin_trial()
            values = study.suggest_values(number, space, seed)
            assert study.suggest_values(number, space, seed) == values
            assert all(space[key].contains(value) for key, value in values.items())
            study.finish_trial(number, "finished", 1 + loss / 10)
            drawn[-1].append(values)
    assert drawn[0] == drawn[1] != drawn[2]
    assert [values[0]["model.hidden"] for values in drawn] == [384] * 3
    assert len({repr(values) for values in drawn[0]}) == RANDOM_TRIALS + 2


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwrite_pages(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:20000] = b"x" * (20000 - 4096)
    path.write_bytes(data)


def replace_with_other_study(path: Path) -> None:
    path.unlink()
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs={"poolclass": NullPool})  # no open files
    optuna.create_study(storage=storage, study_name="another")


def replace_with_other_sweep(path: Path) -> None:
    settings = Study(path).settings
    path.unlink()
    Study.create(path, settings | {"space": {"model": {"hidden": {"choices": [3]}}}}, {})


def replace_with_other_database(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE trials (a)")
    connection.close()


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (cut_off, "cannot be used ("),
        (overwrite_pages, "cannot be used ("),
        (lambda path: path.write_bytes(b"no database at all" * 300), "file is not a database"),
        (lambda path: path.write_bytes(b""), "none of gen sweep"),
        (Path.unlink, "is no sweep: it has no study.db"),
        (replace_with_other_study, "none of gen sweep"),
        (replace_with_other_sweep, "belongs to another sweep than"),
        (replace_with_other_database, "none of gen sweep"),
    ],
)
def test_file_that_is_damaged_or_foreign(
    damage: Callable[[Path], Any], problem: str, reference: Path, gen: Gen, tmp_path: Path
) -> None:
    folder = shutil.copytree(reference, tmp_path / "sweep")
    damage(folder / "study.db")
    fails(1, gen("sweep", "--resume", "--sweep", folder), problem, str(folder))


def test_wrong_options(
    gen: Gen, command: list[str], reference: Path, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(1, gen(*command, reference), "is a sweep already; go on with --resume")
    fails(1, gen(*command, tiny_text), "is not an empty folder")
    fails(1, gen("sweep", "--resume", "--sweep", tmp_path / "none"), "no such sweep")
    fails(2, gen("sweep", "-"), "every trial reads the text anew")
    fails(2, gen("sweep", "--trials", 0), "--trials")
    fails(1, gen("sweep", "no such text"), "no such text")
    folder = shutil.copytree(reference, tmp_path / "sweep")
    longer_text = tmp_path / "other.txt"
    longer_text.write_text(tiny_text.read_text() + "more")
    fails(1, gen("sweep", longer_text, "--resume", "--sweep", folder), "was begun with another text")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GEN_RUNS", raising=False)
    fails(1, gen("sweep", "--resume"), "nothing to resume: no sweep in sweeps/")


def test_without_the_extra() -> None:
    script = "import sys; sys.modules['optuna'] = None; from gentext.cli.app import main; sys.exit(main(['sweep']))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    one_line(done.stderr, "gen sweep needs", "pip install 'gentext[sweep]'")


def test_study_is_refused_as_a_library_refuses_it(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no sweep"):
        Study(tmp_path / "study.db")


def test_folder_may_have_characters_with_a_meaning_in_urls(tmp_path: Path) -> None:
    folder = tmp_path / "{} 50%20?a=b#c"
    folder.mkdir()
    Study.create(folder / "study.db", {"seed": 3}, {})
    assert Study(folder / "study.db").settings == {"seed": 3}
    assert [path.name for path in folder.iterdir()] == ["study.db"]


def test_ctrl_c_while_a_connection_is_closed_logs_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study = Study.create(tmp_path / "study.db", {}, {})

    def interrupt(dialect: DefaultDialect, connection: sqlite3.Connection) -> None:
        connection.close()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DefaultDialect, "do_close", interrupt)
        with pytest.raises(KeyboardInterrupt):
            study.rows()
    assert not caplog.records
