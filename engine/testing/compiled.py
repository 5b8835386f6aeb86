"""Compares a strategy that is compiled into a graph with the same strategy in NumPy, for `check_strategy`. (onnx)"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from gentext.console import say
from gentext.errors import reason
from gentext.export.strategies.check import link_graph
from gentext.sampling.chain import Chain, Link
from gentext.sampling.draw import draw_tokens
from gentext.testing.rules import report_broken_rules, require

#: A vocabulary as large as those of subword tokenizers, and the smallest that there can be; the positions of each.
STEPS_BY_VOCAB_SIZE = {50_000: 2, 2: 12}
#: The share of draws that may differ between NumPy and the graph, which round sums in other orders.
MAX_SHARE_OF_DRAWS = 2e-5

Arrays = Mapping[str, NDArray[Any]]


@dataclasses.dataclass
class _Cost:
    """Seconds that all positions took."""

    in_numpy: float = 0.0
    compiled: float = 0.0


class _CompiledLink:
    """A link as a graph, which onnxruntime runs for one position at a time."""

    def __init__(self, link: Link, params: Arrays, tables: Arrays) -> None:
        self._link = link
        self._options = {f"param.{name}": array for name, array in params.items()}
        self._options |= {f"table.{name}": array for name, array in tables.items()}
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone
        self._session = onnxruntime.InferenceSession(
            link_graph(link).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._output_names = [port.name for port in self._session.get_outputs()]

    def run(self, state: Arrays, position: Arrays) -> dict[str, NDArray[Any]]:
        """Return the outputs by name, see `link_graph`. ``position`` has logits, token, new and noise."""
        feeds = {**self._options, **position, **{f"state.{name}": array for name, array in state.items()}}
        input_names = {port.name for port in self._session.get_inputs()}
        try:
            outputs = self._session.run(None, {name: feeds[name] for name in input_names})
        except Exception as error:  # onnxruntime has a class for each status, with no common base
            raise AssertionError(f"{self._link.name}: onnxruntime cannot run it compiled ({reason(error)})") from error
        return dict(zip(self._output_names, outputs, strict=True))


def check_compiled(link: Link, params: Arrays, tokenizer: Any, steps: int, seed: int) -> None:
    """Check that a link does the same compiled and in NumPy, on the same tokens.

    :param params: arrays [N, 1] or [N, V] of each parameter, with other numbers in each row.
    :param tokenizer: for the link's tables; it has as many symbols as the link.
    Raises AssertionError where so many draws would differ that it is not rounding, and with the author's line for what
    cannot be compiled.
    """
    rows = len(next(iter(params.values()), np.zeros(4)))
    with report_broken_rules():
        tables = Chain([link]).table_arrays(tokenizer)[link.name]
        compiled, cost = _CompiledLink(link, params, tables), _Cost()
        differences = list(_differences(link, compiled, params, tables, (steps, rows), seed, cost))
    worst = int(np.argmax([difference.max() for difference in differences]))
    row = int(differences[worst].argmax())
    numbers = {name: array[row, 0].item() for name, array in params.items()}
    share = float(np.mean(differences))
    require(
        share <= MAX_SHARE_OF_DRAWS,
        f"{link.name}: compiled and in NumPy, {share:.2g} of the draws would differ, at most {MAX_SHARE_OF_DRAWS:g} "
        f"may; most at position {worst} with {numbers} and {link.strategy.vocab_size} symbols. apply and accept must "
        f"compute the same with every xp",
    )
    in_numpy, in_graph = (f"{1000 * seconds / steps:.3g} ms" for seconds in (cost.in_numpy, cost.compiled))
    say(
        f"{link.name}: {in_numpy} a position in NumPy, {in_graph} compiled, for {rows} rows of "
        f"{link.strategy.vocab_size:,} symbols"
    )


def _differences(
    link: Link,
    compiled: _CompiledLink,
    params: Arrays,
    tables: Arrays,
    shape: tuple[int, int],
    seed: int,
    cost: _Cost,
) -> Iterator[NDArray[np.float64]]:
    """Yield for each position the share of draws [N] that differ, where both ways read what NumPy has drawn."""
    steps, rows = shape
    chain = Chain([link])
    chain_params, chain_tables = {link.name: params}, {link.name: tables}
    rng = np.random.default_rng(seed)
    noise = [chain.noise(seed, row, 0, steps) for row in range(rows)]
    state = chain.initial_state(rows, chain_params)
    compiled_state: dict[str, NDArray[Any]] = dict(state[link.name])
    for step in range(steps):
        logits = rng.normal(0, 3, (rows, link.strategy.vocab_size)).astype(np.float32)
        logits[1] = np.round(logits[1])  # with equal ones
        logits[2, 1::2] = -np.inf
        step_noise = {name: np.stack([numbers[name][step] for numbers in noise]) for name in noise[0]}
        began_at = time.perf_counter()
        link_logits, state, logits_by_link = chain.apply(logits, chain_params, state, step_noise, chain_tables)
        cost.in_numpy += time.perf_counter() - began_at
        tokens, _ = draw_tokens(link_logits, step_noise["draw"])
        is_new = np.full((rows, 1), step > 0)
        state = chain.accept(tokens, logits_by_link, chain_params, state, chain_tables, is_new)
        position: dict[str, NDArray[Any]] = {"logits": logits, "token": tokens, "new": is_new}
        position |= {"noise": step_noise[link.name]} if link.name in step_noise else {}
        if step == 0:
            outputs = compiled.run(compiled_state, position)
            compiled_state |= {
                name.removeprefix("start."): array for name, array in outputs.items() if name.startswith("start.")
            }
        began_at = time.perf_counter()
        outputs = compiled.run(compiled_state, position)
        cost.compiled += time.perf_counter() - began_at
        compiled_state = {name: outputs[f"state.{name}_out"] for name in link.strategy.state}
        yield np.abs(_probabilities(link_logits) - _probabilities(outputs["logits_out"])).sum(axis=1) / 2


def _probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the probabilities [N, V] of logits; zeros where all symbols are masked."""
    largest = np.maximum(logits.max(axis=1, keepdims=True), np.finfo(np.float32).min)
    weights = np.exp(logits.astype(np.float64) - largest)
    probabilities: NDArray[np.float64] = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
    return probabilities
