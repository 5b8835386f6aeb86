"""A fresh environment with the distributions of this folder, and the results of commands that use them.

The distributions are written against the documented contracts alone, and are examples for authors too. Every
command runs in the fresh environment; many commands share a process, since importing PyTorch takes longer than
any of the tests.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sysconfig
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from helpers import BUILD_WHEELS

STRANGERS = Path(__file__).parent
GOOD = ("gentext-lab", "gentext-memory", "gentext-novelty", "gentext-pairs")
SAMPLE = ("--seed", "7", "--length", "60", "--json")

#: Runs many commands, each with environment variables of its own, and prints their results as JSON.
RUN_COMMANDS = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from conftest import run_gen
results = []
for variables, arguments in json.load(sys.stdin):
    os.environ.update(variables)
    results.append(run_gen(*arguments))
    for name in variables:
        del os.environ[name]
json.dump(results, sys.stdout)
"""


@dataclasses.dataclass(frozen=True)
class Result:
    """Exit status and output of a command."""

    code: int
    out: str
    err: str

    def rows(self) -> list[dict[str, object]]:
        """Return the JSON lines of ``gen sample --json``."""
        assert self.code == 0, self.err
        return [json.loads(line) for line in self.out.splitlines()]


@dataclasses.dataclass(frozen=True)
class Environment:
    """An environment with the strangers' distributions, and the runs trained in it."""

    folder: Path
    good: tuple[str, ...] = GOOD
    """The distributions that are not broken on purpose."""
    sample: tuple[str, ...] = SAMPLE
    """The options that most samples are written with."""

    @property
    def python(self) -> Path:
        paths = [self.folder / "env" / name for name in ("bin/python", "Scripts/python.exe")]
        return next(path for path in paths if path.exists())

    def run(self, *arguments: object, stdin: str = "", **variables: str) -> Result:
        """Run the environment's Python, with ``variables`` instead of the GEN_ variables of this process."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GEN_", "PIP_"))}
        defaults = {"OMP_NUM_THREADS": "1", "PYTHONUTF8": "1", "GEN_CACHE_DIR": str(self.folder / "cache")}
        process = subprocess.run(
            [self.python, *map(str, arguments)],
            env=inherited | defaults | variables,
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )
        return Result(process.returncode, process.stdout, process.stderr)

    def gen(self, *arguments: object, **variables: str) -> Result:
        return self.run("-m", "gentext", *arguments, **variables)

    def run_commands(
        self, commands: Sequence[tuple[Mapping[str, str], Sequence[object]]], **variables: str
    ) -> list[Result]:
        """Run many commands in one process."""
        job = [(dict(command_variables), [str(word) for word in words]) for command_variables, words in commands]
        process = self.run("-c", RUN_COMMANDS, STRANGERS.parent, stdin=json.dumps(job), **variables)
        assert process.code == 0, process.err
        return [Result(*result) for result in json.loads(process.out)]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A fresh environment with every distribution of tests/strangers, installed without a network.

    It sees the packages of the environment that runs the tests: a line of a .pth file adds them. One distribution
    is installed from its folder, as the docs have it, the others from wheels.
    """
    folder = tmp_path_factory.mktemp("strangers")
    venv.create(folder / "env", with_pip=False, symlinks=os.name != "nt")
    environment = Environment(folder)
    site = environment.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").out.strip()
    packages = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    lines = [f"import site; site.addsitedir({path!r})\n" for path in packages]
    (Path(site) / "tests.pth").write_text("".join(lines), encoding="utf-8")
    shutil.copytree(STRANGERS, folder / "sources")  # building leaves files beside the sources
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet")
    first, *others = sorted(path.parent for path in (folder / "sources").glob("*/pyproject.toml"))
    built = environment.run("-c", BUILD_WHEELS, folder / "wheels", *others)
    assert built.code == 0, built.err
    process = environment.run("-m", "pip", "install", *options, first, *(folder / "wheels").glob("*.whl"))
    assert process.code == 0, process.err
    return environment


PAIRS = ("--set", "tokenizer.name=pairs", "--set", "tokenizer.pairs=40")
WINDOWS = ("--set", "batcher.name=windows", "--set", "batcher.rows=4", "--set", "batcher.length=16")
MGU = ("--set", "model.name=mgu", "--set", "model.width=12")
#: Every component comes from a stranger's plugin.
ALL_STRANGE = (
    *(*PAIRS, *WINDOWS, *MGU),
    *("--set", "trainer.name=sgd", "--set", "trainer.rate=2"),
    *("--set", 'chain.links=["novelty", "exclude", "top_k", "temperature", "typo"]'),
    *("--set", "chain.novelty.novelty=0.5", "--set", "chain.exclude.characters=ab"),
)
STREAM = ("--set", "batcher.batch=4", "--set", "batcher.length=8")
BPTT = ("--set", "trainer.eval_every=3", "--set", "run.threads=1")


