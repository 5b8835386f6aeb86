"""What components hand over is checked at once, and the error names the component."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from gentext.components.links import check_nan
from gentext.components.tokenizers import check_ids, check_tokenizer
from gentext.config import NoConfig
from gentext.errors import PluginError
from gentext.exported.metadata import Bundle, TokenizerMeta
from gentext.generation.generate import generate
from gentext.interfaces import Chunk, Request, StateSpec
from gentext.runs.model_description import check_model
from gentext.sampling.chain import Chain, Link
from gentext.stepping import generate_stepwise
from gentext.strategy import State, Strategy, Table

N, V = 3, 5
LOGITS = np.linspace(-2, 2, N * V, dtype=np.float32).reshape(N, V)


def leave(*arguments: Any) -> Any:
    raise SystemExit(0)


# -- strategies -------------------------------------------------------------------------------


class Lazy(Strategy):
    """Each method returns what a test gives it, or what it should."""

    state: Mapping[str, State] = {"count": State((2,), "int64")}
    tables: Mapping[str, Table] = {"bias": Table((None,))}

    def __init__(self, **methods: Callable[..., Any]) -> None:
        super().__init__(NoConfig(), V)
        self.methods = methods

    def _call(self, method: str, *arguments: Any) -> Any:
        default = arguments[0] if len(arguments) == 1 else arguments
        return self.methods[method](*arguments) if method in self.methods else default

    def start(self, xp: Any, params: Any) -> Any:
        return self._call("start", {})

    def make_tables(self, tokenizer: Any, options: Any) -> Any:
        return self._call("make_tables", {})

    def apply(self, xp: Any, logits: Any, params: Any, state: Any, noise: Any, tables: Any) -> Any:
        return self._call("apply", logits, state)

    def accept(self, xp: Any, token: Any, logits: Any, params: Any, state: Any, tables: Any, new: Any) -> Any:
        return self._call("accept", state)


def run_position(logits: NDArray[np.float32] = LOGITS, **methods: Callable[..., Any]) -> NDArray[np.float32]:
    """Run a strategy at one position, as the stepwise generator does; return the logits."""
    chain = Chain([Link("lazy", Lazy(**methods), {})])
    params = chain.param_arrays(N)
    tables = chain.table_arrays(None)
    state = chain.initial_state(N, params)
    changed_logits, state, link_logits = chain.apply(logits, params, state, {}, tables)
    check_nan(logits, link_logits)
    chain.accept(np.zeros(N, np.int64), link_logits, params, state, tables, np.ones((N, 1), np.bool_))
    return changed_logits


def int_state(*shape: int) -> dict[str, NDArray[np.int64]]:
    return {"count": np.zeros(shape, np.int64)}


def test_good_strategy_passes() -> None:
    assert run_position() is LOGITS
    assert run_position(start=lambda states: int_state(N, 2)) is LOGITS


@pytest.mark.parametrize(
    ("method", "returns", "message"),
    [
        ("apply", lambda logits, state: None, "apply must return logits and states, not NoneType"),
        ("apply", lambda logits, state: logits, "apply must return logits and states, not ndarray"),
        ("apply", lambda logits, state: (logits.tolist(), state), r"apply must return float32 logits .*, not list"),
        ("apply", lambda logits, state: (logits.astype("f8"), state), r"shape \(3, 5\), not float64 \(3, 5\)"),
        ("apply", lambda logits, state: (logits[:, 1:], state), r"shape \(3, 5\), not float32 \(3, 4\)"),
        ("apply", lambda logits, state: (logits[:1], state), r"shape \(3, 5\), not float32 \(1, 5\)"),
        ("apply", lambda logits, state: (logits * np.float32("nan"), state), "the logits have NaN; mask with -inf"),
        ("apply", lambda logits, state: (logits, None), "apply must return states by name, not NoneType"),
        ("apply", lambda logits, state: (logits, {}), r"apply returned the state \[\], declared \['count'\]"),
        (
            "apply",
            lambda logits, state: (logits, int_state(N, 3)),
            r"state count is int64 \(3, 3\), declared int64 \(3",
        ),
        ("accept", lambda state: {**state, "more": 1}, r"accept returned the state \['count', 'more'\], declared"),
        ("accept", lambda state: {"count": 1}, r"after accept, state count is int, declared int64 \(3, 2\)"),
        ("accept", lambda state: {"count": state["count"] / 2}, "state count is float64"),
        ("start", lambda states: None, "start must return states by name, not NoneType"),
        ("start", lambda states: {"cuont": 1}, r"start returned the state \['count', 'cuont'\]"),
        ("start", lambda states: int_state(1, 2), r"after start, state count is int64 \(1, 2\), declared int64 \(3, 2"),
        ("make_tables", lambda tables: None, "make_tables must return tables by name, not NoneType"),
        ("make_tables", lambda tables: {"bais": 1}, r"makes a table 'bais' that it does not declare \(bias\)"),
        ("make_tables", lambda tables: {"bias": [[1], [2, 3]]}, r"the table lazy\.bias is no array of float32"),
        ("make_tables", lambda tables: {"bias": np.zeros((2, 2))}, r"lazy\.bias was made with the shape \(2, 2\)"),
        *((method, leave, r"ended the program \(SystemExit: 0\)") for method in ("apply", "accept", "start")),
        ("make_tables", leave, r"ended the program \(SystemExit: 0\)"),
    ],
)
def test_strategy_is_checked(method: str, returns: Callable[..., Any], message: str) -> None:
    with pytest.raises(PluginError, match=message) as caught:
        run_position(**{method: returns})
    assert "lazy" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nan_of_the_model_is_not_the_fault_of_a_link() -> None:
    logits = LOGITS.copy()
    logits[1, 2] = np.nan
    assert run_position(logits) is logits


def test_nan_at_a_late_position_is_noticed_before_it_is_drawn() -> None:
    calls: list[int] = []

    def apply(logits: NDArray[np.float32], state: Any) -> Any:
        calls.append(len(calls))
        return logits * np.float32("nan" if len(calls) > 40 else 1), state

    link, tables = Link("late", Lazy(apply=apply), {}), {"late": {"bias": np.ones(1, np.float32)}}
    model = types.SimpleNamespace(
        initial=lambda rows: (), advance=lambda tokens, state: (np.zeros((1, 1, V), np.float32), state)
    )
    bundle = Bundle("model", TokenizerMeta("byte", {}), [b"a", b"b", b"c", b"d", b"e"], [], 0, [], {})
    request = Request([np.empty(0, np.int64)], [(0, 0)], Chain([link]), {"late": {}}, tables, max_tokens=50)
    chunks = generate_stepwise(model, bundle, request)
    for _ in range(40):
        next(chunks)
    with pytest.raises(PluginError, match="the link late: the logits have NaN"):
        next(chunks)


def test_interrupt_in_a_strategy_gets_through() -> None:
    def interrupt(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    for method in ("apply", "accept", "start", "make_tables"):
        with pytest.raises(KeyboardInterrupt):
            run_position(**{method: interrupt})


# -- samplers ---------------------------------------------------------------------------------


class Parrot:
    """An opened sampler that gives a test's chunks."""

    bundle = Bundle("model", TokenizerMeta("byte", {}), [b"a", b"b"], [], 0, [], {})
    device = "nothing"

    def __init__(self, chunks: Any) -> None:
        self.chunks = chunks

    def generate(self, request: Request) -> Any:
        return self.chunks() if callable(self.chunks) else self.chunks


