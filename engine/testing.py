"""A test kit for authors of strategies: ``check_strategy(MyStrategy)`` in a test of your own.

It runs the strategy on NumPy as gentext does and raises AssertionError with the rule that is
broken: see docs/strategies.md. With array-api-strict installed it also rejects functions that
are not in the Array API.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gentext.chain import Chain, Link, draw
from gentext.config import config_class
from gentext.errors import reason
from gentext.strategy import Strategy

ROWS, STEPS = 5, 12


def check_strategy(cls: type[Strategy], config: Any = None, vocab_size: int = 13, seed: int = 0) -> None:
    """Check every rule that can be checked by running. ``config`` defaults to ``cls.Config()``."""
    strategy = cls(config_class(cls)() if config is None else config, vocab_size)
    link = Link(cls.__name__.lower(), strategy, {n: p.initial for n, p in strategy.params.items()})
    for values in _settings(strategy, np.random.default_rng(seed)):
        together = _run(link, values, slice(None), seed)
        for row in range(ROWS):
            alone = _run(link, values, slice(row, row + 1), seed)
            for step, (many, one) in enumerate(zip(together, alone, strict=True)):
                same = np.array_equal(many[row : row + 1], one, equal_nan=True)
                assert same, f"row {row} differs at step {step} when it runs alone: never mix rows (axis 0)"
    _check_neutral(link, seed)
    if importlib.util.find_spec("array_api_strict"):
        _check_namespace(link, seed)


class _Letters:
    """A tokenizer for `make_tables`: newline, then one letter a symbol."""

    unknown: int | None = None

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self._symbols = "\n" + "".join(chr(ord("a") + index) for index in range(vocab_size - 1))

    def encode(self, text: str) -> NDArray[np.int64]:
        return np.array([self._symbols.index(character) for character in text], np.int64)

    def unknown_at(self, text: str) -> list[int]:
        return [at for at, character in enumerate(text) if character not in self._symbols]

    def token_bytes(self, token: int) -> bytes:
        return self._symbols[token].encode()

    def state(self) -> dict[str, Any]:
        return {}


def _settings(strategy: Strategy, rng: np.random.Generator) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield parameter arrays: the defaults, the ends of each range, and different values in each row."""
    for pick in ("initial", "low", "high", "mixed"):
        arrays: dict[str, NDArray[Any]] = {}
        for name, param in strategy.params.items():
            low = param.low if np.isfinite(param.low) else param.neutral - 2
            high = param.high if np.isfinite(param.high) else param.neutral + 2
            chosen = {
                "initial": np.full(ROWS, param.initial),
                "low": np.full(ROWS, low),
                "high": np.full(ROWS, high),
                "mixed": rng.uniform(low, min(high, low + 10), ROWS),
            }[pick]
            width = strategy.vocab_size if param.per_symbol else 1
            arrays[name] = np.repeat(chosen.astype(param.dtype)[:, None], width, axis=1)
        yield arrays


