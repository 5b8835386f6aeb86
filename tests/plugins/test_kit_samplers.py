"""The check of gentext.testing for samplers finds each planted fault, and names its rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import Fault, name_faults, plant

from gentext.generation.texts import all_texts
from gentext.generation.writing import prepare_writing
from gentext.interfaces import Chunk, Request
from gentext.plugins.pytorch.sampler import TorchSampler
from gentext.plugins.samplers.onnx import OnnxSampler
from gentext.requests.options import writing_options
from gentext.requests.spelling import KEYWORD_SPELLING
from gentext.stepping import generate_stepwise
from gentext.testing import check_sampler


class Faulty:
    """An opened sampler with a fault in its requests or chunks."""

    def __init__(self, opened: Any) -> None:
        self.opened = opened
        self.bundle, self.device = opened.bundle, opened.device

    def generate(self, request: Request) -> Iterator[Chunk]:
        for chunk in self.opened.generate(self.ask(request)):
            yield self.change(chunk, request)

    def ask(self, request: Request) -> Request:
        return request

    def change(self, chunk: Chunk, request: Request) -> Chunk:
        return chunk


def asks(ask: Any) -> type[Any]:
    """Return a sampler that asks another for something else than it should."""
    return opens(plant(Faulty, ask=lambda self, request: dataclasses.replace(request, **ask(request))))


def gives(change: Any) -> type[Any]:
    """Return a sampler that changes another's chunks."""
    return opens(plant(Faulty, change=lambda self, chunk, request: dataclasses.replace(chunk, **change(chunk))))


def opens(opened: type[Any]) -> type[Any]:
    return plant(OnnxSampler, open=lambda self, source, device: opened(OnnxSampler.open(self, source, device)))


class KeepsCount(Faulty):
    """Draws with the noise of another seed each time."""

    count = 0

    def ask(self, request: Request) -> Request:
        self.count += 1
        return dataclasses.replace(request, seeds=[(seed + self.count, row) for seed, row in request.seeds])


class SharesItsRequest(Faulty):
    """Keeps the tokens of a request in the sampler."""

    written: Any = None

    def generate(self, request: Request) -> Iterator[Chunk]:
        self.written = list(self.opened.generate(request)) if request.max_tokens else self.opened.generate(request)
        for index in range(10**9):
            if not request.max_tokens:
                yield next(self.written)
            elif index < len(self.written):
                yield self.written[index]
            else:
                return


class GoesOn(Faulty):
    """Draws after a stop string."""

    def generate(self, request: Request) -> Iterator[Chunk]:
        return super().generate(dataclasses.replace(request, stop=None))


class WritesTheLastToken(Faulty):
    """Does not know that a link may end a row."""

    def ask(self, request: Request) -> Request:
        for link in request.chain:
            link.strategy.ends = None
        return request


class GoesOnBehindRecords(Faulty):
    """Does not know of the boundary symbol."""

    def generate(self, request: Request) -> Iterator[Chunk]:
        return generate_stepwise(self.opened, dataclasses.replace(self.bundle, records=None), request)


class WritesEmptyRecords(Faulty):
    """Does not know that no record is empty."""

    def generate(self, request: Request) -> Iterator[Chunk]:
        assert self.bundle.records is not None
        records = dataclasses.replace(self.bundle.records, never_empty=False)
        return generate_stepwise(self.opened, dataclasses.replace(self.bundle, records=records), request)


class IgnoresTheChain(Faulty):
    def ask(self, request: Request) -> Request:
        return dataclasses.replace(request, chain=type(request.chain)([]), params={}, tables={})


class LogprobsAfterTheChain(Faulty):
    def change(self, chunk: Chunk, request: Request) -> Chunk:
        is_forced = request.chain.names == ["only"]
        return dataclasses.replace(chunk, logprobs=chunk.logprobs * np.float32(0 if is_forced else 1))


class TakesAnyParameter(Faulty):
    def ask(self, request: Request) -> Request:
        if request.chain.names != ["only"] or request.params["only"]["first"].shape == (1, 1):
            return request
        return dataclasses.replace(request, params=request.chain.param_arrays(len(request.primes)))


