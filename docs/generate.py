"""Writes the pages of docs/reference that follow from the code: commands, config, presets, corpora, hooks, the library.

    python docs/generate.py            write them
    python docs/generate.py --check    say which of them are out of date

Options come from the command line that ``gen`` builds, keys from the dataclasses of components, and everything else
from docstrings. Only what a reader cannot read in the code stands here: where to read on. A public name without a
docstring is an error.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import json
import os
import re
import sys
import textwrap
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer.main

import gentext
from gentext import capabilities, hookspecs
from gentext.arguments import declared, keyword_class
from gentext.cli.app import build
from gentext.config import config_class, field_docs, per_run_fields
from gentext.data.catalogue import CATALOGUE
from gentext.library.declaration import OpenArguments
from gentext.library.open_model import INTERNAL_METHODS
from gentext.manager import forget_plugins, host
from gentext.plugins.sweep.space import Choices, Range, read_space
from gentext.requests.declaration import ManyTextsArguments, RecordsOwnArguments, SearchArguments
from gentext.requests.option_tables import describe_type, option_rows
from gentext.runs.resolve import TrainOptions, resolve_config
from gentext.sampling.configured_chain import ChainConfig, builtin_strategies
from gentext.settings import Settings

REFERENCE = Path(__file__).resolve().parent / "reference"
NOTICE = "<!-- Written by docs/generate.py from the code. Change the code, then run: make reference -->\n\n"
WIDTH = 120

#: What to read about a command besides its options: pages below docs/.
READ_ON: Mapping[str, Sequence[str]] = {
    "train": (
        "tutorials/first-text.md",
        "how-to/choose-a-preset.md",
        "how-to/read-the-verdict.md",
        "reference/config.md",
    ),
    "distill": ("how-to/distill-a-student.md",),
    "sweep": ("how-to/sweep.md",),
    "export": ("how-to/deploy-the-generator.md", "explanation/eight-bits.md", "reference/formats/onnx-files.md"),
    "sample": (
        "how-to/choose-a-style.md",
        "how-to/write-records.md",
        "how-to/make-texts-match.md",
        "reference/links.md",
    ),
    "best": ("how-to/find-the-most-probable-texts.md",),
    "eval": ("how-to/measure-a-model.md",),
    "score": ("how-to/score-a-log-file.md",),
    "inspect": ("how-to/show-surprise.md",),
    "info": ("how-to/read-the-verdict.md",),
    "plugins": ("how-to/write-any-plugin.md", "tutorials/write-a-strategy.md"),
    "corpora": ("reference/corpora.md",),
    "models": ("explanation/figures.md",),
    "bench": ("how-to/measure-a-model.md", "explanation/figures.md"),
    "doctor": ("how-to/measure-a-model.md",),
    "serve": ("how-to/serve-models.md", "how-to/use-the-page.md", "how-to/run-several-servers.md"),
}
#: The presets in the order of their size.
PRESETS = ("tiny", "small", "base", "notebook")
#: The names of `gentext` that the page of the library describes; plugins import the others.
LIBRARY = ("load", "train", "distill", "TextModel", "TextStream", "WrittenText", "Score", "TextScore", "BestTexts")
LIBRARY += ("BestText", "InspectedText", "GenError")
#: The modules that plugins may import, in the order of the page: what most plugins need comes first.
PUBLIC_MODULES = (
    *("gentext", "gentext.interfaces", "gentext.config", "gentext.errors", "gentext.testing", "gentext.token_corpus"),
    *("gentext.settings", "gentext.run", "gentext.events", "gentext.adjustments", "gentext.measuring"),
    *("gentext.interrupts", "gentext.registry", "gentext.stepping", "gentext.noise", "gentext.stop"),
    *("gentext.describe", "gentext.plugins.pytorch", "gentext.plugins.samplers"),
)
#: What public values without a docstring are.
VALUES = {"hookimpl": "Marks a function of a plugin as a hook: `@hookimpl`, or `@hookimpl(tryfirst=True)`."}


# -- Markdown ---------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a ``|`` in a cell is escaped."""
    lines = [head, ["-"] * len(head), *rows]
    cells = [[cell if cell == "-" else " " + cell.replace("|", r"\|") + " " for cell in line] for line in lines]
    return "".join(f"|{'|'.join(line)}|\n" for line in cells) + "\n"


