"""What ``gen plugins new`` writes is built, installed, tested and used; what it refuses costs one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Gen, run_gen
from helpers import BUILD_WHEELS, fails
from test_public import public_modules, uses

from gentext.hookspecs import HOOKS_VERSION
from gentext.registry import KINDS

ALL_KINDS = (*KINDS, "command")

#: Warnings are errors, but for those of old versions of matplotlib, as in pyproject.toml.
WARNINGS = "error\nignore:'\\w+' (argument is )?deprecated(,| -) use '\\w+':DeprecationWarning"
#: Has PyTorch's exporter read its thousand operators once for all tests, see `conftest.operators_read_once`.
CONFTEST = """
import importlib.util
import sys
from pathlib import Path
import pytest

sys.path.append(str(Path(PATH).parent))
spec = importlib.util.spec_from_file_location("conftest_of_gentext", PATH)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

@pytest.fixture
def gen():
    return module.run_gen

@pytest.fixture(scope="session", autouse=True)
def operators():
    with module.operators_read_once():
        yield
"""
#: Uses what is installed, as the READMEs say: a test beside those that were generated, in the same process.
USE = """
SETTINGS = ["model.width=8", "batcher.rows=4", "batcher.length=8", "tokenizer.words=30", "run.threads=1"]
SETTINGS += [f"{kind}.name=my_{kind}" for kind in ("tokenizer", "batcher", "model", "trainer")]