SAMPLER_FAULTS: list[Fault] = [
    (plant(OnnxSampler, opens=("run", "a file")), "opens has 'a file'; expected one of run"),
    (plant(OnnxSampler, open=lambda self, source, device: None), "takes what is no model; expected a GenError"),
    (plant(OnnxSampler, open=lambda self, source, device: source.x), "raises AttributeError.*expected a GenError"),
    (opens(plant(Faulty, device="two\nlines", __init__=lambda self, opened: setattr(self, "bundle", opened.bundle))),
     "expected one line about the device"),
    (gives(lambda chunk: {"tokens": chunk.tokens.astype(float)}), "tokens of a chunk must be whole numbers"),
    (gives(lambda chunk: {"tokens": chunk.tokens + 1000}), "a chunk has tokens from"),
    (gives(lambda chunk: {"logprobs": -chunk.logprobs}), "expected numbers up to 0"),
    (gives(lambda chunk: {"logprobs": np.nan * chunk.logprobs}), "expected numbers up to 0"),
    (gives(lambda chunk: {"logprobs": np.nan_to_num(chunk.logprobs)}), "where it has no token; expected NaN"),
    (gives(lambda chunk: {"finish": ["done"] * len(chunk.finish)}), "has the finish 'done'"),
    (gives(lambda chunk: {"finish": ["running"] * len(chunk.finish)}), "generate ends while row 0 is running"),
    (gives(lambda chunk: {"finish": ["length"] * len(chunk.finish)}), "goes on after it has ended"),
    (asks(lambda request: {"max_tokens": 5}), "writes 5 tokens where max_tokens is 24"),
    (asks(lambda request: {"primes": [[1]] * len(request.primes), "seeds": [(1, 1)] * len(request.primes)}),
     "write the same; use prime and noise"),
    (opens(KeepsCount), "the same seed gives another text the second time"),
    (asks(lambda request: {"seeds": [(1, row) for _, row in request.seeds]}), "another seed gives the same text"),
    (asks(lambda request: {"seeds": [(seed, index) for index, (seed, _) in enumerate(request.seeds)]}),
     "its neighbours must not matter|write the same"),
    (opens(SharesItsRequest), "two requests at a time change each other"),
    (opens(GoesOn), "ends with 'length'; expected 'stop'"),
    (opens(IgnoresTheChain), "where the chain masks all but"),
    (opens(WritesTheLastToken), "a link that ends it after 4 symbols ends with 'length' after 24; expected 'match'"),
    (opens(LogprobsAfterTheChain), "expected that of the model, before the chain"),
    (opens(TakesAnyParameter), "takes a parameter of another shape; expected ConfigError"),
]  # fmt: skip


@pytest.mark.parametrize(**name_faults(SAMPLER_FAULTS))
def test_fault_of_a_sampler_is_named(cls: type[Any], message: str, tiny_run: Path) -> None:
    with pytest.raises(AssertionError, match=message):
        check_sampler(cls, source=tiny_run)


@pytest.mark.parametrize("cls", [OnnxSampler, TorchSampler])
def test_samplers_of_gentext_pass(cls: Any, tiny_run: Path, tiny_records_run: Path) -> None:
    check_sampler(cls, source=tiny_run)
    check_sampler(cls, source=tiny_records_run)


def test_the_end_of_a_record(tiny_records_run: Path) -> None:
    """The check names a sampler that goes on behind it, or ends a record at once; others are whole all the same."""
    with pytest.raises(AssertionError, match="draws the boundary symbol 18 first, so its record is empty"):
        check_sampler(opens(WritesEmptyRecords), source=tiny_records_run)
    with pytest.raises(AssertionError, match=r"draws the boundary symbol 18 behind its prime has .* and 'end'"):
        check_sampler(opens(GoesOnBehindRecords), source=tiny_records_run)
    opened = OnnxSampler().open(tiny_records_run, "cpu")
    records = []
    for sampler in (opened, GoesOnBehindRecords(opened)):
        options = writing_options(count=20, length=40, seed=1, chain=["temperature"])
        writing = prepare_writing(sampler, ["a"], options, KEYWORD_SPELLING)
        records.append([(text.text, text.finish, text.tokens) for text in all_texts(writing)])
    assert records[0] == records[1] and "end" in {finish for _, finish, _ in records[0]}
