"""Every block of README.md and docs/ is run, parsed or compared, page by page and from top to bottom.

What is not quite as the page says, so that it takes seconds:

- The texts (``novel.txt``, ``anna`` and so on) are the tests' small one; ``runs/demo``, ``runs/other`` and
  ``runs/anna`` are copies of the tests' tiny run, and ``runs/names`` is one of its tiny run of records.
- ``gen train`` takes two steps, in fp32 on one thread, with a tiny network and batch, whatever sizes the command
  chooses; so do ``gentext.train`` and each trial of ``gen sweep``, of which there are one or two. Only the runs of
  `EXPORTED` are really exported; the others get the tiny run's model.onnx.
- A prime that the small text does not know is skipped: ``--unknown skip``. The text ``anna`` also has the primes that
  programs use, see `PRIMES`.
- Of ``make`` the target is looked up, of ``pip install`` the extras. A page's plugin is not installed with pip:
  its pyproject.toml becomes the metadata that pip would write.
- Of JavaScript the syntax is checked, where node is.
- Of the commands' outputs, only those of ``gen plugins`` are compared.
- ``gen serve`` starts a server on a free port, which all later ``curl`` lines and programs of the page reach. Of
  ``systemctl`` the unit is looked up. The configuration of nginx is run by test_fleet.py.
"""

from __future__ import annotations

import configparser
import contextlib
import dataclasses
import importlib
import inspect
import io
import itertools
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed.run
from serving import ServerProcess

import gentext
from gentext.export.strategies.check import check_compiles
from gentext.manager import forget_plugins
from gentext.runs.resolve import TrainOptions, resolve_config
from gentext.sampling.chain import Link
from gentext.strategy import Strategy

pytestmark = pytest.mark.usefixtures("warm_processes")
ROOT = Path(__file__).parents[2]
#: The pages by hand. Those that docs/generate.py writes show signatures; test_reference.py compares them.
PAGES = [
    path
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "<!-- Written by docs/generate.py" not in path.read_text(encoding="utf-8")
]
Gen = Callable[..., tuple[int, str, str]]
TEXTS = (
    "names.txt",
    "more_names.txt",
    "molecules.txt",
    "novel.txt",
    "other.txt",
    "held_out.txt",
    "anna",
    "python-docs",
    "python-help",
    "texts/one.txt",
    "texts/two.txt",
)
#: Runs that are exported for real: the model of the first must be exported as a scan, and programs load the second.
EXPORTED = ("runs/gru", "runs/anna", "runs/help", "runs/modules", "runs/names", "runs/molecules", "runs/visits")
#: What the programs of the pages feed to models of ``anna`` and ``python-help``, which must know these characters.
PRIMES = "All happy families are alike. Happy Anna, Levin. The function. Return a list of strings.\n" * 20
#: A sweep that chooses no space of its own tries this one, once.
SPACE = "rates.toml"
BUDGETS = ("--epochs", "--steps", "--minutes")
TINY = {
    "model": [
        *("--set", "model.hidden=8", "--set", "model.embedding=4"),
        *("--set", "model.ngram_rows=16", "--set", "model.ngram_embedding=2"),
    ],
    "batcher": ["--set", "batcher.batch=2", "--set", "batcher.length=8"],
}


#: Pages that train and export models of their own for a quarter of a minute and more. README stays.
SLOW_PAGES = ("commands", "hooks", "inspect", "records")
#: Pages whose programs are the cells of one notebook: each sees what those above it have defined.
NOTEBOOKS = ("use-from-python", "library", "plugins", "write-a-strategy")


@dataclasses.dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def name(self) -> str | None:
        """The file that the block is, when its first line says so."""
        found = re.match(r"# ([\w/]+\.(?:py|toml))\n", self.text)
        return found[1] if found else None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(page, text[: one.start()].count("\n") + 1, one[1], one[2]) for one in found]


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """Yield the command lines of a block, each with the output that the page shows."""
    lines = block.text.splitlines()
    if block.language == "sh":
        yield from ((line, "") for line in lines if line.strip())
        return
    begins = [at for at, line in enumerate(lines) if line.startswith("$ ")]
    assert begins and begins[0] == 0, f"{block}: expected $ in front of the commands"
    for begin, end in zip(begins, [*begins[1:], len(lines)], strict=True):
        yield lines[begin][2:], "\n".join(lines[begin + 1 : end])