def write(chunks: Any) -> str:
    [text], pieces = generate(Parrot(chunks), Chain([]), primes=[np.empty(0, np.int64)], seed=0, length=2)
    for _ in pieces:
        pass
    return text.text


def make_chunk(tokens: Any = None, logprobs: Any = None, finish: Any = ("running",)) -> Chunk:
    return Chunk(
        np.array([[0], [1]]) if tokens is None else tokens,
        np.zeros((2, 1), np.float32) if logprobs is None else logprobs,
        finish,
    )


def test_good_chunks_pass() -> None:
    assert write([make_chunk()]) == "ab"
    assert write([make_chunk(np.array([[-1], [1]])), make_chunk()]) == "ba"


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        (None, "generate must return an iterator over chunks, not NoneType"),
        ([5], "generate must give chunks, not int"),
        ([make_chunk([[0], [1]])], r"the tokens of a chunk must be whole numbers \[K, 1\], not list"),
        ([make_chunk(np.zeros((2, 1)))], r"whole numbers \[K, 1\], not float64 \(2, 1\)"),
        ([make_chunk(np.zeros((2, 3), np.int64))], r"whole numbers \[K, 1\], not int64 \(2, 3\)"),
        ([make_chunk(np.array([[0], [2]]))], "a chunk has tokens from 0 to 2; expected -1, or 0 to 1"),
        ([make_chunk(np.array([[-2], [0]]))], "a chunk has tokens from -2 to 0"),
        ([make_chunk(logprobs=[[0.0], [0.0]])], r"the logprobs of a chunk must be floats of shape \(2, 1\), not list"),
        ([make_chunk(logprobs=np.zeros((1, 1)))], r"floats of shape \(2, 1\), not float64 \(1, 1\)"),
        ([make_chunk(finish=[])], "a word for each of the 1 rows"),
        ([make_chunk(finish=None)], "a word for each of the 1 rows"),
        ([make_chunk(finish=["done"])], "a chunk has the finish 'done'; expected one of running, stop, masked, length"),
        (leave, r"ended the program \(SystemExit: 0\)"),
        (map(leave, [0]), r"ended the program \(SystemExit: 0\)"),
    ],
)
def test_chunks_are_checked(chunks: Any, message: str) -> None:
    with pytest.raises(PluginError, match=rf"^the sampler .*test_handover\.Parrot.*{message}"):
        write(chunks)


