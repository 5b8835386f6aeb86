"""What gen says about a run: before it, from sizes and budget, and after it, from the curves of real runs."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Gen
from hypothesis import given
from hypothesis import strategies as st

from gentext.corpus.arrangement import describe_arrangement
from gentext.data.corpus import read_corpus
from gentext.interfaces import Measurement
from gentext.training import advice
from gentext.training.learning_curve import find_growth
from gentext.training.verdict import RunFacts, judge

CURVES = {
    path.stem: json.loads(path.read_text("utf-8")) for path in (Path(__file__).parents[1] / "curves").glob("*.json")
}
#: What nobody should hear about a text that was not read once.
SIZE_WORDS = re.compile("fitting|fitted|dropout|larger|smaller")


def stored_facts(name: str) -> RunFacts:
    table: dict[str, Any] = CURVES[name]["facts"]
    return RunFacts(**{**table, "curve": tuple(Measurement(*numbers) for numbers in table["curve"])})


@pytest.mark.parametrize("name", sorted(CURVES))
def test_verdicts_on_real_runs(name: str) -> None:
    verdict = judge(stored_facts(name))
    assert verdict.kind == CURVES[name]["verdict"], verdict.lines
    assert verdict.lines and all(len(line) < 300 for line in verdict.lines)


def test_real_runs_reach_every_verdict() -> None:
    assert len(CURVES) >= 12
    kinds = {record["verdict"] for record in CURVES.values()}
    assert kinds >= {"nothing learned", "not read once", "still falling", "over-fitting", "under-fitting", "unclear"}


@pytest.mark.parametrize("name", [name for name in CURVES if CURVES[name]["verdict"] == "over-fitting"])
def test_losses_and_growth_have_their_steps(name: str) -> None:
    """The losses are those of the checkpoint that is kept, but the gap is the last: nobody could subtract them."""
    facts = stored_facts(name)
    last = facts.curve[-1].step
    for best in {point.step for point in facts.curve}:
        line = judge(dataclasses.replace(facts, best_step=best)).lines[0]
        assert (f"at step {best:,}, which is kept" in line) == (best != last)
        assert (f"until step {last:,}, the last" in line) == (best != last)


@pytest.mark.parametrize("name", sorted(CURVES))
def test_a_gap_from_the_beginning_on_is_the_text_s(name: str) -> None:
    """A held-out text that is harder by any number of nats gets the same verdict, where the first pass was measured."""
    facts = stored_facts(name)
    growth = find_growth(facts.curve, facts.train_symbols)
    if growth is None or growth.since != "since the first pass":
        pytest.skip("the first pass was not measured")
    harder = tuple(dataclasses.replace(point, val_loss=point.val_loss + 0.5) for point in facts.curve)
    moved = dataclasses.replace(facts, curve=harder, val_loss=facts.val_loss + 0.5, vocab_size=None, unigram_loss=None)
    if judge(facts).kind != "nothing learned":
        assert judge(moved).kind == judge(facts).kind


@pytest.mark.parametrize("name", sorted(CURVES))
def test_noise_silences_the_verdict(name: str) -> None:
    facts = stored_facts(name)
    noisy = tuple(dataclasses.replace(point, val_error=10.0, train_error=10.0) for point in facts.curve)
    before, after = judge(facts), judge(dataclasses.replace(facts, curve=noisy))
    assert after.kind == before.kind if before.kind in ("nothing learned", "not read once") else "unclear", after


losses = st.floats(0.01, 20.0)


@given(
    passes=st.floats(0.001, 100.0),
    val_losses=st.lists(losses, min_size=1, max_size=12),
    train_loss=losses,
    dropout=st.sampled_from([0.0, 0.3, 0.5]),
)
def test_any_curve_gets_a_verdict(passes: float, val_losses: list[float], train_loss: float, dropout: float) -> None:
    count, text_length = len(val_losses), 1_000_000
    symbols_read = max(count, int(passes * text_length))
    curve = [
        Measurement(10 * number, symbols_read * number // count, loss, train_loss, 0.01, 0.01)
        for number, loss in enumerate(val_losses, start=1)
    ]
    best = min(curve, key=lambda point: point.val_loss)
    facts = RunFacts(
        train_symbols=text_length,
        symbols_read=symbols_read,
        steps=10 * count,
        budget_steps=10 * count,
        best_step=best.step,
        val_loss=best.val_loss,
        train_loss=train_loss,
        curve=curve,
        vocab_size=80,
        options={"hidden", "dropout"},
        dropout=dropout,
    )
    kind, lines = (verdict := judge(facts)).kind, "\n".join(verdict.lines)
    assert (kind == "nothing learned") == (best.val_loss > math.log(80))
    if symbols_read < advice.READ_ONCE * text_length:
        assert kind in ("nothing learned", "not read once") and not SIZE_WORDS.search(lines), lines
    if dropout == 0.5:
        assert "more dropout (" not in lines
    if kind == "under-fitting":
        assert best.val_loss - train_loss < 0.2 and facts.passes >= 3


def test_a_run_without_measurements_is_not_judged() -> None:
    facts = RunFacts(100, 200, 10, 10, 10, math.nan, math.nan)
    assert judge(facts).lines == []
    assert judge(dataclasses.replace(facts, val_loss=1.0, train_loss=0.5)).kind == "unclear"


@pytest.mark.parametrize("name", ["over-fitting", "too-small-model", "two-passes"])
def test_a_text_whose_end_is_unlike_the_rest_is_not_judged(name: str) -> None:
    facts = dataclasses.replace(stored_facts(name), arrangement="the lines of the text are sorted")
    verdict = judge(facts)
    assert verdict.kind == "unclear" and verdict.lines[0].endswith("; the lines of the text are sorted")


def test_patience_that_ran_out_wants_no_more_time() -> None:
    name = next(name for name, record in CURVES.items() if record["verdict"] == "still falling")
    facts = stored_facts(name)
    assert judge(dataclasses.replace(facts, budget_steps=facts.steps + 1)).kind != "still falling"


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"passes": 0.04}, ["4 % of a pass", "50 min 00 s"]),
        ({"passes": 0.04, "parameters": 10**9}, ["4 % of a pass"]),
        ({"passes": 1.0, "parameters": 10**9}, []),  # too few passes to learn anything by heart
        ({"passes": 20.0, "parameters": 10**9}, ["by heart", "model.hidden"]),
        ({"passes": 1.0, "parameters": 1_000}, ["larger model (model.hidden)"]),
        ({"passes": 1.0, "held_out": 300}, ["only 300 symbols"]),
        ({"passes": 1.0}, []),
    ],
)
def test_advice_before_training_knows_the_budget(sizes: dict[str, Any], words: list[str]) -> None:
    facts = {"parameters": 10**6, "symbols": 10**6, "held_out": 10**5, "seconds_of_pass": 3000.0, "options": ["hidden"]}
    lines = advice.before_training(**{**facts, **sizes})
    assert len(lines) == bool(words), lines
    assert all(word in lines[0] for word in words), lines


# -- sorted and grouped texts -----------------------------------------------------------------


def arrangement_of(text: str) -> str:
    """Return what gen says about a text, by its characters."""
    characters = sorted(set(text))
    tokens = {character: token for token, character in enumerate(characters)}
    ids = np.array([tokens[character] for character in text], np.min_scalar_type(len(characters)))
    cut = len(ids) * 9 // 10
    return describe_arrangement(ids[:cut], ids[cut:], [character.encode() for character in characters])


@pytest.fixture(scope="module")
def manual() -> str:
    return read_corpus("python-docs").text


@pytest.fixture(scope="module")
def sources() -> str:
    return read_corpus("python-stdlib").text[:1_000_000]


def shuffle(lines: Sequence[str]) -> list[str]:
    return random.Random(0).sample(lines, len(lines))


def test_ordinary_texts_are_not_mentioned(manual: str, sources: str) -> None:
    assert arrangement_of(manual) == arrangement_of(sources) == ""
    assert arrangement_of("\n".join(shuffle(manual.split("\n")))) == ""
    assert arrangement_of("short") == arrangement_of("no line ends " * 20_000) == arrangement_of("\n" * 99_999) == ""


@pytest.mark.parametrize("order", [str, str.casefold])
def test_sorted_lines_are_mentioned(sources: str, order: Any) -> None:
    words = sorted(set(re.findall(r"\w+", sources)), key=order)
    for lines in (words, words[::-1]):
        assert "sorted" in arrangement_of("\n".join(lines)) and "shuf " in arrangement_of("\n".join(lines))
    assert arrangement_of("\n".join(shuffle(words))) == ""


def test_grouped_texts_are_mentioned(manual: str, sources: str) -> None:
    assert "grouped" in arrangement_of(sources[:600_000] + manual[:100_000].upper())
    lines = [line for line in manual.split("\n") if line.strip()][:6000]
    middle = len(lines) // 2
    labels = ["good" if number < middle else "bad" for number in range(len(lines))]
    labelled = [f"{label}\t{line}" for label, line in zip(labels, lines, strict=True)]
    assert "grouped" in arrangement_of("\n".join(labelled))
    assert "grouped" in arrangement_of("\n".join(f"{line},{label}" for label, line in zip(labels, lines, strict=True)))
    assert arrangement_of("\n".join(shuffle(labelled))) == ""


# -- through the commands ---------------------------------------------------------------------


def test_train_and_info_say_the_same(tmp_path: Path, tiny_text: Path, tiny_options: tuple[str, ...], gen: Gen) -> None:
    run = tmp_path / "run"
    code, _, err = gen("train", tiny_text, "--run", run, "--steps", 4, *tiny_options)
    assert code == 0, err
    assert "the budget reads" in err and "0.36 % of a pass" in err
    lines = (run / "verdict.txt").read_text().splitlines()
    assert lines and all(line in err for line in lines)
    for source in (run, run / "model.onnx"):
        assert json.loads(gen("info", source, "--json")[1])["verdict"] == lines
    assert lines[0] in gen("info", run)[1]


def test_train_mentions_a_sorted_text(tmp_path: Path, gen: Gen, tiny_options: tuple[str, ...]) -> None:
    text = tmp_path / "numbers.txt"
    text.write_text("\n".join(f"{number:05}" for number in range(10_000)))
    code, _, err = gen("train", text, "--run", tmp_path / "run", "--steps", 1, "--no-export", *tiny_options)
    assert code == 0 and "the lines of the text are sorted" in err
