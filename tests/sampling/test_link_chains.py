"""Any chain of built-in links with any parameters: no NaN, no empty choice, rows apart, compiled as stepped.

There are 20 random chains, and 10 in ``make test``; ``python -m pytest tests/sampling/test_link_chains.py -s
--chains 2000`` tries more, and prints how many draws differ. The compiled chain is a graph of its own, without a
network. It is fed with the states of the chain in NumPy at every position, so that one draw that differs does not
change those after it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import spox
import spox.opset.ai.onnx.v21 as op
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from spox import Tensor, Var
from test_link_options import OPTIONS

from gentext.export.generator.position import build_draw
from gentext.export.strategies.call import call_strategy
from gentext.export.strategies.namespace import xp
from gentext.export.strategies.traced import Traced
from gentext.manager import host
from gentext.plugins.tokenizers.char import CharConfig, CharTokenizer
from gentext.sampling.chain import Chain, LinkArraysDict, build_chain
from gentext.sampling.configured_chain import builtin_strategies
from gentext.sampling.draw import draw_tokens
from gentext.strategy import Param

V, ROWS, STEPS = 31, 400, 13
SYMBOLS = "\n" + "".join(chr(ord("a") + index) for index in range(V - 1))
BUILTINS = builtin_strategies(host().registry)
#: In 100,000 draws two may differ, where rounding moves a symbol over a threshold.
MAX_DIFFERENT = 2 * max(1, ROWS * STEPS // 100_000)


def random_numbers(rng: np.random.Generator, param: Param) -> NDArray[Any]:
    """Return a number for each row: neutral, default, at an end of the range, or anywhere within 4 of the lower end."""
    low = max(param.low, -3.0)
    high = min(param.high, low + 4)
    ends = [end for end in (param.low, param.high) if np.isfinite(end)]
    choices = [param.neutral, param.initial, *ends, *rng.uniform(low, high, 6)]
    return rng.choice(choices, (ROWS, 1)).astype(param.dtype)


def random_logits(rng: np.random.Generator) -> NDArray[np.float32]:
    """Return logits [ROWS, V]: of several sizes, with ties, and with many masked or all but one."""
    logits = rng.normal(0, 3, (ROWS, V)) * rng.choice([0.1, 1, 1, 10], (ROWS, 1))
    logits = np.where(rng.random((ROWS, 1)) < 0.3, np.round(logits), logits)
    logits = np.where(rng.random((ROWS, V)) < rng.choice([0, 0, 0.5, 0.97], (ROWS, 1)), -np.inf, logits)
    return logits.astype(np.float32)


def flat(arrays: Any) -> dict[str, Any]:
    return {f"{link}.{name}": array for link, by_name in arrays.items() for name, array in by_name.items()}


def compile_chain(chain: Chain, feeds: dict[str, NDArray[Any]]) -> onnxruntime.InferenceSession:
    """Return the graph of a chain, the draw, and the update of the links' states, for one position."""
    tables = {f"{link.name}.{name}" for link in chain for name in link.strategy.tables}
    inputs: dict[str, Var] = {
        name: spox.argument(Tensor(array.dtype, array.shape if name in tables else ("N", *array.shape[1:])))
        for name, array in feeds.items()
    }

    def traced(link: Any, names: Any, *, shared: bool = False) -> dict[str, Traced]:
        return {name: Traced(inputs[f"{link.name}.{name}"], shared=shared) for name in names}

    logits, outputs, link_arguments = inputs["logits"], {}, {}
    for link in chain:
        strategy = link.strategy
        params, link_tables = traced(link, strategy.params), traced(link, strategy.tables, shared=True)
        noise = Traced(inputs[f"noise.{link.name}"]) if strategy.uniforms else None
        returned = call_strategy(
            link, "apply", xp, Traced(logits), params, traced(link, strategy.state), noise, link_tables
        )
        logits = returned[0].var
        link_arguments[link.name] = (returned[0], params, returned[1], link_tables)
    outputs = {"final": op.identity(logits)}
    outputs["drawn"], _ = build_draw(logits, op.cast(inputs["noise.draw"], to=np.float64))
    for link in chain:
        new_states = link_arguments[link.name][2]
        if link.strategy.accepts:
            link_logits, params, states, link_tables = link_arguments[link.name]
            new_states = call_strategy(
                link,
                "accept",
                xp,
                Traced(inputs["token"]),
                link_logits,
                params,
                states,
                link_tables,
                Traced(inputs["new"]),
            )
        outputs |= {f"{link.name}.{name}.next": op.identity(state.var) for name, state in new_states.items()}
    model = spox.build(inputs, outputs)
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), session_options)


