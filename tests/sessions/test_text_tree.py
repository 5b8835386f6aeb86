"""A text that a user and a model write in turns: its branches, each of them what was written straight on."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from conftest import SHALLOW, TINY, ExportTiny, run_gen
from helpers import examples
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

import gentext
from gentext import TextModel
from gentext.errors import PrimeError, UsageError
from gentext.generation.slots import Slots
from gentext.plugins.samplers.onnx import OnnxGenerator
from gentext.requests.options import writing_options
from gentext.sessions import text_tree
from gentext.sessions.text_pieces import find_pieces
from gentext.sessions.text_tree import TextTree

LINKS = "match,penalties,dry,top_k,mirostat,xtc,temperature"
PARAMETERS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.3, "repeat_penalty": 1.2},
    {"mirostat": 2, "mirostat_tau": 2.0},
    {"dry_multiplier": 1.0, "xtc_probability": 0.7},
]


@pytest.fixture(scope="module")
def model(export_tiny: ExportTiny) -> TextModel:
    """A file whose chain has links with states and noise of their own."""
    return gentext.load(export_tiny(LINKS) / "generator.onnx")


@pytest.fixture(scope="module")
def byte_model(tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    """A model that has learned next to nothing, so that it writes bytes of which few are characters."""
    folder = tmp_path_factory.mktemp("bytes")
    (folder / "text.txt").write_text("Grüße, 世界! 🙂\n" * 300, encoding="utf-8")
    options = ("--set", "tokenizer.name=byte", "--steps", 2)
    code, _, err = run_gen("train", folder / "text.txt", "--run", folder / "run", *TINY, *SHALLOW, *options)
    assert code == 0, err
    return gentext.load(folder / "run" / "generator.onnx")


def make_tree(model: TextModel, seed: int = 5, **options: Any) -> TextTree:
    sampler = model._sampler
    assert isinstance(sampler, OnnxGenerator)
    return TextTree(model, Slots(sampler.model, model.bundle, 1), writing_options(**{"length": 40, **options}), seed)


def write(tree: TextTree, text: str, calls: int | None = None) -> str:
    """Return a text with what the model adds; with ``calls`` it is stopped after so many pieces."""
    pieces = tree.write(text)
    added = "".join(itertools.islice(pieces, calls))
    pieces.close()
    return text + added


def retrace(tree: TextTree, model: TextModel, text: str) -> None:
    """Check that a text is what a new tree writes, each piece to its end, without any branch."""
    path, end = find_pieces(tree._root, text)
    other, retraced = make_tree(model), ""
    for piece, begin in path[1:]:
        piece_text = text[begin : min(end, begin + len(piece.text))]
        if piece.seed is None:
            retraced += piece_text
        else:
            other.change_options(piece.options | {"length": len(piece_text)})
            other.choose_seed(piece.seed)
            retraced = write(other, retraced)
        assert retraced == text[: len(retraced)]
    assert retraced == text[:end]


ACTIONS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from([None, None, 1, 2, 5])),
    st.tuples(st.just("type"), st.sampled_from(["a", "ab. ", "bacacab" * 9, "\n"])),
    st.tuples(st.just("cut"), st.floats(0, 1)),
    st.tuples(st.just("branch"), st.sampled_from([-1, 1])),
    st.tuples(st.just("seed"), st.sampled_from([5, 6, 2**64 - 1])),
    st.tuples(st.just("options"), st.tuples(st.sampled_from(PARAMETERS), st.sampled_from([1, 17, 60]))),
)


@examples(25, suppress_health_check=list(HealthCheck))
@given(actions=st.lists(ACTIONS, min_size=3, max_size=12), size=st.sampled_from([1, 3, 12]))
def test_branches_are_what_was_written_straight_on(model: TextModel, actions: list[tuple[str, Any]], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_tree, "PIECE_CHARACTERS", 10)
        tree, text, texts = make_tree(model), "", []
        patch.setattr(tree._slots.schedule, "choose_positions", lambda *_: size)
        for name, argument in actions:
            if name == "write":
                text = write(tree, text, argument)
            elif name == "type":
                text += argument
            elif name == "cut":
                text = text[: int(argument * len(text))]
            elif name == "branch":
                text = tree.branch(text, len(text), argument)
            elif name == "seed":
                tree.choose_seed(argument)
            else:
                tree.change_options(writing_options(parameters=argument[0], length=argument[1]))
            texts.append(text)
            assert tree._slots.free == 1
        for text in texts:
            retrace(tree, model, text)


@examples(5, suppress_health_check=list(HealthCheck))
@given(lengths=st.lists(st.sampled_from([1, 7, 30]), min_size=1, max_size=5), prime=st.sampled_from(["", "ab. "]))
@pytest.mark.parametrize("name", ["model", "byte_model"])
def test_text_that_only_the_model_writes_is_that_of_gen_sample(
    request: pytest.FixtureRequest, name: str, lengths: list[int], prime: str
) -> None:
    model = request.getfixturevalue(name)
    tree, text = make_tree(model, seed=9), prime
    for length in lengths:
        tree.change_options(tree.options | {"length": length})
        text = write(tree, text)
    # A character is of several bytes, and U+FFFD stands for at most three that are none: bytes are what both count.
    assert len(text.encode()) >= len(prime) + sum(lengths)
    assert text == prime + model.write(prime, length=len(text) - len(prime), seed=9)


def test_half_a_character_is_no_end(byte_model: TextModel) -> None:
    tree = make_tree(byte_model, length=60)
    tree._slots.schedule.choose_positions = lambda *_: 1  # type: ignore[method-assign]
    whole = "A" + byte_model.write("A", length=60, seed=5)
    for calls in range(2, 40, 3):
        tree.choose_seed(5)
        text = write(make_tree(byte_model, length=60), "A", calls)
        assert whole.startswith(text) and write(tree, text)
    retrace(tree, byte_model, whole)


def test_a_text_ends_where_a_character_does(byte_model: TextModel) -> None:
    """Bytes that are no UTF-8 may give a text its last character while the next one has begun."""
    for seed in range(8):
        tree, text = make_tree(byte_model, seed=seed, length=1), ""
        for _ in range(25):
            text = write(tree, text)
        assert text == byte_model.write(length=len(text), seed=seed)
        assert not any(piece.state is None for piece, _ in find_pieces(tree._root, text)[0][1:])


def test_each_branch_has_a_seed_of_its_own(model: TextModel) -> None:
    tree = make_tree(model, seed=2**64 - 1)
    first = write(tree, "ab")
    second = write(tree, "ab")
    third = write(tree, first[:20])
    assert tree.seed == 0 and second != first and third[:20] == first[:20] and third != first
    # A branch goes on with its own seed.
    assert write(tree, second) == "ab" + model.write("ab", length=80, seed=0)
    assert tree.describe_branch(third, len(third)) == (2, 2, 20)
    assert tree.describe_branch(third, 19) == (1, 2, 2)
    assert tree.branch(third, len(third), 1) == first
    assert tree.branch(third, 10, 1).startswith(second)
    assert tree.describe_branch("b", 1) is None and tree.branch("b", 1, 1) == "b"
    assert tree.last_begin(first) == 20 and tree.last_begin(first[:20]) == 2 and tree.last_begin("xy") == 2


def test_surprise_of_each_character(model: TextModel, byte_model: TextModel) -> None:
    for opened, prime in ((model, "ab. "), (byte_model, "ü世")):
        tree = make_tree(opened)
        text = write(tree, prime)
        logprobs = tree.character_logprobs(text + "!")
        assert np.isnan(logprobs[-1]) and not np.isnan(logprobs[: len(text)]).any()
        if "\ufffd" not in text:
            scored = np.float32(opened.score(text).logprobs.sum())
            assert logprobs[:-1].sum() == pytest.approx(scored, abs=1e-3)


def test_stop_strings_end_a_piece_and_are_part_of_it(model: TextModel) -> None:
    tree = make_tree(model, stop=("a", "ba"), length=300)
    text = ""
    for _ in range(5):
        text = write(tree, text)
        assert tree.finish == "stop" and text.endswith("a")
    assert text.count("a") == 5 and text == model.write(length=len(text), seed=5)


def test_errors_change_nothing(model: TextModel) -> None:
    tree = make_tree(model)
    for options in ({"parameters": {"temperature": -1}}, {"parameters": {"warmth": 1}}, {"length": 0}):
        with pytest.raises(UsageError):
            tree.change_options(writing_options(**options))
    with pytest.raises(UsageError, match="compile"):
        tree.change_options(writing_options(parameters={"typical_p": 0.5}))
    with pytest.raises(UsageError):
        tree.choose_seed(-1)
    with pytest.raises(PrimeError):
        write(tree, "世界")
    assert write(tree, "ab") == "ab" + model.write("ab", length=40, seed=5)
