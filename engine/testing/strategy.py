"""The check for strategies, whose rules are in docs/strategies.md.

It runs the strategy on NumPy as gentext does. With array-api-strict installed it also rejects functions that are not in
the Array API; with the ``train`` extra it compiles the strategy, and compares what both write.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gentext.components.links import check_nan, neutral_table
from gentext.config import config_class
from gentext.errors import PluginError, PrimeError, reason
from gentext.sampling.chain import Chain, Link
from gentext.sampling.draw import draw_tokens
from gentext.strategy import Param, Strategy, declaration_problem

#: Rows of the batches that a strategy is checked with, and positions of each.
ROWS, STEPS = 5, 12
#: Combinations of the other parameters' ends with which a link that is turned off is run, at most.
MAX_CORNERS = 64


def check_strategy(cls: type[Strategy], config: Any = None, vocab_size: int = 13, seed: int = 0) -> None:
    """Check every rule that can be checked by running; AssertionError names the first that is broken.

    ``config`` defaults to ``cls.Config()``. A warning says where the strategy was not compiled, which needs the
    ``train`` extra.
    """
    check_on_numpy(cls, config, vocab_size, seed)
    if not check_as_compiled(cls, config, seed):
        warnings.warn(
            f"{cls.__name__} was not compiled: that needs pip install 'gentext[train]'", UserWarning, stacklevel=2
        )


def check_as_compiled(cls: type[Strategy], config: Any = None, seed: int = 0, name: str | None = None) -> bool:
    """Check that the strategy does the same compiled and in NumPy; return False without the ``train`` extra.

    Messages call it by its ``name``, by default that of the class.
    """
    if any(importlib.util.find_spec(module) is None for module in ("onnx", "spox")):
        return False
    from gentext.testing.compiled import STEPS_BY_VOCAB_SIZE, check_compiled

    for vocab_size, steps in STEPS_BY_VOCAB_SIZE.items():
        strategy = cls(config_class(cls)() if config is None else config, vocab_size)
        defaults = {param_name: param.initial for param_name, param in strategy.params.items()}
        link = Link(name or cls.__name__.lower(), strategy, defaults)
        settings = list(_param_settings(strategy, np.random.default_rng(seed)))[-2:]  # the upper ends, and mixed ones
        params = {
            param_name: np.concatenate([arrays[param_name] for arrays in settings]) for param_name in strategy.params
        }
        tokenizer = _LetterTokenizer(vocab_size)
        try:
            strategy.make_tables(tokenizer, strategy.config)
        except PrimeError:  # its options name characters that so few symbols do not have
            continue
        try:
            check_compiled(link, params, tokenizer, steps, seed)
        except AssertionError as error:
            if vocab_size > 2:
                raise
            raise AssertionError(f"with 2 symbols, though not with more: {error}") from error
    return True


def check_on_numpy(cls: type[Strategy], config: Any = None, vocab_size: int = 13, seed: int = 0) -> None:
    """Check every rule that can be checked without compiling."""
    strategy = cls(config_class(cls)() if config is None else config, vocab_size)
    link = Link(cls.__name__.lower(), strategy, {name: param.initial for name, param in strategy.params.items()})
    if problem := declaration_problem(strategy):
        raise AssertionError(f"{link.name}: {problem}")
    for params in _param_settings(strategy, np.random.default_rng(seed)):
        batch_results = _run_link(link, params, slice(None), seed)
        is_repeated = all(map(np.array_equal, batch_results, _run_link(link, params, slice(None), seed)))
        assert is_repeated, (
            f"{link.name}: gives other logits the second time; draw no random numbers but those of noise, and keep "
            f"nothing in the strategy"
        )
        for row in range(ROWS):
            row_results = _run_link(link, params, slice(row, row + 1), seed)
            for step, (batch_logits, row_logits) in enumerate(zip(batch_results, row_results, strict=True)):
                is_equal = np.array_equal(batch_logits[row : row + 1], row_logits, equal_nan=True)
                assert is_equal, f"row {row} differs at step {step} when it runs alone: never mix rows (axis 0)"
    _check_off(link, seed)
    if importlib.util.find_spec("array_api_strict"):
        _check_namespace(link, seed)


class _LetterTokenizer:
    """A tokenizer for `make_tables`: newline, then one letter a symbol."""

    unknown: int | None = None

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self._symbols = "\n" + "".join(chr(ord("a") + index) for index in range(vocab_size - 1))

    def encode(self, text: str) -> NDArray[np.int64]:
        if unknown := self.unknown_at(text):
            raise PrimeError(f"{text[unknown[0]]!r} is not among the {self.vocab_size} symbols")
        return np.array([self._symbols.index(character) for character in text], np.int64)

    def unknown_at(self, text: str) -> list[int]:
        return [position for position, character in enumerate(text) if character not in self._symbols]

    def token_bytes(self, token: int) -> bytes:
        return self._symbols[token].encode()

    def state(self) -> dict[str, Any]:
        return {}


def _param_settings(strategy: Strategy, rng: np.random.Generator) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield parameter arrays: the defaults, the ends of each range, and different values in each row."""
    for choice in ("initial", "low", "high", "mixed"):
        arrays: dict[str, NDArray[Any]] = {}
        for name, param in strategy.params.items():
            low, high = _param_ends(param)
            numbers = {
                "initial": np.full(ROWS, param.initial),
                "low": np.full(ROWS, low),
                "high": np.full(ROWS, high),
                "mixed": rng.uniform(low, min(high, low + 10), ROWS),
            }[choice]
            width = strategy.vocab_size if param.per_symbol else 1
            arrays[name] = np.repeat(numbers.astype(param.dtype)[:, None], width, axis=1)
        yield arrays


