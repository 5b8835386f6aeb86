"""The check for batchers: windows of a text, and records, cut by pure arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gentext.capabilities import ReadsRecords
from gentext.config import config_class
from gentext.errors import CorpusError, GenError, reason
from gentext.interfaces import Batcher, World
from gentext.testing.record_batches import check_record_batches
from gentext.testing.rules import create, freeze, name_of, report_changed_arrays, require
from gentext.token_corpus import TokenCorpus

#: Called as ``target(config, corpus, world)``.
BatcherFactory = Callable[[Any, TokenCorpus, World], Batcher]
#: Symbols of the text that tells how large the windows are.
PROBE_SYMBOLS = 100_000
#: Steps of an epoch that are looked at, at most.
CHECKED_STEPS = 6


class _Batch(NamedTuple):
    """What `Batcher.batch` returns."""

    x: NDArray[np.int64]
    y: NDArray[np.int64]
    fresh: NDArray[np.bool_]

    def copy(self) -> _Batch:
        return _Batch(self.x.copy(), self.y.copy(), self.fresh.copy())


def check_batcher(cls: BatcherFactory, config: Any = None, seed: int = 0) -> None:
    """Check the rules for batchers; AssertionError names the first that is broken. ``config``: ``cls.Config()``."""
    name = name_of(cls)
    config = config_class(cls)() if config is None else config
    if isinstance(cls, ReadsRecords) and cls.reads_records:
        check_record_batches(name, cls, config, seed)
        if _refuses_texts(cls, config):
            return
    probe = create(cls, config, _count_up(PROBE_SYMBOLS), World())
    _check_sizes(name, probe)
    # A few batches, and some symbols that fill no batch. Each symbol of the text occurs once, so that it can be found.
    corpus = _count_up(4 * probe.rows * probe.length + probe.rows // 2 + 3)
    batcher = create(cls, config, corpus, World())
    _check_windows(name, batcher, corpus, seed)
    _check_unchanged(name, batcher, seed)
    _check_streams(name, batcher, seed)
    _check_pure(name, lambda: create(cls, config, corpus, World()), seed)
    _check_ranks(name, cls, config, corpus, seed)
    _check_short_text(name, cls, config)


def _count_up(symbols: int) -> TokenCorpus:
    """Return a text of so many symbols, in which each occurs once."""
    return TokenCorpus(freeze(np.arange(symbols, dtype=np.min_scalar_type(symbols))))


def _refuses_texts(cls: BatcherFactory, config: Any) -> bool:
    """Return whether a batcher cuts records alone: for a text it must raise an error for the user."""
    try:
        cls(config, _count_up(PROBE_SYMBOLS), World())
    except GenError:
        return True
    return False


def _check_sizes(name: str, batcher: Batcher) -> None:
    counts = (("steps_per_epoch", batcher.steps_per_epoch), ("symbols_per_epoch", batcher.symbols_per_epoch))
    for attribute, size in (*counts, *_sizes(batcher)):
        is_count = isinstance(size, int | np.integer) and not isinstance(size, bool) and size >= 1
        require(is_count, f"{name}: {attribute} is {size!r}; expected a whole number from 1")


def _sizes(batcher: Batcher) -> tuple[tuple[str, int], tuple[str, int]]:
    return ("rows", batcher.rows), ("length", batcher.length)


def _read_batch(name: str, batcher: Batcher, seed: int, epoch: int, step: int, world: World) -> _Batch:
    """Return one batch, whose shapes and types are checked."""
    with report_changed_arrays(name):
        returned: object = batcher.batch(seed, epoch, step, world.rank)
    require(
        isinstance(returned, tuple) and len(returned) == 3,
        f"{name}: batch returned {type(returned).__name__}; expected a tuple of x, y and fresh",
    )
    assert isinstance(returned, tuple)
    rows, width = batcher.rows // world.size, _width(returned[0], batcher)
    shapes: dict[str, tuple[tuple[int, ...], type[Any]]] = {
        "x": ((rows, width), np.int64),
        "y": ((rows, width), np.int64),
    }
    shapes["fresh"] = ((rows,), np.bool_)
    for (part, (shape, dtype)), array in zip(shapes.items(), returned, strict=True):
        expected = f"{np.dtype(dtype)} {shape}"
        actual = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        of_rank = f" of rank {world.rank} of {world.size}" if world.size > 1 else ""
        require(actual == expected, f"{name}: {part} of step {step}{of_rank} is {actual}; expected {expected}")
    return _Batch(*returned)


def _width(x: object, batcher: Batcher) -> int:
    """Return the positions of a batch: those that it has, where they are not too many, else as many as it may have."""
    is_batch = isinstance(x, np.ndarray) and x.ndim == 2 and 1 <= x.shape[1] <= batcher.length
    return int(x.shape[1]) if is_batch and isinstance(x, np.ndarray) else batcher.length


def _read_epoch(name: str, batcher: Batcher, seed: int, epoch: int) -> list[_Batch]:
    steps = range(min(batcher.steps_per_epoch, CHECKED_STEPS))
    return [_read_batch(name, batcher, seed, epoch, step, World()).copy() for step in steps]


def _check_windows(name: str, batcher: Batcher, corpus: TokenCorpus, seed: int) -> None:
    """Rows must be windows of the text, and targets the symbols that follow in it."""
    last_step, symbols = batcher.steps_per_epoch - 1, len(corpus.tokens)
    for step in (*range(min(last_step, CHECKED_STEPS)), last_step):
        x, y, _ = _read_batch(name, batcher, seed, 0, step, World())
        for part, ids in (("x", x), ("y", y)):
            is_in_text = ids.min() >= 0 and ids.max() < symbols
            require(is_in_text, f"{name}: {part} of step {step} has ids that are not in the text")
        require(
            np.array_equal(x[:, 1:], x[:, :-1] + 1),
            f"{name}: a row of x at step {step} is no window of the text: its symbols do not follow each other there",
        )
        # Behind the last symbol of the text there is none, so that anything may stand there.
        is_next = (y == x + 1) | (x == symbols - 1)
        row = int(np.argmin(is_next.all(axis=1)))
        require(
            is_next.all(),
            f"{name}: y at step {step} is not what follows x in the text: in row {row}, x begins with the symbols "
            f"{x[row, :3].tolist()} of the text, y with {y[row, :3].tolist()}",
        )


def _check_streams(name: str, batcher: Batcher, seed: int) -> None:
    """A row that is not fresh must go on where the same row of the step before has ended."""
    epochs = [_read_epoch(name, batcher, seed, epoch) for epoch in range(2)]
    require(
        epochs[0][0].fresh.all(),
        f"{name}: not all rows are fresh in the first batch of all, before which there is no state to carry",
    )
    for epoch, batches in enumerate(epochs):
        steps_are_complete = len(batches) == batcher.steps_per_epoch
        previous = epochs[epoch - 1][-1] if epoch and steps_are_complete else None
        for step, batch in enumerate(batches):
            if previous is not None:
                goes_on = batch.fresh | (batch.x[:, 0] == previous.y[:, -1])
                row = int(np.argmin(goes_on))
                require(
                    goes_on.all(),
                    f"{name}: row {row} at step {step} of epoch {epoch} is not fresh, but begins with the symbol "
                    f"{batch.x[row, 0]} of the text, and the step before ended with {previous.y[row, -1]} to come",
                )
            previous = batch


def _check_pure(name: str, make_batcher: Callable[[], Batcher], seed: int) -> None:
    """The same arguments must give the same batch, in any order of calls and in another process."""
    batcher, new_batcher = make_batcher(), make_batcher()
    expected = _read_epoch(name, batcher, seed, 1)
    for step in reversed(range(len(expected))):
        repeated = _read_batch(name, batcher, seed, 1, step, World())
        unordered = _read_batch(name, new_batcher, seed, 1, step, World())
        for batch, when in ((repeated, "is called again"), (unordered, "is called on a new batcher, in another order")):
            require(
                _is_equal(batch, expected[step]),
                f"{name}: step {step} is another batch when batch {when}; it must depend on its arguments alone",
            )


def _check_unchanged(name: str, batcher: Batcher, seed: int) -> None:
    """A batch belongs to the caller: the next one must not change it."""
    batch = _read_batch(name, batcher, seed, 0, 0, World())
    expected = batch.copy()
    _read_batch(name, batcher, seed, 0, batcher.steps_per_epoch - 1, World())
    require(_is_equal(batch, expected), f"{name}: the arrays of step 0 were changed by later calls of batch")


def _is_equal(batch: _Batch, expected: _Batch) -> bool:
    return all(np.array_equal(*arrays) for arrays in zip(batch, expected, strict=True))


def _check_ranks(name: str, cls: BatcherFactory, config: Any, corpus: TokenCorpus, seed: int) -> None:
    """Two processes must get an equal number of rows each, and not the same ones."""
    try:
        batchers = [cls(config, corpus, World(rank, 2)) for rank in range(2)]
    except GenError as error:  # for a number of rows that two cannot share
        is_odd = create(cls, config, corpus, World()).rows % 2
        require(is_odd, f"{name}: two processes cannot share its rows ({reason(error)})")
        return
    if batchers[0].rows % 2:
        raise AssertionError(f"{name}: two processes cannot share {batchers[0].rows} rows; expected a ConfigError")
    sizes = [dict(_sizes(batcher)) | {"steps_per_epoch": batcher.steps_per_epoch} for batcher in batchers]
    require(sizes[0] == sizes[1], f"{name}: two processes have different sizes, {sizes[0]} and {sizes[1]}")
    first, second = (_read_batch(name, batcher, seed, 0, 0, World(rank, 2)) for rank, batcher in enumerate(batchers))
    shared = not np.array_equal(first.x, second.x)
    require(shared, f"{name}: two processes read the same rows; rank is the number of the process that calls")


def _check_short_text(name: str, cls: BatcherFactory, config: Any) -> None:
    """A text that is too short for one batch must be refused, with an error for the user."""
    try:
        batcher = cls(config, _count_up(1), World())
    except CorpusError:
        return
    except Exception as error:
        raise AssertionError(f"{name}: a text of one symbol must raise CorpusError, not {reason(error)}") from error
    raise AssertionError(
        f"{name}: takes a text of one symbol, for batches of {batcher.rows} x {batcher.length}; expected CorpusError"
    )
