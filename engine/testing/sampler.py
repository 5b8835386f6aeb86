"""The check for samplers: the same text for the same seed, whoever is written beside it."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import shutil
import tempfile
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gentext.components import samplers
from gentext.config import config_class
from gentext.errors import ConfigError, GenError, MissingExtra, reason
from gentext.exported.metadata import Bundle
from gentext.interfaces import Chunk, DeclaresSources, Sampler, SourceKind
from gentext.stop import StopAutomaton
from gentext.testing.rows import NEW_TOKENS, OpenedSampler, Row
from gentext.testing.rules import create, name_of, report_broken_rules, require

#: Called as ``target(config)``.
SamplerFactory = Callable[[Any], Sampler]
#: How far two log-probabilities of one token may be apart that were computed in batches of different sizes.
MAX_LOGPROB_DIFFERENCE = 1e-4


def check_sampler(cls: SamplerFactory, config: Any = None, source: Path | None = None, seed: int = 3) -> None:
    """Check the rules for samplers; AssertionError names the first that is broken.

    ``config`` defaults to ``cls.Config()``. ``source`` is a run or a file to open; without one two small models are
    trained and exported, of a text and of records, once for all checks of a process, which needs the ``train`` extra.
    """
    name = name_of(cls)
    config = config_class(cls)() if config is None else config
    sampler: Sampler = create(cls, config)
    _check_sources(name, cls)
    with tempfile.TemporaryDirectory() as folder:
        _check_refused(name, sampler, Path(folder))
    opened = _open(name, sampler, _small_run() if source is None else source, seed)
    with_records = opened if source is not None else _open(name, sampler, _small_run("lines"), seed)
    alone = _check_lengths(opened)
    _check_repeated(opened, alone)
    _check_neighbours(opened, alone)
    _check_interleaved(opened, alone)
    _check_closed(opened, alone)
    _check_stop(opened, alone)
    _check_chain(opened, alone)
    _check_ends(opened, alone)
    _check_boundary(with_records)
    _check_params(opened)


@functools.cache
def _small_run(records: str | None = None) -> Path:
    """Return a run that was trained and exported for this process; its folder goes when the process ends."""
    if importlib.util.find_spec("torch") is None:
        raise MissingExtra("check_sampler without a source", "train")
    from gentext.testing.runs import train_small_run

    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return train_small_run(Path(folder), records)


def _open(name: str, sampler: Sampler, source: Path, seed: int) -> OpenedSampler:
    try:
        with report_broken_rules():
            opened = samplers.check_opened(name, sampler.open(source, "cpu"))
    except GenError as error:
        raise AssertionError(f"{name}: cannot open {source} ({reason(error)})") from error
    is_line = isinstance(opened.device, str) and bool(opened.device.strip()) and "\n" not in opened.device
    require(is_line, f"{name}: device is {opened.device!r:.80}; expected one line about the device that is used")
    is_bundle = isinstance(opened.bundle, Bundle)
    require(is_bundle, f"{name}: bundle is {type(opened.bundle).__name__}; expected the metadata of the file")
    return OpenedSampler(name, opened, seed)


def _check_sources(name: str, cls: SamplerFactory) -> None:
    """``opens`` must consist of the words that there are."""
    words = typing.get_args(SourceKind)
    if isinstance(cls, DeclaresSources):
        opens: object = cls.opens
        is_collection = isinstance(opens, tuple | list | set | frozenset) and len(opens) > 0
        require(is_collection, f"{name}: opens is {opens!r:.80}; expected a tuple of {', '.join(words)}")
        for word in cls.opens:
            require(word in words, f"{name}: opens has {word!r}; expected one of {', '.join(words)}")


def _check_refused(name: str, sampler: Sampler, folder: Path) -> None:
    """What cannot be opened must be refused with an error for the user."""
    no_model = folder / "no_model.onnx"
    no_model.write_bytes(b"no model")
    for source in (folder / "missing.onnx", no_model, folder):
        try:
            sampler.open(source, "cpu")
        except GenError:
            continue
        except Exception as error:
            raise AssertionError(
                f"{name}: open({source.name!r}) of what is no model raises {reason(error)}; expected a GenError"
            ) from error
        raise AssertionError(f"{name}: open({source.name!r}) takes what is no model; expected a GenError")


def _require_same(opened: OpenedSampler, actual: Row, expected: Row, rule: str) -> None:
    require(actual.tokens == expected.tokens, f"{opened.name}: {rule}: tokens {actual.tokens}, not {expected.tokens}")
    difference = max((abs(a - b) for a, b in zip(actual.logprobs, expected.logprobs, strict=True)), default=0.0)
    require(
        difference <= MAX_LOGPROB_DIFFERENCE, f"{opened.name}: {rule}: log-probabilities are {difference:.2g} apart"
    )
    require(
        actual.finish == expected.finish, f"{opened.name}: {rule}: finish {actual.finish!r}, not {expected.finish!r}"
    )


def _check_lengths(opened: OpenedSampler) -> list[Row]:
    """Return each of the four rows, written alone; a row ends after as many tokens as were asked for."""
    rows = [opened.write(opened.request([row]))[0] for row in range(4)]
    for row in rows:
        require(
            row.finish == "length",
            f"{opened.name}: a row without a stop string ends with {row.finish!r}; expected 'length'",
        )
        count = len(row.tokens)
        require(count == NEW_TOKENS, f"{opened.name}: writes {count} tokens where max_tokens is {NEW_TOKENS}")
    unknown = opened.bundle.tokenizer.unknown
    has_unknown = any(unknown in row.tokens for row in rows)
    require(not has_unknown, f"{opened.name}: draws the unknown token {unknown}")
    is_alike = all(row.tokens == rows[0].tokens for row in rows)
    require(not is_alike, f"{opened.name}: rows with other primes and streams write the same; use prime and noise")
    return rows


def _check_repeated(opened: OpenedSampler, alone: list[Row]) -> None:
    for row in range(4):
        repeated = opened.write(opened.request([row]))[0]
        _require_same(opened, repeated, alone[row], "the same seed gives another text the second time")
    other = opened.write(opened.request([0], seeds=[(opened.seed + 1, 0)]))[0]
    require(other.tokens != alone[0].tokens, f"{opened.name}: another seed gives the same text; draw with its noise")


def _check_neighbours(opened: OpenedSampler, alone: list[Row]) -> None:
    """A row must be the same in any batch and at any place in it."""
    for rows in ([0, 1, 2, 3], [3, 1], [2, 2, 0]):
        for row, written in zip(rows, opened.write(opened.request(rows)), strict=True):
            rule = f"row {row} differs in a batch with the rows {rows}; its neighbours must not matter"
            _require_same(opened, written, alone[row], rule)


def _check_interleaved(opened: OpenedSampler, alone: list[Row]) -> None:
    """Nothing of a request may be kept in the sampler, since several may run at a time."""
    chunks: dict[int, list[Chunk]] = {0: [], 1: []}
    iterators = {row: opened.chunks(opened.request([row])) for row in chunks}
    while iterators:
        for row, iterator in list(iterators.items()):
            chunk = next(iterator, None)
            if chunk is None:
                del iterators[row]
            else:
                chunks[row].append(chunk)
    for row in chunks:
        tokens = [token for chunk in chunks[row] for token in chunk.tokens[:, 0].tolist() if token >= 0]
        rule = "two requests at a time change each other; keep nothing of a request in the sampler"
        require(tokens == alone[row].tokens, f"{opened.name}: {rule}: tokens {tokens}, not {alone[row].tokens}")


def _check_closed(opened: OpenedSampler, alone: list[Row]) -> None:
    """An iterator without an end may be closed early, and the next request begins anew."""
    chunks = samplers.checked_chunks(opened.sampler, opened.request([1], max_tokens=None))
    with report_broken_rules():
        next(chunks)
    chunks.close()
    rule = "after a request that was closed early, the next one differs"
    _require_same(opened, opened.write(opened.request([1]))[0], alone[1], rule)


def _check_stop(opened: OpenedSampler, alone: list[Row]) -> None:
    """A row must end with the token that completes a stop string, and its neighbours must go on."""
    symbols = [opened.bundle.token_bytes[token] for token in alone[1].tokens]
    stop_text = b"".join(symbols[3:5]).decode("utf-8", "replace")
    count = next(count for count in range(1, NEW_TOKENS + 1) if stop_text.encode() in b"".join(symbols[:count]))
    row, neighbour = opened.write(opened.request([1, 2], stop=StopAutomaton([stop_text])))
    require(
        row.finish == "stop",
        f"{opened.name}: a row that writes the stop string {stop_text!r} ends with {row.finish!r}; expected 'stop'",
    )
    require(
        row.tokens == alone[1].tokens[:count],
        f"{opened.name}: a row stops after the tokens {row.tokens}; expected {alone[1].tokens[:count]}, the last of "
        f"which completes the stop string",
    )
    is_prefix = neighbour.tokens == alone[2].tokens[: len(neighbour.tokens)]
    require(is_prefix, f"{opened.name}: a row differs because its neighbour has stopped")


def _check_ends(opened: OpenedSampler, alone: list[Row]) -> None:
    """A row that a link ends must end before the token at which it does, and its neighbours must go on."""
    counts = [4, 0, NEW_TOKENS]
    rows = opened.write(opened.request([1, 2, 3], symbols=counts))
    for number, row, count in zip((1, 2, 3), rows, counts, strict=True):
        finish = "match" if count < NEW_TOKENS else "length"
        require(
            row.finish == finish and row.tokens == alone[number].tokens[:count],
            f"{opened.name}: a row with a link that ends it after {count} symbols ends with {row.finish!r} after "
            f"{len(row.tokens)}; expected {finish!r}: see `Strategy.ends`",
        )


def _check_boundary(opened: OpenedSampler) -> None:
    """A row of a model of records must end with the boundary symbol, and its neighbours must go on."""
    boundary = opened.bundle.boundary
    if boundary is None:
        return
    first, last = np.array([[boundary], [0]]), np.array([[boundary], [boundary - 1]])
    params = {"only": {"first": first, "last": last}}
    row, neighbour = opened.write(opened.request([1, 2], only=(0, boundary), params=params))
    require(
        row.tokens == [boundary] and row.finish == "end",
        f"{opened.name}: a row that draws the boundary symbol {boundary} behind its prime has the tokens "
        f"{row.tokens[:5]} and the finish {row.finish!r}; expected that token alone, and 'end': see `Bundle.boundary`",
    )
    is_whole = len(neighbour.tokens) == NEW_TOKENS
    require(is_whole, f"{opened.name}: a row has {len(neighbour.tokens)} tokens because its neighbour has ended")
    _check_never_empty(opened, boundary)


def _check_never_empty(opened: OpenedSampler, boundary: int) -> None:
    """A row without a prime must not draw the boundary symbol first, where no record is empty."""
    if not opened.bundle.never_empty:
        return
    [row] = opened.write(opened.request([0], only=(boundary, boundary)))
    require(
        row.tokens == [] and row.finish == "masked",
        f"{opened.name}: a row without a prime draws the boundary symbol {boundary} first, so its record is empty; "
        f"mask it before the chain: see `Bundle.never_empty`",
    )


def _check_chain(opened: OpenedSampler, alone: list[Row]) -> None:
    """The chain must decide what is drawn, and must not change the log-probabilities, which are those before it."""
    token, logprob = alone[1].tokens[0], alone[1].logprobs[0]
    [forced] = opened.write(opened.request([1], only=(token, token)))
    require(
        set(forced.tokens) == {token},
        f"{opened.name}: draws the tokens {sorted(set(forced.tokens))} where the chain masks all but {token}",
    )
    require(
        abs(forced.logprobs[0] - logprob) <= MAX_LOGPROB_DIFFERENCE,
        f"{opened.name}: the log-probability of token {token} is {forced.logprobs[0]:.4f} with a chain that masks all "
        f"others, and {logprob:.4f} without; expected that of the model, before the chain",
    )
    masked = {"a chain that masks all symbols": (0, -1)}
    if (unknown := opened.bundle.tokenizer.unknown) is not None:
        masked["a chain that masks all but the unknown token"] = (unknown, unknown)
    for what_is_masked, only in masked.items():
        [row] = opened.write(opened.request([1], only=only))
        is_masked = row.finish == "masked" and not row.tokens
        require(
            is_masked,
            f"{opened.name}: {what_is_masked} gives {len(row.tokens)} tokens and the finish {row.finish!r}; expected "
            f"none, and 'masked'",
        )


def _check_params(opened: OpenedSampler) -> None:
    """Parameters of another shape, or out of range, must be refused."""
    for problem, first in (("out of range", np.full((1, 1), -5)), ("of another shape", np.zeros((3, 1), np.int64))):
        params = {"only": {"first": first.astype(np.int64), "last": np.full((1, 1), 5, np.int64)}}
        try:
            opened.write(opened.request([0], only=(0, 5), params=params))
        except ConfigError:
            continue
        except Exception as error:
            raise AssertionError(
                f"{opened.name}: a parameter {problem} raises {reason(error)}; expected ConfigError"
            ) from error
        raise AssertionError(f"{opened.name}: takes a parameter {problem}; expected ConfigError")