@pytest.fixture(scope="session")
def story(environment: Environment, tiny_text: Path) -> dict[str, Result]:
    """Everything that needs PyTorch, in one process that has loaded all plugins, the broken ones too."""

    def train(run: str, *options: str) -> tuple[object, ...]:
        # In fp32, so that an exported file can be compared with PyTorch.
        fp32 = ("--export-precision", "fp32")
        return ("train", tiny_text, "--run", run, "--steps", 6, "--seed", 3, "--verbose", *fp32, *options)

    commands: dict[str, tuple[Mapping[str, str], Sequence[object]]] = {
        "strange": ({}, train("strange", *ALL_STRANGE)),
        "whole": ({}, train("whole", *MGU, *STREAM, *BPTT)),
        "stopped": ({"LAB_STOP_AT": "4"}, train("halves", *MGU, *STREAM, *BPTT, "--no-export")),
        "resumed": ({}, ("train", "--resume", "--run", "halves")),
        "tokens": ({}, train("tokens", "--no-export", *PAIRS, *WINDOWS, "--set", "model.hidden=8", *BPTT)),
        "sgd": ({}, train("sgd", "--no-export", "--set", "trainer.name=sgd", "--set", "model.hidden=8", *STREAM)),
        "sgd again": ({}, ("train", "--resume", "--run", "sgd")),
        "one": ({}, ("sample", "strange", *SAMPLE)),
        "three": ({}, ("sample", "strange", *SAMPLE, "--count", 3)),
        "torch": ({}, ("sample", "strange", *SAMPLE, "--sampler", "torch")),
        "three torch": ({}, ("sample", "strange", *SAMPLE, "--sampler", "torch", "--count", 3)),
        "whole torch": ({}, ("sample", "whole", *SAMPLE, "--sampler", "torch", "--prime", "abc")),
        "hollow": ({}, train("hollow", "--set", "model.name=hollow")),
        "left out": ({}, train("nonsense", "--set", "model.name=nonsense")),
        "wrong option": ({}, train("wrong", *MGU, "--set", "model.widht=12")),
        "cuda": ({}, train("cuda", *ALL_STRANGE, "--device", "cuda")),
    }  # fmt: skip
    results = environment.run_commands(list(commands.values()))
    return dict(zip(commands, results, strict=True))


@pytest.fixture(scope="session")
def samples(environment: Environment, story: dict[str, Result]) -> dict[str, Result]:
    """Commands that need no PyTorch, in one process without the broken plugins."""
    no_run = environment.folder / "weights.bin"
    no_run.write_bytes(b"\0")
    whole_run = ("sample", "whole", "--seed", 11, "--length", 200, "--json")
    loud = (
        *whole_run,
        "--chain",
        "novelty,top_k,temperature,typo,exclude",
        "--top-k",
        0,
        "--novelty",
        4,
        "--typo",
        0.5,
    )
    strange = ("sample", "strange", *SAMPLE)
    unigram = (*strange, "--sampler", "unigram", "--top-k", 0)
    commands: dict[str, Sequence[object]] = {
        "plain": (*whole_run, "--chain", "top_k,temperature"),
        "neutral": (*whole_run, "--chain", "novelty,top_k,temperature,typo", "--novelty", 0, "--typo", 0),
        "loud": loud,
        "excluded": (*loud, "--characters", "aei "),
        "excluded twice": (*loud, "--exclude-characters", "aei ", "--count", 2),
        "too much": (*whole_run, "--chain", "typo", "--typo", 2),
        "not in the chain": (*whole_run, "--novelty", 1),
        "own": (*strange, "--show-chain", "--top-k", 0, "--temperature", 3),
        "changed": (*strange, "--novelty", 9, "--top-k", 0, "--characters", ""),
        "unigram": (*unigram, "--novelty", 0, "--prime", "Où", "--stop", "n"),
        "flat": (*unigram, "--set", "sampler.smoothing=1e9"),
        "below": (*unigram, "--set", "sampler.smoothing=-1"),
        "foreign": (*unigram, "--set", "model.width=3"),
        "no run": ("sample", no_run, "--sampler", "unigram"),
        "eval": ("eval", "strange", "--json"),
        "exclude": ("plugins", "exclude"),
    }
    results = environment.run_commands([({}, words) for words in commands.values()], GEN_PLUGINS=",".join(GOOD))
    return dict(zip(commands, results, strict=True))
