"""What several test files share: running ``gen`` in this process, a small text, and a tiny run."""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import hypothesis
import pytest
from products import Products

from gentext.cli.app import main
from gentext.plugins.observers import curves, samples, tensorboard

# Two processes run tests on two cores; threads of PyTorch would wait for each other, at full speed.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell's background job ignores Ctrl-C, and so would everything that the tests start there.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: Characters of a sample where tests change nothing.
SAMPLE_LENGTH = samples.SAMPLE_LENGTH
#: Options under which a training run takes a fraction of a second.
TINY = (
    *("--set", "model.hidden=8", "--set", "model.embedding=4"),
    *("--set", "model.ngram_length=4", "--set", "model.ngram_rows=16", "--set", "model.ngram_embedding=2"),
    *("--set", "batcher.batch=2", "--set", "batcher.length=8"),
    *("--precision", "fp32", "--set", "run.threads=1"),  # more threads wait for each other where two tests run
    *("--set", "run.measurements=1"),  # each writes a sample and draws a picture, which takes longer than the steps
)
#: Beside `TINY`: a network of few parts, which PyTorch's exporter traces in half the time.
SHALLOW = ("--set", "model.layers=1", "--set", "model.ngram_length=0")

#: Files that take longest. They begin first, so that no process waits for another at the end.
LONGEST = (
    "test_docs",
    "test_train",
    "test_presets",
    "test_export",
    "test_export_matrix",
    "test_precision",
    "test_fuzz",
    "test_determinism",
    "test_distill",
    "test_sweep",
    "test_strangers",
    "test_scaffold",
    "test_ranks",
    "test_serve_sessions",
    "test_unrolled",
    "test_records_end",
    "test_record_writing",
    "test_interrupts",
    "test_page",
    "test_disks",
    "test_web_browser",
    "test_library",
    "test_serve_life",
    "test_serve_faults",
    "test_ngrams",
    "test_limits",
    "test_initial_weights",
    "test_advice",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-minutes", type=float, default=0, help="fuzz so long, with new examples: see tests/fuzz")
    parser.addoption("--chains", type=int, default=20, help="random chains of links: see test_link_chains.py")
    parser.addoption("--fuzz-seed", type=int, default=0, help="seed of the first examples of --fuzz-minutes")


# For tests/mutants.py, which wants to know whether a test fails, not by which smallest example: that may take minutes.
hypothesis.settings.register_profile("first_failure", phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate])


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # pytest-xdist would begin with the files that have the most tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def pytest_collection_finish() -> None:
    """Collect garbage rarely: graphs of PyTorch and spox are many objects, and looking through them took a third."""
    gc.freeze()
    gc.set_threshold(1_000_000, 20, 100)


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Name a failed test at once: a run that is ended from outside has no summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.nodeid}: failed in {report.when}", file=sys.__stderr__, flush=True)


class Gen(Protocol):
    """``gen("sample", path, "--length", 5)`` gives (exit status, stdout, stderr)."""

    def __call__(self, *arguments: object, stdin: bytes = b"") -> tuple[int, str, str]: ...


class ExportTiny(Protocol):
    """``export_tiny(links)`` gives the folder of an export; another ``key`` gives another export with these links."""

    def __call__(self, links: str, *key: object) -> Path: ...