def test_sampler_is_closed_when_its_chunk_is_refused() -> None:
    closed: list[bool] = []

    def chunks() -> Iterator[Any]:
        try:
            yield make_chunk(finish=["done"])
        finally:
            closed.append(True)

    with pytest.raises(PluginError):
        write(chunks)
    assert closed == [True]


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.zeros((1, 1, 2)), "not float64 "),
        (np.zeros((1, 1, 3), np.float32), "not float32 "),
        (np.zeros((1, 2), np.float32), "not float32 "),
        (None, "not NoneType"),
    ],
)
def test_logits_of_a_sampler_are_checked(logits: Any, message: str) -> None:
    model = types.SimpleNamespace(initial=lambda rows: (), advance=lambda tokens, state: (logits, state))
    request = Request([np.empty(0, np.int64)], [(0, 0)], Chain([]), {}, max_tokens=3)
    with pytest.raises(PluginError, match=rf"advance must return float32 logits of shape \(1, 1, 2\), {message}"):
        list(generate_stepwise(model, Parrot.bundle, request))


# -- tokenizers -------------------------------------------------------------------------------


def tokenizer(**members: Any) -> Any:
    """Return a tokenizer of two symbols, with other members where a test gives some."""
    good = {"vocab_size": 2, "unknown": None, "token_bytes": lambda token: b"x", "state": lambda: {"words": ("x", 1)}}
    unused = {"encode": list, "unknown_at": list}
    return types.SimpleNamespace(**{**unused, **good, **members})


def test_what_is_no_tokenizer() -> None:
    for returned in (None, 0.5, "words"):
        with pytest.raises(PluginError, match=rf"^the tokenizer 'words' made {type(returned).__name__}, which lacks"):
            check_tokenizer("words", cast(Any, returned))


