"""The corpus of a student: what its teacher has learned from, or where that is gone, a text that the teacher writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gentext.components.tokenizers import check_ids
from gentext.console import progress, say
from gentext.corpus.held_out import held_out_path, read_held_out
from gentext.corpus.record_corpus import read_record_corpus
from gentext.corpus.split_corpus import ResumedRun, SplitCorpus, corpus_source
from gentext.corpus.teacher import Teacher
from gentext.corpus.text import read_text
from gentext.data.in_memory import InMemoryCorpus
from gentext.describe import load_run_tokenizer
from gentext.errors import ConfigError, CorpusError, RunError
from gentext.runs.record_options import read_options
from gentext.runs.resolve import ConfiguredComponent
from gentext.settings import HELD_OUT_LIMIT, Settings
from gentext.token_corpus import TokenCorpus

#: Rows that a teacher writes side by side, of a text that is read once.
SAMPLE_ROWS = 64
#: Symbols of the written text that stands for the teacher's own where that is gone: to measure by, and to hold out.
SAMPLE_SYMBOLS, HELD_OUT_SYMBOLS = 200_000, 50_000
#: Seeds of these texts, which differ from those of all texts that a student learns from: `lesson_seed`.
SAMPLE_SEED, HELD_OUT_SEED = 1, 2


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


def read_taught_corpus(
    teacher: Teacher, tokenizer: ConfiguredComponent, source: str | InMemoryCorpus | None, resumed: ResumedRun | None
) -> SplitCorpus:
    """Read the text that a teacher has learned from; where that is gone, have the teacher write one.

    Then what its run holds out is held out, or a written text where it holds out nothing. A run that is resumed needs
    what it had at its beginning: raises CorpusError where the text is gone since then, RunError where it is another
    one, or where the teacher is, and for a teacher whose tokenizer is damaged.

    :param source: where the text is, if not where the teacher's config says.
    """
    load_run_tokenizer(teacher.run)  # raises where it is damaged, which would look like another text
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
    source: str | InMemoryCorpus | None,
    resumed: ResumedRun | None,
) -> SplitCorpus:
    """Return the teacher's text; where a new run does not find it, one that the teacher writes."""
    records = read_options(table)
    origin, val = corpus_source(teacher.run, table) if source is None else source, table.get("val")
    val_frac = teacher.config.get("run", {}).get("val_frac", Settings.val_frac)
    try:
        if not isinstance(origin, str | InMemoryCorpus) or origin == "-":
            raise CorpusError("the text came from standard input")
        reread_run = resumed or ResumedRun(teacher.run, teacher.config["corpus"])
        if records is None:
            corpus = read_text(origin, tokenizer, val_frac, val, reread_run)
        else:
            corpus = read_record_corpus(origin, records, tokenizer, val_frac, val, reread_run)
    except (CorpusError, RunError) as error:
        if resumed or source is not None:
            raise
        if records is not None:
            raise RunError(
                f"{_describe_loss(origin, error)}; without its records no run of records can teach"
            ) from None
        say(f"{_describe_loss(origin, error)}: only what the teacher writes is read")
        return _write_corpus(teacher, table)
    if val is not None:
        corpus.table["val"] = val
    train = corpus.train
    train = TaughtCorpus(train.tokens, train.boundary, train.offsets, train.repeats, teacher=teacher)
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
