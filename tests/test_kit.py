"""The checks of gentext.testing for tokenizers, batchers and samplers find each planted fault, and name its rule."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gentext.errors import ConfigError
from gentext.interfaces import Chunk, Request, World
from gentext.plugins.batchers.stream import StreamBatcher, StreamConfig
from gentext.plugins.pytorch.sampler import TorchSampler
from gentext.plugins.samplers.onnx import OnnxSampler
from gentext.plugins.tokenizers.byte import ByteTokenizer
from gentext.plugins.tokenizers.char import CharConfig, CharTokenizer
from gentext.testing import check_batcher, check_sampler, check_tokenizer

#: A class with one planted fault, and a part of the message that names the rule.
Fault = tuple[type[Any], str]


def plant(base: type[Any], **members: Any) -> type[Any]:
    """Return a class that is like another one, but for one fault."""
    return type("Faulty", (base,), members)


def name_faults(faults: list[Fault]) -> dict[str, Any]:
    """Return the arguments of a parametrized test, whose parts are called by the messages."""
    return {"argnames": ("cls", "message"), "argvalues": faults, "ids": [message for _, message in faults]}


# -- tokenizers -------------------------------------------------------------------------------


class Remembers(ByteTokenizer):
    """Its ids depend on what was encoded before."""

    calls = 0

    def encode(self, text: str) -> Any:
        self.calls += 1
        return super().encode(text + (" " if self.calls > 20 and text.endswith("log.\n") else ""))


class Counts(ByteTokenizer):
    """Its state changes with each text."""

    count = 0

    def encode(self, text: str) -> Any:
        self.count += 1
        return super().encode(text)

    def state(self) -> dict[str, Any]:
        return {"count": self.count // 1000 if self.count < 15 else self.count}


class BuiltAtRandom(CharTokenizer):
    """Learns another symbol each time."""

    builds = 0

    @classmethod
    def build(cls, chunks: Any, config: CharConfig) -> CharTokenizer:
        BuiltAtRandom.builds += 1
        return super().build([*chunks, chr(0x4E00 + BuiltAtRandom.builds)], config)


class ForgetsItsUnknown(CharTokenizer):
    """Loses the unknown symbol where it is saved."""

    def state(self) -> dict[str, Any]:
        return {**super().state(), "unknown": self.unknown is not None and len(self._symbols) > 1000}


class LearnsTheFirstPiece(CharTokenizer):
    """Does not read the whole text."""

    @classmethod
    def build(cls, chunks: Any, config: CharConfig) -> CharTokenizer:
        return super().build([next(iter(chunks))], config)


TOKENIZER_FAULTS: list[Fault] = [
    (plant(ByteTokenizer, vocab_size=256.0), "vocab_size 256.0; expected a whole number"),
    (plant(ByteTokenizer, token_bytes=lambda self, token: chr(token)), r"token_bytes\(0\) returned str"),
    (plant(ByteTokenizer, unknown=256), "the unknown token 256; expected an id"),
    (plant(ByteTokenizer, state=lambda self: {1: "a"}), "is not standard JSON .a key of a dict is no text"),
    (plant(ByteTokenizer, state=lambda self: {"rate": math.nan}), "is not standard JSON"),
    (plant(ByteTokenizer, state=lambda self: None), "returned NoneType, expected a dict"),
    (plant(ByteTokenizer, build=classmethod(lambda cls, chunks, config: None)), "build returned None"),
    (plant(ByteTokenizer, encode=lambda self, text: [float(byte) for byte in text.encode()]), "as whole numbers"),
    (plant(ByteTokenizer, encode=lambda self, text: np.arange(300)), "from 0 to 255"),
    (plant(ByteTokenizer, encode=lambda self, text: np.zeros(0, int)), "encode gives no ids"),
    (plant(ByteTokenizer, encode=lambda self, text: ByteTokenizer.encode(self, text.lower())), "bytes of the ids join"),
    (plant(ByteTokenizer, encode=lambda self, text: ByteTokenizer.encode(self, text + " ")), "bytes of the ids join"),
    (plant(ByteTokenizer, unknown_at=lambda self, text: [len(text)]), "expected rising positions in the text"),
    (plant(ByteTokenizer, unknown_at=lambda self, text: [0][: len(text)]), "it must raise PrimeError"),
    (plant(CharTokenizer, unknown_at=lambda self, text: []), "in which unknown_at finds nothing unknown"),
    (LearnsTheFirstPiece, "refuses the text that it was built from"),
    (Remembers, "other ids for .* when it is called again"),
    (Counts, "encode changes the state"),
    (BuiltAtRandom, "build gives another state"),
    (plant(CharTokenizer, state=lambda self: {"symbols": "abc"}), r"from_state\(state\(\)\) has 3 symbols"),
]


@pytest.mark.parametrize(**name_faults(TOKENIZER_FAULTS))
def test_fault_of_a_tokenizer_is_named(cls: type[Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_tokenizer(cls)


def test_fault_of_an_unknown_token_is_named() -> None:
    rare = CharConfig(min_count=2)
    with pytest.raises(AssertionError, match=r"has .* symbols, expected"):
        check_tokenizer(ForgetsItsUnknown, rare)
    knows_all = plant(CharTokenizer, unknown_at=lambda self, text: [])
    with pytest.raises(AssertionError, match=r"finds nothing in .*, but its ids have the unknown token"):
        check_tokenizer(knows_all, rare)


@pytest.mark.parametrize(
    ("cls", "config"), [(ByteTokenizer, None), (CharTokenizer, None), (CharTokenizer, CharConfig(min_count=3))]
)
def test_tokenizers_of_gentext_pass(cls: Any, config: Any) -> None:
    check_tokenizer(cls, config)


# -- batchers ---------------------------------------------------------------------------------


class Batcher(StreamBatcher):
    """The built-in one, for planted faults: `change` gets the batch and the arguments that it was made for."""

    def batch(self, tokens: Any, seed: int, epoch: int, step: int, rank: int = 0) -> Any:
        x, y, fresh = super().batch(tokens, seed, epoch, step, rank)
        return self.change(x.copy(), y.copy(), fresh, tokens, step)

    def change(self, x: Any, y: Any, fresh: Any, tokens: Any, step: int) -> Any:
        return x, y, fresh


class SwapsSymbols(Batcher):
    def change(self, x: Any, y: Any, fresh: Any, tokens: Any, step: int) -> Any:
        x[0, :2], y[0, :2] = x[0, 1::-1], y[0, 1::-1]
        return x, y, fresh


class WritesIntoTheText(Batcher):
    def change(self, x: Any, y: Any, fresh: Any, tokens: Any, step: int) -> Any:
        tokens[0] = 0
        return x, y, fresh


class RepeatsNoStep(StreamBatcher):
    """Gives the next step where one of the second epoch is asked for twice."""

    def __init__(self, config: StreamConfig, n_tokens: int, world: World) -> None:
        super().__init__(config, n_tokens, world)
        self.finished: set[int] = set()

    def batch(self, tokens: Any, seed: int, epoch: int, step: int, rank: int = 0) -> Any:
        if epoch == 1 and step in self.finished:
            step = (step + 1) % self.steps_per_epoch
        elif epoch == 1:
            self.finished.add(step)
        return super().batch(tokens, seed, epoch, step, rank)


class ReusesItsBuffer(StreamBatcher):
    buffer: Any = None

    def batch(self, tokens: Any, seed: int, epoch: int, step: int, rank: int = 0) -> Any:
        x, y, fresh = super().batch(tokens, seed, epoch, step, rank)
        if self.buffer is None:
            self.buffer = np.empty_like(x)
        self.buffer[:] = x
        return self.buffer, y, fresh


class SharesUnevenly(StreamBatcher):
    def batch(self, tokens: Any, seed: int, epoch: int, step: int, rank: int = 0) -> Any:
        batch = super().batch(tokens, seed, epoch, step, rank)
        return batch if self._local_rows == self.rows or rank else tuple(array[:-1] for array in batch)


class IgnoresItsRank(StreamBatcher):
    def batch(self, tokens: Any, seed: int, epoch: int, step: int, rank: int = 0) -> Any:
        return super().batch(tokens, seed, epoch, step, 0)


class RefusesToShare(StreamBatcher):
    def __init__(self, config: StreamConfig, n_tokens: int, world: World) -> None:
        if world.size > 1:
            raise ConfigError("alone")
        super().__init__(config, n_tokens, world)


class TakesAnyText(StreamBatcher):
    def __init__(self, config: StreamConfig, n_tokens: int, world: World) -> None:
        super().__init__(config, n_tokens if n_tokens > 1 else 10_000, world)


class DividesByZero(StreamBatcher):
    def __init__(self, config: StreamConfig, n_tokens: int, world: World) -> None:
        super().__init__(config, n_tokens if n_tokens > 1 else 1 // 0, world)


def changes(change: Any) -> type[Any]:
    return plant(Batcher, change=lambda self, x, y, fresh, tokens, step: change(x, y, fresh))


BATCHER_FAULTS: list[Fault] = [
    (plant(StreamBatcher, rows=property(lambda self: 4.0, lambda self, rows: None)),
     r"steps_per_epoch is 3125\.0; expected a whole"),
    (changes(lambda x, y, fresh: (x, y)), "expected a tuple of x, y and fresh"),
    (changes(lambda x, y, fresh: (x.astype(np.int32), y, fresh)), r"x of step 0 is int32 \(4, 8\); expected int64"),
    (changes(lambda x, y, fresh: (x, y[:, :-1], fresh)), r"y of step 0 is int64 \(4, 7\); expected int64 \(4, 8\)"),
    (changes(lambda x, y, fresh: (x, y, fresh.astype(int))), r"fresh of step 0 is int64 \(4,\); expected bool"),
    (changes(lambda x, y, fresh: (x, y, list(fresh))), "fresh of step 0 is list"),
    (changes(lambda x, y, fresh: (x + 100_000, y, fresh)), "x of step 0 has ids that are not in the text"),
    (changes(lambda x, y, fresh: (x, x, fresh)), "y at step 0 is not what follows x in the text"),
    (SwapsSymbols, "a row of x at step 0 is no window of the text"),
    (changes(lambda x, y, fresh: (x, y, np.zeros(4, bool))), "not all rows are fresh in the first batch of all"),
    (changes(lambda x, y, fresh: (x[::-1] if not fresh.all() else x, y[::-1] if not fresh.all() else y, fresh)),
     "is not fresh, but begins with the symbol"),
    (WritesIntoTheText, "changes an array in place"),
    (RepeatsNoStep, "it must depend on its arguments alone"),
    (ReusesItsBuffer, "the arrays of step 0 were changed by later calls"),
    (SharesUnevenly, r"x of step 0 of rank 0 of 2 is int64 \(1, 8\); expected int64 \(2, 8\)"),
    (IgnoresItsRank, "two processes read the same rows"),
    (RefusesToShare, "two processes cannot share its rows"),
    (TakesAnyText, "takes a text of one symbol"),
    (DividesByZero, "must raise CorpusError, not ZeroDivisionError"),
]  # fmt: skip


@pytest.mark.parametrize(**name_faults(BATCHER_FAULTS))
def test_fault_of_a_batcher_is_named(cls: type[Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_batcher(cls, StreamConfig(4, 8))


@pytest.mark.parametrize("config", [None, StreamConfig(3, 7), StreamConfig(4, 5, offset=True), StreamConfig(1, 2)])
def test_batcher_of_gentext_passes(config: Any) -> None:
    check_batcher(StreamBatcher, config)


# -- samplers ---------------------------------------------------------------------------------


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
    (opens(LogprobsAfterTheChain), "expected that of the model, before the chain"),
    (opens(TakesAnyParameter), "takes a parameter of another shape; expected ConfigError"),
]  # fmt: skip


@pytest.mark.parametrize(**name_faults(SAMPLER_FAULTS))
def test_fault_of_a_sampler_is_named(cls: type[Any], message: str, tiny_run: Path) -> None:
    with pytest.raises(AssertionError, match=message):
        check_sampler(cls, source=tiny_run)


@pytest.mark.parametrize("cls", [OnnxSampler, TorchSampler])
def test_samplers_of_gentext_pass(cls: Any, tiny_run: Path) -> None:
    check_sampler(cls, source=tiny_run)
