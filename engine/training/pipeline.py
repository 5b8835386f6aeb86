"""A training run from its options to the exported files. `gen train` and `gentext.train` call `run_training`."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

from gentext import run as runs
from gentext.capabilities import ReportsPadding, SupportsPrepare
from gentext.components.tokenizers import read_symbols
from gentext.config import ConfigTable, build_config, to_table
from gentext.console import detail, details, say, shows_details, warn
from gentext.corpus.arrangement import describe_arrangement
from gentext.corpus.held_out import write_held_out, write_held_out_records
from gentext.corpus.novelty import write_hashes
from gentext.corpus.record_corpus import read_record_corpus
from gentext.corpus.split_corpus import ResumedRun, SplitCorpus, corpus_source
from gentext.corpus.taught_corpus import describe_lesson, read_taught_corpus
from gentext.corpus.teacher import Teacher, adopt_settings, open_teacher, reopen_teacher
from gentext.corpus.text import read_text
from gentext.data.in_memory import InMemoryCorpus
from gentext.errors import GenError, MissingExtra, RunError, TrainingStopped, UsageError
from gentext.events import SilentHooks
from gentext.exported.metadata import choose_start
from gentext.files.file_names import store_paths
from gentext.interfaces import FitResult, World
from gentext.manager import host
from gentext.measuring import count_symbols
from gentext.run import Run
from gentext.runs.lock import RunLock
from gentext.runs.record_options import RecordOptions, read_options
from gentext.runs.removal import clear_beginning
from gentext.runs.resolve import (
    SECTIONS,
    ConfiguredComponent,
    InitialWeightsLoader,
    TrainOptions,
    adjustable_keys,
    configured_component,
    resolve_config,
    with_defaults,
)
from gentext.sampling.configured_chain import configured_chain
from gentext.settings import BUDGET_UNITS, Settings, check_extras
from gentext.training import advice
from gentext.training.planning import PreparedTraining, adjust_and_prepare, explain_memory_shortage
from gentext.training.verdict import RunFacts, judge

DEFAULT_CORPUS = "python-help"


def run_training(options: TrainOptions) -> tuple[Run, FitResult]:
    """Train a model as the options say, and export it unless `Settings.export` is false."""
    if options.corpus == "-" and World.of_process().size > 1:
        raise UsageError("standard input serves one process only: with torchrun, name a file or a folder")
    if options.resume and options.initial_weights:
        raise UsageError("init_from begins a new run, resume goes on with one: give one of them")
    with RunLock() as lock, details(options.verbose):
        try:
            run, prepared, corpus, settings = _begin_run(options, lock)
        except KeyboardInterrupt:
            if World.of_process().rank:
                raise
            state = "the run is as it was" if options.resume else "nothing was saved yet"
            raise TrainingStopped(f"stopped by Ctrl-C before the first step; {state}") from None
        return run, _fit_model(run, prepared, corpus, settings, resume=options.resume)


@dataclasses.dataclass(frozen=True)
class _Training:
    """The settings of a new run, or of a run that is resumed."""

    config: ConfigTable
    corpus: str | InMemoryCorpus
    """A path, ``-``, a name of the catalogue, or what is in memory."""
    path: Path | None
    """Folder of the run; None: a new one."""
    records: RecordOptions | None = None
    """How the corpus is cut into records; None: it is one text."""
    val: str | None = None
    """What is held out instead of a part of the corpus."""
    resumed: ResumedRun | None = None
    initial_weights: InitialWeightsLoader | None = None
    preset: str = ""
    """The preset of a new run."""
    adjustable: frozenset[str] = frozenset()
    """The keys, as ``section.name``, that plugins may adjust."""
    teacher: Teacher | None = None
    """The run that teaches the model; then the corpus is its own."""


def _new_training(options: TrainOptions) -> _Training:
    if World.of_process().rank == 0:  # the other processes write nothing
        runs.check_free(options.run)
    config, teacher = resolve_config(options), None
    if options.teacher is not None:
        teacher = open_teacher(options.teacher)
        config = adopt_settings(config, options, teacher)
    return _Training(
        config=config,
        corpus=options.in_memory or (DEFAULT_CORPUS if options.corpus is None else options.corpus),
        path=options.run,
        records=options.records,
        val=options.val,
        initial_weights=options.initial_weights,
        preset=options.preset_name,
        adjustable=frozenset(adjustable_keys(options)),
        teacher=teacher,
    )


def _resumed_training(options: TrainOptions, lock: RunLock) -> _Training:
    """Find and lock the run to resume, and check that its config names its text and its components."""
    if options.preset or options.config or options.settings or options.flags or options.records or options.val:
        raise UsageError("resume goes on with the settings of the run; leave out everything but corpus and run")
    run = runs.open_run(options.run) if options.run else runs.newest_run(exported=False)[0]
    if run is None:
        raise RunError(f"nothing to resume: no run in {runs.runs_folder()}/; name the folder of one")
    lock.acquire(run.path)
    config = run.config
    corpus_table = config.pop("corpus", {})
    nameless_sections = [kind for kind in SECTIONS if "name" not in config.get(kind, {})]
    if "name" not in corpus_table:
        nameless_sections.append("corpus")
    if nameless_sections:
        raise RunError(
            f"{run.path / runs.CONFIG_FILE}: damaged, [{nameless_sections[0]}] has no name; train the run again"
        )
    teacher = reopen_teacher(run, corpus_table, options.teacher)
    source: str | InMemoryCorpus | None = options.in_memory or options.corpus
    if source is None and teacher is not None and "file" in teacher.config["corpus"]:
        source = corpus_source(teacher.run, teacher.config["corpus"])  # it has moved where the teacher's folder has
    corpus = corpus_source(run, corpus_table) if source is None else source
    if not isinstance(corpus, str | InMemoryCorpus) or (corpus == "-" and source is None):
        raise UsageError(f"{run.path} was trained from standard input: pipe the same text in again, with CORPUS -")
    val = corpus_table.get("val")
    records = read_options(corpus_table)
    resumed = ResumedRun(run, corpus_table)
    return _Training(config, corpus, run.path, records, None if val is None else str(val), resumed, teacher=teacher)


def _begin_run(options: TrainOptions, lock: RunLock) -> tuple[Run, PreparedTraining, SplitCorpus, Settings]:
    """Read the text, prepare the training, and make the run's folder, or find that of a run that is resumed."""
    training = _resumed_training(options, lock) if options.resume else _new_training(options)
    config = with_defaults(training.config)
    settings = build_config(Settings, config.get("run", {}), "run")
    check_extras(settings)
    corpus = _read_corpus(training, configured_component(config, "tokenizer"), settings)
    configured_chain(host().registry, config.get("chain", {}), corpus.tokenizer.vocab_size)  # raises where it is wrong
    prepared = adjust_and_prepare(config, corpus, settings, training.preset, training.adjustable)
    weights_note = _prepare_weights(training, prepared, corpus)
    # An error in the budget must come before the run has a folder. Runs of older versions keep their held-out corpus.
    plan = prepared.plan(keep_held_out=training.resumed is not None and not settings.held_out)
    corpus = corpus.cut_held_out(plan.held_out)
    run = training.resumed.run if training.resumed else _create_run(training, prepared, corpus, lock)
    if weights_note:
        say(weights_note)
    if prepared.adjustment_note:
        detail(prepared.adjustment_note)
    _describe_training(run, prepared, corpus)
    return run, prepared, corpus, settings


