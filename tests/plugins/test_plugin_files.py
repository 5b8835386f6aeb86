"""Plugins as files of installed distributions: modules that moved, and the version of the hooks."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Gen
from helpers import fails

from gentext.errors import MOVED_MODULES, PluginError
from gentext.manager import PluginHost, forget_plugins


def write_plugin(folder: Path, name: str, **sources: str) -> None:
    """Write a distribution as pip installs it: the modules of its package, and the entry point of the package."""
    package = folder / name.replace("-", "_")
    package.mkdir()
    for module_name, source in sources.items():
        (package / f"{module_name}.py").write_text(source, encoding="utf-8")
    metadata_folder = folder / f"{package.name}-1.0.dist-info"
    metadata_folder.mkdir()
    (metadata_folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata_folder / "entry_points.txt").write_text(f"[gentext]\nplugin = {package.name}\n")


@pytest.fixture
def plugin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of distributions for this process, which loads their plugins when they are first needed."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for variable in ("GEN_PLUGINS", "GEN_PLUGINS_STRICT"):
        monkeypatch.delenv(variable, raising=False)
    forget_plugins()
    yield tmp_path
    forget_plugins()


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("from gentext.plugins.evaluate import mean_loss", "gentext.plugins.evaluate is gentext.plugins.pytorch now"),
        ("from gentext.plugins import checkpoint", "gentext.plugins.checkpoint is gentext.plugins.pytorch now"),
        ("import gentext.plugins.interrupts", "gentext.plugins.interrupts is gentext.interrupts now"),
        ("import gentext.plugins.nowhere", "No module named 'gentext.plugins.nowhere'; it is left out"),
    ],
)
def test_moved_module_is_named_with_its_new_place(
    line: str, advice: str, plugin_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"gentext-{re.sub('[^a-z]+', '-', line)}"
    write_plugin(plugin_folder, name, __init__=line)
    PluginHost()
    [warning] = capsys.readouterr().err.splitlines()
    assert warning.startswith(f"gen: warning: plugin {name} 1.0 (") and advice in warning


def test_moved_module_is_named_where_a_component_needs_it(plugin_folder: Path) -> None:
    hooks = """
from gentext import hookimpl

@hookimpl
def register_samplers(register):
    register("old", "gentext_older.sampler:Old", summary="of former days")
"""
    sampler = "from gentext.plugins.session import open_model\nclass Old: ..."
    write_plugin(plugin_folder, "gentext-older", __init__=hooks, sampler=sampler)
    with pytest.raises(
        PluginError, match=r"sampler 'old' .*; gentext\.plugins\.session is gentext.plugins.samplers now"
    ):
        PluginHost().registry.get("sampler", "old")


def test_new_places_of_moved_modules_exist() -> None:
    for module_name, new_name in MOVED_MODULES.items():
        assert importlib.import_module(new_name).__all__
        assert importlib.util.find_spec(module_name) is None


def test_batcher_without_its_version_of_the_hooks_is_told_the_line(
    plugin_folder: Path, gen: Gen, tiny_text: Path, tiny_options: tuple[str, ...]
) -> None:
    hooks = """
from gentext import hookimpl

@hookimpl
def register_batchers(register):
    register("{name}", "gentext.plugins.batchers.stream:StreamBatcher", summary="written for corpora")
"""
    write_plugin(plugin_folder, "gentext-silent", __init__=hooks.format(name="silent"))
    write_plugin(plugin_folder, "gentext-clear", __init__="gentext_hooks = 3\n" + hooks.format(name="clear"))
    run = plugin_folder / "run"
    words = ("train", tiny_text, "--run", run, "--steps", 1, *tiny_options, "--no-export")
    refused = gen(*words, "--set", "batcher.name=silent")
    fails(1, refused, "the batcher 'silent' of gentext-silent 1.0 was written for version 1 of the hooks")
    fails(1, refused, "adds the line gentext_hooks = 3 to the plugin's module")
    assert gen(*words, "--set", "batcher.name=clear")[0] == 0
