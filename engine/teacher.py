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

from gentext.chain import Chain
from gentext.config import ConfigTable, merge
from gentext.console import progress, say
from gentext.describe import load_run_tokenizer
from gentext.errors import ConfigError, CorpusError, FileFormatError, RunError, UsageError
from gentext.handover import check_ids, checked_chunks
from gentext.held_out import held_out_path, read_held_out
from gentext.interfaces import OpenSampler, Request
from gentext.opening import open_exported
from gentext.record_options import read_options
from gentext.resolve import ConfiguredComponent, TrainOptions, typed_settings
from gentext.run import GENERATOR_FILE, Run, open_run
from gentext.settings import HELD_OUT_LIMIT, Settings
from gentext.source import EXPORTED_SOURCES, find_source
from gentext.split_corpus import ResumedRun, SplitCorpus
from gentext.stored import stored_chain
from gentext.strategy import Param
from gentext.text import read_text
from gentext.token_corpus import TokenCorpus

#: Rows that a teacher writes side by side, of a text that is read once.
SAMPLE_ROWS = 64
#: Symbols of the written text that stands for the teacher's own where that is gone: to measure by, and to hold out.
SAMPLE_SYMBOLS, HELD_OUT_SYMBOLS = 200_000, 50_000
#: Seeds of these texts, which differ from those of all texts that a student learns from: `lesson_seed`.
SAMPLE_SEED, HELD_OUT_SEED = 1, 2


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

        A text depends on the seed and its stream alone. Raises FileFormatError for a file whose texts end.
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


@dataclasses.dataclass(frozen=True)
class TaughtCorpus(TokenCorpus):
    """The text that a teacher has learned from, or where that is gone, a text that it has written."""

    teacher: Teacher | None = None
    is_written: bool = False
    """Whether the teacher has written it."""

    @property
    def is_endless(self) -> bool:
        return True


def require_teacher(corpus: TokenCorpus, key: str) -> tuple[Teacher, TaughtCorpus]:
    """Return the teacher of a corpus, and the corpus. Raises ConfigError, which names the setting ``key``, without."""
    if not isinstance(corpus, TaughtCorpus) or corpus.teacher is None:
        raise ConfigError(f"{key}: only a run with a teacher can have it; begin one with: gen distill RUN")
    return corpus.teacher, corpus


def open_teacher(path: Path) -> Teacher:
    """Open a run to learn from. Raises RunError where there is none, or where it was not exported or is damaged."""
    if path.is_file():
        raise RunError(f"{path} is a file; expected the folder of a run: its checkpoint gives the probabilities")
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
    """Return a student's config with what is its teacher's: the tokenizer, and the share that is held out.

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
    return merge({**config, "tokenizer": {}}, adopted)


def read_taught_corpus(
    teacher: Teacher, tokenizer: ConfiguredComponent, source: str | None, resumed: ResumedRun | None
) -> SplitCorpus:
    """Read the text that a teacher has learned from; where that is gone, have the teacher write one.

    Then what its run holds out is held out, or a written text where it holds out nothing. A run that is resumed needs
    what it had at its beginning: raises CorpusError where the text is gone since then, RunError where it is another
    one, or where the teacher is.

    :param source: where the text is, if not where the teacher's config says.
    """
    table = resumed.corpus if resumed else teacher.config["corpus"]
    if resumed and table.get("teacher_sha256") != teacher.fingerprint:
        raise RunError(
            f"{resumed.run.path} has another teacher: {teacher.run.path} was changed since the run began; put the "
            f"former one back, or begin a new run with: gen distill {teacher.run.path}"
        )
    if resumed and table.get("written"):
        corpus = _write_corpus(teacher, table)
    else:
        corpus = _read_text_or_write(teacher, table, tokenizer, source, resumed)
    corpus.table.update(teacher=str(teacher.run.path.resolve()), teacher_sha256=teacher.fingerprint)
    return corpus


def _read_text_or_write(
    teacher: Teacher,
    table: Mapping[str, Any],
    tokenizer: ConfiguredComponent,
    source: str | None,
    resumed: ResumedRun | None,
) -> SplitCorpus:
    """Return the teacher's text; where a new run does not find it, one that the teacher writes."""
    if read_options(table) is not None:
        raise RunError(f"{teacher.run.path} is a run of records; only a run of one text can teach")
    origin, val = table.get("origin") if source is None else source, table.get("val")
    val_frac = teacher.config.get("run", {}).get("val_frac", Settings.val_frac)
    try:
        if not isinstance(origin, str) or origin == "-":
            raise CorpusError("the text came from standard input")
        corpus = read_text(
            origin, tokenizer, val_frac, val, resumed or ResumedRun(teacher.run, teacher.config["corpus"])
        )
    except (CorpusError, RunError) as error:
        if resumed or source is not None:
            raise
        say(f"{_describe_loss(origin, error)}: only what the teacher writes is read")
        return _write_corpus(teacher, table)
    if val is not None:
        corpus.table["val"] = val
    train = TaughtCorpus(corpus.train.tokens, teacher=teacher)
    return dataclasses.replace(corpus, train=train)


