"""The teacher of a run: a trained run, from whose text and probabilities a smaller model learns (`gen distill`).

The student has its teacher's tokenizer. What it reads is written by the teacher's exported file, without end; the text
that the teacher has learned from is read too where it is still there, to hold out the same part and to mix it in.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gentext.components.samplers import checked_chunks
from gentext.config import ConfigTable, merge
from gentext.describe import load_run_tokenizer
from gentext.errors import FileFormatError, RunError, UsageError
from gentext.interfaces import OpenSampler, Request
from gentext.run import GENERATOR_FILE, Run, open_run
from gentext.runs.record_options import read_options
from gentext.runs.resolve import TrainOptions, typed_settings
from gentext.runs.source import EXPORTED_SOURCES, find_source, open_exported
from gentext.sampling.chain import Chain
from gentext.sampling.stored import stored_chain
from gentext.settings import Settings
from gentext.strategy import Param


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained and exported run that teaches another model."""

    run: Run
    config: ConfigTable = dataclasses.field(repr=False)
    """The run's config."""
    device: str = "auto"
    """Where it writes."""
    threads: int = 0
    """Threads that it writes with at most; 0 lets it choose."""

    def on_device(self, settings: Settings) -> Teacher:
        """Return the teacher as it writes with a run's settings."""
        return dataclasses.replace(self, device=settings.device, threads=settings.threads)

    @functools.cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the files on which texts and probabilities depend: the exported file, the best checkpoint."""
        checkpoints = self.run.checkpoints
        weights = sorted(checkpoints.glob("best-*.safetensors")) or sorted(checkpoints.glob("last-*.safetensors"))
        generator = self.run.path / GENERATOR_FILE
        digest = hashlib.sha256()
        for path in [generator if generator.is_file() else self.run.model, *weights[-1:]]:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    @functools.cached_property
    def sampler(self) -> OpenSampler:
        """Its exported file, which writes. Raises RunError where its symbols are not those of the run."""
        sampler, tokenizer = open_exported(self.run.path, self.device, self.threads), load_run_tokenizer(self.run)
        symbols = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
        if list(sampler.bundle.token_bytes) != symbols:
            raise RunError(
                f"{self.run.path}: its exported file has another tokenizer than the run; export it again: "
                f"gen export {self.run.path}"
            )
        return sampler

    @property
    def start(self) -> int:
        """The token before every text."""
        return self.sampler.bundle.start

    def write(self, seed: int, streams: Sequence[int], symbols: int) -> NDArray[np.int64]:
        """Return int64 [N, symbols]: a text for each of N streams of a seed, at temperature 1 and with neutral links.

        A text depends on the seed and its stream alone. Behind the end of a record stands -1. Raises FileFormatError
        for a file of one text whose texts end.
        """
        chain, param_values = self._neutral_chain
        request = Request(
            primes=[np.empty(0, np.int64)] * len(streams),
            seeds=[(seed, stream) for stream in streams],
            chain=chain,
            params=chain.param_arrays(len(streams), param_values),
            max_tokens=symbols,
        )
        tokens = np.concatenate([chunk.tokens for chunk in checked_chunks(self.sampler, request)])
        if self.sampler.bundle.boundary is not None:
            return np.pad(tokens.T, ((0, 0), (0, symbols - len(tokens))), constant_values=-1)
        if tokens.shape != (symbols, len(streams)) or tokens.min() < 0:
            raise FileFormatError(
                f"{self.run.path}: its exported file does not write on without end; export it again: "
                f"gen export {self.run.path}"
            )
        return tokens.T

    @functools.cached_property
    def _neutral_chain(self) -> tuple[Chain, dict[str, dict[str, float]]]:
        """The file's own chain and the values that turn all its links off; no links where one cannot be turned off."""
        chain = stored_chain(self.sampler.bundle)
        if not all(link.strategy.switches for link in chain):
            return Chain([]), {}
        # A table that a request leaves out is neutral.
        return chain, {
            link.name: {name: spec.neutral for name, spec in link.strategy.switches.items() if isinstance(spec, Param)}
            for link in chain
        }


def open_teacher(path: Path) -> Teacher:
    """Open a run to learn from. Raises RunError where there is none, or where it was not exported or is damaged."""
    if path.is_file():
        raise RunError(f"{path} is a file; expected the folder of a run: its checkpoint gives the probabilities")
    if not path.exists():
        raise RunError(f"{path}: no such run; expected the folder of a trained and exported run")
    find_source(path, EXPORTED_SOURCES)
    run = open_run(path)
    config = run.config
    for section in ("tokenizer", "corpus", "model"):  # what a student reads of it
        if "name" not in config.get(section, {}):
            raise RunError(f"{run.path}/config.toml: damaged, [{section}] has no name; train the run again")
    if not any(run.checkpoints.glob("*.safetensors")):
        raise RunError(f"{run.path} has no checkpoint, which gives the probabilities; train it again")
    return Teacher(run, config)


def reopen_teacher(run: Run, table: Mapping[str, Any], path: Path | None) -> Teacher | None:
    """Return the teacher of a run that is resumed; None for a run without one.

    ``table`` is the config's table ``[corpus]``; ``path`` is where the teacher is, if not where that says.
    """
    stored_path = table.get("teacher")
    if stored_path is None:
        if path is not None:
            raise UsageError(f"{run.path} has no teacher; go on with: gen train --resume --run {run.path}")
        return None
    try:
        return open_teacher(Path(str(stored_path)) if path is None else path)
    except RunError as error:
        raise RunError(
            f"the teacher: {error}. If it was moved, say where it is: gen distill RUN --resume --run {run.path}"
        ) from None


def adopt_settings(config: ConfigTable, options: TrainOptions, teacher: Teacher) -> ConfigTable:
    """Return a student's config with what is its teacher's: tokenizer, share that is held out, length of records.

    Raises UsageError where the user has set another one.
    """
    adopted = {
        "tokenizer": teacher.config["tokenizer"],
        "run": {"val_frac": teacher.config.get("run", {}).get("val_frac", Settings.val_frac)},
    }
    typed = typed_settings(options)
    for section, table in adopted.items():
        typed_table = typed.get(section, {})
        names = typed_table if section == "tokenizer" else typed_table.keys() & table.keys()
        for name in names:
            if typed_table[name] != table.get(name):
                raise UsageError(
                    f"{section}.{name} = {typed_table[name]}: a student has its teacher's, which is {table.get(name)}; "
                    f"leave it out"
                )
    if read_options(teacher.config["corpus"]) is not None and "length" not in typed.get("batcher", {}):
        length = teacher.config.get("batcher", {}).get("length")
        if isinstance(length, int):  # a record is read as a whole: the windows of a preset may be shorter
            adopted["batcher"] = {"length": length}
    return merge({**config, "tokenizer": {}}, adopted)


def lesson_seed(seed: int) -> int:
    """Return the seed of the texts that a student with a seed learns from: no other text is written with it."""
    return int.from_bytes(hashlib.sha256(f"lesson {seed}".encode()).digest()[:7], "little")
