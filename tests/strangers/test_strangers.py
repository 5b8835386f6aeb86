"""Plugins of other people: installed with pip into a fresh environment and used from the command line."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pluggy
import pytest
from safetensors.numpy import load_file

from gentext import hookimpl, hookspecs
from gentext.events import Hooks
from gentext.exported.metadata import Bundle, TokenizerMeta
from gentext.generation.generate import generate
from gentext.interfaces import Chunk, Request
from gentext.run import Run
from gentext.sampling.chain import Chain

BROKEN = {
    "fine": "its command 'train' exists already",
    "nonsense": "has the target 'gentext_broken.models.Nonsense'; expected 'module:attribute'",
    "quitting": "SystemExit: 0",
    "raising": "RuntimeError: out of order",
    "silent": "the batcher 'silent' has no summary",
    "speechless": "SpeechlessError",
    "taken": "the model name 'lstm' belongs to gentext itself; gentext-broken 6.6.6 must register another name",
    "torn": "CancelledError: torn down",
    "wrong_argument": "Argument(s) {'registry'} are declared in the hookimpl but can not be found in the hookspec",
}


#: Runs the test kit on the strategies, and checks what the tokenizer promises.
CHECK = """
from gentext.testing import check_filter, check_strategy
from gentext_lab.varied import Varied, VariedConfig
from gentext_novelty import exclude, novelty, typo
from gentext_pairs.tokenizer import PairConfig, PairTokenizer
import json
for cls, config in (
    (novelty.Novelty, None), (novelty.Novelty, novelty.NoveltyConfig(decay=0.0)), (typo.Typo, None),
    (exclude.Exclude, None), (exclude.Exclude, exclude.ExcludeConfig(characters="abc")),
):
    check_strategy(cls, config)
check_filter(Varied, VariedConfig(characters=2), accepted=["ab"], refused=["", "aaa"])
learned = PairTokenizer.build(["the cat the dog"], PairConfig(pairs=3))
restored = PairTokenizer.from_state(json.loads(json.dumps(learned.state())))
for text in ("", "the end", "naïve \\U0001f600 tthhee\\n\\0", "a.b|c\\\\"):
    ids = restored.encode(text)
    assert b"".join(map(restored.token_bytes, ids)).decode() == text