def test_good_tokenizer_passes() -> None:
    check_tokenizer("words", tokenizer())
    check_tokenizer("words", tokenizer(vocab_size=np.int64(2), unknown=1))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"vocab_size": 0}, "has vocab_size 0; expected a whole number from 1"),
        ({"vocab_size": 2.0}, r"has vocab_size 2\.0"),
        ({"vocab_size": True}, "has vocab_size True"),
        ({"vocab_size": None}, "has vocab_size None"),
        ({"token_bytes": lambda token: "x"}, r"token_bytes\(0\) returned str, expected bytes"),
        ({"unknown": 2}, "has the unknown token 2"),
        ({"state": lambda: None}, r"state\(\) returned NoneType, expected a dict"),
        ({"state": lambda: {"a": [float("nan")]}}, r"state\(\) is not standard JSON \(ValueError"),
        ({"state": lambda: {"a": b"x"}}, r"state\(\) is not standard JSON \(TypeError"),
        ({"state": lambda: {"a": "\ud800"}}, r"state\(\) is not standard JSON \(UnicodeEncodeError"),
        ({"state": lambda: {"a": [{1: "x"}]}}, r"state\(\) is not standard JSON \(a key of a dict is no text\)"),
    ],
)
def test_tokenizer_is_checked(members: dict[str, Any], message: str) -> None:
    with pytest.raises(PluginError, match=rf"^the tokenizer 'words':? {message}"):
        check_tokenizer("words", tokenizer(**members))


@pytest.mark.parametrize("ids", [[0, 5], [-1], [0.5], [[1]], "ab", None])
def test_ids_are_checked(ids: Any) -> None:
    with pytest.raises(PluginError, match="the tokenizer 'words' must encode a text as whole numbers from 0 to 4"):
        check_ids("words", ids, V)


# -- models -----------------------------------------------------------------------------------


def model(*specs: Any, states: Any = None) -> Any:
    """Return a model with some states, and arrays in the place of tensors."""

    def initial_state(rows: int) -> Any:
        return tuple(np.zeros(spec.with_batch(rows), spec.dtype) for spec in specs) if states is None else states

    return types.SimpleNamespace(state_spec=specs, initial_state=initial_state)


def test_good_model_passes() -> None:
    check_model("gru", model(StateSpec("h", (None, 3)), StateSpec("sums", (2, None), "int64")))
    check_model("gru", model())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (types.SimpleNamespace(), "the state_spec of the model 'gru' is wrong: AttributeError"),
        (types.SimpleNamespace(state_spec=None), "must be a tuple of StateSpec, not None"),
        (model(("h", (None, 3)), states=()), "must be a tuple of StateSpec, not"),
        (model(StateSpec("logits", (None, 3))), "a state may not be called 'logits'"),
        (model(StateSpec("h out", (None, 3))), "a state may not be called 'h out'"),
        (model(StateSpec("h", (None, 3)), StateSpec("h", (None, 3))), "one state stands in it twice: h, h"),
        (model(StateSpec("h", (3,)), states=()), "state 'h' must have one batch axis"),
        (model(StateSpec("h", (None, 0))), r"state 'h' has the shape \[None, 0\]"),
        (model(StateSpec("h", (None, 3), "float64")), "state type 'float64'"),
        (model(StateSpec(5, (None, 3)), states=()), "is wrong: TypeError"),  # type: ignore[arg-type]
        (model(StateSpec("h", 5), states=()), "is wrong: TypeError"),  # type: ignore[arg-type]
        (model(StateSpec("h", (None, 3)), states=()), "must return a tuple of 1 tensors"),
        (model(StateSpec("h", (None, 3)), states=(5,)), "must return tensors: AttributeError"),
        (
            model(StateSpec("h", (None, 3)), states=(np.zeros((3, 2), np.float32),)),
            r"returned h float32 \(3, 2\); its state_spec declares h float32 \(2, 3\)",
        ),
        (model(StateSpec("h", (None, 3)), states=(np.zeros((2, 3)),)), r"returned h float64 \(2, 3\)"),
    ],
)
def test_model_is_checked(wrong: Any, message: str) -> None:
    with pytest.raises(PluginError, match=message) as caught:
        check_model("gru", wrong)
    assert "the model 'gru'" in str(caught.value)