def without(words: list[str], *options: str) -> list[str]:
    """Return words without some options and their values."""
    left = [at for at, one in enumerate(words) if one in options]
    return [one for at, one in enumerate(words) if at not in left and at - 1 not in left]


def shortened(words: list[str]) -> list[str]:
    """Return what is run in place of a command of ``gen``."""
    if words[0] == "sample" and any(one.startswith("--prime") for one in words):
        return [*words, "--unknown", "skip"]
    if words[0] == "sweep":
        kept = without(words[1:], *BUDGETS, "--trials")
        if "--resume" in words:
            return ["sweep", *kept, "--trials", "2", "--no-export"]
        space = [] if "--space" in words else ["--space", SPACE]
        tiny = [one for options in TINY.values() for one in options]
        end = ["--trials", "1", "--steps", "2", "--no-export"]
        return ["sweep", "--set", "run.threads=1", *tiny, *kept, *space, *end]
    if words[0] not in ("train", "distill") or "--resume" in words:
        return words
    chosen = {one.partition(".")[0] for one in words if ".name=" in one}
    if "--config" in words:
        chosen |= set(tomllib.loads(Path(words[words.index("--config") + 1]).read_text()))
    kept = without(words[1:], *BUDGETS)
    tiny = [one for section, options in TINY.items() if section not in chosen for one in options]
    exported = "--run" in words and words[words.index("--run") + 1] in EXPORTED
    if words[0] == "train" and EXPORTED[0] in words:
        kept.append("--verbose")  # the export says what it has checked
    end = ["--steps", "2", "--precision", "fp32", *([] if exported else ["--no-export"])]
    return [words[0], "--set", "run.threads=1", "--set", "run.measurements=1", *kept, *tiny, *end]


def trained_shortly(train: Callable[..., Any]) -> Callable[..., Any]:
    """Return `gentext.train`, or `gentext.distill`, with the budget and the sizes of `shortened`."""

    def train_shortly(*arguments: Any, **options: Any) -> Any:
        inspect.signature(train).bind(*arguments, **options)
        if options.get("resume"):
            return train(*arguments, **options)
        tiny = dict(word.split("=") for words in TINY.values() for word in words if "=" in word)
        settings = {"run.threads": 1, **{key: int(size) for key, size in tiny.items()}, **options.get("settings", {})}
        budget = {"epochs": None, "minutes": None, "steps": 2}
        return train(*arguments, **options | budget | {"settings": settings, "precision": "fp32", "export": False})

    return train_shortly