assert len(restored.encode("the")) == 2
"""


def listing(result: Any) -> dict[str, dict[str, object]]:
    """Return ``gen plugins --json`` by module."""
    assert result.code == 0, result.err
    return {row["module"]: row for row in json.loads(result.out)}


# -- loading ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_everything_is_listed_and_each_broken_one_costs_a_line(environment: Any) -> None:
    result = environment.gen("plugins", "--json")
    rows = listing(result)
    good = [row for row in rows.values() if row["distribution"] in environment.good]
    assert {component for row in good for component in row["components"]} == {
        "batcher windows", "trainer sgd", "sampler unigram", "model mgu", "tokenizer pairs", "filter varied",
        "strategy novelty", "strategy typo", "strategy exclude",
    }  # fmt: skip
    assert rows["gentext_lab.diary"]["components"] == []
    assert "register_commands" in rows["gentext_lab.diary"]["hooks"]
    lines = result.err.splitlines()
    assert all(line.startswith("gen: warning: ") and "gentext-broken 6.6.6" in line for line in lines), lines
    for module, why in BROKEN.items():
        assert [line for line in lines if f"gentext_broken.{module})" in line and why in line], module
        assert why in rows[f"gentext_broken.{module}"]["error"]
    assert [line for line in lines if "'register_strategys'. Did you mean 'register_strategies'? It is ignored" in line]
    assert len(lines) == len(BROKEN) + 1
    # A plugin is loaded although another one of its distribution failed.
    assert rows["gentext_broken.fine"]["components"] == ["model hollow"]
    assert rows["gentext_broken.nonsense"]["components"] == []


@pytest.mark.slow
def test_environment_variables_choose_plugins(environment: Any) -> None:
    none = environment.gen("plugins", "--json", GEN_PLUGINS="")
    assert {row["distribution"] for row in listing(none).values()} == {"gentext"}
    assert none.err == ""
    selected = environment.gen("plugins", "--json", GEN_PLUGINS="Gentext_Novelty, gentext-twin-one,gentext-nobody")
    assert {row["distribution"] for row in listing(selected).values()} == {
        "gentext",
        "gentext-novelty",
        "gentext-twin-one",
    }
    [line] = selected.err.splitlines()
    assert "GEN_PLUGINS names 'gentext-nobody'" in line
    strict = environment.gen("plugins", GEN_PLUGINS="gentext-broken", GEN_PLUGINS_STRICT="1")
    assert strict.code == 1
    assert strict.err.startswith("gen: error: plugin gentext-broken 6.6.6 (gentext_broken.nonsense): the model 'nons")


@pytest.mark.slow
def test_shared_name_is_an_error_on_use(environment: Any, story: dict[str, Any]) -> None:
    twins = "gentext-twin-one,gentext-twin-two"
    [listed, sampled] = environment.run_commands(
        [({}, ("plugins", "twin")), ({}, ("sample", "whole", "--chain", "twin"))], GEN_PLUGINS=twins
    )
    assert listed.code == 0
    assert sampled.code == 1
    [line] = sampled.err.splitlines()
    assert "two plugins register the strategy 'twin': gentext-twin-one 1.0 and gentext-twin-two 2.0" in line
    alone = environment.gen(
        "sample", "whole", "--chain", "twin", "--length", 5, "--seed", 1, GEN_PLUGINS="gentext-twin-two"
    )
    assert alone.code == 0, alone.err
    assert len(alone.out) == 6


@pytest.mark.slow
def test_unknown_name_tells_which_plugins_failed(story: dict[str, Any]) -> None:
    assert story["hollow"].code == story["left out"].code == story["wrong option"].code == story["cuda"].code == 1
    assert "the model 'hollow' of gentext-broken 6.6.6 cannot be loaded" in story["hollow"].err
    assert "no model 'nonsense'. Available: hollow, lstm, lstm_ensemble, mgu." in story["left out"].err
    assert "gentext-broken 6.6.6 (gentext_broken.nonsense)" in story["left out"].err
    assert "unknown key model.widht. Did you mean 'width'? Keys of [model]: width" in story["wrong option"].err
    assert "the trainer sgd runs on the CPU" in story["cuda"].err


# -- training ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_run_of_strangers_alone(environment: Any, story: dict[str, Any]) -> None:
    done = story["strange"]
    assert done.code == 0, done.err
    assert "device: CPU, plain SGD" in done.err
    assert "a scan over steps" in done.err
    assert done.err.count("step 1 was too much") == 1  # a hook that raises is left out from then on
    assert "step 2 was too much" not in done.err
    assert (
        "the hook evaluated of plugin gentext-broken (gentext_broken.fine) failed and is left out: SystemExit: 0"
        in done.err
    )
    assert not any(option in done.err for option in ("model.hidden", "model.layers", "model.dropout"))
    assert re.search(r"held-out text has only [\d,]+ symbols", done.err)
    names = {path.name for path in (environment.folder / "strange").iterdir()}
    assert {"config.toml", "tokenizer.json", "metrics.jsonl", "samples.txt", "model.onnx", "diary.txt"} <= names
    diary = environment.gen("diary", "strange", GEN_PLUGINS="gentext-lab").out.splitlines()
    assert [line.split(":")[0] for line in diary] == [
        "began at step 0 of 6, seed 3",
        "measured at step 6",
        "saved last-step000006",
        "finished after 6 steps",
        "closed",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["whole", "tokens", "sgd"])
def test_strangers_beside_built_ins(story: dict[str, Any], name: str) -> None:
    assert story[name].code == 0, story[name].err


@pytest.mark.slow
def test_resumed_stranger_is_bit_equal(environment: Any, story: dict[str, Any]) -> None:
    assert story["stopped"].code == 1
    assert "stopped at step 4 of 6, everything is saved" in story["stopped"].err
    assert story["resumed"].code == 0, story["resumed"].err
    assert "going on at step 4 of 6" in story["resumed"].err
    [uninterrupted], [resumed] = (
        [*(environment.folder / run / "checkpoints").glob("last-step000006*")] for run in ("whole", "halves")
    )
    expected, actual = load_file(uninterrupted), load_file(resumed)
    assert expected.keys() == actual.keys()
    assert expected["carried.memory"].shape == (4, 12)
    assert [name for name in expected if not np.array_equal(expected[name], actual[name])] == []
    assert story["sgd again"].code == 0, story["sgd again"].err
    assert "going on at step 6 of 6" in story["sgd again"].err


# -- the exported file ------------------------------------------------------------------------


@pytest.mark.slow
def test_file_has_the_model_s_own_state(environment: Any, story: dict[str, Any]) -> None:
    """Plain onnxruntime, with nothing of gentext."""
    session = onnxruntime.InferenceSession(
        environment.folder / "whole" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    assert [(port.name, port.shape) for port in session.get_inputs()] == [
        ("tokens", ["batch", "time"]),
        ("memory", ["batch", 12]),
    ]
    assert [port.name for port in session.get_outputs()] == ["logits", "memory_out"]
    rng = np.random.default_rng(0)
    tokens, memory = rng.integers(0, 19, (3, 4)), rng.normal(size=(3, 12)).astype(np.float32)
    all_logits, memory_out = session.run(None, {"tokens": tokens, "memory": memory})
    for position in range(4):
        [logits, memory] = session.run(None, {"tokens": tokens[:, position : position + 1], "memory": memory})
        np.testing.assert_allclose(logits[:, 0], all_logits[:, position], atol=1e-6)
    np.testing.assert_allclose(memory, memory_out, atol=1e-6)
    stored = json.loads(session.get_modelmeta().custom_metadata_map["gentext.states"])
    assert stored[0]["name"] == "memory"
    assert stored[0]["initial"] != 0.0  # what the model learned to begin with


@pytest.mark.slow
def test_same_text_from_every_sampler_and_batch(environment: Any, story: dict[str, Any]) -> None:
    [single] = story["one"].rows()
    three = story["three"].rows()
    assert len(three) == 3
    assert three[0] == single
    assert len({row["text"] for row in three}) == 3
    assert all(len(str(row["text"])) == 60 and row["finish"] == "length" for row in three)
    assert [row["text"] for row in story["torch"].rows()] == [single["text"]]
    assert [row["text"] for row in story["three torch"].rows()] == [row["text"] for row in three]
    # A pair of characters is one symbol, a character that is no ASCII is several.
    assert len(single["tokens"]) != len(single["text"])


@pytest.mark.slow
def test_file_decodes_without_the_plugins(environment: Any, story: dict[str, Any]) -> None:
    chain = ("--chain", "temperature")
    commands = [
        ("sample", "whole", *environment.sample, "--prime", "abc"),
        ("sample", "strange", *environment.sample, *chain),
        ("sample", "strange", *environment.sample, *chain, "--prime", "a"),
        ("sample", "strange", *environment.sample),
        ("sample", "whole", *environment.sample, "--chain", "novelty"),
    ]
    whole_run, unprimed, primed, compiled, linked = environment.run_commands(
        [({}, words) for words in commands], GEN_PLUGINS=""
    )
    assert [row["text"] for row in whole_run.rows()] == [row["text"] for row in story["whole torch"].rows()]
    assert len(str(unprimed.rows()[0]["text"])) == 60
    assert "no tokenizer 'pairs'. Available: byte, char." in primed.err  # it is needed to encode alone
    assert compiled.rows() == story["one"].rows()  # the file's own chain is a part of it
    assert "no strategy 'novelty'" in linked.err


# -- strategies and samplers ------------------------------------------------------------------


@pytest.mark.slow
def test_strategies_and_tokenizer_keep_the_rules(environment: Any) -> None:
    done = environment.run("-c", CHECK)
    assert done.code == 0, done.err


@pytest.mark.slow
def test_links_of_strangers(samples: dict[str, Any]) -> None:
    # Links at their neutral values change nothing, and shift nobody's noise.
    assert samples["plain"].rows() == samples["neutral"].rows()
    assert samples["loud"].rows() != samples["excluded"].rows() == samples["excluded twice"].rows()[:1]
    assert not set("aei ") & set("".join(str(row["text"]) for row in samples["excluded twice"].rows()))
    assert samples["too much"].code == 2
    assert "--typo 2: expected a number from 0 up to 1" in samples["too much"].err
    assert samples["not in the chain"].code == 2
    assert "no option --novelty" in samples["not in the chain"].err
    assert "--characters" in samples["exclude"].out


@pytest.mark.slow
def test_chain_of_a_run_comes_with_its_file(samples: dict[str, Any]) -> None:
    chain = "novelty(novelty=0.5) -> exclude() -> top_k(top_k=0) -> temperature(temperature=3"
    assert chain in samples["own"].err
    assert not set("ab") & set(str(samples["own"].rows()[0]["text"]))
    assert samples["changed"].rows() != samples["own"].rows()


@pytest.mark.slow
def test_sampler_of_a_stranger(samples: dict[str, Any]) -> None:
    [row] = samples["unigram"].rows()
    assert row["prime"] == "Où"
    assert row["finish"] == "stop"
    assert not set("nab") & set(str(row["text"]))
    assert samples["flat"].rows()[0]["text"] != row["text"]
    assert samples["below"].code == samples["no run"].code == 1
    assert "sampler.smoothing = -1" in samples["below"].err
    assert "the unigram sampler reads a run folder" in samples["no run"].err
    assert samples["foreign"].code == 2
    assert "--set model...: gen sample has options of the sampler and of filters only" in samples["foreign"].err


@pytest.mark.slow
def test_losses_are_counted_in_characters(samples: dict[str, Any]) -> None:
    losses = json.loads(samples["eval"].out)
    assert losses["symbols"] < losses["characters"] == 2000
    assert losses["nats_per_character"] < np.log(296)  # the symbols there are


# -- details ------------------------------------------------------------------------------


def test_sampler_may_return_any_iterator() -> None:
    """A sampler returns an iterator, which need not be a generator with a method ``close``."""

    class Parrot:
        bundle = Bundle("model", TokenizerMeta("byte", {}), [b"ab", b"c"], [], 0, [], {})
        device = "nothing"

        def generate(self, request: Request) -> Iterator[Chunk]:
            row = np.array([[1], [0], [1]]), np.zeros((3, 1), np.float32)
            return iter([Chunk(*row, ["running"]), Chunk(*row, ["running"])])

    [text], pieces = generate(Parrot(), Chain([]), primes=[np.empty(0, np.int64)], seed=0, length=6)
    assert [piece.text for piece in pieces] == ["cabc", "ca"]
    assert (text.text, text.finish) == ("cabcca", "length")


def test_tryfirst_and_trylast_set_the_order_of_hooks() -> None:
    order: list[str] = []
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    for name, options in (("one", {}), ("last", {"trylast": True}), ("first", {"tryfirst": True}), ("two", {})):
        plugin = types.SimpleNamespace(run_closed=hookimpl(**options)(lambda name=name: order.append(name)))
        manager.register(plugin, name)
    Hooks(manager, lambda plugin: False).run_closed(Run(Path("nowhere")))
    assert order == ["first", "one", "two", "last"]
