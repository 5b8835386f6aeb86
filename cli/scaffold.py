"""``gen plugins new``: writes a small distribution that offers one plugin, ready to be installed, tested and published.

Its files are templates in the folder ``templates``: those of ``common``, and those of the kind. Words that begin with a
dollar sign are replaced in them, as `string.Template` does.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
import keyword
import re
import string
from collections.abc import Collection, Iterator
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

import typer.main

from gentext.errors import UsageError, nearest
from gentext.files.atomic import write_text
from gentext.files.versions import installed_version
from gentext.manager import host
from gentext.registry import Registry


class _Kind(NamedTuple):
    """The sentences about a kind of plugin that its files hold."""

    summary: str
    use: str
    """A command that uses the plugin."""
    requirement: str = "gentext"
    """What its distribution depends on."""


_KINDS = {
    "strategy": _Kind(
        "more careful the longer the text is", "gen sample RUN --chain top_k,$name,temperature --$option 0.001"
    ),
    "tokenizer": _Kind(
        "a symbol for each frequent word, and for each byte of the rest",
        "gen train TEXT --set tokenizer.name=$name --set tokenizer.words=800",
    ),
    "batcher": _Kind(
        "windows from anywhere in the text", "gen train TEXT --set batcher.name=$name --set batcher.length=80"
    ),
    "model": _Kind(
        "one layer of gated recurrent units",
        "gen train TEXT --set model.name=$name --set model.width=384",
        "gentext[train]",
    ),
    "trainer": _Kind(
        "stochastic gradient descent on the CPU",
        "gen train TEXT --set trainer.name=$name --set trainer.rate=0.2",
        "gentext[train]",
    ),
    "sampler": _Kind(
        "a model that sometimes guesses evenly", "gen sample RUN --sampler $name --set sampler.share=0.05"
    ),
    "filter": _Kind("only records whose brackets are all closed", "gen sample RUN --count 100 --filter $name"),
    "command": _Kind("count how often each character occurs in a text", "gen $name FILE"),
}
#: Folders of templates whose names depend on the plugin, or would be hidden from tools that pack them.
_FOLDERS = {"github": ".github", "gitignore": ".gitignore"}
#: Names of distributions end in a letter or a digit.
_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?")


def create_plugin(name: str, kind: str | None, parent: Path, commands: Collection[str]) -> list[Path]:
    """Write the distribution ``gentext-NAME`` into a new folder of ``parent``; return its files.

    :param commands: the names of all commands, which no new command may take.
    Raises UsageError for a name that is no Python name or is taken, for an unknown kind, and for a folder that exists.
    """
    if kind not in _KINDS:
        problem = f"gen plugins new {name} needs a --kind" if kind is None else f"--kind {kind}: no such kind"
        advice = "" if kind is None else nearest(kind, _KINDS)
        raise UsageError(f"{problem}; expected one of {', '.join(_KINDS)}.{advice}")
    _check_name(name)
    distribution, module = f"gentext-{name.replace('_', '-')}", f"gentext_{name}"
    if problem := _taken_by(host().registry, name, kind, commands):
        raise UsageError(f"{name!r} is taken: {problem}; choose another name")
    if installed_version(distribution) is not None:
        raise UsageError(f"{name!r} is taken: the distribution {distribution} is installed; choose another name")
    if importlib.util.find_spec(module) is not None:
        raise UsageError(f"{name!r} is taken: there is a module {module} already; choose another name")
    folder = parent / distribution
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} exists already; choose another name, or move it away")
    return _write_files(folder, _fields(name, kind, distribution, module))


def _check_name(name: str) -> None:
    if keyword.iskeyword(name) or not _NAME.fullmatch(name):
        advice = re.sub(r"\W+", "_", name.removeprefix("gentext-"), flags=re.ASCII).strip("_").lower()
        is_usable = _NAME.fullmatch(advice) and not keyword.iskeyword(advice)
        raise UsageError(
            f"{name!r} is no Python name that a plugin can have; expected letters, digits and _, the first a letter, "
            f"such as {advice if is_usable else 'fade'!r}"
        )


def _taken_by(registry: Registry, name: str, kind: str, commands: Collection[str]) -> str:
    """Return what has the name of a new plugin already, or an empty text."""
    if kind == "command":
        return f"there is a command gen {name}" if name in commands else ""
    if name in registry.names(kind):
        return f"{registry.find(kind, name).distribution} registers the {kind} {name!r}"
    if kind == "strategy":  # its parameter has the same name, and becomes an option
        from gentext.cli.app import build

        sample: Any = typer.main.get_group(build("sample")).commands["sample"]
        flag = f"--{name.replace('_', '-')}"
        if flag in {"--help", *(spelling for param in sample.params for spelling in param.opts)}:
            return f"gen sample has an option {flag}"
        for component in registry:
            if component.kind == kind and component.distribution.builtin and name in component.load().params:
                return f"the strategy {component.name!r} has a parameter {name!r}"
    return ""


def _fields(name: str, kind: str, distribution: str, module: str) -> dict[str, str]:
    """Return what stands in the place of each name in the templates."""
    sentences = _KINDS[kind]
    fields = {
        "name": name,
        "option": name.replace("_", "-"),
        "class_name": "".join(part[:1].upper() + part[1:] for part in name.split("_")),
        "distribution": distribution,
        "module": module,
        "kind": kind,
        "summary": sentences.summary[:1].upper() + sentences.summary[1:],
        "requirement": sentences.requirement,
    }
    advice = f"`gen plugins {name} --check` checks it too." if kind == "strategy" else ""
    return fields | {"use": string.Template(sentences.use).substitute(fields), "advice": advice}


def _write_files(folder: Path, fields: dict[str, str]) -> list[Path]:
    templates = importlib.resources.files("gentext.cli") / "templates"
    paths = []
    for source in (templates / "common", templates / fields["kind"]):
        for parts, template in _files_below(source):
            names = [{**_FOLDERS, "package": fields["module"]}.get(part, part) for part in parts]
            path = folder.joinpath(*names)
            path = path.with_name(path.name.removesuffix(".template"))
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, string.Template(template.read_text(encoding="utf-8")).substitute(fields))
            paths.append(path)
    return sorted(paths)


def _files_below(folder: Traversable, parts: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Traversable]]:
    """Yield the files of a folder and of those in it, each with the names on the way to it."""
    for child in folder.iterdir():
        if child.is_dir():
            yield from _files_below(child, (*parts, child.name))
        else:
            yield (*parts, child.name), child