def _param_ends(param: Param) -> tuple[float, float]:
    """Return the ends of a parameter's range; where it has none, a number near the neutral one."""
    low = param.low if np.isfinite(param.low) else param.neutral - 2
    return low, param.high if np.isfinite(param.high) else param.neutral + 2


def _make_logits(vocab_size: int, seed: int) -> NDArray[np.float32]:
    """Return [STEPS, ROWS, V]: row 1 has many ties, row 2 has every other symbol masked."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (STEPS, ROWS, vocab_size)).astype(np.float32)
    logits[:, 1] = np.round(logits[:, 1])
    logits[:, 2, ::2] = -np.inf
    return logits


def _run_link(
    link: Link,
    param_arrays: dict[str, NDArray[Any]],
    rows: slice,
    seed: int,
    tables: dict[str, NDArray[Any]] | None = None,
) -> list[NDArray[Any]]:
    """Run some rows for all steps, with read-only inputs, and return the logits after the link at each step.

    The tokens of the first half of the steps are forced, those of the second half are drawn. ``tables`` are used in
    place of those that the link makes.
    """
    chain = Chain([link])
    params = {link.name: _readonly_copies({name: array[rows] for name, array in param_arrays.items()})}
    with _explain_broken_rule(link):
        all_tables = chain.table_arrays(_LetterTokenizer(link.strategy.vocab_size))
    link_tables = {link.name: _readonly_copies(all_tables[link.name] if tables is None else tables)}
    logits = _make_logits(link.strategy.vocab_size, seed)[:, rows]
    row_count = logits.shape[1]
    with _explain_broken_rule(link):
        state = chain.initial_state(row_count, params)
    forced_tokens = np.random.default_rng(seed + 1).integers(0, link.strategy.vocab_size, (STEPS, ROWS))[:, rows]
    noise = {
        name: np.stack([chain.noise(seed, stream, 0, STEPS)[name] for stream in range(ROWS)[rows]], axis=1)
        for name in chain.noise(seed, 0, 0, 1)
    }
    logits_of_steps = []
    for step in range(STEPS):
        readonly_inputs = _readonly_copies({"logits": logits[step]})
        step_noise = _readonly_copies({name: numbers[step] for name, numbers in noise.items()})
        state = {link.name: _readonly_copies(state[link.name])}
        with _explain_broken_rule(link):
            link_logits, state, logits_by_link = chain.apply(
                readonly_inputs["logits"], params, state, step_noise, link_tables
            )
            check_nan(logits[step], logits_by_link)
        is_unmasked = (logits[step] == -np.inf) & (link_logits > -np.inf)
        assert not is_unmasked.any(), (
            f"{link.name}: a masked symbol came back; links mask or reweight, they never unmask"
        )

        drawn_tokens, _ = draw_tokens(link_logits, noise["draw"][step])
        is_new = np.full((row_count, 1), step >= STEPS // 2)
        readonly_inputs = _readonly_copies(
            {"token": np.where(is_new[:, 0], drawn_tokens, forced_tokens[step]).astype(np.int64)}
        )
        with _explain_broken_rule(link):
            next_state = chain.accept(readonly_inputs["token"], logits_by_link, params, state, link_tables, is_new)
        _check_ends(link, state[link.name], next_state[link.name], is_new[:, 0])
        state = next_state
        logits_of_steps.append(link_logits)
    return logits_of_steps


def _check_ends(
    link: Link, state: Mapping[str, NDArray[Any]], next_state: Mapping[str, NDArray[Any]], is_new: NDArray[np.bool_]
) -> None:
    """Check the state by which a link ends rows, before and after the token of a position was accepted."""
    name = link.strategy.ends
    if name is None:
        return
    assert not (state[name] & ~next_state[name]).any(), (
        f"{link.name}: {name} becomes false again; a row that has ended stays so"
    )
    assert not (next_state[name] & ~is_new).any(), f"{link.name}: {name} is true in the prime, which never ends a row"


@contextlib.contextmanager
def _explain_broken_rule(link: Link) -> Iterator[None]:
    """Turn gentext's and NumPy's errors about a strategy that breaks a rule into an AssertionError that names it."""
    try:
        yield
    except PluginError as error:
        raise AssertionError(str(error)) from error
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        raise AssertionError(f"{link.name}: changes an array in place; return a new one") from error


def _readonly_copies(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return copies of arrays that raise ValueError when they are changed in place."""
    copies = {name: np.array(array) for name, array in arrays.items()}
    for copy in copies.values():
        copy.flags.writeable = False
    return copies