def _describe_loss(origin: object, error: CorpusError | RunError) -> str:
    """Return in words why a teacher's text cannot be read any more."""
    if origin == "-":
        return "the teacher's text came from standard input"
    state = "is another one now" if isinstance(error, RunError) else "is not there any more, or cannot be read"
    return f"the teacher's text {origin} {state}"


def _write_corpus(teacher: Teacher, table: Mapping[str, Any]) -> SplitCorpus:
    """Return a text that the teacher writes, and hold out what its run holds out, or a second text."""
    tokenizer = load_run_tokenizer(teacher.run)
    train = _write_text(teacher, SAMPLE_SEED, SAMPLE_SYMBOLS)
    try:
        held_out = "".join(read_held_out(held_out_path(teacher.run.path)))[:HELD_OUT_LIMIT]
        val = check_ids(table["name"], tokenizer.encode(held_out), tokenizer.vocab_size)
    except RunError:
        held_out, val = "", np.empty(0, np.int64)
    if len(val) < 2:
        say("the teacher's run holds nothing out: a text that the teacher writes is held out")
        val = _write_text(teacher, HELD_OUT_SEED, HELD_OUT_SYMBOLS)
        held_out = teacher.sampler.bundle.join_symbols(val).decode(errors="replace")
        val = check_ids(table["name"], tokenizer.encode(held_out), tokenizer.vocab_size)
    characters = len(teacher.sampler.bundle.join_symbols(train).decode(errors="replace"))
    corpus_table = {"name": table["name"], "origin": "", "sha256": str(table.get("sha256")), "written": True}
    corpus_table["characters"] = characters + len(held_out)
    return SplitCorpus(
        tokenizer,
        TaughtCorpus(train, teacher=teacher, is_written=True),
        TokenCorpus(val),
        np.bincount(train, minlength=tokenizer.vocab_size).astype(np.int64),
        characters,
        [held_out],
        corpus_table,
    )


def _write_text(teacher: Teacher, seed: int, symbols: int) -> NDArray[np.int64]:
    """Return int64 [symbols]: some written texts, one behind another."""
    with progress("writing a text", symbols, "symbols") as bar:
        tokens = teacher.write(seed, range(SAMPLE_ROWS), symbols // SAMPLE_ROWS).reshape(-1)
        bar.advance(symbols)
    return tokens


def describe_lesson(train: TokenCorpus) -> list[str]:
    """Return a line about a student's teacher, for the end of training; none for a run without one."""
    if not isinstance(train, TaughtCorpus) or train.teacher is None:
        return []
    run = train.teacher.run
    final_row: Mapping[str, Any] = next((row for row in reversed(run.read_metrics()) if row.get("finished")), {})
    loss = final_row.get("val_loss")
    return [] if loss is None else [f"its teacher {run.path} lost {loss:.4f} on what it held out"]


def lesson_seed(seed: int) -> int:
    """Return the seed of the texts that a student with a seed learns from: no other text is written with it."""
    return int.from_bytes(hashlib.sha256(f"lesson {seed}".encode()).digest()[:7], "little")