def _read_corpus(training: _Training, tokenizer: ConfiguredComponent, settings: Settings) -> SplitCorpus:
    """Read the text, or the records, of a run; a student's with its teacher."""
    if training.teacher is not None:
        teacher = training.teacher.on_device(settings)
        return read_taught_corpus(teacher, tokenizer, training.corpus if training.resumed else None, training.resumed)
    return read_split_corpus(
        training.corpus, training.records, training.val, tokenizer, settings.val_frac, training.resumed
    )


def read_split_corpus(
    source: str | InMemoryCorpus,
    records: RecordOptions | None,
    val: str | None,
    tokenizer: ConfiguredComponent,
    val_frac: float,
    resumed: ResumedRun | None = None,
) -> SplitCorpus:
    """Read the text of a run, or its records, as `TrainOptions` has them; see `read_text` and `read_record_corpus`."""
    if records is None:
        corpus = read_text(source, tokenizer, val_frac, val, resumed)
    else:
        corpus = read_record_corpus(source, records, tokenizer, val_frac, val, resumed)
    if isinstance(source, InMemoryCorpus):
        corpus.table["file"] = corpus.table.pop("origin")
    if val is not None:
        corpus.table["val"] = val
    return corpus


def _prepare_weights(training: _Training, prepared: PreparedTraining, corpus: SplitCorpus) -> str:
    """Adapt a new model's weights to its corpus, or load those of another run; return a line about them, or none."""
    model = prepared.model
    if not training.resumed and isinstance(model, SupportsPrepare):
        model.prepare(corpus.counts)
    if training.initial_weights is None:
        return ""
    return training.initial_weights(model, corpus.tokenizer, prepared.config)