def test_plugins_work(gen, tmp_path, monkeypatch):
    def run(*words):
        code, out, err = gen(*words)
        assert code == 0, err
        return out, err

    monkeypatch.chdir(tmp_path)
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    _, err = run("train", TEXT, "--run", "run", "--steps", 3, "--no-export", *settings)
    assert "device: CPU, stochastic gradient descent" in err
    chain = ("--chain", "my_strategy,temperature", "--my-strategy", 0.001)
    for options in (chain, ("--sampler", "my_sampler", "--set", "sampler.share=0.5")):
        out, _ = run("sample", RUN, "--length", 20, *options)
        assert len(out) == 21
    filtered = ("--filter", "my_filter", "--set", "filter.my_filter.pairs=at")
    out, err = run("sample", RECORDS, "--count", 20, "--seed", 1, *filtered)
    assert len(out.splitlines()) == 20 and "refused by my_filter" in err
    run("my_command", TEXT)
    assert run("plugins", "my_strategy", "--check")[0] == "my_strategy: keeps the rules, and compiles\\n"
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a distribution of each kind, in which they are installed for the processes of this module."""
    folder = tmp_path_factory.mktemp("scaffold")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for kind in ALL_KINDS:
            code, out, err = run_gen("plugins", "new", f"my_{kind}", "--kind", kind)
            assert code == 0, err
            assert out.splitlines()[-1] == f"next: cd gentext-my-{kind} && pip install -e '.[test]' && pytest"
            assert all(Path(line).is_file() for line in out.splitlines()[:-1])
        folders = sorted(folder.glob("gentext-*"))
        subprocess.run([sys.executable, "-c", BUILD_WHEELS, folder, *folders], check=True, capture_output=True)
        for wheel in folder.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(folder / "installed")
        patch.setenv("PYTHONPATH", str(folder / "installed"))
        patch.setenv("GEN_PLUGINS_STRICT", "1")
        patch.setenv("GEN_PLUGINS", ",".join(path.name for path in folders))
        yield folder


@pytest.mark.slow
def test_generated_tests_pass_and_plugins_work(
    workplace: Path, tiny_text: Path, tiny_run: Path, tiny_records_run: Path
) -> None:
    (workplace / "conftest.py").write_text(
        f"PATH = {str(Path(__file__).parents[1] / 'conftest.py')!r}\n{CONFTEST}", encoding="utf-8"
    )
    places = f"TEXT, RUN, RECORDS = {str(tiny_text)!r}, {str(tiny_run)!r}, {str(tiny_records_run)!r}"
    (workplace / "test_use.py").write_text(f"{places}\n{USE}", encoding="utf-8")
    options = ["-q", "-o", f"filterwarnings={WARNINGS}", "--import-mode=importlib", "-p", "no:cacheprovider"]
    options += [f"--rootdir={workplace}", f"--confcutdir={workplace}"]  # not the pyproject.toml of the first of them
    files = [*workplace.glob("gentext-*/tests"), workplace / "test_use.py"]
    command = [sys.executable, "-m", "pytest", *options, *map(str, files)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    assert f"{2 * len(ALL_KINDS) + 1} passed" in process.stdout


def test_generated_code_uses_what_is_public(workplace: Path) -> None:
    listed = public_modules()
    for path in workplace.glob("gentext-*/*/*.py"):
        assert {module for _, module, _ in uses(path)} <= set(listed), path
        assert "$" not in path.read_text(encoding="utf-8"), path
    assert not os.path.lexists(workplace / "gentext-my-strategy" / "package")


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ("new", "name the plugin, as in gen plugins new fade --kind strategy"),
        ("new fade", "gen plugins new fade needs a --kind; expected one of strategy, tokenizer"),
        ("new fade --kind strategie", "--kind strategie: no such kind; expected one of strategy, tokenizer, batcher, "),
        (
            "new a-b --kind model",
            "'a-b' is no Python name that a plugin can have; expected letters, digits and _, the ",
        ),
        ("new gentext-fade --kind model", "such as 'fade'"),
        ("new class --kind model", "'class' is no Python name"),
        ("new 7up --kind model", "'7up' is no Python name"),
        ("new _fade --kind model", "such as 'fade'"),
        ("new fad\N{LATIN SMALL LETTER E WITH ACUTE} --kind model", "is no Python name"),
        ("new top_k --kind strategy", "'top_k' is taken: gentext 0.1.0 registers the strategy 'top_k'; choose another"),
        ("new repeat_penalty --kind strategy", "the strategy 'penalties' has a parameter 'repeat_penalty'"),
        ("new no_verify --kind strategy", "'no_verify' is taken: gen sample has an option --no-verify"),
        ("new lstm --kind model", "'lstm' is taken: gentext 0.1.0 registers the model 'lstm'"),
        ("new sweep --kind command", "'sweep' is taken: there is a command gen sweep"),
        ("new there --kind model", "gentext-there exists already; choose another name, or move it away"),
        ("fade --kind model", "are for a new plugin: gen plugins new NAME --kind KIND"),
        ("top_k top_p", "are for a new plugin: gen plugins new NAME --kind KIND"),
    ],
)
def test_bad_name_costs_one_line(
    words: str, fragment: str, gen: Gen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gentext-there").mkdir()
    fails(2, gen("plugins", *words.split(" ")), fragment)
    assert [path.name for path in tmp_path.iterdir()] == ["gentext-there"]
    assert not list((tmp_path / "gentext-there").iterdir())


def test_name_of_an_installed_distribution_is_taken(gen: Gen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    metadata = tmp_path / "gentext_known_name-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: gentext-known-name\nVersion: 1.0\n")
    (tmp_path / "gentext_other.py").write_text("")
    fails(2, gen("plugins", "new", "known_name", "--kind", "model"), "gentext-known-name is installed")
    fails(2, gen("plugins", "new", "other", "--kind", "model"), "there is a module gentext_other already")


def test_templates_are_of_all_kinds() -> None:
    templates = Path(__file__).parents[2] / "cli" / "templates"
    assert {path.name for path in templates.iterdir()} == {"common", *ALL_KINDS}
    hooks = "".join(path.read_text(encoding="utf-8") for path in templates.glob("*/package/__init__.py.template"))
    assert len(re.findall(rf"^gentext_hooks = {HOOKS_VERSION}$", hooks, re.MULTILINE)) == len(ALL_KINDS)