def code(text: object) -> str:
    return f"`{text}`"


def prose(text: str) -> str:
    """Return reStructuredText of docstrings as Markdown of one line: code, and names without their modules."""
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text)
    return " ".join(re.sub(r"``(.+?)``", r"`\1`", text).split())


def docstring(owner: Any, name: str) -> str:
    """Return the docstring of a public name as Markdown; raise LookupError where there is none."""
    text = inspect.getdoc(owner)
    if not text or text.startswith(f"{getattr(owner, '__name__', '')}("):  # what dataclasses write
        raise LookupError(f"{name} is public and has no docstring")
    return "".join(_paragraphs(text))


def _paragraphs(text: str) -> Iterator[str]:
    for block in re.split(r"\n\s*\n(?!    )", text.strip()):
        if "::\n\n    " in block:
            words, _, program = block.partition("::\n\n")
            language = "toml" if program.lstrip().startswith("[") else "python"
            yield wrapped(f"{prose(words)}:") + f"\n```{language}\n{textwrap.dedent(program).rstrip()}\n```\n\n"
            continue
        if block.startswith(":param"):
            for item in re.split(r"\n(?=:param)", block):
                name, _, meaning = item.removeprefix(":param ").partition(":")
                yield wrapped(f"- {code(name)}: {prose(meaning)}", "  ")
            yield "\n"
        elif re.match(r"[-*] |\d+\. ", block):
            for item in re.split(r"\n(?=[-*] |\d+\. )", block):
                yield wrapped(prose(item), "  ")
            yield "\n"
        else:
            yield wrapped(prose(block)) + "\n"


def wrapped(text: str, indent: str = "") -> str:
    """Return text in lines of `WIDTH`; code with spaces is not broken."""
    lines, line = [], ""
    for word in re.findall(r"(?:`[^`]*`|\S)+", text):
        if line and len(line) + 1 + len(word) > WIDTH:
            lines.append(line)
            line = indent + word
        else:
            line = f"{line} {word}" if line else word
    return "\n".join([*lines, line]) + "\n"


def page(title: str, text: str) -> str:
    return f"# {title}\n\n{NOTICE}{text.rstrip()}\n"


def title_of(path: str) -> str:
    """Return the title of a page by its name, so that these pages do not change with the words of others."""
    return Path(path).stem.replace("-", " ").capitalize()


# -- commands ---------------------------------------------------------------------------------


def command_pages() -> Iterator[tuple[str, str]]:
    group: Any = typer.main.get_group(build())
    for name, command in group.commands.items():
        yield f"commands/{name}.md", page(f"gen {name}", _command(name, command))
    rows = [
        (f"[gen {name}]({name}.md)", prose(command.help.split("\n\n")[0])) for name, command in group.commands.items()
    ]
    text = "Each page lists the arguments and options of one command. [The command line](../command-line.md) says what "
    text += "holds for all of them.\n\n"
    yield "commands/index.md", page("Commands", text + table(["command", "what it does"], rows))