def run_gen(*arguments: object, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run the command line in this process. An exception that reaches the user fails the test."""
    streams = [  # as Python opens them: strict on stdout, forgiving on stderr
        io.TextIOWrapper(io.BytesIO(), "utf-8", errors, newline="", write_through=True)
        for errors in ("strict", "backslashreplace")
    ]
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin), "utf-8")
    try:
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            code = main([str(one) for one in arguments])
    finally:
        sys.stdin = before
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(1)  # whatever a run has chosen
    out, err = (stream.buffer.getvalue().decode() for stream in streams)  # type: ignore[attr-defined]
    return code, out, err


def make_text(characters: int) -> str:
    """Return the same small text each time: words of a made-up language, 19 different characters."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 7))) for _ in range(200)]
    pieces = [rng.choice(words) + rng.choice([" ", " ", " ", ".\n"]) for _ in range(characters)]
    return "".join(pieces)[:characters]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of encoded texts that is not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("GEN_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def quick_observers() -> Iterator[None]:
    """Have a training in this process draw an empty curves.png and write short samples, which took half of its time.

    Processes that tests start draw real charts, and test_train.py looks at some.
    """

    def build_empty_chart(name: str, rows: list[dict[str, Any]]) -> Any:
        from matplotlib.figure import Figure

        return Figure(figsize=(1, 1))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "build_chart", build_empty_chart)
        for observer in (samples, tensorboard):
            patch.setattr(observer, "SAMPLE_LENGTH", 40)
        yield


@pytest.fixture(scope="module")
def whole_samples() -> Iterator[None]:
    """Have this module's trainings write samples as long as those of other processes, with which they are compared."""
    with pytest.MonkeyPatch.context() as patch:
        for observer in (samples, tensorboard):
            patch.setattr(observer, "SAMPLE_LENGTH", SAMPLE_LENGTH)
        yield


@pytest.fixture(scope="session")
def gen() -> Gen:
    return run_gen


@pytest.fixture(scope="session")
def warm_python() -> Iterator[str]:
    """What is called as Python is, but has loaded PyTorch already: see warm.py."""
    if not hasattr(os, "fork"):
        yield sys.executable
        return
    with tempfile.TemporaryDirectory() as folder:  # of a short name, as a socket's address must have
        address = os.path.join(folder, "warm")
        command = [sys.executable, str(Path(__file__).with_name("warm.py")), address]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:  # ends with its stdin
            assert server.stdout is not None and server.stdout.readline()
            yield f"{address}.sh"


@pytest.fixture(scope="module")
def warm_processes(warm_python: str) -> Iterator[None]:
    """Have the processes that this module's tests start load no PyTorch of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", warm_python)
        yield


@pytest.fixture(scope="session")
def tiny_options() -> tuple[str, ...]:
    """Options under which a training run takes a fraction of a second."""
    return TINY


@pytest.fixture(scope="session")
def products(tmp_path_factory: pytest.TempPathFactory) -> Products:
    """What is trained and exported once for all workers."""
    session = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent
    return Products(Path(os.environ.get("GENTEXT_TEST_PRODUCTS", session / "products")), tmp_path_factory)


def write_tiny_text(folder: Path) -> None:
    (folder / "tiny.txt").write_text(make_text(20_000), encoding="utf-8")


@pytest.fixture(scope="session")
def tiny_text(products: Products) -> Path:
    """A text of 20,000 characters, in a file."""
    return products.find(write_tiny_text) / "tiny.txt"


@contextlib.contextmanager
def operators_read_once() -> Iterator[None]:
    """Have PyTorch's exporter read the source of its thousand operators once, and not for each model."""
    with pytest.MonkeyPatch.context() as patch:
        with contextlib.suppress(ImportError, AttributeError):  # other versions read them elsewhere
            from torch.onnx._internal.exporter import _registration

            library = _registration.onnxscript_apis
            patch.setattr(library, "get_torchlib_ops", functools.cache(library.get_torchlib_ops))
        yield


@pytest.fixture(scope="session", autouse=True)
def traces(products: Products) -> Iterator[None]:
    """Have PyTorch's exporter trace models that are alike once: see traces.py."""
    from traces import shared_trace

    from gentext.export.network import model

    with operators_read_once(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "_trace_module", shared_trace(model._trace_module, products))
        yield


@pytest.fixture(scope="session")
def tiny_run(products: Products, tiny_text: Path) -> Path:
    """A finished, exported run of four steps. Read it; copy it before you change it."""

    def train(folder: Path) -> None:
        code, _, err = run_gen("train", tiny_text, "--run", folder / "tiny", *TINY, "--steps", 4)
        assert code == 0, err

    return products.copy(train) / "tiny"


@pytest.fixture(scope="session")
def export_tiny(products: Products, tiny_run: Path) -> ExportTiny:
    """Exports the tiny run with the links of a chain: ``export_tiny("top_k,temperature")`` gives the folder to read."""

    def find(links: str, *key: object) -> Path:
        def export(folder: Path) -> None:
            code, _, err = run_gen("export", tiny_run, "--chain", links, "--output", folder)
            assert code == 0, err

        return products.find(export, links, *key)

    return find


@pytest.fixture(scope="session")
def compiled_model(products: Products, tiny_text: Path) -> Any:
    """A small model with weights large enough to be lifted and quantised: see `compiled_model.CompiledModel`."""
    from compiled_model import build_compiled_model

    ngrams = ("model.ngram_length=4", "model.ngram_rows=64", "model.ngram_embedding=8")
    sizes = ("model.hidden=48", "model.embedding=16", *ngrams)
    sizes += ("batcher.batch=4", "batcher.length=16")
    options = [word for size in (*sizes, "run.threads=1") for word in ("--set", size)]

    def train(folder: Path) -> None:
        code, _, err = run_gen("train", tiny_text, "--run", folder / "run", *options, "--steps", 30, "--no-export")
        assert code == 0, err

    folder = products.copy(train)
    return build_compiled_model(folder, folder / "run")


def train_records(folder: Path, records: list[str], steps: int, *options: object) -> Path:
    """Train and export a run of records, and return its folder."""
    (folder / "records.txt").write_text("\n".join(records) + "\n", encoding="utf-8")
    words = ["--records", "lines", "--run", folder / "run", *TINY, "--steps", steps, *options]
    code, _, err = run_gen("train", folder / "records.txt", *words)
    assert code == 0, err
    return folder / "run"


def train_tiny_records(folder: Path) -> None:
    # With n-grams it would soon be sure where a record ends; so some are long, and may end at several places.
    train_records(folder, make_text(20_000).split("\n"), 60, "--set", "model.ngram_length=0")


@pytest.fixture(scope="session")
def tiny_records_run(products: Products) -> Path:
    """A finished, exported run of records, lines of the text of `make_text`. Read it; copy it before you change it."""
    return products.copy(train_tiny_records) / "run"


def train_eager_records(folder: Path) -> None:
    train_records(folder, [a + b for a in "ab" for b in "ab"] * 30, 1, *SHALLOW)


@pytest.fixture(scope="session")
def eager_records_run(products: Products) -> Path:
    """A run of records whose model has learned next to nothing, so that it would end every third record at once."""
    return products.copy(train_eager_records) / "run"