def _check_off(link: Link, seed: int) -> None:
    """A link that is turned off must change nothing, bit for bit, with each other parameter at either end."""
    strategy = link.strategy
    switches = strategy.switches
    if not switches:
        return
    neutral_values = {name: spec.neutral for name, spec in switches.items()}
    tables = None if strategy.params else {name: neutral_table(spec) for name, spec in strategy.tables.items()}
    ends = {name: _param_ends(param) for name, param in strategy.params.items() if name not in switches}
    corners = [
        *itertools.islice(itertools.product(*ends.values()), MAX_CORNERS),
        tuple(high for _, high in ends.values()),
    ]
    for corner in corners:
        numbers = neutral_values | dict(zip(ends, corner, strict=True))
        params = {
            name: np.full((ROWS, strategy.vocab_size if param.per_symbol else 1), numbers[name], param.dtype)
            for name, param in strategy.params.items()
        }
        for step, link_logits in enumerate(_run_link(link, params, slice(None), seed, tables)):
            is_unchanged = np.array_equal(link_logits, _make_logits(strategy.vocab_size, seed)[step])
            assert is_unchanged, f"{link.name}: changes the logits at its neutral values {numbers}"


def _check_namespace(link: Link, seed: int) -> None:
    """Run one step on array-api-strict, which has only the functions of the standard."""
    import array_api_strict as strict

    def to_strict(arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
        return {name: strict.asarray(array) for name, array in arrays.items()}

    strategy, chain = link.strategy, Chain([link])
    arrays = chain.param_arrays(ROWS)
    params = to_strict(arrays[link.name])
    tables = to_strict(chain.table_arrays(_LetterTokenizer(link.strategy.vocab_size))[link.name])
    noise = strict.zeros((ROWS, strategy.uniforms), dtype=strict.float32) if strategy.uniforms else None
    logits = strict.asarray(_make_logits(strategy.vocab_size, seed)[0])
    token, is_new = strict.zeros((ROWS,), dtype=strict.int64), strict.ones((ROWS, 1), dtype=strict.bool)
    try:
        with np.errstate(all="ignore"):
            state = to_strict(chain.initial_state(ROWS, arrays)[link.name])
            state |= to_strict(strategy.start(strict, params))
            link_logits, new_state = strategy.apply(strict, logits, params, state, noise, tables)
            strategy.accept(strict, token, link_logits, params, new_state, tables, is_new)
    except Exception as error:  # AttributeError, TypeError, ValueError and others, depending on the function
        raise AssertionError(f"{link.name}: uses what the Array API does not have ({reason(error)})") from error
