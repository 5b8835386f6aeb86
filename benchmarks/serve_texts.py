"""The texts that clients of a server ask for, and the same texts written by the library, to compare them with."""

from __future__ import annotations

import collections
import dataclasses
import gc
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gentext.exported.metadata import Bundle
from gentext.generation.texts import all_texts
from gentext.generation.writing import prepare_writing
from gentext.interfaces import Chunk, OpenSampler, Request
from gentext.library.bench import prepare_measurement
from gentext.library.loading import open_text_model
from gentext.plugins.samplers.onnx import OnnxConfig, OnnxSampler
from gentext.requests.options import writing_options
from gentext.requests.spelling import KEYWORD_SPELLING
from gentext.run import GENERATOR_FILE

#: Settings of requests. The default chain has all of these parameters.
SETTINGS: Sequence[Mapping[str, Any]] = (
    {"temperature": 0.8},
    {"temperature": 1.0, "top_p": 0.9},
    {"temperature": 0.9, "top_k": 5},
    {"temperature": 0.7, "min_p": 0.05},
    {"temperature": 1.0, "stop": ["\n\n\n"]},
    {"temperature": 0.8, "stop": ["xyz", "  \n", "qu"]},
)
LENGTHS = (100, 400, 1000, 2500, 6000)
PROMPTS = ("", "The ", "Python is", "class ", "If a list has more than one ")
#: Options of the training of a file, which takes a minute with its export.
TRAINING = ("python-docs", "--preset", "base", "--steps", "60", "--export-precision", "int8", "--seed", "1")


@dataclasses.dataclass(frozen=True)
class Text:
    """What decides about a text."""

    seed: int
    stream: int
    prompt: str
    length: int
    setting: int
    """Index into SETTINGS."""

    def request(self, **others: Any) -> dict[str, Any]:
        """Return the body of a request for it, and for all choices before it."""
        body = {"prompt": self.prompt, "max_tokens": self.length, "seed": self.seed}
        return {**body, **SETTINGS[self.setting], **others}


def draw_text(rng: random.Random, lengths: Sequence[int] = LENGTHS) -> Text:
    """Return a text that another client could want."""
    return Text(rng.getrandbits(32), 0, rng.choice(PROMPTS), rng.choice(lengths), rng.randrange(len(SETTINGS)))


def make_file(folder: Path) -> Path:
    """Train a small model of two layers of 512 for a minute, and return its generator in int8."""
    run = folder / "run"
    command = [sys.executable, "-m", "gentext", "train", *TRAINING, "--run", str(run)]
    subprocess.run(command, check=True, capture_output=True)
    return run / GENERATOR_FILE


class SeededSampler:
    """A sampler whose row with the stream k draws with the k-th of its own seeds and streams.

    One call of the library has one seed for all texts; this one has another for each.
    """

    def __init__(self, sampler: OpenSampler, seeds: Sequence[tuple[int, int]]) -> None:
        self.sampler, self.seeds = sampler, seeds

    @property
    def bundle(self) -> Bundle:
        return self.sampler.bundle

    @property
    def device(self) -> str:
        return self.sampler.device

    def generate(self, request: Request) -> Iterator[Chunk]:
        seeds = [self.seeds[stream] for _, stream in request.seeds]
        return self.sampler.generate(dataclasses.replace(request, seeds=seeds))


def write_texts(path: Path, texts: Iterable[Text]) -> Iterator[tuple[Text, str, str]]:
    """Write texts with the library, those of equal settings side by side; yield each with its finish."""
    groups: dict[tuple[int, int], list[Text]] = collections.defaultdict(list)
    for text in texts:
        groups[text.setting, text.length].append(text)
    sampler = open_text_model(path)._sampler
    for (setting, length), group in sorted(groups.items()):
        parameters = dict(SETTINGS[setting])
        options = writing_options(length=length, seed=0, stop=parameters.pop("stop", ()), parameters=parameters)
        seeded = SeededSampler(sampler, [(text.seed, text.stream) for text in group])
        writing = prepare_writing(seeded, [text.prompt for text in group], options, KEYWORD_SPELLING)
        for text, written in zip(group, all_texts(writing), strict=True):
            yield text, written.text, written.finish


def compare_texts(path: Path, finished: Mapping[Text, tuple[str, str | None]]) -> list[str]:
    """Return a line for each finished text that is not the one that the library writes."""
    differing = []
    for text, expected, finish in write_texts(path, finished):
        actual, actual_finish = finished[text]
        if actual != expected or actual_finish not in (None, finish):
            same = next((at for at, (a, b) in enumerate(zip(actual, expected, strict=False)) if a != b), "its end")
            differing.append(f"{text}: {len(actual)} of {len(expected)} characters, {actual_finish}, from {same} on")
    return differing


@dataclasses.dataclass(frozen=True)
class BareRate:
    """How fast a file writes by itself: medians of several measurements."""

    rate: float
    """Characters a second."""
    processor_rate: float
    """Characters in a second of processor time, which other programs on the machine hardly change."""


def measure_bare(path: Path, sizes: Sequence[int], seconds: float, repeats: int = 3) -> dict[int, BareRate]:
    """Return how fast a file writes by itself, by the number of texts side by side."""
    sampler = OnnxSampler(OnnxConfig()).open(path, "cpu")
    measurements = {size: prepare_measurement(sampler, size, seconds) for size in sizes}
    rates: dict[int, list[tuple[float, float]]] = {size: [] for size in sizes}
    for _ in range(repeats):
        for size, measurement in measurements.items():
            wall, processor = time.perf_counter(), time.process_time()
            rate = measurement()
            share = (time.process_time() - processor) / (time.perf_counter() - wall)
            rates[size].append((rate, rate / share))
    del sampler, measurements
    gc.collect()  # the session's threads would take time from the server
    return {size: BareRate(*map(statistics.median, zip(*pairs, strict=True))) for size, pairs in rates.items()}
