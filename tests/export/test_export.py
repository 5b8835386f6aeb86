"""model.onnx: the interface of the file, and that no file which disagrees with its model is ever written."""

from __future__ import annotations

import copy
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers import examples, fails
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import numpy_helper

import gentext
from gentext.errors import ExportError, FileFormatError
from gentext.export import exporter, precision
from gentext.export.exporter import export_run
from gentext.export.job import ExportOptions
from gentext.export.network import model as model_export
from gentext.export.precision import BuiltGenerator, ExportedFile, fastest_precision
from gentext.export.proto import serialize_model
from gentext.exported.metadata import Bundle, LinkMeta, ParamMeta, StateMeta, TokenizerMeta
from gentext.exported.onnx_file import check_same_export, read_export_id, read_metadata
from gentext.files.atomic import atomic_write_all
from gentext.interfaces import StateSpec
from gentext.library import bench
from gentext.plugins.models.lstm import LSTMConfig, LSTMModel
from gentext.plugins.pytorch.recurrent import RecurrentModel
from gentext.plugins.samplers.session import Session, open_file, open_model
from gentext.run import open_run

V = 9
KILLED = Path(__file__).parents[1] / "killed.py"
#: Before 2.13, PyTorch's exporter unrolls a recurrent layer over the positions of the example.
TRACES_OPEN_TIME = torch.__version__ >= (2, 13)
OPTIONS = [
    LSTMConfig(hidden=8, layers=layers, embedding=embedding, norm=norm, skip=skip)
    for layers, embedding, norm, skip in itertools.product((1, 2, 3), (0, 5), (False, True), (False, True))
]
#: Of those, some among which every pair of options stands.
PAIRS = [OPTIONS[index] for index in (0, 7, 9, 14, 18, 21)]


def spell(config: LSTMConfig) -> str:
    return f"{config.layers}-{config.embedding}" + "-norm" * config.norm + "-skip" * config.skip


