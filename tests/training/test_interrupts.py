"""Ctrl-C, kill, closed pipes: nothing is lost, and one line says how to go on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import GEN, one_line, raiser, read_until, start

from gentext.interfaces import Speed
from gentext.interrupts import Interrupts
from gentext.plugins.trainers.bptt import BPTTTrainer
from gentext.plugins.trainers.learner import Learner
from gentext.plugins.trainers.options import StepOptions

Gen = Callable[..., tuple[int, str, str]]


pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals, pipes and terminals as POSIX has them")


def replace(path: Path, text: str, replacement: str) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace(text, replacement), encoding="utf-8")


@contextlib.contextmanager
def default_signal_handlers() -> Iterator[None]:
    """Handle signals as in a program that was started from a terminal, and restore the handlers."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("only the main thread handles signals")
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous_handlers = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous_handlers, strict=True):
            signal.signal(number, handler)


# -- Ctrl-C -----------------------------------------------------------------------------------


def test_training_saves_and_goes_on(gen: Gen, tiny_text: Path, tiny_options: tuple[str, ...], tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start("train", tiny_text, "--run", run, *tiny_options, "--steps", 10**6, "--no-export")
    err = read_until(process.stderr, b"budget: ")
    while not list(run.glob("checkpoints/last-*")):  # written just before the handlers are set
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    err += process.communicate(timeout=60)[1]
    assert process.returncode == 1
    one_line(err.decode(), "stopped at step ", f"go on with: gen train --resume --run {run}")
    assert not list(run.rglob("*.tmp"))
    [step] = [int(text.split()[0]) for text in err.decode().split("stopped at step ")[1:]]
    replace(run / "config.toml", "steps = 1000000", f"steps = {step + 2}")
    code, _, err_again = gen("train", "--resume", "--run", run)
    assert code == 0, err_again
    assert f"going on at step {step} of {step + 2}" in err_again


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("step", [2, 4])
def test_signal_stops_after_its_step(
    number: int,
    step: int,
    gen: Gen,
    tiny_text: Path,
    tiny_options: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, original = tmp_path / "run", Learner.step

    def signalled(learner: Learner, done: int, options: StepOptions) -> float:
        if done == step - 1:
            os.kill(os.getpid(), number)
        return original(learner, done, options)

    with monkeypatch.context() as patch, default_signal_handlers():
        patch.setattr(BPTTTrainer, "measure_speed", lambda *_: Speed(step=0.1))
        patch.setattr(Learner, "step", signalled)
        code, _, err = gen("train", tiny_text, "--run", run, *tiny_options, "--steps", 4, "--no-export")
    assert code == 1
    one_line(err, f"stopped at step {step} of 4, everything is saved", f"gen train --resume --run {run}")
    code, _, err = gen("train", "--resume", "--run", run)
    assert code == 0, err


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ("gentext.data.stream.CorpusStream.__iter__", "stopped by Ctrl-C"),
        ("gentext.data.encoded.encode_cached", "stopped by Ctrl-C"),
        ("gentext.plugins.trainers.bptt.BPTTTrainer.measure_speed", "stopped by Ctrl-C"),
        ("gentext.plugins.trainers.bptt.save_checkpoint", "nothing was saved yet"),
        ("gentext.plugins.trainers.learner.Learner.step", "go on with: gen train --resume --run "),
        ("gentext.plugins.trainers.bptt.BPTTTrainer._measure_result", "go on with: gen train --resume --run "),
        ("gentext.export.exporter.export_run", "go on with: gen train --resume --run "),
    ],
)
def test_ctrl_c_at_any_time(
    target: str,
    advice: str,
    gen: Gen,
    tiny_text: Path,
    tiny_options: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    if target.endswith("Learner.step"):  # which `measure_speed` uses too
        monkeypatch.setattr(BPTTTrainer, "measure_speed", lambda *_: Speed(step=0.1))

    def interrupt(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(target, interrupt)
        code, _, err = gen("train", tiny_text, "--run", run, *tiny_options, "--steps", 2)
    assert code == 1
    one_line(err, advice)
    if "--resume" in advice:
        replace(run / "config.toml", "export = true", "export = false")
        assert gen("train", "--resume", "--run", run)[0] == 0
    else:
        assert not list(run.glob("checkpoints/*"))


def test_ctrl_c_that_python_would_swallow(gen: Gen, tiny_text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    def measure_speed(*_: object) -> None:
        Dying()
        for _ in range(1000):
            time.sleep(0.01)

    monkeypatch.setattr(BPTTTrainer, "measure_speed", measure_speed)
    with default_signal_handlers():
        code, _, err = gen("train", tiny_text)
    assert code == 1
    one_line(err, "stopped by Ctrl-C")


def test_ignored_signals_stay_ignored() -> None:
    with default_signal_handlers():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interrupts.requested
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupts.requested
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)


def interrupt_writing(*options: object) -> tuple[int, str]:
    """Interrupt `gen sample` while it prints a text, and return its exit status and its stderr."""
    process = start("sample", *options, "--seed", 1)
    out = read_until(process.stdout, b" ")
    process.send_signal(signal.SIGINT)
    remaining_out, err = process.communicate(timeout=60)
    assert (out + remaining_out).isascii()
    return process.returncode, err.decode()


def test_ctrl_c_while_text_is_written(tiny_run: Path) -> None:
    exit_status, err = interrupt_writing(tiny_run, "--length", 10**8)
    assert exit_status == 1
    one_line(err, "stopped by Ctrl-C")


@pytest.mark.parametrize("options", [[], ["--separator", ""], ["--stop", "abcabcabc"]])
def test_ctrl_c_is_the_end_of_a_text_without_end(options: list[str], tiny_run: Path) -> None:
    assert interrupt_writing(tiny_run, "--length", 0, "--device", "cpu", *options) == (130, "")


@pytest.mark.parametrize("option", ["--json", "--no-stream"])
def test_ctrl_c_ends_a_text_that_is_not_printed_yet(option: str, gen: Gen, tiny_run: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gentext.generation.texts.TextBatch.__next__", raiser(KeyboardInterrupt()))
        endless = ("sample", tiny_run, "--length", 0, "--seed", 1, "--device", "cpu", option)
        assert gen(*endless) == (130, "", "")
        code, out, err = gen("sample", tiny_run, "--length", 5, "--seed", 1, "--device", "cpu", option)
    assert (code, out) == (1, "")
    one_line(err, "stopped by Ctrl-C")


# -- pipes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [["--length", 100_000], ["--length", 0], ["--count", 40, "--length", 2000]])
def test_reader_that_goes_away(options: list[Any], tiny_run: Path) -> None:
    process = start("sample", tiny_run, "--seed", 1, "--device", "cpu", *options)
    assert process.stdout is not None
    assert len(process.stdout.read(10)) == 10
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(60) == 1


@pytest.mark.parametrize("command", ["info {run}", "plugins", "corpora --json", "sample {run} --seed 1", "--help"])
@pytest.mark.parametrize("where", ["closed", "full"])
def test_output_that_takes_nothing(command: str, where: str, tiny_run: Path) -> None:
    if where == "full":
        if not os.path.exists("/dev/full"):
            pytest.skip("this system has no /dev/full")
        writer = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, writer = os.pipe()
        os.close(reader)
    process = start(*command.format(run=tiny_run).split(), stdout=writer)
    os.close(writer)
    err = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 1
    if where == "full":
        one_line(err, "No space left on device")
    else:
        assert [line for line in err.splitlines() if not line.startswith(("device: ", "The others "))] == []


def test_closed_streams(tiny_run: Path) -> None:
    words = [sys.executable, "-c", GEN, "sample", str(tiny_run), "--length", "5", "--seed", "1"]
    for redirection, code, problem in (
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("--prime-file - <&-", 1, "standard input is closed"),
    ):
        script = f'"$@" {redirection}'
        done = subprocess.run(["sh", "-c", script, "sh", *words], capture_output=True, timeout=60)
        assert done.returncode == code, done.stderr
        assert problem in done.stderr.decode()
        assert b"Traceback" not in done.stderr


def test_ctrl_c_before_the_first_step_says_that_nothing_was_saved(tmp_path: Path) -> None:
    corpus, run = tmp_path / "corpus", tmp_path / "run"
    os.mkfifo(corpus)
    training = start("train", corpus, "--run", run, "--steps", "2")
    with corpus.open("wb"):  # opened once the command reads it, which waits for the end of the text
        training.send_signal(signal.SIGINT)
        _, err = training.communicate(timeout=60)
    one_line(err.decode(), "stopped by Ctrl-C before the first step; nothing was saved yet")
    assert training.returncode == 1 and not run.exists()
