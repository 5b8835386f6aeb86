"""Hooks: what they promise in writing, and what happens when one of them fails in the middle of a run."""

from __future__ import annotations

import asyncio
import inspect
import sys
import types
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from gentext import hookspecs
from gentext.errors import PluginError
from gentext.events import Hooks, Progress
from gentext.hookspecs import hookimpl
from gentext.manager import PluginHost
from gentext.registry import KINDS, plural

RUN: Any = "a run"
PROGRESS = Progress(step=1, total_steps=2, epoch=0, loss=1.0, rate=0.1, tokens=10, seconds=1.0)
SPECS = {name: spec for name, spec in vars(hookspecs).items() if hasattr(spec, "gentext_spec")}


def plugin(**hooks: Callable[..., Any]) -> types.ModuleType:
    """A plugin module with some hooks."""
    module = types.ModuleType("plugin")
    for name, function in hooks.items():
        setattr(module, name, hookimpl(function))
    return module


def start(monkeypatch: pytest.MonkeyPatch, **plugins: types.ModuleType) -> Hooks:
    """The hooks of a host with just these plugins; the one called ``own`` is a built-in."""
    points = [
        types.SimpleNamespace(
            name=name,
            value=f"{name}.plugin",
            dist=types.SimpleNamespace(name=name, version="1.2"),
            load=lambda module=module: module,
        )
        for name, module in plugins.items()
        if name != "own"
    ]
    monkeypatch.delenv("GEN_PLUGINS", raising=False)
    monkeypatch.setattr(metadata, "entry_points", lambda group: points)
    if "own" in plugins:
        monkeypatch.setitem(sys.modules, "own", plugins["own"])
    return PluginHost([name for name in plugins if name == "own"]).hooks


def test_broken_hook_is_left_out_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[str] = []

    def step_done(progress: Progress) -> None:
        calls.append("bad")
        raise RuntimeError("no display")

    def evaluated(run: Any, progress: Progress) -> None:
        calls.append(f"measured {progress.step}")

    bad = plugin(step_done=step_done, evaluated=evaluated)
    hooks = start(monkeypatch, a=bad, b=plugin(step_done=lambda run: calls.append("good")))
    for _ in range(3):
        hooks.step_done(RUN, PROGRESS)
    hooks.evaluated(RUN, PROGRESS)
    assert (calls.count("bad"), calls.count("good"), calls[-1]) == (1, 3, "measured 1")
    [line] = capsys.readouterr().err.splitlines()
    assert "the hook step_done of plugin a (a.plugin) failed and is left out" in line
    assert "RuntimeError: no display" in line


@pytest.mark.parametrize("error", [SystemExit(0), asyncio.CancelledError()])
def test_exit_in_a_hook_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    def fail() -> None:
        raise error

    calls: list[str] = []
    names = ("run_started", "step_done", "evaluated", "checkpoint_saved", "run_finished", "export_run", "run_closed")
    bad = plugin(**{name: lambda run: fail() for name in names}, adjust_settings=lambda config: fail())
    hooks = start(monkeypatch, a=bad, b=plugin(step_done=lambda run: calls.append("good")))
    result: Any = None
    for _ in range(2):
        hooks.run_started(RUN, result, PROGRESS)
        hooks.step_done(RUN, PROGRESS)
        hooks.evaluated(RUN, PROGRESS)
        hooks.checkpoint_saved(RUN, PROGRESS, Path("file"))
        hooks.run_finished(RUN, result, result)
        hooks.export_run(RUN, result)
        hooks.run_closed(RUN)
    assert calls == ["good", "good"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(names)
    for name, line in zip(names, lines, strict=True):
        assert f"the hook {name} of plugin a (a.plugin) failed and is left out: {type(error).__name__}" in line
    with pytest.raises(PluginError, match=rf"adjust_settings of plugin a .* failed: {type(error).__name__}"):
        hooks.adjust_settings({}, [], result)


def test_interrupt_in_a_hook_gets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    hooks = start(monkeypatch, a=plugin(step_done=lambda run: fail(), adjust_settings=lambda config: fail()))
    with pytest.raises(KeyboardInterrupt):
        hooks.step_done(RUN, PROGRESS)
    facts: Any = None
    with pytest.raises(KeyboardInterrupt):
        hooks.adjust_settings({}, [], facts)


def test_errors_for_the_user_and_of_builtins_get_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(error: Exception) -> Callable[[Any], None]:
        def step_done(run: Any) -> None:
            raise error

        return step_done

    hooks = start(monkeypatch, a=plugin(step_done=fails(PluginError("read me"))))
    with pytest.raises(PluginError, match="read me"):
        hooks.step_done(RUN, PROGRESS)
    hooks = start(monkeypatch, own=plugin(step_done=fails(RuntimeError("a bug"))))
    with pytest.raises(RuntimeError, match="a bug"):
        hooks.step_done(RUN, PROGRESS)


def test_hooks_are_the_ones_that_are_promised() -> None:
    components = {f"register_{plural(kind)}" for kind in KINDS}
    life = {"run_started", "step_done", "evaluated", "checkpoint_saved", "run_finished", "export_run", "run_closed"}
    assert set(SPECS) == components | life | {"register_commands", "adjust_settings"}


@pytest.mark.parametrize("name", SPECS)
def test_every_hook_explains_its_parameters(name: str) -> None:
    doc = inspect.getdoc(SPECS[name])
    assert doc
    signature = inspect.signature(SPECS[name])
    for parameter in signature.parameters.values():
        assert f":param {parameter.name}: " in doc
        assert parameter.annotation is not inspect.Parameter.empty
    assert doc.count(":param ") == len(signature.parameters)
    assert signature.return_annotation == ("Sequence[Change] | None" if name == "adjust_settings" else "None")
