"""Finds the run, the file or the shipped model to open; without a path, the newest run that the sampler can open."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import get_args

from gentext.config import build_config, config_class
from gentext.console import say
from gentext.data.shipped import FIRST_MODEL, shipped_models
from gentext.errors import FileFormatError, PluginError, RunError, UsageError, nearest
from gentext.interfaces import DeclaresSources, OpenSampler, Sampler, SourceKind
from gentext.manager import host
from gentext.run import MODEL_FILE, newest_run, open_run, runs_folder

#: The sampler that runs exported files, as `gentext.plugins.builtin` registers it.
FILE_SAMPLER = "onnx"
#: The sampler that runs the checkpoint of a run that was not exported. It needs PyTorch.
CHECKPOINT_SAMPLER = "torch"
#: Sources that have an exported model.
EXPORTED_SOURCES: Collection[SourceKind] = ("exported run", "onnx file")
#: Sources of a sampler that does not declare what it opens.
UNDECLARED_SOURCES: Collection[SourceKind] = ("run", "any file")


def openable_sources(sampler_class: object, name: str) -> Collection[SourceKind]:
    """Return what a sampler opens: its class attribute ``opens``, or any run and any file.

    Raises PluginError for a kind of source that is not in `gentext.interfaces.SourceKind`.
    """
    if not isinstance(sampler_class, DeclaresSources):
        return UNDECLARED_SOURCES
    opens = sampler_class.opens
    if not isinstance(opens, Collection) or isinstance(opens, str):
        raise PluginError(f"the sampler {name!r} declares opens = {opens!r}; expected a tuple of kinds of sources")
    for kind in opens:
        if kind not in get_args(SourceKind):
            expected = ", ".join(get_args(SourceKind))
            raise PluginError(f"the sampler {name!r} declares that it opens {kind!r}; expected some of {expected}")
    return opens


def find_source(
    path: Path | None, opens: Collection[SourceKind] = EXPORTED_SOURCES, sampler: str = FILE_SAMPLER
) -> Path:
    """Return the run folder or the file to open; without a path, the newest run that can be opened.

    A path that is the name of a shipped model stands for its file, unless a folder or a file has that name.
    ``opens`` is what the sampler of that name can open. Raises RunError when there is no such run or file, or
    when the run was not exported; FileFormatError for another kind of file.
    """
    opens_runs = "run" in opens or "exported run" in opens
    if path is None:
        if not opens_runs:
            raise UsageError(f"the sampler {sampler!r} opens files only, so there is no default; name a file")
        return _newest_run(exported="run" not in opens, opens_files="onnx file" in opens)
    if not path.exists():
        path = _find_shipped_model(path)
    if path.is_dir():
        if not opens_runs:
            raise FileFormatError(f"{path} is a folder; the sampler {sampler!r} opens files only")
        if not open_run(path).model.is_file() and "run" not in opens:
            raise RunError(f"{path} was not exported yet: it has no {MODEL_FILE}. Make one with: gen export {path}")
    elif not {"onnx file", "any file"} & set(opens):
        raise RunError(f"{path}: the {sampler} sampler reads a run folder; the sampler {FILE_SAMPLER} opens files")
    elif path.suffix != ".onnx" and "any file" not in opens:
        raise FileFormatError(f"{path}: expected a run folder or an .onnx file")
    return path


def _find_shipped_model(path: Path) -> Path:
    """Return the file of the shipped model whose name is the path. Raises RunError where there is none."""
    models = shipped_models()
    if str(path) not in models:
        raise RunError(
            f"{path}: no such run or file; expected a run folder, an .onnx file, or a name from gen models."
            f"{nearest(str(path), models)}"
        )
    return models[str(path)]


def _newest_run(exported: bool, opens_files: bool) -> Path:
    """Return the folder of the newest run, and print which one it is. Without a run, name a shipped model instead."""
    run, newer_unfinished = newest_run(exported)
    if run is None:
        if newer_unfinished is None:
            trial = f"; or try the model that gentext brings along: gen sample {FIRST_MODEL}" if opens_files else ""
            raise RunError(f"no run in {runs_folder()}/; make one with: gen train{trial}")
        unfinished = newer_unfinished.path
        raise RunError(
            f"no run in {runs_folder()}/ was exported yet. The newest is {unfinished}: export what it has learned with "
            f"gen export {unfinished}, or go on with gen train --resume --run {unfinished}"
        )
    remark = f" ({newer_unfinished.path} is newer, but unfinished)" if newer_unfinished else ""
    say(f"run: {run.path}{remark}")
    return run.path


def open_exported(path: Path, device: str, threads: int = 0, verify: bool = True) -> OpenSampler:
    """Open an exported file, or that of a run's folder.

    :param device: auto, cpu or cuda.
    :param threads: how many threads it computes with; 0 lets it choose.
    :param verify: whether the bytes of the file must fit its check.
    """
    sampler_class = host().registry.get("sampler", FILE_SAMPLER)
    options = {"threads": threads, "verify": verify}
    sampler: Sampler = sampler_class(build_config(config_class(sampler_class), options, "sampler"))
    return sampler.open(path, device)