def _create_run(training: _Training, prepared: PreparedTraining, corpus: SplitCorpus, lock: RunLock) -> Run:
    """Create and lock the folder of a new run, and write the tokenizer, the held-out text and the config.

    A corpus that was in memory is written too, so that the run can be resumed.
    """
    if World.of_process().rank:  # rank 0 creates it
        return Run(training.path or runs.runs_folder())
    run = runs.create_run(training.path, corpus.table["name"])
    lock.acquire(run.path)
    clear_beginning(run.path)
    plan = prepared.plan()
    run_table = {key: setting for key, setting in to_table(prepared.settings).items() if key not in BUDGET_UNITS}
    run_table |= {"steps": plan.steps, "held_out": plan.held_out, "measured_symbols": plan.measured_symbols}
    if isinstance(plan.measured_at, tuple):  # else the trainer's options say when
        run_table["measured_at"] = list(plan.measured_at)
    if isinstance(training.corpus, InMemoryCorpus):
        runs.write_bytes(run.path / training.corpus.filename, training.corpus.content)
    _write_first_files(run, {**prepared.config, "run": run_table, "corpus": store_paths(corpus.table)}, corpus)
    return run


def _write_first_files(run: Run, config: ConfigTable, corpus: SplitCorpus) -> None:
    try:
        import tomli_w
    except ModuleNotFoundError:
        raise MissingExtra("training", "train") from None
    tokenizer = corpus.tokenizer
    name = config["tokenizer"]["name"]
    symbols = read_symbols(name, tokenizer)
    state = {
        "name": name,
        "state": tokenizer.state(),
        "start": choose_start(symbols, corpus.counts, tokenizer.unknown)
        if corpus.records is None
        else corpus.records.boundary,
    }
    if corpus.records is not None:
        state["records"] = dataclasses.asdict(corpus.records)
    runs.write_text(run.path / runs.TOKENIZER_FILE, json.dumps(state, ensure_ascii=False, indent=1) + "\n")
    _write_held_out(run, corpus)
    if corpus.hashes is not None:
        write_hashes(run.path / runs.HASHES_FILE, corpus.hashes)
    runs.write_text(run.path / runs.CONFIG_FILE, tomli_w.dumps(config))


def _write_held_out(run: Run, corpus: SplitCorpus) -> None:
    if corpus.records is None:
        write_held_out(run.path, "".join(corpus.held_out))
        return
    repeats = None if corpus.val.repeats is None else corpus.val.repeats.tolist()
    write_held_out_records(run.path, corpus.held_out, repeats)


def _describe_training(run: Run, prepared: PreparedTraining, corpus: SplitCorpus) -> None:
    """Print the corpus and the model, a line each, and warn where these and the budget do not suit each other."""
    plan = prepared.plan()
    parameters = sum(int(parameter.numel()) for parameter in prepared.model.parameters())
    kind = "text"
    if corpus.train.is_records:
        kind = f"records: {corpus.train.records:,} to learn from, {corpus.val.records:,} measured that are held out"
    say(
        f"{kind}: {corpus.train.symbols:,} symbols to learn from, {corpus.val.symbols:,} held out, "
        f"{corpus.tokenizer.vocab_size} different"
    )
    adapted = "" if shows_details() else prepared.adjusted_settings
    say(
        f"model: {parameters:,} parameters{f' ({adapted})' if adapted else ''}; budget: {plan.steps:,} steps, about "
        f"{advice.format_duration(plan.seconds)}; device: {prepared.device_description}; run: {run.path}"
    )
    detail(f"{len(plan.measured_at)} measurements on the way")
    held_out_count = corpus.table["characters"] - corpus.characters
    if corpus.records is None and held_out_count > corpus.held_out_characters:
        detail(
            f"held out are {held_out_count:,} characters, of which {corpus.held_out_characters:,} are measured; "
            f"a smaller val_frac leaves more to learn from"
        )
    passes = count_symbols(prepared.batcher, plan.steps) / corpus.train.symbols
    # A pass takes its share of measuring, too.
    seconds_of_pass = plan.seconds / passes
    for line in advice.before_training(
        parameters,
        corpus.train.symbols,
        corpus.val.symbols,
        passes,
        seconds_of_pass,
        prepared.config["model"],
        is_endless=corpus.train.is_endless,
    ):
        warn(line)
    arrangement = _describe_order(prepared, corpus)
    if arrangement:
        warn(arrangement)