class Story:
    """One page, in the current folder: its files are written first, then its blocks run from top to bottom."""

    def __init__(self, page: Path, tiny_run: Path, gen: Gen, monkeypatch: pytest.MonkeyPatch) -> None:
        self.page, self.tiny_run, self.gen, self.monkeypatch = page, tiny_run, gen, monkeypatch
        self.blocks = blocks(page)
        self.notebook = types.ModuleType("snippet") if page.stem in NOTEBOOKS else None
        self.plugins: list[str] = []
        self.server: ServerProcess | None = None
        for name in ("train", "distill"):
            self.monkeypatch.setattr(gentext, name, trained_shortly(getattr(gentext, name)))
        for block in self.blocks:
            if block.name:
                self.write(block.name, block.text)
        self.monkeypatch.setenv("GEN_PLUGINS", ",".join(self.plugins))

    def write(self, name: str, text: str) -> None:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if name == "pyproject.toml":
            self.install(tomllib.loads(text))

    def install(self, project: dict[str, object]) -> None:
        """Write the metadata of a distribution, as pip would."""
        facts = project["project"]
        assert isinstance(facts, dict) and facts["dependencies"] == ["gentext"]
        folder = Path(f"{facts['name'].replace('-', '_')}-{facts['version']}.dist-info")
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {facts['name']}\nVersion: {facts['version']}\n")
        points = "".join(f"{name} = {target}\n" for name, target in facts["entry-points"]["gentext"].items())
        (folder / "entry_points.txt").write_text(f"[gentext]\n{points}")
        self.plugins.append(facts["name"])

    def run(self, block: Block) -> None:
        kinds = {"sh": self.shell, "console": self.shell, "python": self.python, "toml": self.toml}
        kinds |= {"json": lambda one: json.loads(one.text), "jsonl": self.jsonl, "js": self.javascript}
        kinds |= {"ini": self.unit, "nginx": lambda one: None}
        assert block.language in kinds, f"{block}: a block of {block.language or 'no language'}"
        kinds[block.language](block)

    def javascript(self, block: Block) -> None:
        if node := shutil.which("node"):
            self.write("block.mjs", block.text)
            subprocess.run([node, "--check", "block.mjs"], check=True)

    # -- commands ---------------------------------------------------------------------------------

    def shell(self, block: Block) -> None:
        for line, shown in commands(block):
            words = shlex.split(line, comments=True)
            name = next(one for one in words if "=" not in one)
            how = {"gen": self.run_gen, "make": self.run_make, "pip": self.run_pip, "torchrun": self.run_torchrun}
            how |= {"cd": self.run_cd, "pytest": self.run_pytest, "python": self.run_build, "twine": self.run_build}
            how |= {"curl": self.run_curl, "systemctl": self.run_systemctl}
            how |= dict.fromkeys(("openssl", "chmod", "cat"), self.run_shell)
            assert name in how, f"{block}: teach this test what to do with {line!r}"
            how[name](block, words, shown)

    def run_gen(self, block: Block, words: list[str], shown: str) -> None:
        begin = words.index("gen")
        if words[begin + 1] == "serve":
            self.close()
            self.server = ServerProcess([*without(words[begin + 2 :], "--port"), "--workers", "1"])
            return
        stdin = b""
        if "<" in words:
            stdin = Path(words[words.index("<") + 1]).read_bytes()
            words = words[: words.index("<")]
        with self.monkeypatch.context() as patch:
            for name, value in (one.split("=", 1) for one in words[:begin]):
                patch.setenv(name, value)
                forget_plugins()
            code, out, err = self.gen(*shortened(words[begin + 1 :]), stdin=stdin)
        assert code == 0, f"{block}: {' '.join(words)}\n{err}"
        assert "gen: warning: plugin" not in err, f"{block}: {' '.join(words)}\n{err}"
        if EXPORTED[0] in words and "train" in words:
            assert "a scan over steps" in err, f"{block}: {err}"
        if words[begin + 1] == "plugins" and shown:
            assert out.strip() == shown.strip(), f"{block}: {' '.join(words)}"
        if "--run" in words:
            self.lend_model(Path(words[words.index("--run") + 1]))
        if "--sweep" in words:
            self.lend_model(Path(words[words.index("--sweep") + 1]) / "best")
        if begin:
            forget_plugins()

    def run_torchrun(self, block: Block, words: list[str], shown: str) -> None:
        """Have torchrun read its own options, and run the rest as one process; test_ranks.py has several."""
        given = torch.distributed.run.parse_args(words[1:])
        assert given.module and given.training_script == "gentext.cli", f"{block}: {words}"
        self.run_gen(block, ["gen", *given.training_script_args], shown)

    def lend_model(self, run: Path) -> None:
        """Give a run that was not exported the tiny run's model, which has the same symbols."""
        if run.is_dir() and not (run / "model.onnx").exists():
            shutil.copy(self.tiny_run / "model.onnx", run)

    def run_make(self, block: Block, words: list[str], shown: str) -> None:
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert len(words) == 2 and words[1] in targets, f"{block}: {words}, targets {targets}"

    def run_cd(self, block: Block, words: list[str], shown: str) -> None:
        self.monkeypatch.chdir(words[1])
        self.monkeypatch.syspath_prepend(str(Path.cwd()))

    def run_pytest(self, block: Block, words: list[str], shown: str) -> None:
        """Run the tests of the current folder's plugin; test_scaffold.py runs them with pytest."""
        assert len(words) == 1 and list(Path("tests").glob("test_*.py")), str(block)
        for path in Path("tests").glob("test_*.py"):
            module = runpy.run_path(str(path))
            module["test_keeps_the_rules"]()

    def run_build(self, block: Block, words: list[str], shown: str) -> None:
        """Take the commands that publish a distribution, and run a program that writes a file."""
        if words[1] == "-c" and ">" in words:
            self.run_shell(block, words, shown)
            return
        assert words in (["python", "-m", "build"], ["twine", "upload", "dist/*"]), f"{block}: {words}"

    def run_pip(self, block: Block, words: list[str], shown: str) -> None:
        if words == ["pip", "install", "build", "twine"]:
            return
        if words[-1].startswith("./gentext-"):
            self.monkeypatch.syspath_prepend(str(Path(words[-1]).resolve()))
            self.install(tomllib.loads(Path(words[-1], "pyproject.toml").read_text(encoding="utf-8")))
            self.monkeypatch.setenv("GEN_PLUGINS", ",".join(self.plugins))
            forget_plugins()
            return
        if Path("pyproject.toml").exists() and Path.cwd().name.startswith("gentext-"):  # the plugin of `run_cd`
            project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
            assert (
                words == ["pip", "install", "-e", ".[test]"] and "test" in project["project"]["optional-dependencies"]
            )
            self.install(project)
            self.monkeypatch.setenv("GEN_PLUGINS", ",".join(self.plugins))
            forget_plugins()
            return
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        found = re.fullmatch(r"(?:-e )?\.(?:\[([\w,]+)\])?", " ".join(words[2:]))
        assert words[1] == "install" and found, f"{block}: {words}"
        assert all(one in extras for one in (found[1] or "").split(",") if one), f"{block}: extras {list(extras)}"

    def run_curl(self, block: Block, words: list[str], shown: str) -> None:
        """Send the request, of any port, to the page's server."""
        assert self.server is not None, f"{block}: no gen serve above it"
        words = [re.sub(r"^http://127\.0\.0\.1:\d+", self.server.url, word) for word in words]
        answer = subprocess.run([*words, "--fail", "--silent"], stdout=subprocess.PIPE, timeout=60)
        assert answer.returncode == 0 and answer.stdout, f"{block}: {words}: {answer.returncode}"
        json.loads(answer.stdout)

    def run_shell(self, block: Block, words: list[str], shown: str) -> None:
        """Run a line that writes a file."""
        [line] = [line for line, _ in commands(block) if shlex.split(line, comments=True) == words]
        subprocess.run(["sh", "-ec", line], check=True)

    def run_systemctl(self, block: Block, words: list[str], shown: str) -> None:
        """Take what can be done with a unit of the page."""
        assert words[1] in ("enable", "restart", "reload"), f"{block}: {words}"
        names = [word.partition("@")[0] for word in words[2:] if not word.startswith("-")]
        text = self.page.read_text(encoding="utf-8")
        assert names and all(f"/etc/systemd/system/{name}@.service" in text for name in names), f"{block}: {words}"

    def unit(self, block: Block) -> None:
        """Read a unit of systemd, and the command in it."""
        parser = configparser.ConfigParser(interpolation=None)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(block.text)
        words = shlex.split(parser["Service"]["ExecStart"])
        with self.monkeypatch.context() as patch:
            patch.setattr("gentext.plugins.server.serving.serve_models", lambda options: None)
            code, _, err = self.gen(*[word.replace("%i", "8001") for word in words[1:]])
        assert code == 0, f"{block}: {err}"

    def close(self) -> None:
        """End the page's server."""
        if self.server is not None:
            status, printed = self.server.end()
            assert status == 0 and "Traceback" not in printed, printed
            self.server = None

    # -- files and programs -------------------------------------------------------------------------

    def python(self, block: Block) -> None:
        """Run a program, and compile the strategies in it; of a module, run its tests."""
        if block.name:
            module = importlib.import_module(block.name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
            for name, function in inspect.getmembers(module, inspect.isfunction):
                if name.startswith("test_"):
                    function()
            return
        module = self.notebook or types.ModuleType("snippet")
        self.monkeypatch.setitem(sys.modules, "snippet", module)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            text = re.sub(r"http://127\.0\.0\.1:\d+", self.server.url, block.text) if self.server else block.text
            exec(compile("\n" * block.line + text, str(block.page), "exec"), vars(module))
        for name, one in vars(module).items():
            if isinstance(one, type) and issubclass(one, Strategy) and one is not Strategy:
                check_compiles(Link(name.lower(), one(one.Config(), 13), {n: p.initial for n, p in one.params.items()}))
        same = re.match(r"# writes what this writes: (gen .*)\n", block.text)
        if same:
            code, text, err = self.gen(*shlex.split(same[1])[1:])
            assert code == 0 and text == out.getvalue(), f"{block}: {err}\n{text}\n{out.getvalue()}"

    def toml(self, block: Block) -> None:
        """A config must be taken by a command of the page; the others are a fragment and a run's whole config."""
        table = tomllib.loads(block.text)
        if "project" in table:
            assert set(table["project"]["entry-points"]) == {"gentext"}, str(block)
        elif block.name:
            taken = [f"{option} {block.name}" for option in ("--config", "--space")]
            text = "".join(one.text for one in self.blocks)
            assert any(one in text for one in taken), f"{block}: no command takes it"
        else:
            table.pop("corpus")
            path = Path("whole.toml")
            path.write_text(block.text.partition("[corpus]")[0], encoding="utf-8")
            assert resolve_config(TrainOptions(config=path)) == table, str(block)

    def jsonl(self, block: Block) -> None:
        for line in block.text.splitlines():
            assert isinstance(json.loads(line), dict), f"{block}: {line}"


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page,
            id=str(page.relative_to(ROOT).with_suffix("")),
            marks=[pytest.mark.slow] * (page.stem in SLOW_PAGES),
        )
        for page in PAGES
    ],
)
def test_page(
    page: Path,
    tmp_path: Path,
    tiny_run: Path,
    tiny_records_run: Path,
    tiny_text: Path,
    gen: Gen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("GEN_RUNS", "GEN_DATA_DIR", "GEN_PLUGINS_STRICT"):
        monkeypatch.delenv(name, raising=False)
    for name in TEXTS:
        Path(name).parent.mkdir(exist_ok=True)
        shutil.copy(tiny_text, name)
    for name in ("anna", "anna.txt", "python-help"):
        Path(name).write_text(PRIMES + tiny_text.read_text(encoding="utf-8"), encoding="utf-8")
    Path(SPACE).write_text("[trainer.rate]\nlow = 0.001\nhigh = 0.01", encoding="utf-8")
    Path("start.txt").write_text("name", encoding="utf-8")
    words = tiny_text.read_text(encoding="utf-8").split()
    rows = [f"{kind},{word}\n" for kind, word in zip(itertools.cycle(["get", "post"]), words, strict=False)]
    Path("visits.csv").write_text("kind,path\n" + "".join(rows), encoding="utf-8")
    for name, run in {**dict.fromkeys(("demo", "other", "anna"), tiny_run), "names": tiny_records_run}.items():
        if f"--run runs/{name}" not in page.read_text(encoding="utf-8"):  # else the page trains it
            shutil.copytree(run, Path("runs") / name)
        elif name == "names":  # with as many symbols as anna has, PyTorch's exporter traces both once
            shutil.copy("anna.txt", "names.txt")
    modules = set(sys.modules)
    forget_plugins()
    try:
        story = Story(page, tiny_run, gen, monkeypatch)
        for block in story.blocks:
            story.run(block)
        story.close()
    finally:
        forget_plugins()
        for name in set(sys.modules) - modules:
            if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]