def _command(name: str, command: Any) -> str:
    text = "".join(wrapped(prose(part)) + "\n" for part in re.split(r"\n\s*\n", command.help))
    arguments = [param for param in command.params if param.param_type_name == "argument" and not param.hidden]
    usage = " ".join(["gen", name, "[OPTIONS]", *(_metavar(argument) for argument in arguments)])
    text += f"```text\n{usage}\n```\n\n"
    rows = [(code(_metavar(argument)), prose(argument.help or "")) for argument in arguments]
    if rows:
        text += table(["argument", "meaning"], rows)
    options = [param for param in command.params if param.param_type_name == "option"]
    rows = [_option(option) for option in options]
    if any(default for _, default, _ in rows):
        text += "## Options\n\n" + table(["option", "default", "meaning"], rows)
    else:
        text += "## Options\n\n" + table(["option", "meaning"], [(option, words) for option, _, words in rows])
    if name == "sample":
        text += "## Options of links\n\n"
        text += wrapped(
            "The built-in links of the sampling chain have these options. [Sampling links](../links.md) says what each "
            "computes, and which values turn it off. The links of a file's own chain, those of plugins among them, add "
            "theirs. Where several links have an option of the same name, write `--LINK-OPTION`."
        )
        text += "\n" + table(["option", "link", "default", "meaning"], _link_options())
    if name == "sweep":
        text += _space()
    links = [f"- [{title_of(path)}](../../{path})\n" for path in READ_ON[name]]
    return text + ("## Read on\n\n" + "".join(links) if links else "")


def _metavar(argument: Any) -> str:
    words = str(argument.metavar or argument.name.upper())
    words = words.replace(" | ", " or ")  # a | in a table needs a backslash, which not every reader of Markdown removes
    return words if words.startswith("[") or argument.required else f"[{words}]"


def _option(option: Any) -> tuple[str, str, str]:
    names = ", ".join(f"`{name}`" for name in sorted(option.opts, key=len))
    if not option.is_flag:
        names = f"{names[:-1]} {option.metavar or _value_word(option)}`"
    default = option.default
    is_shown = default is not None and default != () and not option.is_flag and default != ""
    if callable(default) or (option.opts == ["--threads"] and default == 0):
        is_shown = False
    return (
        names,
        code(f"{default:g}" if isinstance(default, float) else default) if is_shown else "",
        prose((option.help or "") + (" May be repeated." if option.multiple and "repeat" not in option.help else "")),
    )


def _value_word(option: Any) -> str:
    """Return what stands for the value of an option. Commands read some numbers as text, and check them then."""
    types = {
        row.name: row.type
        for kind in (ManyTextsArguments, RecordsOwnArguments, SearchArguments, OpenArguments)
        for row in option_rows(kind, "flag").values()
    }
    name = types.get(option.opts[0], option.type.name).split(" ")[0]
    return {"integer": "N", "float": "NUMBER", "number": "NUMBER", "path": "PATH"}.get(name, "TEXT")


def _link_options() -> Iterator[tuple[str, str, str, str]]:
    registry = host().registry
    for link in builtin_strategies(registry):
        strategy = registry.get("strategy", link)
        for param, spec in strategy.params.items():
            if spec.is_option:
                yield f"`--{param.replace('_', '-')}`", link, f"{spec.initial:g}", prose(spec.help)
        docs = field_docs(config_class(strategy))
        for option in per_run_fields(config_class(strategy)):
            yield f"`--{option.replace('_', '-')}`", link, '`""`', prose(docs[option])


def _space() -> str:
    rows = []
    for key, entry in read_space(None).items():
        if isinstance(entry, Choices):
            values = ", ".join(map(str, entry.choices))
        else:
            assert isinstance(entry, Range)
            values = f"{entry.low} to {entry.high}" + (", by logarithm" if entry.log else "")
        rows.append((code(key), values))
    text = "## The built-in space\n\nA trial takes a value of each of these keys, unless `--set` fixes it.\n\n"
    text += table(["key", "values"], rows)
    text += "## The file of --space\n\n" + wrapped(
        "A TOML file has one table for each key, such as `[model.hidden]`, with either of these two sets of entries."
    )
    for words, kind in (("A list of values:", Choices), ("A range of numbers:", Range)):
        docs = field_docs(kind)
        rows = [
            (code(field.name), _default(field), prose(docs.get(field.name, "required")))
            for field in dataclasses.fields(kind)
        ]
        text += f"\n{words}\n\n" + table(["entry", "default", "meaning"], rows).rstrip("\n") + "\n"
    return text + "\n"