def _describe_order(prepared: PreparedTraining, corpus: SplitCorpus) -> str:
    """Return a line about a text whose end is unlike the rest, empty for any other, and for records."""
    if corpus.train.is_records:
        return ""
    symbols = read_symbols(prepared.config["tokenizer"]["name"], corpus.tokenizer)
    return describe_arrangement(corpus.train.tokens, corpus.val.tokens, symbols)


def _fit_model(
    run: Run, prepared: PreparedTraining, corpus: SplitCorpus, settings: Settings, resume: bool
) -> FitResult:
    """Train, and export the model if the settings say so. An error message says how to resume the run."""
    rank = World.of_process().rank
    hooks = SilentHooks() if rank else host().hooks
    try:
        with explain_memory_shortage():
            result = prepared.trainer.fit(
                prepared.model, prepared.batcher, corpus.train, corpus.val, run, hooks, prepared.plan(), resume
            )
        if not rank:
            lines = [
                *judge(_collect_facts(result, prepared, corpus)).lines,
                *_describe_records(result, prepared, corpus),
                *describe_lesson(corpus.train),
            ]
            runs.write_text(run.path / runs.VERDICT_FILE, "".join(f"{line}\n" for line in lines))
        hooks.run_finished(run, settings, result)
        if settings.export:
            hooks.export_run(run, settings)
    except KeyboardInterrupt:
        if rank:
            raise
        raise TrainingStopped(f"stopped before the end; {_advice_to_resume(run)}") from None
    except (GenError, OSError) as error:
        if not run.path.is_dir():
            raise RunError(
                f"{run.path} was moved or removed while it was trained: what the model learned since its last "
                f"checkpoint is lost. If the folder was moved, go on with: gen train --resume --run ITS-NEW-PLACE"
            ) from error
        if not isinstance(error, RunError) or not isinstance(error.__cause__, OSError):
            raise
        raise RunError(f"{error}. When that is put right, {_advice_to_resume(run)}") from error
    finally:
        hooks.run_closed(run)
    return result


def _describe_records(result: FitResult, prepared: PreparedTraining, corpus: SplitCorpus) -> list[str]:
    """Return a line about records: bits of each, and padding; none for one text."""
    if not corpus.train.is_records:
        return []
    parts = []
    if corpus.val.records:
        bits = result.val_loss / math.log(2) * corpus.val.symbols_per_record
        parts.append(f"{bits:.2f} bits a record, held out")
    if isinstance(prepared.batcher, ReportsPadding):
        parts.append(f"{100 * prepared.batcher.padding:.2g} % of a batch is padding")
    return ["; ".join(parts)] if parts else []


def _collect_facts(result: FitResult, prepared: PreparedTraining, corpus: SplitCorpus) -> RunFacts:
    """Return what the verdict on a run depends on."""
    model_options = prepared.config["model"]
    dropout = model_options.get("dropout")
    if corpus.train.is_endless:  # dropout is no remedy there
        model_options = {key: setting for key, setting in model_options.items() if key != "dropout"}
    train_symbols, symbols_read = corpus.train.symbols, count_symbols(prepared.batcher, result.steps)
    return RunFacts(
        train_symbols=min(train_symbols, symbols_read) if corpus.train.is_endless else train_symbols,
        symbols_read=symbols_read,
        steps=result.steps,
        budget_steps=prepared.plan().steps,
        best_step=result.best_step,
        val_loss=result.val_loss,
        train_loss=result.train_loss,
        curve=result.curve,
        vocab_size=corpus.tokenizer.vocab_size,
        unigram_loss=corpus.unigram_loss(),
        options=model_options,
        dropout=dropout if isinstance(dropout, float) else 0.0,
        symbols_per_second=result.symbols_per_second,
        arrangement=_describe_order(prepared, corpus),
    )


def _advice_to_resume(run: Run) -> str:
    """Return the advice for a run whose training ended early."""
    if not any(run.checkpoints.glob("*.safetensors")):
        return "give the same command again: nothing was saved yet"
    return f"go on with: gen train --resume --run {run.path}"
