"""Hostile files, plugins and command lines: seconds of them in the suite, and an hour by hand.

Each example runs the real command line in a process of its own, in a folder of its own. `fuzz.example.find_violation`
has the conditions: no traceback, no crash, no hang, bounded memory, an exit status that is documented, one line for an
error. By hand::

    python -m pytest tests/fuzz -s --fuzz-minutes 60

takes other examples each time, prints each failure and at the end the counts, and leaves in ``build/fuzz`` the report
and the files of failures. ``--fuzz-seed`` repeats the examples of an earlier session, and
``-k plugins`` takes one kind.
"""

from __future__ import annotations

import copy
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from fuzz import checkpoints, commands, exported, plugin_modules, runs
from fuzz.example import Example, Runner, find_violation
from fuzz.material import Content, Material
from fuzz.report import Report
from fuzz.seal import CHECK, seal
from hypothesis import HealthCheck, Phase, given
from hypothesis.strategies import SearchStrategy

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="the servers fork, and read /proc")]

#: The kinds of examples, and how many of each the suite tries.
KINDS: dict[str, tuple[Callable[[Material], SearchStrategy[Example]], int]] = {
    "exported": (exported.examples, 60),
    "checkpoints": (checkpoints.examples, 10),
    "runs": (runs.examples, 18),
    "commands": (commands.examples, 35),
    "plugins": (plugin_modules.examples, 30),
}
#: Examples between two looks at the clock, by hand.
ROUND = 50


@pytest.fixture(scope="module")
def material(tiny_run: Path, tiny_text: Path) -> Material:
    return Material(tiny_run, Content(tiny_text.read_bytes()))


@pytest.fixture(scope="module")
def report(
    request: pytest.FixtureRequest, material: Material, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Report]:
    folder = tmp_path_factory.mktemp("fuzz")
    memory = Path("/dev/shm")
    runner = Runner(material.run, Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else folder)))
    by_hand = request.config.getoption("--fuzz-minutes")
    report = Report(runner, Path("build/fuzz") if by_hand else folder / "failures")
    yield report
    runner.close()
    shutil.rmtree(runner.folder)
    report.write()
    if by_hand:
        print("", *report.lines(), f"report: {report.folder / 'report.json'}", sep="\n")


def test_seals_are_the_checks_of_files(material: Material) -> None:
    header, data = checkpoints.split(material.checkpoint)
    assert checkpoints.split(checkpoints.sealed(copy.deepcopy(header), data))[0] == header
    header["__metadata__"]["gentext"] += " "
    assert checkpoints.split(checkpoints.sealed(copy.deepcopy(header), data))[0] != header
    for content in (material.model, material.generator):
        assert CHECK.search(content)
        assert seal(content) == content != seal(content.replace(b"tokens", b"tokenz"))


#: Code of a plugin's command, and the condition that it does not fulfil.
VIOLATIONS = [
    ("os.abort()", "signal 6"),
    ("time.sleep(60)", "hang"),
    ("bytearray(1) * 300_000_000; time.sleep(60)", "memory"),
    ("sys.exit(5)", "status 5"),
    ("sys.exit(1)", "status 1 without one line for the error at the end"),
    ("print('gen: error: it is said, and no error', file=sys.stderr)", "status 0 with an error"),
    ("sys.exit('gen: error: ' + 'x' * 500)", "an error's line of the wrong length"),
    ("threading.Thread(target=lambda: 1 / 0).start()", "Traceback (most recent call last)"),
    ("sys.exit('gen: error: as it should be')", None),
]


@pytest.mark.parametrize(("code", "violation"), VIOLATIONS)
def test_violations_are_noticed(
    code: str, violation: str | None, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    if violation == "hang":  # the others end by themselves, however slow the machine is
        monkeypatch.setattr("fuzz.example.MAX_SECONDS", 0.5)
    monkeypatch.setattr("fuzz.example.MAX_BYTES", 10**8)
    module = "import os, sys, threading, time\nfrom gentext import hookimpl\n\n@hookimpl\ndef register_commands(cli):\n"
    module += f"    @cli.command()\n    def own():\n        {code}\n"
    example = Example(plugin_modules.distribution(module), [["own"]])
    report.runner.place(example)
    outcome = report.runner.run_command(example, ["own"])
    assert find_violation(outcome) == violation, outcome


def try_examples(kind: str, report: Report, material: Material, count: int, seed: int | None) -> None:
    """Try so many examples: always the same ones without a seed."""

    @hypothesis.settings(
        max_examples=count,
        derandomize=seed is None,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(KINDS[kind][0](material))
    def try_one(example: Example) -> None:
        report.try_example(kind, example, seed or 0)

    (try_one if seed is None else hypothesis.seed(seed)(try_one))()


@pytest.mark.parametrize("kind", KINDS)
def test_no_example_breaks_a_condition(
    kind: str, report: Report, material: Material, request: pytest.FixtureRequest
) -> None:
    minutes = request.config.getoption("--fuzz-minutes")
    selected = sum(item.name.startswith("test_no_example") for item in request.session.items)
    before = report.failures.copy()
    if minutes:
        seed = request.config.getoption("--fuzz-seed") or time.time_ns() % 10**9
        end = time.monotonic() + 60 * minutes / selected
        while time.monotonic() < end:
            try_examples(kind, report, material, ROUND, seed)
            seed += 1
    else:
        try_examples(kind, report, material, KINDS[kind][1], None)
    assert not report.failures - before, f"see {report.folder}"