class Looping(RecurrentModel):
    """A model whose forward is a Python loop over time, with states of its own kind."""

    state_spec = (StateSpec("memory", (None, 6)), StateSpec("sums", (2, None), "int64"))

    def __init__(self) -> None:
        super().__init__()
        self.cell = torch.nn.GRUCell(V, 6)
        self.head = torch.nn.Linear(6, V)
        self.begin = torch.nn.Parameter(torch.randn(6))

    def initial_state(self, rows: int) -> tuple[torch.Tensor, ...]:
        return self.begin.expand(rows, 6), torch.full((2, rows), 3)

    def forward(self, tokens: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        memory, sums = state
        logits = []
        for t in range(tokens.shape[1]):
            memory = self.cell(torch.nn.functional.one_hot(tokens[:, t], V).float(), memory)
            sums = sums + tokens[None, :, t]
            logits.append(self.head(memory) + 0.1 * (sums[0] % 3)[:, None])
        return torch.stack(logits, dim=1), (memory, sums)


def bundle_for(model: Any) -> Bundle:
    states = model.initial_state(1)
    rows = [
        state.detach().select(spec.batch_axis, 0).numpy() for spec, state in zip(model.state_spec, states, strict=True)
    ]
    links = [LinkMeta("top_k", {"x": 1}, params={"top_k": ParamMeta(5, 0, "keep K", "int64", 0)})]
    return Bundle(
        kind="model",
        tokenizer=TokenizerMeta("char", {"symbols": "äbcdefghi"}, unknown=8),
        token_bytes=[char.encode() for char in "äbcdefghi"],
        states=[StateMeta.from_row(spec, row) for spec, row in zip(model.state_spec, rows, strict=True)],
        start=2,
        chain=links,
        card={"corpus": {"name": "a name"}, "val_loss": 1.25, "none": None},
    )


def export(model: Any, path: Path) -> tuple[Bundle, str]:
    bundle = bundle_for(model)
    with torch.no_grad():
        exported = model_export.export_model(model, bundle)
    path.write_bytes(exported.model_bytes)
    return bundle, exported.method


def lstm(config: LSTMConfig) -> LSTMModel:
    torch.manual_seed(0)
    model = LSTMModel(config, V).eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(2)  # gates that are open and shut, logits that differ
    return model


def random_state(model: Any, rows: int) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(rows)
    shapes = [(spec.with_batch(rows), getattr(torch, spec.dtype)) for spec in model.state_spec]
    return tuple((torch.randn(shape) * 2).to(dtype) for shape, dtype in shapes)


def assert_agrees(session: Session, model: Any, rows: int, pieces: Sequence[int]) -> None:
    """The file, fed piece by piece, against PyTorch over the whole text at once, from a random state."""
    tokens = torch.randint(0, V, (rows, sum(pieces)), generator=torch.Generator().manual_seed(rows))
    initial = random_state(model, rows)
    with torch.no_grad():
        expected_logits, expected_state = model(tokens, initial)
    state, logits = tuple(tensor.numpy() for tensor in initial), []
    for first, size in zip(itertools.accumulate(pieces, initial=0), pieces, strict=False):
        out, state = session.run(tokens[:, first : first + size].numpy(), state)
        logits.append(out)
    results, expected = [np.concatenate(logits, axis=1), *state], [expected_logits, *expected_state]
    for array, tensor in zip(results, expected, strict=True):
        assert array.shape == tensor.shape
        # Logits reach 10 here, and float32 has seven digits: the bound goes with their size.
        assert np.abs(array - tensor.numpy()).max() < 1e-4 * max(1.0, float(tensor.abs().max()))


def assert_no_weight_twice(path: Path, model: Any) -> None:
    constants = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    weights = [array for array in constants if array.size >= 2 * V]
    parameters = sum(tensor.numel() for tensor in model.parameters())
    assert parameters * 0.8 < sum(array.size for array in weights) <= parameters
    assert len({array.tobytes() for array in weights}) == len(weights)


@pytest.mark.parametrize("config", OPTIONS, ids=spell)
def test_step_is_forward_a_position_at_a_time(config: LSTMConfig) -> None:
    model = lstm(config).double()  # in float64 the two agree to far more digits than a mistake would
    state = tuple(tensor.double() for tensor in random_state(model, 4))
    tokens = torch.randint(0, V, (4, 7), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, last_state = model(tokens, state)
        for t in range(7):
            logits, state = model.step(tokens[:, t], state)
            assert torch.allclose(logits, expected[:, t], atol=1e-10)
    assert all(torch.allclose(tensor, last, atol=1e-10) for tensor, last in zip(state, last_state, strict=True))


@pytest.mark.parametrize(
    "config", [*PAIRS[:2], *(pytest.param(config, marks=pytest.mark.slow) for config in PAIRS[2:])], ids=spell
)
def test_lstm_exports_faithfully(config: LSTMConfig, tmp_path: Path) -> None:
    model, path = lstm(config), tmp_path / "model.onnx"
    bundle, method = export(model, path)
    session = open_model(path, "cpu")
    assert method == ("whole sequences" if TRACES_OPEN_TIME else "a scan over steps")
    assert session.bundle == bundle
    assert_no_weight_twice(path, model)
    state = ["batch" if size is None else size for size in model.state_spec[0].shape]
    shapes = [
        {port.name: port.shape for port in ports}
        for ports in (session.session.get_inputs(), session.session.get_outputs())
    ]
    assert shapes[0] == {"tokens": ["batch", "time"], "h": state, "c": state}
    assert shapes[1] == {"logits": ["batch", "time", V], "h_out": state, "c_out": state}
    for rows in (1, 3, 64):
        for pieces in ([23], [5, 1, 9, 8], [1] * 23):
            assert_agrees(session, model, rows, pieces)


def test_loop_over_time_becomes_a_scan_over_steps(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model, path = Looping().eval(), tmp_path / "model.onnx"
    bundle, method = export(model, path)
    session = open_model(path, "cpu")
    assert method == "a scan over steps"
    assert session.bundle == bundle
    for rows in (1, 3):
        for state, tensor in zip(bundle.states, model.initial_state(rows), strict=True):
            assert np.array_equal(state.initial_rows(rows), tensor.detach().numpy())
        for pieces in ([11], [4, 1, 6], [1] * 11):
            assert_agrees(session, model, rows, pieces)


def read_files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def swap_states(trace: Callable[..., onnx.ModelProto]) -> Callable[..., onnx.ModelProto]:
    """Turn an exporter into one that mixes two states up, as one that merges equal examples would."""
    names = {"h_out": "c_out", "c_out": "h_out"}

    def trace_and_swap(model: Any, bundle: Bundle) -> onnx.ModelProto:
        proto = trace(model, bundle)
        for value in proto.graph.output:
            value.name = names.get(value.name, value.name)
        for node in proto.graph.node:
            node.output[:] = [names.get(name, name) for name in node.output]
        return proto

    return trace_and_swap


def test_swapped_state_leaves_no_file(tmp_path: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("trace_forward", "scan_steps"):
        monkeypatch.setattr(model_export, name, swap_states(getattr(model_export, name)))
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    files = read_files(run)
    problem = "[hc]_out at batch 1"
    whole_problem = problem if TRACES_OPEN_TIME else "UserError: Constraints violated"
    with pytest.raises(ExportError, match=f"whole sequences: {whole_problem}.*scan over steps: {problem}"):
        export_run(open_run(run), run)
    assert read_files(run) == files


def test_generator_that_cannot_be_made(
    tmp_path: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For `gen export` it is an error that changes no file; at the end of training model.onnx is written without it."""
    monkeypatch.setattr("gentext.export.job.step_graph", raising)
    monkeypatch.setattr(model_export, "trace_forward", trace_once(model_export.trace_forward))
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    files = read_files(run)
    with pytest.raises(ExportError, match="no step"):
        export_run(open_run(run), run)
    assert read_files(run) == files
    [line], summary = export_run(open_run(run), run, ExportOptions(generator_required=False))
    assert "model.onnx" in line and "model.onnx" in summary and "generator.onnx" not in summary
    assert "no generator.onnx: no step; gen sample takes model.onnx" in capsys.readouterr().err
    assert not (run / "generator.onnx").exists(), "it would be an older one"


def trace_once(trace: Callable[..., onnx.ModelProto]) -> Callable[..., onnx.ModelProto]:
    """Return a trace that is taken, in a second, for the first model alone, and is that of the later ones too."""
    protos: list[onnx.ModelProto] = []

    def trace_first(model: Any, bundle: Bundle) -> onnx.ModelProto:
        if not protos:
            protos.append(trace(model, bundle))
        return copy.deepcopy(protos[0])

    return trace_first


EXPORTED_FILES = ("model.onnx", "generator.onnx", "generator-unrolled.onnx")


@pytest.fixture(scope="module")
def exported_twice(
    tmp_path_factory: pytest.TempPathFactory, tiny_run: Path, gen: Callable[..., Any]
) -> tuple[Path, Path]:
    """A run, and a copy of it that was exported once more, with an unrolled generator."""
    copy_path = tmp_path_factory.mktemp("twice") / "run"
    shutil.copytree(tiny_run, copy_path)
    code, _, err = gen("export", copy_path, "--unroll", 2)
    assert code == 0, err
    return tiny_run, copy_path


def test_files_of_one_export_have_one_id(exported_twice: tuple[Path, Path]) -> None:
    first, second = exported_twice
    ids = {read_export_id(second / name) for name in EXPORTED_FILES}
    assert len(ids) == 1 and ids != {None} != {read_export_id(first / "model.onnx")} != ids
    for name in EXPORTED_FILES:
        assert read_metadata(second / name) == {
            entry.key: entry.value for entry in onnx.load(second / name).metadata_props
        }


def test_files_of_two_exports_are_refused(
    tmp_path: Path, exported_twice: tuple[Path, Path], gen: Callable[..., Any]
) -> None:
    first, second = exported_twice
    run = Path(shutil.copytree(first, tmp_path / "run"))
    shutil.copy(second / "model.onnx", run)  # as if a power cut had come before the second rename
    for command in ("sample", "eval"):
        fails(1, gen(command, run), f"{run}: model.onnx and generator.onnx come from two exports", f"gen export {run}")
    for name in ("model.onnx", "generator.onnx"):  # each alone is whole
        assert gen("sample", run / name, "--length", 3)[0] == 0
    shutil.copy(second / "generator.onnx", run)
    assert gen("sample", run, "--length", 3)[0] == 0


def test_files_of_older_versions_have_no_id(
    tmp_path: Path, exported_twice: tuple[Path, Path], gen: Callable[..., Any]
) -> None:
    run = Path(shutil.copytree(exported_twice[0], tmp_path / "run"))
    for name in ("model.onnx", "generator.onnx"):
        proto = onnx.load(run / name)
        for entry in proto.metadata_props:
            if entry.key == "gentext.card":
                card = json.loads(entry.value)
                del card["export"]
                entry.value = json.dumps(card)
        (run / name).write_bytes(serialize_model(proto))
        assert read_export_id(run / name) == ""
    assert gen("sample", run, "--length", 3)[0] == 0
    shutil.copy(exported_twice[1] / "model.onnx", run)  # as if an export had been killed before the second rename
    fails(1, gen("sample", run, "--length", 3), "come from two exports")


@settings(max_examples=100, deadline=1000)
@given(data=st.data())
def test_damaged_metadata_are_no_id(data: Any, tmp_path_factory: pytest.TempPathFactory, tiny_run: Path) -> None:
    """Whatever is in a file, looking for its id takes no time worth mentioning, and raises nothing."""
    content = bytearray((tiny_run / "model.onnx").read_bytes())
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    ends = st.integers(0, 100) | st.integers(len(content) - 4000, len(content) - 1)
    for index in data.draw(st.lists(ends, min_size=1, max_size=5)):
        content[index] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.just(len(content)) | ends)])
    read_export_id(path)
    path.write_bytes(data.draw(st.binary(max_size=100)) + bytes([data.draw(st.integers(0, 255))]) * 10**5)
    read_export_id(path)


def test_export_killed_between_two_renames(
    tmp_path: Path, exported_twice: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first rename all files are complete on the disk; after it the mixed pair is noticed."""
    first, second = exported_twice
    run = Path(shutil.copytree(first, tmp_path / "run"))
    contents = {run / name: (second / name).read_bytes() for name in EXPORTED_FILES[:2]}
    replace, renamed_sizes = os.replace, []

    def rename_and_die(source: Path, target: Path) -> None:
        renamed_sizes.append({path.stat().st_size for path in run.glob("*.tmp")})
        replace(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", rename_and_die)
    with pytest.raises(KeyboardInterrupt):
        atomic_write_all(contents)
    assert renamed_sizes == [{len(content) for content in contents.values()}]
    assert not [*run.glob("*.tmp")]
    with pytest.raises(FileFormatError, match="two exports"):
        check_same_export(run)


@pytest.mark.slow
def test_killed_export_is_refused_and_made_again(tiny_run: Path, tmp_path: Path, gen: Callable[..., Any]) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    jobs = [(["export", str(run), "--precision", "fp32"], "rename", 1)]
    killed = subprocess.run([sys.executable, KILLED], input=json.dumps(jobs), capture_output=True, text=True)
    assert killed.stdout.split() == [str(-signal.SIGKILL)], killed.stderr
    is_new = [(run / name).read_bytes() != (tiny_run / name).read_bytes() for name in ("model.onnx", "generator.onnx")]
    assert is_new == [True, False]
    assert len([*run.glob(".generator.onnx.*.gentext.tmp")]) == 1
    fails(1, gen("sample", run, "--length", 3), "come from two exports", f"gen export {run}")
    code, _, err = gen("export", run, "--precision", "fp32")
    assert code == 0, err
    assert gen("sample", run, "--length", 3)[0] == 0
    assert {path.name for path in run.iterdir()} == {path.name for path in tiny_run.iterdir()}


def test_newest_run_is_exported_by_default(
    tmp_path: Path, tiny_run: Path, gen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEN_RUNS", str(tmp_path))
    fails(1, gen("export"), f"no run in {tmp_path}/; make one with: gen train")
    for age, name in enumerate(("newest", "older")):
        run = Path(shutil.copytree(tiny_run, tmp_path / name, ignore=shutil.ignore_patterns("*.onnx")))
        os.utime(run / "config.toml", (1e9 - age, 1e9 - age))
    code, _, err = gen("export")
    assert code == 0, err
    assert err.splitlines()[0] == f"run: {tmp_path / 'newest'}"
    assert f"exported {tmp_path / 'newest' / 'model.onnx'}" in err
    assert not (tmp_path / "older" / "model.onnx").exists()


@pytest.mark.slow
def test_many_symbols_make_no_larger_generator(tmp_path: Path, gen: Callable[..., Any]) -> None:
    """The table of the first layer's products has four rows of hidden units a symbol; an embedding is smaller."""
    text = tmp_path / "text.txt"
    text.write_text("".join(chr(0x4E00 + index * 7919 % 900) for index in range(9000)), encoding="utf-8")
    run = tmp_path / "run"
    sizes = [f"--set=model.{size}" for size in ("hidden=64", "embedding=16", "layers=1")]
    code, _, err = gen(
        "train", text, "--run", run, *sizes, "--set=run.threads=1", "--set=batcher.batch=2", "--steps=2", "--verbose"
    )
    assert code == 0 and "fp32" in err, err
    code, _, err = gen("export", run, "--precision", "fp32")
    assert code == 0, err
    model_bytes, generator_bytes = ((run / name).stat().st_size for name in ("model.onnx", "generator.onnx"))
    assert generator_bytes < model_bytes * 1.5


def raising(*_: object) -> None:
    raise ExportError("no step")


@pytest.mark.slow
def test_fastest_precision_is_taken(
    tmp_path: Path, tiny_text: Path, gen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    options = ("--set", "model.hidden=64", "--set", "run.threads=1", "--steps", 2, "--no-export")
    assert gen("train", tiny_text, "--run", run, *options)[0] == 0
    monkeypatch.setattr(bench, "REPEATS", 1)
    code, _, err = gen("export", run, "--precision", "fastest", "--limit", 10)
    assert code == 0, err
    lines = [line.split() for line in err.splitlines() if re.match(r"(fp32|int8) +[0-9]", line)]
    assert [line[0] for line in lines] == ["fp32", "int8"], err
    rates = {line[0]: float(line[2].replace(",", "")) for line in lines}
    assert [line[0] for line in lines if line[-1] == "taken"] == [max(rates, key=lambda name: rates[name])]
    assert open_file(run / "generator.onnx", "cpu").bundle.card["precision"] == max(rates, key=lambda name: rates[name])


@pytest.mark.parametrize(("cost", "expected"), [(0.006, "fp32"), (0.004, "other")])
def test_no_precision_is_taken_above_the_limit(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch, cost: float, expected: str
) -> None:
    rates = {"fp32": 1000.0, "other": 2000.0}
    monkeypatch.setattr(precision, "_measure_rate", lambda generator: (1, rates[generator.precision]))
    files = {"generator.onnx": ExportedFile((tiny_run / "generator.onnx").read_bytes(), [])}

    def build(name: str) -> BuiltGenerator:
        return BuiltGenerator(name, files, cost if name == "other" else 0.0)

    fastest, table = fastest_precision(build, list(rates), 0.005)
    assert fastest.precision == expected
    assert [line.split()[0] for line in table if "taken" in line] == [expected]


def paths_of_this_machine(*paths: Path) -> set[str]:
    """Return the folders from which a stranger could learn whose machine this is, and these paths."""
    sources = [Path(module.__file__ or "").parent for module in (torch, onnx, gentext, model_export)]
    folders = {Path.home(), Path.cwd(), Path(sys.prefix), *sources, *paths}
    folders |= {folder.resolve() for folder in folders}
    return {str(folder) for folder in folders if len(folder.parts) > 1}  # the root is in every path of a graph


def assert_no_path(content: bytes, paths: set[str]) -> None:
    for path in paths:
        for spelling in (path, json.dumps(path)[1:-1], path.replace("/", "\\/")):
            for encoding in ("utf-8", "utf-16-le"):
                assert spelling.encode(encoding) not in content, path


@pytest.mark.slow
def test_exported_files_hold_no_path(tmp_path: Path, tiny_text: Path, gen: Callable[..., Any]) -> None:
    """The run remembers where its text is; whoever gets an exported file does not learn it."""
    run = tmp_path / "run"
    sizes = ("--set", "model.hidden=64", "--set", "run.threads=1", "--steps", 2)
    assert tiny_text.is_absolute()
    assert gen("train", tiny_text, "--run", run, *sizes)[0] == 0
    for folder, options in (("int8", ("--precision", "int8")), ("unrolled", ("--unroll", 2))):
        code, _, err = gen("export", run, "-o", tmp_path / folder, "--limit", 10, *options)
        assert code == 0, err
    paths = paths_of_this_machine(tiny_text, tiny_text.parent, run, tmp_path)
    files = sorted(tmp_path.glob("*/*.onnx"))
    assert len(files) == 2 + 2 + 3
    for path in files:
        assert_no_path(path.read_bytes(), paths)
        if path.name == "generator-unrolled.onnx":  # gen info does not open it
            continue
        code, out, err = gen("info", path, "--json")
        assert code == 0, err
        assert json.loads(out)["corpus"].keys() == {"name", "sha256", "characters"}
        assert "origin" not in out and str(tiny_text) not in out
    assert open_file(tmp_path / "int8" / "generator.onnx", "cpu").bundle.card["precision"] == "int8"
    config = open_run(run).config
    assert config["corpus"]["origin"] == str(tiny_text)
    card = open_model(run / "model.onnx", "cpu").bundle.card
    assert card["corpus"] == {key: fact for key, fact in config["corpus"].items() if key != "origin"}
    assert card["config"] == {**config, "corpus": card["corpus"]}
    assert json.loads(gen("info", run, "--json")[1])["corpus"] == config["corpus"]


@pytest.mark.parametrize("method", [model_export.scan_steps, *[model_export.trace_forward] * TRACES_OPEN_TIME])
def test_tracer_leaves_no_path(method: Callable[..., onnx.ModelProto]) -> None:
    """The tracer notes the stack at each node: a path of the environment, or of the model's source."""
    model = lstm(LSTMConfig(hidden=8))
    bundle = bundle_for(model)
    proto, paths = method(model, bundle), paths_of_this_machine()
    with pytest.raises(AssertionError):
        assert_no_path(proto.SerializeToString(), paths)
    model_export.remove_annotations(proto)
    assert_no_path(proto.SerializeToString(), paths)


def test_export_removes_only_its_own_files(tmp_path: Path, tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own_file, folder = (tiny_run / "generator.onnx").read_bytes(), tmp_path / "folder"
    folder.mkdir()
    path = folder / "generator-unrolled.onnx"
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["a"], ["b"])], "somebody's", [], [])
    foreign_model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(foreign_model, {"gentex": "1", "author": "somebody"})
    for content in (foreign_model.SerializeToString(), b"", b"a year of work", own_file[: len(own_file) // 2]):
        path.write_bytes(content)
        assert not exporter._is_older_export(path)
        assert f"gen: warning: {path} stays" in capsys.readouterr().err
    export_run(open_run(tiny_run), folder)
    assert path.read_bytes() == own_file[: len(own_file) // 2]
    path.write_bytes(own_file)
    export_run(open_run(tiny_run), folder)
    assert not path.exists()


def test_file_needs_nothing_but_onnxruntime(tiny_run: Path, gen: Callable[..., Any]) -> None:
    session = onnxruntime.InferenceSession(tiny_run / "model.onnx", providers=["CPUExecutionProvider"])
    meta = session.get_modelmeta().custom_metadata_map
    symbols = [bytes.fromhex(symbol) for symbol in json.loads(meta["gentext.token_bytes"])]
    states = {
        state["name"]: np.full([size or 1 for size in state["shape"]], state["initial"], state["dtype"])
        for state in json.loads(meta["gentext.states"])
    }
    token, text = json.loads(meta["gentext.start"]), b""
    for _ in range(40):
        logits, *next_states = session.run(None, {"tokens": np.array([[token]]), **states})
        states = dict(zip(states, next_states, strict=True))
        token = int(logits[0, 0].argmax())
        text += symbols[token]
    code, out, _ = gen("sample", tiny_run, "--length", 40, "--temperature", 0, "--top-k", 0)
    assert (code, out) == (0, text.decode() + "\n")


FLOATS = st.floats(width=16, allow_subnormal=False) | st.sampled_from([float("inf"), float("-inf"), float("nan"), -0.0])
VALUES = {"float32": FLOATS, "float16": FLOATS, "int64": st.integers(-(2**63), 2**63 - 1), "bool": st.booleans()}


@examples(100)
@given(st.sampled_from(sorted(VALUES)), st.booleans(), st.data())
def test_initial_state_survives_the_metadata(dtype: str, constant: bool, data: Any) -> None:
    row: NDArray[Any] = data.draw(arrays(dtype, (2, 3), elements=VALUES[dtype]))
    row = np.full_like(row, row[0, 0]) if constant else row
    meta = StateMeta.from_row(StateSpec("s", (2, None, 3), dtype), row)
    bundle = Bundle("model", TokenizerMeta("t", {}), [b"a", b"\xff", b""], [meta], 1, [], {})
    read_bundle = Bundle.from_metadata(bundle.to_metadata(), Path("a file"))
    assert read_bundle == bundle
    rows = read_bundle.states[0].initial_rows(4)
    assert (rows.shape, rows.dtype) == ((2, 4, 3), row.dtype)
    assert all(np.array_equal(rows[:, n], row, equal_nan=dtype.startswith("float")) for n in range(4))
