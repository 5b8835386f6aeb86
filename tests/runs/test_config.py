"""Options: who wins, what is refused and how it is said, and the presets."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tomli_w
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st

from gentext.config import build_config, config_class, field_docs, merge, parse_setting, read_toml, to_table
from gentext.errors import ConfigError
from gentext.manager import PluginHost
from gentext.plugins.models.lstm import LSTMConfig
from gentext.runs.resolve import DEFAULT_PRESET, SECTIONS, TrainOptions, preset_names, read_preset, resolve_config
from gentext.sampling.configured_chain import ChainConfig, configured_chain
from gentext.settings import BUDGET_UNITS, Settings, budget_steps

BUILTIN = PluginHost(entry_points=False).registry
VALUES = st.integers(-5, 5) | st.booleans() | st.text("ab", max_size=2)
TABLES = st.recursive(
    st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3),
    lambda below: st.dictionaries(st.sampled_from("abc"), VALUES | below, max_size=3),
)


def resolved(*settings_: str, config: Path | None = None, preset: str | None = None, **flags: Any) -> dict[str, Any]:
    return resolve_config(TrainOptions(preset=preset, config=config, settings=settings_, flags=flags))


def write(path: Path, table: dict[str, Any]) -> Path:
    path.write_text(tomli_w.dumps(table), encoding="utf-8")
    return path


# -- layers -----------------------------------------------------------------------------------


def test_stronger_layers_win(tmp_path: Path) -> None:
    file = write(tmp_path / "c.toml", {"model": {"hidden": 64, "layers": 3}, "run": {"seed": 1}})
    assert resolved(preset="notebook")["model"]["hidden"] == 512
    laid_over = read_preset("notebook")["model"] | {"hidden": 64, "layers": 3}
    assert resolved(preset="notebook", config=file)["model"] == laid_over
    table = resolved("model.hidden=32", "model.hidden=16", "run.seed=2", config=file, seed=3)
    assert (table["model"]["hidden"], table["model"]["layers"], table["run"]["seed"]) == (16, 3, 3)
    assert resolved()["run"]["epochs"] == read_preset(DEFAULT_PRESET)["run"]["epochs"]


def test_another_component_drops_the_weaker_options(tmp_path: Path) -> None:
    file = write(tmp_path / "c.toml", {"model": {"name": "gru", "size": 9}, "trainer": {"clip": 2.0}})
    table = resolved(config=file, preset="notebook")
    assert table["model"] == {"name": "gru", "size": 9}
    assert table["trainer"] == {**read_preset("notebook")["trainer"], "clip": 2.0}
    for settings_ in (["model.size=8", "model.name=other"], ["model.name=other", "model.size=8"]):
        assert resolved(*settings_, config=file)["model"] == {"name": "other", "size": 8}
    assert resolved("model.name=lstm", config=file)["model"] == {"name": "lstm"}
    assert resolved("model.name=lstm", preset="notebook")["model"] == read_preset("notebook")["model"]


def test_another_list_of_links_drops_the_options_of_those_that_it_leaves_out() -> None:
    assert resolved("chain.links=['top_k', 'dry']", preset="notebook")["chain"] == {
        "links": ["top_k", "dry"],
        "top_k": {"top_k": 5},
    }
    assert resolved("chain.links=['all']", preset="notebook")["chain"]["top_k"] == {"top_k": 5}


def test_the_preset_notebook_keeps_the_five_most_probable_symbols() -> None:
    chain = configured_chain(BUILTIN, resolved(preset="notebook")["chain"], vocab_size=9)
    active_chain = chain.active(chain.param_arrays(1), {})
    assert {link.name: dict(link.defaults) for link in active_chain} == {"top_k": {"top_k": 5}}


@pytest.mark.parametrize(("unit", "value"), [("steps", 7), ("minutes", 0.5), ("epochs", 2)])
def test_a_budget_replaces_the_weaker_one(tmp_path: Path, unit: str, value: float) -> None:
    file = write(tmp_path / "c.toml", {"run": {"minutes": 3.0, "val_frac": 0.2}})
    for table in (resolved(config=file, **{unit: value}), resolved(f"run.{unit}={value}", config=file)):
        assert {key: table["run"][key] for key in BUDGET_UNITS if key in table["run"]} == {unit: value}
        assert table["run"]["val_frac"] == 0.2


def test_two_budgets_of_one_layer_are_refused() -> None:
    table = resolved(steps=3, minutes=1)
    with pytest.raises(ConfigError, match=r"steps = 3 and minutes = 1: expected one of epochs, steps and minutes"):
        build_config(Settings, table["run"], "run")


def test_budget_becomes_steps() -> None:
    assert budget_steps(Settings(steps=7), 100, math.nan) == 7
    assert budget_steps(Settings(epochs=2.5), 100, math.nan) == 250
    assert budget_steps(Settings(), 100, math.nan) == 100
    assert budget_steps(Settings(minutes=2), 100, 0.5) == 240
    assert budget_steps(Settings(minutes=0.001), 100, 60) == 1
    with pytest.raises(ConfigError, match=r"minutes = 1e\+06: that would be 6e\+10 steps, and 1,000,000,000 are"):
        budget_steps(Settings(minutes=1e6), 100, 0.001)


@examples(100)
@given(TABLES, TABLES, TABLES)
def test_merge_is_associative_and_later_wins(a: Any, b: Any, c: Any) -> None:
    before = repr((a, b, c))
    merged = merge(a, b)
    assert merge(merged, c) == merge(a, b, c)
    assert merge(a, a) == merge({}, a) == a
    for key, value in merged.items():
        above = b.get(key, a.get(key))
        assert value == above or (isinstance(value, dict) and isinstance(above, dict))
    assert merged.keys() == a.keys() | b.keys()
    assert repr((a, b, c)) == before


# -- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hiden": 5}, r"unknown key model\.hiden\. Did you mean 'hidden'\? Keys of \[model\]: hidden, layers, "),
        ({"hidden": "big"}, r"model\.hidden = 'big': expected `int`, got `str`"),
        ({"hidden": 2.5}, r"model\.hidden = 2\.5: expected `int`"),
        ({"hidden": True}, r"model\.hidden = True: expected `int`"),
        ({"hidden": 0}, r"model\.hidden = 0: expected `int` >= 1"),
        ({"dropout": 1}, r"model\.dropout = 1: expected `float` < 1"),
        ({"dropout": -0.1}, r"model\.dropout = -0\.1: expected `float` >= 0"),
        ({"dropout": math.nan}, r"model\.dropout = nan: expected a finite number"),
        ({"norm": 1}, r"model\.norm = 1: expected `bool`"),
    ],
)
def test_wrong_options_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        build_config(LSTMConfig, values, "model")


def test_whole_numbers_serve_as_floats() -> None:
    config = build_config(LSTMConfig, {"dropout": 0}, "model")
    assert config == LSTMConfig(dropout=0.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.dropout = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("modell.hidden=5", r"unknown section \[modell\]\. Did you mean 'model'\? Sections: tokenizer, batcher, "),
        ("model=5", "setting model=5: expected section"),
        ("model.hidden", r"setting model\.hidden: expected section\.key=value, for example"),
        (".hidden=5", "expected section"),
        ("model.=5", "expected section"),
    ],
)
def test_wrong_settings_are_named(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolved(setting)


def test_sections_must_be_tables(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model = 5: expected a table, for example \[model\]"):
        resolved(config=write(tmp_path / "c.toml", {"model": 5}))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"[a\n", r"not valid TOML: .* line 1"), (b"a = '\xff'", "not UTF-8 at byte 5")],
)
def test_bad_files_are_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "c.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"c\.toml.*{message}"):
        read_toml(path)
    with pytest.raises(ConfigError, match="is a folder; expected a TOML file"):
        read_toml(tmp_path)


@examples(100)
@given(
    st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.lists(st.text(max_size=5), max_size=3)
    | st.text(max_size=8).filter(lambda text: text == text.strip())
)
def test_settings_are_parsed_as_toml(value: Any) -> None:
    spelled = tomli_w.dumps({"v": value}).partition("=")[2].strip()
    assert parse_setting(f"a.b.c={spelled}") == {"a": {"b": {"c": value}}}


@pytest.mark.parametrize(("raw", "value"), [("adamw", "adamw"), ("a=b", "a=b"), (" cosine ", "cosine"), ("", "")])
def test_settings_that_are_no_toml_are_text(raw: str, value: str) -> None:
    assert parse_setting(f"trainer.optimizer={raw}") == {"trainer": {"optimizer": value}}


# -- presets and built-in options -------------------------------------------------------------


@pytest.mark.parametrize("preset", preset_names())
def test_presets_name_what_there_is(preset: str) -> None:
    table = resolved(preset=preset)
    for kind in SECTIONS:
        options = {key: value for key, value in table[kind].items() if key != "name"}
        built = build_config(config_class(BUILTIN.get(kind, table[kind]["name"])), options, kind)
        assert {**to_table(built), **options} == to_table(built)
    build_config(Settings, table["run"], "run")


def test_unknown_preset_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no preset 'notebok'\. Available: base, .*\. Did you mean 'notebook'\?"):
        read_preset("notebok")


def test_notebook_is_the_notebook() -> None:
    table = resolved(preset="notebook")
    config = {}
    for kind in SECTIONS:
        options = {key: value for key, value in table[kind].items() if key != "name"}
        config[kind] = to_table(build_config(config_class(BUILTIN.get(kind, table[kind]["name"])), options, kind))
    assert {kind: table[kind]["name"] for kind in SECTIONS} == SECTIONS
    assert config["tokenizer"] == {"min_count": 1}
    assert config["batcher"] == {"batch": 128, "length": 100, "offset": False}
    network = {"hidden": 512, "layers": 2, "embedding": 0, "dropout": 0.5, "input_dropout": 0.0}
    regularization = {"dropout_mask": "position", "symbol_dropout": 0.0, "weight_dropout": 0.0, "input_noise": 0.0}
    ngrams = {"ngram_length": 0, "ngram_rows": 4096, "ngram_embedding": 32, "ngram_dropout": 0.0}
    assert config["model"] == {**network, **regularization, **ngrams, "norm": False, "skip": False, "tuned_init": False}
    adam = {"optimizer": "adam", "rate": 1e-3, "beta2": 0.999, "weight_decay": 0.0, "clip": 5.0, "average": "none"}
    assert config["trainer"].items() >= {**adam, "schedule": "constant", "warmup": 0, "patience": 0}.items()
    assert table["run"] == {"epochs": 20, "val_frac": 0.1, "export_precision": "fp32"}
    assert BUILTIN.get("model", "lstm").Config() == build_config(LSTMConfig, network, "model")


def test_every_builtin_option_is_documented() -> None:
    classes = {config_class(component.load()) for component in BUILTIN} | {Settings, ChainConfig}
    assert len(classes) > 5
    for cls in classes:
        names = [field.name for field in dataclasses.fields(cls)]
        docs = field_docs(cls)
        assert sorted(docs) == sorted(names), cls
        assert all(text.strip() for text in docs.values())
        assert cls.__doc__
        assert msgspec.convert(to_table(cls()), cls) == cls()  # a config file can say all that a class can
