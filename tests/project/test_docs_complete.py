"""What README.md and docs/ must not leave out: hooks, options, keys, fields. test_docs.py runs the rest."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import safetensors
import typer.main

from gentext import config, hookspecs, run, stop
from gentext.cli import sample_texts
from gentext.cli.app import build
from gentext.config import config_class, per_run_fields, to_table
from gentext.data import corpus
from gentext.data.catalogue import CATALOGUE
from gentext.exported import metadata
from gentext.exported.metadata import Bundle
from gentext.files import reading
from gentext.manager import forget_plugins, host
from gentext.plugins.observers import samples
from gentext.plugins.sweep.space import Choices, Range, read_space
from gentext.requests.declaration import ManyTextsArguments, RecordsOwnArguments, SearchArguments
from gentext.requests.option_tables import option_rows
from gentext.runs.resolve import TrainOptions, preset_names, resolve_config
from gentext.sampling import decoder
from gentext.sampling.configured_chain import ChainConfig, builtin_strategies
from gentext.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Options that every command has, or that Typer adds.
COMMON = {"--help", "-h"}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """Return what stands below a heading, down to the next one of its level or above."""
    level = heading.index(" ")
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)  # a comment there looks like a heading
    found = re.search(rf"^{re.escape(heading)}$(.*?)(?=^#{{1,{level}}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no heading {heading!r}"
    return found[1]


def table(text: str) -> list[list[str]]:
    """Return the cells of every table row of a text, without backquotes, and without the headings."""
    lines = [*text.splitlines(), ""]
    rules = {at for at, line in enumerate(lines) if line.startswith("|-")}
    rows = [line for at, line in enumerate(lines) if line.startswith("|") and not {at, at + 1} & rules]
    return [[cell.strip().replace("`", "") for cell in row.split("|")[1:-1]] for row in rows]


def test_hooks() -> None:
    specs = {name: one for name, one in vars(hookspecs).items() if hasattr(one, "gentext_spec")}
    assert len(specs) > 10
    wanted = {f"{name}({', '.join(inspect.signature(one).parameters)})" for name, one in specs.items()}
    assert set(re.findall(r"^#### `(\w+\(.*?\))`$", read("docs/hooks.md"), re.MULTILINE)) == wanted


def test_options_of_commands() -> None:
    text = read("docs/commands.md")
    with pytest.MonkeyPatch.context() as patch:  # plugins of whoever runs this add commands of theirs
        patch.setenv("GEN_PLUGINS", "")
        forget_plugins()
        group: Any = typer.main.get_group(build())
    forget_plugins()
    for name, command in group.commands.items():
        given = {option for one in command.params if one.param_type_name == "option" for option in one.opts}
        cells = " ".join(row[0] for row in table(section(text, f"## gen {name}")))
        link_options = [*_link_params(), *_link_options()] if name == "sample" else []
        links = {f"--{name.replace('_', '-')}" for name in link_options}
        assert set(re.findall(r"(?<!\w)--?[a-z][a-z-]*", cells)) == (given - COMMON) | links, name
    top = {option for one in group.params for option in one.opts} - COMMON
    assert all(option in text.partition("## gen train")[0] for option in top), top


def _link_params() -> dict[str, Any]:
    registry = host().registry
    builtin = [one.name for one in registry if one.kind == "strategy" and one.distribution.builtin]
    params = {name: spec for link in builtin for name, spec in registry.get("strategy", link).params.items()}
    return {name: spec for name, spec in params.items() if spec.is_option}


def _link_options() -> list[str]:
    """Return the options of built-in links that each request may set."""
    registry = host().registry
    return [
        name for link in builtin_strategies(registry) for name in per_run_fields(registry.get("strategy", link).Config)
    ]


def test_link_options() -> None:
    rows = [row for row in table(section(read("docs/commands.md"), "## gen sample")) if len(row) == 4]
    wanted = {f"--{name.replace('_', '-')}": (f"{spec.initial:g}", spec.help) for name, spec in _link_params().items()}
    assert {row[0]: (row[2], row[3]) for row in rows} == wanted


@pytest.mark.parametrize(
    ("heading", "kinds"),
    [
        ("## Write", [ManyTextsArguments]),
        ("## Records", [RecordsOwnArguments]),
        ("## The most probable texts", [SearchArguments]),
    ],
    ids=["write", "records", "best"],
)
def test_arguments_of_the_library(heading: str, kinds: list[Any]) -> None:
    text = section(read("docs/library.md"), heading)
    documented = set(re.findall(r"`(\w+)`", text)) | set(re.findall(r"\b(\w+)=", read("docs/library.md")))
    assert {name for kind in kinds for name in option_rows(kind, "library")} <= documented


@pytest.mark.parametrize(
    ("heading", "kinds"),
    [("## gen sample", [ManyTextsArguments, RecordsOwnArguments]), ("## gen best", [SearchArguments])],
    ids=["sample", "best"],
)
def test_defaults_of_requests(heading: str, kinds: list[Any]) -> None:
    text = section(read("docs/commands.md"), heading)
    cells = dict(re.findall(r"^\| `(--[a-z-]+)(?: [^`]*)?` \|(.*)\|$", text, re.MULTILINE))
    for row in (row for kind in kinds for row in option_rows(kind, "flag").values()):
        if row.name in cells and row.default not in ("none", "false", "[]"):
            assert json.loads(row.default) == 1.0 or row.default.strip('"') in cells[row.name].replace(",", ""), row
            assert "default" in cells[row.name].lower(), row


def test_presets() -> None:
    rows = table(section(read("docs/commands.md"), "### Presets"))
    documented = {row[0]: [json.loads(cell) if cell else None for cell in row[1:]] for row in rows}
    names = ["tiny", "small", "base", "notebook"]
    assert sorted(names) == preset_names()
    for column, name in enumerate(names):
        config = resolve_config(TrainOptions(preset=name))
        given = {(kind, key) for kind, values in config.items() for key in values if kind != "chain"}
        for kind, key in given:
            assert f"{kind}.{key}" in documented, f"{kind}.{key} of the preset {name}"
        for path, values in documented.items():
            kind, key = path.split(".")
            assert values[column] == config[kind].get(key, _default(kind, config, key)), f"{path} of the preset {name}"


def _default(kind: str, config: dict[str, Any], key: str) -> Any:
    """Return what a component takes when a preset does not say."""
    cls = Settings if kind == "run" else config_class(host().registry.get(kind, config[kind]["name"]))
    return to_table(cls()).get(key)


def test_keys_of_the_config() -> None:
    text = read("docs/commands.md")
    classes: dict[str, Any] = {"#### chain": ChainConfig, "#### run": Settings}
    for one in host().registry:
        if one.distribution.builtin and one.kind != "sampler":
            name = f"#### chain.{one.name}" if one.kind == "strategy" else f"#### {one.kind} {one.name}"
            cls = config_class(one.load())
            if one.kind != "strategy" or to_table(cls()):
                classes[name] = cls
    for heading, cls in classes.items():
        rows = table(section(text, heading))
        wanted = dict.fromkeys(cls.__dataclass_fields__, None) | to_table(cls())
        assert {row[0]: None if row[1] == "none" else json.loads(row[1]) for row in rows} == wanted, heading


def test_space() -> None:
    tables = table(section(read("docs/commands.md"), "### The space"))
    fields = {field for cls in (Choices, Range) for field in cls.__dataclass_fields__}
    assert {word for row in tables for word in row[0].split(", ") if "." not in word} == fields
    space = read_space(None)
    for name, values in ((row[0], row[1]) for row in tables if "." in row[0]):
        entry = space.pop(name)
        ends = [] if isinstance(entry, Choices) else [f"{entry.low} to {entry.high}", *(["log"] if entry.log else [])]
        assert values == ", ".join([*map(str, entry.probes)] if isinstance(entry, Choices) else ends)
    assert not space


def test_corpora() -> None:
    rows = {row[0]: row[1:3] for row in table(section(read("docs/commands.md"), "## Corpora"))}
    assert rows.keys() == CATALOGUE.keys()
    for name, (characters, licence) in rows.items():
        entry = CATALOGUE[name]
        assert characters.removeprefix("about ").replace(",", "") == str(entry.characters or ""), name
        assert licence == entry.license


def test_environment() -> None:
    source = [
        path.read_text(encoding="utf-8")
        for room in ("engine", "plugins", "export", "cli", "data")
        for path in (ROOT / room).rglob("*.py")
    ]
    used = set(re.findall(r"(?:environ(?:\.get)?|environment_folder)[(\[]\"(GEN_\w+)\"", "\n".join(source)))
    rows = table(section(read("docs/commands.md"), "## Environment"))
    assert {row[0] for row in rows} == used


def test_files_of_a_run(tiny_run: Path) -> None:
    text = read("docs/formats.md")
    documented = {row[0].rstrip("/") for row in table(section(text, "## The run folder"))}
    assert {path.name for path in tiny_run.iterdir()} <= documented
    whole = next(one for one in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "[corpus]" in one)
    shown, written = tomllib.loads(whole), tomllib.loads((tiny_run / "config.toml").read_text())
    assert {key: set(one) for key, one in shown.items()} == {key: set(one) for key, one in written.items()}
    tokenizer = next(one for one in re.findall(r"```json\n(.*?)```", text, re.DOTALL) if '"symbols"' in one)
    assert json.loads(tokenizer).keys() == json.loads((tiny_run / "tokenizer.json").read_text()).keys()


def test_metrics(tiny_run: Path) -> None:
    text = section(read("docs/formats.md"), "### metrics.jsonl")
    shown = [json.loads(one) for one in re.findall(r'^\{"step".*\}$', read("docs/formats.md"), re.MULTILINE)]
    fields = {field for row in shown for field in row}
    assert fields == {row[0] for row in table(text)}
    rows = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    assert rows and all(set(row) in [set(one) for one in shown] for row in rows), rows


def test_checkpoints(tiny_run: Path) -> None:
    text = read("docs/formats.md")
    prefixes = {row[0].split(".")[0] for row in table(section(text, "### Checkpoints"))}
    shown = next(one for one in re.findall(r"```json\n(.*?)```", text, re.DOTALL) if '"scaler"' in one)
    for path in (tiny_run / "checkpoints").iterdir():
        with safetensors.safe_open(path, framework="numpy") as file:
            assert {name.split(".")[0] for name in file.keys()} <= prefixes  # noqa: SIM118
            assert json.loads(file.metadata()["gentext"]).keys() == json.loads(shown).keys()


#: What the card of a generator has besides those of the example, which the text below it describes.
OWN_CARD_ENTRIES = {"precision", "fingerprint", "weight_bytes"}


def test_metadata(tiny_run: Path) -> None:
    text = read("docs/formats.md")
    files = [onnxruntime.InferenceSession(path) for path in sorted(tiny_run.glob("*.onnx"))]
    written = [one.get_modelmeta().custom_metadata_map for one in files]
    documented = {row[0] for row in table(section(text, "### Metadata"))}
    shown = next(one for one in re.findall(r"```json\n(.*?)```", text, re.DOTALL) if '"gentext.chain"' in one)
    example = json.loads(shown)
    assert written and all(one.keys() == documented == example.keys() for one in written)
    plain = ("gentext.format", "gentext.kind", "gentext.check")
    entries = {key: value if key in plain else json.dumps(value) for key, value in example.items()}
    bundle = Bundle.from_metadata(entries, Path("the example of docs/formats.md"))
    assert bundle.states[1].initial_row().tolist() == [[0, 1], [0, 1]]
    for one in written:
        for key in set(one) - set(plain):
            value = json.loads(one[key])
            if key in ("gentext.chain", "gentext.states"):
                assert value[0].keys() == example[key][0].keys()
            elif key == "gentext.card":
                assert value.keys() - OWN_CARD_ENTRIES <= example[key].keys()
                assert all(f"`{name}`" in text for name in OWN_CARD_ENTRIES)
    params = json.loads(written[0]["gentext.chain"])[1]["params"]["top_k"]
    assert params.keys() == example["gentext.chain"][0]["params"]["top_k"].keys()


def test_ports_of_the_generator(tiny_run: Path) -> None:
    text = section(read("docs/deploy.md"), "## The interface")
    session = onnxruntime.InferenceSession(tiny_run / "generator.onnx")
    names = [one.name for one in [*session.get_inputs(), *session.get_outputs()]]
    names += [one.name for one in session.get_overridable_initializers()]
    states = {state["name"] for state in json.loads(session.get_modelmeta().custom_metadata_map["gentext.states"])}
    for name in names:
        known = name.removesuffix("_out") in states or "." in name or f"`{name.removesuffix('_out')}`" in text
        assert known, name


def test_fields_of_a_sample(tiny_run: Path, gen: Callable[..., tuple[int, str, str]]) -> None:
    text = read("docs/formats.md")
    code, out, err = gen("sample", tiny_run, "--json", "--length", 2)
    assert code == 0, err
    shown = next(one for one in re.findall(r"```jsonl\n(.*?)```", text, re.DOTALL) if '"stream"' in one)
    documented = [row[0] for row in table(section(text, "## JSON of gen sample"))]
    assert list(json.loads(out)) == list(json.loads(shown)) == documented


@pytest.mark.parametrize(
    ("command", "arguments"),
    [("eval", ["RUN"]), ("best", ["RUN", "--length", "4"]), ("plugins", []), ("plugins", ["top_k"]), ("corpora", [])],
    ids=str,
)
def test_fields_of_json(
    command: str, arguments: list[str], tiny_run: Path, gen: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, err = gen(command, *(str(tiny_run) if one == "RUN" else one for one in arguments), "--json")
    assert code == 0, err
    data = json.loads(out)
    help_text = section(read("docs/commands.md"), f"## gen {command}")
    for field in data[0] if isinstance(data, list) else data:
        assert f"`{field}`" in help_text, field


def test_limits() -> None:
    limit_by_words = dict(table(section(read("docs/security.md"), "## Files of strangers")))
    megabytes = {
        "an entry of the metadata": metadata.MAX_ENTRY_BYTES,
        "a TOML file": config.MAX_TOML_BYTES,
        "tokenizer.json": run.MAX_TOKENIZER_BYTES,
        "metrics.jsonl": run.MAX_METRICS_BYTES,
        "samples.txt": samples.MAX_SAMPLES_BYTES,
        "the prime of": sample_texts.MAX_PRIME_BYTES,
    }
    others = {
        "states, tables": f"{metadata.MAX_ELEMENTS:,} elements",
        "symbols without": f"{decoder.MAX_EMPTY_SYMBOLS:,}",
        "levels": str(reading.MAX_DEPTH),
        "a whole number": f"{reading.MAX_INTEGER_BITS} bits",
        "stop strings": f"{stop.MAX_TABLE // 256 - 1:,} bytes with up to 256 symbols; {stop.MAX_TABLE - 1:,} divided",
        "a text that gen eval": f"{corpus.MAX_PIPED_CHARACTERS:,} characters",
    }
    for words, limit in {**{words: f"{size >> 20} MB" for words, size in megabytes.items()}, **others}.items():
        [documented] = [text for key, text in limit_by_words.items() if key.startswith(words)]
        assert documented.startswith(limit), words


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        there = page.parent / name if name else page
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            headings = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
            assert anchor in [re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings], target


def test_readme() -> None:
    text = read("README.md")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert len(prose.split()) <= 900
    assert all(f"`{name}`" in text for name in preset_names())


def test_every_page_is_in_the_index_and_every_folder_on_the_map() -> None:
    index = read("docs/index.md")
    by_hand = [
        path for path in (ROOT / "docs").rglob("*.md") if "<!-- Written by docs/generate.py" not in read(str(path))
    ]
    experiments = ROOT / "docs/explanation/experiments"
    names = {str(path.relative_to(ROOT / "docs")) for path in by_hand if path.parent != experiments}
    assert names - set(re.findall(r"\]\(([^)#]+)", index)) == {"index.md"}
    listed = re.findall(r"\]\(([^)#]+)", read("docs/explanation/experiments/index.md"))
    assert {path.name for path in experiments.glob("*.md")} - set(listed) == {"index.md"}
    folders = {
        path.name for path in ROOT.iterdir() if path.is_dir() and (any(path.glob("*.py")) or path.name == "docs")
    }
    assert {row[0].rstrip("/") for row in table(read("docs/map.md"))} >= folders
