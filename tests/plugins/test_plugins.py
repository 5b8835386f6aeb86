"""The plugin host in this process: names, conflicts, lazy imports, and a plugin that fails among others."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import sys
import types
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer

from gentext import Param, Strategy
from gentext.cli.app import COMMAND_ORDER, build, main
from gentext.cli.plugins import plugins as list_plugins
from gentext.components.creation import REQUIRED_MEMBERS, create_component
from gentext.describe import load_tokenizer
from gentext.errors import GenError, MissingExtra, PluginError, UnknownComponent, reason
from gentext.hookspecs import HOOKS_VERSION, hookimpl
from gentext.library.loading import open_text_model
from gentext.manager import BUILTINS, PluginHost
from gentext.registry import KINDS, Component, Distribution, Registry, plural
from gentext.sampling.chain import build_link


@dataclasses.dataclass
class Point:
    """An entry point of a distribution that is not installed."""

    distribution: str
    plugin: Any
    version: str = "1.2"
    name: str = "it"
    loads: int = 0

    @property
    def dist(self) -> Any:
        return types.SimpleNamespace(name=self.distribution, version=self.version)

    @property
    def value(self) -> str:
        return f"{self.distribution.replace('-', '_')}.plugin"

    def load(self) -> Any:
        self.loads += 1
        if isinstance(self.plugin, BaseException):
            raise self.plugin
        return self.plugin


def module(**hooks: Callable[..., Any]) -> types.ModuleType:
    """Return a plugin module with some hooks."""
    plugin = types.ModuleType("plugin")
    for name, function in hooks.items():
        setattr(plugin, name, hookimpl(function))
    return plugin


def registers(*names: str, kind: str = "strategy", target: Any = "nowhere:Nothing") -> types.ModuleType:
    def hook(register: Any) -> None:
        for name in names:
            register(name, target, summary="a fake")

    return module(**{f"register_{plural(kind)}": hook})


Install = Callable[..., PluginHost]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Returns a function that starts a host as if just some distributions were installed."""

    def start(*points: Point, builtins: tuple[str, ...] = ("gentext.plugins.builtin",)) -> PluginHost:
        monkeypatch.setattr(metadata, "entry_points", lambda group: points)
        return PluginHost(builtins)

    for name in ("GEN_PLUGINS", "GEN_PLUGINS_STRICT"):
        monkeypatch.delenv(name, raising=False)
    return start


# -- names ------------------------------------------------------------------------------------


def test_builtins_come_through_the_hooks() -> None:
    bare = PluginHost((), entry_points=False)
    assert [bare.registry.names(kind) for kind in KINDS] == [[]] * len(KINDS)
    with pytest.raises(UnknownComponent, match=r"^no model 'lstm'\. Available: none\.$"):
        bare.registry.get("model", "lstm")
    full = PluginHost(entry_points=False)
    assert {kind for kind in KINDS if not full.registry.names(kind)} == {"filter"}
    assert [plugin.module for plugin in full.plugins] == list(BUILTINS)
    for component in full.registry:
        assert component.distribution.builtin
        assert component.load().__doc__


def test_unknown_name_says_what_there_is_and_what_failed(install: Install) -> None:
    registry = install(Point("gentext-bad", ImportError("no module named spam"))).registry
    with pytest.raises(UnknownComponent) as caught:
        registry.get("strategy", "topk")
    message = str(caught.value)
    assert message.startswith(f"no strategy 'topk'. Available: {', '.join(registry.names('strategy'))}.")
    assert "Did you mean 'top_k'?" in message
    assert "failed to load: gentext-bad 1.2 (gentext_bad.plugin): ImportError: no module named spam" in message