# -- config and presets -----------------------------------------------------------------------


def config_page() -> str:
    text = wrapped(
        "A config is a TOML file with a table for each section. `[run]` has the settings that belong to no component. "
        "`name` in a section chooses the component, and its other keys are those of that component. A key comes from "
        "the strongest of these that has it: a flag, `--set`, the file of `--config`, the preset, the default."
    )
    text += "\n## run\n\n" + wrapped(prose(docstring(Settings, "Settings"))) + "\n" + _keys(Settings)
    registry = host().registry
    for component in registry:
        if not component.distribution.builtin or component.kind in ("sampler", "strategy"):
            continue
        text += f"## {component.kind} {component.name}\n\n{wrapped(prose(component.summary.capitalize() + '.'))}\n"
        text += _keys(config_class(component.load()))
    text += "## chain\n\n" + wrapped(prose(docstring(ChainConfig, "ChainConfig"))) + "\n" + _keys(ChainConfig)
    for component in registry:
        if component.kind == "strategy" and component.distribution.builtin:
            cls = config_class(component.load())
            if dataclasses.fields(cls):
                text += f"## chain.{component.name}\n\n{_keys(cls)}"
    return page("Config keys", text)


def _keys(cls: type[Any]) -> str:
    fields = dataclasses.fields(cls)
    if not fields:
        return "It has no keys.\n\n"
    hints, docs = typing.get_type_hints(cls, include_extras=True), field_docs(cls)
    missing = [field.name for field in fields if not docs.get(field.name)]
    if missing:
        raise LookupError(f"{cls.__name__}: no docstring for {', '.join(missing)}")
    rows = [
        (code(field.name), _key_type(hints[field.name]), _default(field), prose(docs[field.name])) for field in fields
    ]
    return table(["key", "type", "default", "meaning"], rows)