def _logits(vocab_size: int, seed: int) -> NDArray[np.float32]:
    """Return [STEPS, ROWS, V]: spread out, tied, and partly masked rows."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (STEPS, ROWS, vocab_size)).astype(np.float32)
    logits[:, 1] = np.round(logits[:, 1])  # many ties
    logits[:, 2, ::2] = -np.inf
    return logits


def _run(link: Link, values: dict[str, NDArray[Any]], rows: slice, seed: int) -> list[NDArray[Any]]:
    """Run some rows for all steps, with read-only inputs, and return the logits of each step."""
    chain = Chain([link])
    params = {link.name: {name: _frozen(array[rows]) for name, array in values.items()}}
    tables = chain.table_arrays(_Letters(link.strategy.vocab_size))
    logits = _logits(link.strategy.vocab_size, seed)[:, rows]
    count = logits.shape[1]
    state = chain.initial_state(count, params)
    forced = np.random.default_rng(seed + 1).integers(0, link.strategy.vocab_size, (STEPS, ROWS))[:, rows]
    noise = {
        name: np.stack([chain.noise(seed, s, 0, STEPS)[name] for s in range(ROWS)[rows]], axis=1)
        for name in chain.noise(seed, 0, 0, 1)
    }
    results = []
    for step in range(STEPS):
        state = {link.name: {name: _frozen(array) for name, array in state[link.name].items()}}
        with _told(link):
            out, state, outputs = chain.apply(
                _frozen(logits[step]), params, state, {n: _frozen(one[step]) for n, one in noise.items()}, tables
            )
        _check_result(link, logits[step], out, state[link.name])
        chosen, _ = draw(out, noise["draw"][step])
        new = np.full((count, 1), step >= STEPS // 2)
        token = np.where(new[:, 0], chosen, forced[step]).astype(np.int64)
        with _told(link):
            state = chain.accept(_frozen(token), outputs, params, state, tables, new)
        _check_result(link, logits[step], out, state[link.name])
        results.append(out)
    return results


@contextlib.contextmanager
def _told(link: Link) -> Iterator[None]:
    """Name the rule behind the error that NumPy raises where it is broken."""
    try:
        yield
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        raise AssertionError(f"{link.name}: changes an array in place; return a new one") from error


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    copy = np.array(array)
    copy.flags.writeable = False
    return copy


def _check_result(link: Link, given: NDArray[Any], out: Any, state: dict[str, Any]) -> None:
    what = f"{link.name}: apply must return float32 logits of shape {given.shape}"
    assert getattr(out, "dtype", None) == np.float32, f"{what}, not {getattr(out, 'dtype', type(out))}"
    assert out.shape == given.shape, f"{what}, not {out.shape}"
    assert not np.isnan(out).any(), f"{link.name}: the logits have NaN; mask with -inf"
    back = (given == -np.inf) & (out > -np.inf)
    assert not back.any(), f"{link.name}: a masked symbol came back; links mask or reweight, they never unmask"
    declared = link.strategy.state
    assert state.keys() == declared.keys(), f"{link.name}: state {sorted(state)}, declared {sorted(declared)}"
    for name, spec in declared.items():
        wanted = (given.shape[0], *spec.shape)
        found = (state[name].shape, str(state[name].dtype))
        assert found == (wanted, spec.dtype), f"{link.name}: state {name} is {found}, declared {(wanted, spec.dtype)}"


def _check_neutral(link: Link, seed: int) -> None:
    """A link at its neutral values must change nothing, bit for bit."""
    specs = link.strategy.params
    if not specs:
        return
    width = {n: link.strategy.vocab_size if p.per_symbol else 1 for n, p in specs.items()}
    values = {n: np.full((ROWS, width[n]), p.neutral, p.dtype) for n, p in specs.items()}
    for step, out in enumerate(_run(link, values, slice(None), seed)):
        same = np.array_equal(out, _logits(link.strategy.vocab_size, seed)[step])
        assert same, (
            f"{link.name}: changes the logits at its neutral values { ({n: p.neutral for n, p in specs.items()}) }"
        )


def _check_namespace(link: Link, seed: int) -> None:
    """Run one step on array-api-strict, which knows nothing but the standard."""
    import array_api_strict as strict

    def to(arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
        return {name: strict.asarray(array) for name, array in arrays.items()}

    strategy, chain = link.strategy, Chain([link])
    arrays = chain.param_arrays(ROWS)
    params, tables = to(arrays[link.name]), to(chain.table_arrays(_Letters(link.strategy.vocab_size))[link.name])
    noise = strict.zeros((ROWS, strategy.uniforms), dtype=strict.float32) if strategy.uniforms else None
    logits = strict.asarray(_logits(strategy.vocab_size, seed)[0])
    token, new = strict.zeros((ROWS,), dtype=strict.int64), strict.ones((ROWS, 1), dtype=strict.bool)
    try:
        with np.errstate(all="ignore"):
            state = to(chain.initial_state(ROWS, arrays)[link.name]) | to(strategy.start(strict, params))
            out, after = strategy.apply(strict, logits, params, state, noise, tables)
            strategy.accept(strict, token, out, params, after, tables, new)
    except Exception as error:  # what an array that knows only the standard raises depends on what it lacks
        raise AssertionError(f"{link.name}: uses what the Array API does not have ({reason(error)})") from error