def test_builtin_names_are_reserved(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    host = install(Point("gentext-thief", registers("fine", "top_k")))
    err = capsys.readouterr().err
    assert "'top_k' belongs to gentext itself; gentext-thief 1.2 must register another name" in err
    assert len(err.splitlines()) == 1
    assert host.registry.find("strategy", "top_k").distribution.builtin
    assert "fine" not in host.registry.names("strategy")  # all or nothing


def test_conflict_is_reported_on_use(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    host = install(Point("gentext-one", registers("same", "other")), Point("gentext-two", registers("same"), "3.4"))
    assert capsys.readouterr().err == ""
    assert host.registry.find("strategy", "other").distribution.name == "gentext-one"
    with pytest.raises(
        PluginError, match=r"'same': gentext-one 1\.2 and gentext-two 3\.4; uninstall one, or.*GEN_PLUGINS"
    ):
        host.registry.find("strategy", "same")


@pytest.mark.parametrize("target", ["module", "module:", ":attr", "a b:c", "a..b:c", "a:b.c", 5, None])
def test_targets_are_checked(target: Any) -> None:
    with pytest.raises(PluginError, match="expected 'module:attribute' or something callable"):
        Registry().add(Component("model", "name", target, "a summary", Distribution("d", "1")))


@pytest.mark.parametrize(("name", "summary"), [("", "s"), ("a b", "s"), ("a/b", "s"), (None, "s"), ("a", ""), ("a", 5)])
def test_names_and_summaries_are_checked(name: Any, summary: Any) -> None:
    with pytest.raises(PluginError, match=r"is no name for a model|has no summary"):
        Registry().add(Component("model", name, "m:a", summary, Distribution("d", "1")))


# -- lazy imports -----------------------------------------------------------------------------


def test_targets_are_imported_on_first_use(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gentext_lazy_target.py").write_text("class Thing:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry = install(Point("gentext-lazy", registers("lazy", target="gentext_lazy_target:Thing"))).registry
    assert registry.find("strategy", "lazy").summary == "a fake"
    assert "gentext_lazy_target" not in sys.modules
    try:
        assert registry.get("strategy", "lazy").__name__ == "Thing"
    finally:
        sys.modules.pop("gentext_lazy_target", None)


def test_target_that_cannot_be_imported_names_its_plugin(install: Install) -> None:
    registry = install(Point("gentext-gone", registers("gone"))).registry
    with pytest.raises(PluginError, match=r"the strategy 'gone' of gentext-gone 1\.2 cannot be loaded from 'nowhere:"):
        registry.get("strategy", "gone")


@pytest.mark.parametrize("line", ["raise SystemExit(0)", "import asyncio; raise asyncio.CancelledError"])
def test_target_that_ends_the_program_names_its_plugin(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    (tmp_path / "gentext_leaving_target.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    registry = install(Point("gentext-a", registers("leaving", target="gentext_leaving_target:Model"))).registry
    with pytest.raises(PluginError, match=r"'leaving' of gentext-a 1\.2 cannot be loaded .*: (SystemExit|Cancelled)"):
        registry.get("strategy", "leaving")


def test_missing_extra_is_told_for_builtins_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gentext_wants_torch.py").write_text("import torch\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)
    for builtin, error, words in ((True, MissingExtra, "pip install"), (False, PluginError, "import of torch")):
        component = Component("model", "big", "gentext_wants_torch:Big", "s", Distribution("d", "1", builtin))
        with pytest.raises(error, match=f"the model 'big'.* {words}"):
            component.load()


# -- isolation --------------------------------------------------------------------------------


def wrong_parameter(registre: Any) -> None: ...


def raises(register: Any) -> None:
    register("half", "nowhere:Half", summary="done before it fails")
    raise RuntimeError("out of order\nwith a second line")


BAD = {
    "import": (ImportError("no module named spam"), "ImportError: no module named spam"),
    "exit": (SystemExit("bye"), "SystemExit: bye"),
    "cancelled": (asyncio.CancelledError("torn down"), "CancelledError: torn down"),
    "hook": (module(register_strategies=raises), "RuntimeError: out of order"),
    "parameter": (module(register_strategies=wrong_parameter), "registre"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_plugin_costs_one_line(install: Install, capsys: pytest.CaptureFixture[str], bad: str) -> None:
    plugin, why = BAD[bad]
    host = install(Point("gentext-a", plugin), Point("gentext-b", registers("good")))
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("gen: warning: plugin gentext-a 1.2 (gentext_a.plugin): ")
    assert why in line
    assert "GEN_PLUGINS_STRICT=1" in line
    assert {"good", "top_k"} <= set(host.registry.names("strategy"))
    assert "half" not in host.registry.names("strategy")
    failed, good = host.plugins[-2:]
    assert why in str(failed.error)
    assert (good.error, good.components, good.hooks) == (None, ["strategy good"], ["register_strategies"])


@pytest.mark.parametrize(
    ("version", "why"),
    [
        (4, "it needs version 4 of the hooks, and this gentext has version 3; upgrade gentext, or install an earlier "),
        (0, "its gentext_hooks is 0; expected a whole number from 1"),
        (True, "its gentext_hooks is True; expected a whole number from 1"),
        (1.0, "its gentext_hooks is 1.0; expected a whole number from 1"),
        ("1", "its gentext_hooks is '1'; expected a whole number from 1"),
        (None, "its gentext_hooks is None; expected a whole number from 1"),
    ],
)
def test_plugin_for_other_hooks_costs_one_line(
    install: Install, capsys: pytest.CaptureFixture[str], version: object, why: str
) -> None:
    future = registers("half")
    future.gentext_hooks = version  # type: ignore[attr-defined]
    host = install(Point("gentext-a", future), Point("gentext-b", registers("good")))
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gen: warning: plugin gentext-a 1.2 (gentext_a.plugin): {why}")
    assert "half" not in host.registry.names("strategy") and "good" in host.registry.names("strategy")
    assert [plugin.error is None for plugin in host.plugins[-2:]] == [False, True]


def test_plugins_are_listed_with_their_version_of_the_hooks(
    install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fitting, old, future = registers("fitting"), registers("old"), registers("future")
    fitting.gentext_hooks = HOOKS_VERSION  # type: ignore[attr-defined]
    future.gentext_hooks = HOOKS_VERSION + 1  # type: ignore[attr-defined]
    points = [Point("gentext-a", fitting), Point("gentext-b", old), Point("gentext-c", future)]
    host = install(*points)
    monkeypatch.setattr("gentext.cli.plugins.host", lambda: host)
    capsys.readouterr()
    list_plugins()
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()[-3:]]
    for line, name, version in zip(lines, "ab", (HOOKS_VERSION, 1), strict=False):
        plugin = f"plugin gentext_{name}.plugin gentext-{name} 1.2"
        assert line == f"{plugin} version {version} of the hooks: register_strategies"
    assert lines[2].startswith("failed gentext-c 1.2 (gentext_c.plugin): it needs version 4 of the hooks")
    list_plugins(as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [row["hooks_version"] for row in rows if not row["builtin"]] == [HOOKS_VERSION, 1, 1]


@pytest.mark.parametrize("bad", BAD)
def test_strict_raises(install: Install, monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    monkeypatch.setenv("GEN_PLUGINS_STRICT", "1")
    with pytest.raises((Exception, asyncio.CancelledError), match=BAD[bad][1].partition(": ")[2] or BAD[bad][1]):
        install(Point("gentext-a", BAD[bad][0]))


class SpeechlessError(Exception):
    """Cannot be turned into text."""

    def __str__(self) -> str:
        raise AttributeError("no text")


class NoTextError(Exception):
    """Gives a text that is none."""

    def __str__(self) -> str:
        return None  # type: ignore[return-value]


class SpeechlessGenError(SpeechlessError, GenError):
    """The same, as an error for the user."""


def fails(error: BaseException) -> Callable[[Any], None]:
    """Return a hook that raises an error."""

    def hook(register: Any) -> None:
        raise error

    return hook


@pytest.mark.parametrize("error", [SpeechlessError(), NoTextError(), SpeechlessGenError(), SystemExit(0)])
def test_errors_without_a_text_cost_one_line(
    install: Install, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    host = install(Point("gentext-a", error), Point("gentext-b", module(register_models=fails(error))))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    for line, name in zip(lines, "ab", strict=True):
        assert f"gentext-{name} 1.2 (gentext_{name}.plugin): {type(error).__name__}" in line
    assert "top_k" in host.registry.names("strategy")


def test_exit_is_no_success_where_failures_are_raised(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEN_PLUGINS_STRICT", "1")
    with pytest.raises(PluginError, match=r"^plugin gentext-a 1\.2 \(gentext_a\.plugin\): SystemExit: 0$"):
        install(Point("gentext-a", SystemExit(0)))


def test_interrupt_is_never_swallowed(install: Install) -> None:
    with pytest.raises(KeyboardInterrupt):
        install(Point("gentext-a", KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        install(Point("gentext-a", module(register_models=fails(KeyboardInterrupt()))))

    def register_commands(cli: Any) -> None:
        raise KeyboardInterrupt

    host = install(Point("gentext-a", module(register_commands=register_commands)))
    with pytest.raises(KeyboardInterrupt):
        host.add_commands(typer.Typer(), [])


@pytest.mark.parametrize(
    ("value", "loaded"),
    [(None, "ab"), ("", ""), ("gentext-a", "a"), ("Gentext_B, gentext.a", "ab"), (" , ", ""), ("gentext-c", "")],
)
def test_environment_chooses_before_the_import(
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    value: str | None,
    loaded: str,
) -> None:
    if value is not None:
        monkeypatch.setenv("GEN_PLUGINS", value)
    points = [Point(f"gentext-{name}", registers(f"from_{name}")) for name in "ab"]
    host = install(*points)
    assert [point.loads for point in points] == [int(name in loaded) for name in "ab"]
    assert [f"from_{name}" in host.registry.names("strategy") for name in "ab"] == [name in loaded for name in "ab"]
    assert "top_k" in host.registry.names("strategy")
    assert ("GEN_PLUGINS names 'gentext-c'" in capsys.readouterr().err) == (value == "gentext-c")


def test_misspelt_hook_is_named(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    misspelt = module(register_strategys=lambda register: None, step_done=lambda progress: None)
    host = install(Point("gentext-a", misspelt))
    [line] = capsys.readouterr().err.splitlines()
    assert "gentext-a 1.2 implements the unknown hook 'register_strategys'" in line
    assert "Did you mean 'register_strategies'?" in line
    assert (host.plugins[-1].error, host.plugins[-1].hooks) == (None, ["step_done"])
    monkeypatch.setitem(sys.modules, "gentext_own_misspelt", misspelt)
    with pytest.raises(PluginError, match="unknown hook 'register_strategys'"):
        PluginHost(("gentext_own_misspelt",), entry_points=False)


def test_failing_commands_leave_nothing_behind(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def register_commands(cli: Any) -> None:
        cli.command("half")(lambda: None)
        raise error

    for error in (RuntimeError("no more"), SystemExit(0), SpeechlessError()):
        host = install(Point("gentext-a", module(register_commands=register_commands)))
        cli = typer.Typer()
        host.add_commands(cli, [])
        assert cli.registered_commands == []
        assert f"gentext-a 1.2 (gentext_a.plugin): {reason(error)}" in capsys.readouterr().err


@pytest.mark.parametrize("error", [SystemExit(3), typer.Exit(3)])
def test_command_of_a_plugin_has_its_own_exit_status(
    install: Install, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def register_commands(cli: Any) -> None:
        @cli.command()
        def leave() -> None:
            raise error

    host = install(Point("gentext-a", module(register_commands=register_commands)))
    monkeypatch.setattr("gentext.cli.app.host", lambda: host)
    if isinstance(error, SystemExit):
        with pytest.raises(SystemExit) as caught:
            main(["leave"])
        assert caught.value.code == 3
    else:
        assert main(["leave"]) == 3


def test_exit_in_a_command_of_gentext_is_an_error(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A trainer that ends the program would seem to have trained."""
    trainer: dict[str, Any] = {"__name__": "gentext_a.trainer"}
    exec("def fit():\n    raise SystemExit(0)\n", trainer)
    host = install(Point("gentext-a", module()))
    monkeypatch.setattr("gentext.cli.app.host", lambda: host)
    monkeypatch.setattr("gentext.cli.app._add_command", lambda cli, name: cli.command(name)(lambda: trainer["fit"]()))
    assert main(["train"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("gen: error: plugin gentext-a 1.2 ended the program (SystemExit: 0)")
    trainer["__name__"] = "elsewhere"  # such as gentext's own processes that train together
    with pytest.raises(SystemExit):
        main(["train"])


@pytest.mark.parametrize("error", ["ValueError('a\\nb')", "FileNotFoundError(2, 'a')", "asyncio.CancelledError('a')"])
def test_error_in_the_code_of_a_plugin_is_one_line(
    error: str, install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sampler: dict[str, Any] = {"__name__": "gentext_a.sampler", "asyncio": asyncio}
    exec(f"def open():\n    raise {error}\n", sampler)
    host = install(Point("gentext-a", module()))
    monkeypatch.setattr("gentext.cli.app.host", lambda: host)
    monkeypatch.setattr("gentext.cli.app._add_command", lambda cli, name: cli.command(name)(lambda: sampler["open"]()))
    error_class = type(eval(error))
    assert main(["sample"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gen: error: plugin gentext-a 1.2 failed: {error_class.__name__}: ")
    with monkeypatch.context() as patch, pytest.raises(error_class):  # for its author
        patch.setenv("GEN_PLUGINS_STRICT", "1")
        main(["sample"])
    sampler["__name__"] = "elsewhere"  # a defect of gentext itself
    with pytest.raises(error_class):
        main(["sample"])


@pytest.mark.parametrize("opened", [None, types.SimpleNamespace(bundle="b", device="d")])
def test_what_a_sampler_opens_is_checked(opened: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        opens = ("any file",)

        def __init__(self, config: object) -> None: ...

        def open(self, source: Path, device: str) -> object:
            return opened

    plugin_host = PluginHost(entry_points=False)
    plugin_host.registry.add(Component("sampler", "wrong", Wrong, "a sampler", Distribution("elsewhere", "1")))
    monkeypatch.setattr("gentext.library.loading.host", lambda: plugin_host)
    source = tmp_path / "model.bin"
    source.touch()
    with pytest.raises(
        PluginError, match=rf"^the sampler 'wrong': open\(\) returned {type(opened).__name__}, expected"
    ):
        open_text_model(source, sampler="wrong")


@pytest.mark.parametrize(
    ("attribute", "declared", "fragment"),
    [
        ("params", None, "params is NoneType; expected a dict of names and Param objects"),
        ("params", {"a b": Param(0.0, "help")}, "params has 'a b': Param"),
        ("state", [], "state is list; expected a dict of names and State objects"),
        ("tables", {"bias": (None,)}, "tables has 'bias': tuple; expected a dict of names and Table objects"),
        ("uniforms", -1, "uniforms is -1; expected a whole number from 0"),
    ],
)
def test_what_a_strategy_declares_is_checked(attribute: str, declared: Any, fragment: str) -> None:
    strategy = type("Wrong", (Strategy,), {"apply": lambda *arguments: None, attribute: declared})
    registry = Registry()
    registry.add(Component("strategy", "wrong", strategy, "a strategy", Distribution("elsewhere", "1")))
    with pytest.raises(PluginError, match=re.escape(f"the strategy 'wrong': {fragment}")):
        build_link(registry, "wrong", 5)


def test_names_of_built_in_commands_are_reserved(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def register_commands(cli: Any) -> None:
        cli.command("sweep")(lambda: None)

    thief = Point("gentext-thief", module(register_commands=register_commands))
    host = install(thief, builtins=("gentext.plugins.sweep.plugin",))
    cli = typer.Typer()
    host.add_commands(cli, COMMAND_ORDER, builtins=False)
    assert cli.registered_commands == []
    assert "its command 'sweep' exists already" in capsys.readouterr().err
    host.add_commands(cli, COMMAND_ORDER)
    assert [command.name for command in cli.registered_commands] == ["sweep"]


def test_order_of_commands_names_all_of_them() -> None:
    commands = build().registered_commands
    assert [command.name for command in commands][: len(COMMAND_ORDER)] == COMMAND_ORDER


# -- gen plugins NAME --check -------------------------------------------------------------------


class Decides(Strategy):
    """Decides in Python on the value of an array."""

    params: Mapping[str, Param] = {"strength": Param(0.0, "how strong it is", low=0, high=1)}

    def apply(
        self, xp: Any, logits: Any, params: Any, state: Any, noise: Any, tables: Any
    ) -> tuple[Any, Mapping[str, Any]]:
        if params["strength"] > 0.0:
            logits = logits * 2.0
        return logits, state


class Divides(Strategy):
    """Raises an error that is no broken rule."""

    def apply(
        self, xp: Any, logits: Any, params: Any, state: Any, noise: Any, tables: Any
    ) -> tuple[Any, Mapping[str, Any]]:
        return logits * (1 / len(params)), state


@pytest.mark.parametrize(
    ("strategy", "fragment"),
    [
        (Decides, r'`if params\["strength"\] > 0\.0:`: a Python decision .* use xp\.where$'),
        (Divides, r"`return logits \* \(1 / len\(params\)\), state`: ZeroDivisionError: division by zero$"),
    ],
)
def test_check_names_the_line_that_fails(
    strategy: type[Strategy], fragment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin_host = PluginHost(entry_points=False)
    plugin_host.registry.add(Component("strategy", "wrong", strategy, "a strategy", Distribution("elsewhere", "1")))
    monkeypatch.setattr("gentext.cli.plugins.host", lambda: plugin_host)
    with pytest.raises(PluginError, match=r"^the strategy 'wrong' fails on NumPy: test_plugins\.py:\d+ " + fragment):
        list_plugins("wrong", check=True)


# -- what a component is instead of itself ----------------------------------------------------


def raise_error(*arguments: object) -> None:
    raise ZeroDivisionError("a constructor fails")


def component_of(kind: str, target: Any) -> Component:
    return Component(kind, "odd", target, "a fake", Distribution("gentext-odd", "2.0"))


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_component_of_any_kind_is_named(kind: str) -> None:
    title = f"^the {kind} 'odd' of gentext-odd 2.0"
    members = REQUIRED_MEMBERS[kind]
    with pytest.raises(PluginError, match=f"{title} is NoneType, which lacks .*{members[-1]}; expected a {kind} with "):
        create_component(component_of(kind, raise_error), lambda: None)
    with pytest.raises(PluginError, match=f"{title} cannot be created: ZeroDivisionError: a constructor fails"):
        create_component(component_of(kind, raise_error), raise_error)
    methods = {name: lambda *arguments: None for name in members}
    assert create_component(component_of(kind, raise_error), type("Whole", (), methods))
    for name in members:
        lacking = type("Lacking", (), {other: method for other, method in methods.items() if other != name})
        with pytest.raises(PluginError, match=f"{title} is Lacking, which lacks {name}; expected a {kind}"):
            create_component(component_of(kind, raise_error), lacking)
    for target in ("gentext:__name__", "gentext:nothing", "gentext.nowhere:Nothing"):
        with pytest.raises(PluginError, match=f"{title}.*'{target}'"):
            component_of(kind, target).load()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"from_state": lambda state: None}, "is NoneType, which lacks"),
        ({"from_state": raise_error}, "cannot be created: ZeroDivisionError"),
        ({}, "cannot be created: AttributeError: .*from_state"),
    ],
    ids=["nothing", "an error", "no such method"],
)
def test_what_a_stored_state_builds_is_named(
    members: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin_host = PluginHost(entry_points=False)
    plugin_host.registry.add(component_of("tokenizer", type("Odd", (), members)))
    monkeypatch.setattr("gentext.describe.host", lambda: plugin_host)
    with pytest.raises(PluginError, match=f"^the tokenizer 'odd' of gentext-odd 2.0 {message}"):
        load_tokenizer("odd", {})


def test_strategy_without_apply_is_refused() -> None:
    with pytest.raises(PluginError, match="is Strategy, which lacks apply; expected a strategy with apply"):
        create_component(component_of("strategy", Strategy), Strategy, None, 5)