def select(arrays: LinkArraysDict, rows: Any) -> LinkArraysDict:
    return {link: {name: array[rows] for name, array in by_name.items()} for link, by_name in arrays.items()}


def test_any_chain(pytestconfig: pytest.Config) -> None:
    differences: list[int] = []

    @examples(pytestconfig.getoption("--chains"))
    @given(st.permutations(BUILTINS), st.integers(1, len(BUILTINS)), st.integers(0, 2**32 - 1))
    def check(names: list[str], size: int, seed: int) -> None:
        names = names[:size]
        if {"mirostat", "adaptive_p"} <= {*names}:  # at most one link stands last
            names.remove("mirostat" if seed % 2 else "adaptive_p")
        names.sort(key=lambda name: name != "match")  # it must stand first
        differences.append(check_chain(names, seed))

    check()
    print(f"{len(differences)} chains, {len(differences) * ROWS * STEPS:,} draws, {sum(differences)} differ")


def check_chain(names: list[str], seed: int) -> int:
    """Run a chain with random options, parameters and logits; return how many draws differ when it is compiled."""
    rng = np.random.default_rng(seed)
    chain = build_chain(host().registry, names, V)
    chain = chain.with_options({name: OPTIONS[name] for name in chain.names if name in OPTIONS and rng.random() < 0.7})
    tables = chain.table_arrays(CharTokenizer.build([SYMBOLS], CharConfig()))
    params = {
        link.name: {name: random_numbers(rng, param) for name, param in link.strategy.params.items()} for link in chain
    }
    states, session, few = chain.initial_state(ROWS, params), None, rng.choice(ROWS, 3, replace=False)
    different = 0
    for step in range(STEPS):
        logits = random_logits(rng)
        columns = {link.name: link.strategy.uniforms for link in chain if link.strategy.uniforms} | {"draw": 1}
        noise = {name: rng.random((ROWS, count), np.float32) for name, count in columns.items()}
        after, next_states, outputs = chain.apply(logits, params, states, noise, tables)
        assert not any(np.isnan(one).any() for one in outputs.values()), chain.names
        had_choice, has_choice = (logits > -np.inf).any(axis=1), (after > -np.inf).any(axis=1)
        assert (had_choice == has_choice).all(), chain.names
        alone = chain.apply(logits[few], select(params, few), select(states, few), select({"": noise}, few)[""], tables)
        assert np.array_equal(alone[0], after[few]), chain.names

        token = np.where(rng.random(ROWS) < 0.2, rng.integers(0, V, ROWS), draw_tokens(after, noise["draw"])[0])
        new = np.full((ROWS, 1), step > 2)
        feeds = flat(params) | flat(states) | flat(tables) | {f"noise.{name}": array for name, array in noise.items()}
        feeds |= {"logits": logits, "token": token, "new": new}
        session = session or compile_chain(chain, feeds)
        read = {one.name for one in session.get_inputs()}
        results = dict(
            zip(
                [one.name for one in session.get_outputs()],
                session.run(None, {name: array for name, array in feeds.items() if name in read}),
                strict=True,
            )
        )
        assert not np.isnan(results["final"]).any(), chain.names
        assert ((results["final"] > -np.inf).any(axis=1) == had_choice).all(), chain.names
        different += int((results["drawn"] != draw_tokens(after, noise["draw"])[0])[had_choice].sum())
        states = chain.accept(token, outputs, params, next_states, tables, new)
    assert different <= MAX_DIFFERENT, f"{different} draws of {chain.names} differ"
    return different