def _key_type(annotation: Any) -> str:
    """Return the type of a key, with its range."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    metas = getattr(annotation, "__metadata__", ())
    if metas:
        ranges = []
        for meta in metas:
            low = f"above {meta.gt}" if meta.gt is not None else f"from {meta.ge}" if meta.ge is not None else ""
            high = f"below {meta.lt}" if meta.lt is not None else f"to {meta.le}" if meta.le is not None else ""
            ranges.append(" ".join(filter(None, (low, high))))
        return " ".join([_key_type(annotation.__origin__), *ranges])
    if origin is typing.Literal:
        return " or ".join(code(choice) for choice in arguments)
    if origin in (tuple, list):
        return f"list of: {_key_type(arguments[0])}"
    if origin is not None and type(None) in arguments:
        return " or ".join(_key_type(member) for member in arguments if member is not type(None))
    return describe_type(annotation)


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is None:
        return "none"
    if field.default is dataclasses.MISSING:
        if field.default_factory is dataclasses.MISSING:
            return ""
        return code(json.dumps(field.default_factory()))
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return code(json.dumps(value))


def presets_page() -> str:
    configs = {name: resolve_config(TrainOptions(preset=name)) for name in PRESETS}
    keys = dict.fromkeys(
        (section, key)
        for config in configs.values()
        for section, values in config.items()
        if section != "chain"
        for key in values
    )
    rows = []
    for section, key in keys:
        values = [_preset_value(section, config, key) for config in configs.values()]
        rows.append((code(f"{section}.{key}"), *(code(json.dumps(value)) for value in values)))
    text = wrapped(
        "`--preset NAME` of `gen train` chooses one of these sets of settings. [Choose a preset]"
        "(../how-to/choose-a-preset.md) says which; [Defaults](../explanation/defaults.md) says why. gentext adapts "
        "some of them to the text and the budget, and says so."
    )
    return page("Presets", text + "\n" + table(["key", *PRESETS], rows))


def _preset_value(section: str, config: Mapping[str, Any], key: str) -> Any:
    if key in config[section]:
        return config[section][key]
    cls = Settings if section == "run" else config_class(host().registry.get(section, config[section]["name"]))
    return next((field.default for field in dataclasses.fields(cls) if field.name == key), None)


def corpora_page() -> str:
    rows = []
    for name, entry in CATALOGUE.items():
        about = "about " if entry.url is None else ""
        size = f"{about}{entry.characters:,}" if entry.characters else ""
        rows.append((code(name), size, entry.license, prose(entry.summary)))
    text = wrapped(
        "`gen train NAME` learns from one of these texts. Those of Python are part of every CPython, so their sizes "
        "change with its version; gentext downloads the others once, and checks their SHA-256. `gen corpora` lists "
        "which are here."
    )
    return page("Corpora", text + "\n" + table(["name", "characters", "licence", "text"], rows))


# -- hooks, the library, public modules -------------------------------------------------------


def hooks_page() -> str:
    text = docstring(hookspecs, "hookspecs")
    for name, spec in vars(hookspecs).items():
        if hasattr(spec, "gentext_spec"):
            names = ", ".join(inspect.signature(spec).parameters)
            text += f"## `{name}({names})`\n\n{docstring(spec, name)}"
    text += wrapped("[Public modules](modules.md) has what hooks get, and what components must offer.")
    return page("Hooks", text)


def library_page() -> str:
    text = wrapped(
        "What a Python program imports from `gentext`. [Use gentext from Python](../how-to/use-from-python.md) shows "
        "how."
    )
    text += "\n"
    for name in LIBRARY:
        text += _public(name, getattr(gentext, name), "##")
    return page("The library", text)


def modules_page() -> str:
    text = wrapped(
        "Plugins import these modules, and the names below. They keep their places; all other modules and names belong "
        "to gentext alone, and may change with any version."
    )
    modules = [importlib.import_module(name) for name in PUBLIC_MODULES]
    rows = [(f"[`{module.__name__}`](#{module.__name__.replace('.', '')})", _summary(module)) for module in modules]
    text += "\n" + table(["module", "holds"], rows)
    for module in modules:
        text += f"## {module.__name__}\n\n"
        names = [name for name in module.__all__ if module is not gentext or name not in LIBRARY]
        for name in names:
            text += _public(name, getattr(module, name), "###")
    text += "## Capabilities\n\n" + wrapped(
        "A component may offer these attributes and methods beyond what its Protocol demands. gentext recognizes them "
        "by their names, so a plugin imports nothing."
    )
    for name, cls in vars(capabilities).items():
        if inspect.isclass(cls) and cls.__module__ == capabilities.__name__:
            text += "\n" + _public(name, cls, "###").rstrip("\n") + "\n"
    return page("Public modules", text)


def _summary(module: Any) -> str:
    return prose((inspect.getdoc(module) or "").split("\n\n")[0]).rstrip(".")


def _public(name: str, thing: Any, heading: str) -> str:
    """Return the description of a public name: its signature, docstring, fields and methods."""
    if name in VALUES:
        return f"{heading} {name}\n\n{VALUES[name]}\n\n"
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return f"{heading} {name}\n\n```python\n{name} = {_shown(thing)}\n```\n\n"
    if inspect.isroutine(thing):
        return f"{heading} {name}\n\n{_signature(name, thing)}{docstring(thing, name)}{_arguments(thing)}"
    text = f"{heading} {name}\n\n{docstring(thing, name)}"
    rows = [(code(field), prose(meaning)) for field, meaning in field_docs(thing).items()]
    members = dict(_members(thing))
    rows += [
        (code(attribute), prose((inspect.getdoc(value) or "").split("\n\n")[0]))
        for attribute, value in members.items()
        if not inspect.isroutine(value)
    ]
    if rows:
        text += table(["attribute", "meaning"], rows)
    for method, value in members.items():
        if inspect.isroutine(value):
            text += f"{heading}# {name}.{method}\n\n{_signature(method, value)}{docstring(value, f'{name}.{method}')}"
            text += _arguments(value)
    return text


def _shown(thing: Any) -> str:
    return re.sub(r"typing\.|numpy\.|gentext(\.\w+)*\.|collections\.abc\.", "", str(thing))


def _members(cls: type[Any]) -> Iterator[tuple[str, Any]]:
    """Yield public methods and properties, those of the class first; public base classes have their own section."""
    seen = set()
    for owner in cls.__mro__:
        is_described = owner is not cls and owner.__name__ in getattr(sys.modules[owner.__module__], "__all__", ())
        if not owner.__module__.startswith("gentext") or is_described:
            continue
        for name, value in vars(owner).items():
            is_method = inspect.isfunction(value) or isinstance(value, staticmethod | classmethod)
            if (name.startswith("_") and name != "__call__") or name in {*seen, *INTERNAL_METHODS}:
                continue
            if is_method or isinstance(value, property):
                seen.add(name)
                yield name, getattr(cls, name) if isinstance(value, staticmethod | classmethod) else value


def _signature(name: str, function: Any) -> str:
    """Return the signature as code. Declared keyword arguments stay behind ``**``: a table below has them."""
    function = inspect.unwrap(function)
    kind = keyword_class(function)
    hidden = {"self", "cls", *(declared(kind) if kind is not None else ())}
    signature = inspect.signature(function)
    words = [_shown_parameter(each) for each in signature.parameters.values() if each.name not in hidden]
    if kind is not None and not any(word.startswith("**") for word in words):
        words.append("**arguments")
    result = signature.return_annotation
    end = "" if result is inspect.Signature.empty else f" -> {_shown(_formatted(result))}"
    line = f"{name}({', '.join(words)}){end}"
    if len(line) > 100:
        line = f"{name}(\n" + "".join(f"    {word},\n" for word in words) + f"){end}"
    return f"```python\n{line}\n```\n\n"


def _shown_parameter(parameter: inspect.Parameter) -> str:
    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
        return f"**{parameter.name}"
    words = re.sub(r"<[\w.]+\.(\w+) object at \w+>", r"\1()", str(parameter.replace(annotation=parameter.empty)))
    if parameter.annotation is inspect.Parameter.empty:
        return words
    name, equals, default = words.partition("=")
    return f"{name}: {_shown(_formatted(parameter.annotation))}" + (f" = {default}" if equals else "")


def _formatted(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _arguments(function: Any) -> str:
    """Return the table of the keyword arguments that a function declares, see `gentext.arguments`."""
    kind = keyword_class(inspect.unwrap(function))
    if kind is None:
        return ""
    rows = [
        (code(row.name), row.type, code(row.default), prose(row.help)) for row in option_rows(kind, "library").values()
    ]
    return table(["keyword argument", "type", "default", "meaning"], rows)


# -- the program ------------------------------------------------------------------------------


def pages() -> dict[str, str]:
    """Return the text of each generated page by its path in docs/reference."""
    before = os.environ.get("GEN_PLUGINS")
    os.environ["GEN_PLUGINS"] = ""  # plugins of whoever runs this would add options of theirs
    forget_plugins()
    try:
        texts = dict(command_pages())
        texts |= {"config.md": config_page(), "presets.md": presets_page(), "corpora.md": corpora_page()}
        return texts | {"hooks.md": hooks_page(), "library.md": library_page(), "modules.md": modules_page()}
    finally:
        if before is None:
            del os.environ["GEN_PLUGINS"]
        else:
            os.environ["GEN_PLUGINS"] = before
        forget_plugins()


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the reference pages that follow from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page is out of date")
    is_check = parser.parse_args().check
    stale = []
    for name, text in pages().items():
        path = REFERENCE / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not is_check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    if is_check and stale:
        sys.exit(f"out of date in docs/reference: {', '.join(stale)}; run: make reference")
    print(f"{len(stale)} pages written" if stale else "all pages are up to date")


if __name__ == "__main__":
    main()
