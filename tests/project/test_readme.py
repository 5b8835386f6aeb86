"""README's blocks run from top to bottom as a newcomer types them, in an environment that has only what they install.

Trainings take a few seconds instead of minutes, and gen train warns of that, and of small texts. The last block is
left out: its commands are those that run this test.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
#: What pip needs to build the package.
SOURCES = ("engine", "plugins", "export", "cli", "data", "pyproject.toml", "README.md", "LICENSE")
#: Seconds that a line may take: pip downloads PyTorch in one of them.
LINE_SECONDS = 1200
#: Minutes of a training, in place of those of README.
MINUTES = "0.1"
#: How gen train warns of a short training and of a small text. No other warning may be printed.
ADVICE = re.compile(
    r"^gen: warning: (the budget reads|the held-out text has only|\d+ parameters a symbol, and) .*$", re.MULTILINE
)
#: Commands that go on until they are stopped, and what they print when they are ready.
SERVER, READY = "gen serve", "serving"


def readme_blocks() -> list[tuple[str, str]]:
    """Return language and text of each block, but for the last one, which runs the tests."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert "make test" in blocks[-1][1]
    return blocks[:-1]


class Newcomer:
    """A folder with the project's files, and an environment in which nothing is installed yet."""

    def __init__(self, python: str, folder: Path) -> None:
        self.project = folder / "project"
        self.project.mkdir()
        for name in SOURCES:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, self.project / name)
        subprocess.run([python, "-m", "venv", folder / "env"], check=True)
        kept = [name for name in os.environ if not name.startswith(("GEN_", "PYTHON", "VIRTUAL_ENV"))]
        own = {name: os.environ[name] for name in kept}
        self.variables = own | {"PATH": f"{folder / 'env' / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def run(self, *words: str) -> str:
        process = subprocess.run(
            words, cwd=self.project, env=self.variables, capture_output=True, encoding="utf-8", timeout=LINE_SECONDS
        )
        assert process.returncode == 0, f"{words}\n{process.stdout}\n{process.stderr}"
        assert "warning" not in ADVICE.sub("", process.stderr), f"{words}\n{process.stderr}"
        return process.stdout

    def serve(self, line: str) -> None:
        """Start a server, load the page that it names, and stop it with Ctrl-C."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec {line}"],
            cwd=self.project,
            env=self.variables,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        assert process.stderr is not None
        ready = next((printed for printed in process.stderr if READY in printed), "")
        address = re.search(r"http://\S+", line)
        assert address and address[0] in ready, ready
        with urllib.request.urlopen(address[0], timeout=30) as answer:
            assert b"gentext" in answer.read()
        process.send_signal(signal.SIGINT)
        process.communicate()
        watchdog.cancel()
        assert process.returncode in (0, 1)


@pytest.mark.parametrize("version", ["3.11", "3.13"])
def test_readme(version: str, tmp_path: Path) -> None:
    python = f"python{version}"
    if subprocess.run(["sh", "-c", f"{python} -c 'import venv, ensurepip'"], capture_output=True).returncode:
        pytest.skip(f"{python} with venv is not on this machine")
    newcomer = Newcomer(python, tmp_path)
    for language, text in readme_blocks():
        if language == "python":
            assert newcomer.run("python", "-c", text).strip()
            continue
        for line in text.splitlines():
            if line.startswith(SERVER):
                newcomer.serve(line)
            else:
                newcomer.run("bash", "-c", re.sub(r"--minutes \d+", f"--minutes {MINUTES}", line))
    page = (newcomer.project / "surprise.html").read_text("utf-8")
    scores = (newcomer.project / "scores.csv").read_text("utf-8").splitlines()
    names = (newcomer.project / "modules.txt").read_text("utf-8").splitlines()
    assert "shakespeare.onnx reads 41 symbols of the text" in page
    assert len(scores) == 1 + len(names)
