"""``gen sweep``: train many times with different settings, and keep the best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gentext.arguments import with_flags
from gentext.console import say
from gentext.errors import GenError, MissingExtra
from gentext.plugins.trainers.commands import SettingTexts, command_line
from gentext.runs.completion import complete_corpora
from gentext.training.declaration import TRAIN_DEFAULTS, SweepArguments
from gentext.training.options import train_options
from gentext.training.pipeline import DEFAULT_CORPUS

if TYPE_CHECKING:
    from gentext.plugins.sweep.study import TrialRow
    from gentext.plugins.sweep.sweep import Sweep


@with_flags
def sweep(
    corpus: Annotated[
        str | None,
        typer.Argument(
            help=f"A file, a folder, or a name from `gen corpora`. Default: {DEFAULT_CORPUS}.",
            autocompletion=complete_corpora,
        ),
    ] = None,
    *,
    folder: Annotated[
        Path | None, typer.Option("--sweep", metavar="DIR", help="Folder of the sweep. Default: a new one in sweeps/.")
    ] = None,
    space: Annotated[
        Path | None, typer.Option(help="A TOML file that says what to try. Default: the built-in space.")
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="How many settings to try. Default: 20.")] = None,
    settings: SettingTexts = None,
    arguments: SweepArguments,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a sweep, or join a process that runs it.")] = False,
    no_prune: Annotated[bool, typer.Option("--no-prune", help="Also train hopeless trials to their end.")] = False,
    no_export: Annotated[bool, typer.Option("--no-export", help="Do not export the best run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print print the table as JSON.")] = False,
) -> None:
    """Train many times with different settings, and keep the run with the lowest held-out loss.

    A TOML file says what to try; the built-in space varies sizes, layers, dropout, batches and rates. The preset, the
    config, the settings and the budget apply to each trial.
    """
    shared_options = train_options({**TRAIN_DEFAULTS, **arguments}, settings or [], corpus=corpus)
    try:
        from gentext.plugins.sweep.report import format_table, summarize_sweep
        from gentext.plugins.sweep.start import SweepOptions, start_sweep
    except ModuleNotFoundError as error:
        raise MissingExtra("gen sweep", "train,sweep" if error.name == "tomli_w" else "sweep") from None
    running_sweep = start_sweep(SweepOptions(shared_options, folder, space, trials, not no_prune, resume))
    running_sweep.run_trials()
    rows, symbols_per_record = running_sweep.write_report(), running_sweep.settings.symbols_per_record
    if as_json:
        summary = summarize_sweep(running_sweep.folder, running_sweep.settings.corpus, rows, symbols_per_record)
        print(json.dumps(summary, indent=1))
    else:
        print(format_table(running_sweep.space, rows, symbols_per_record))
    _keep_best(running_sweep, rows, export=not no_export)


def _keep_best(sweep: Sweep, rows: list[TrialRow], export: bool) -> None:
    """Copy the best trial to the folder ``best``, unless another process still trains some."""
    running_count = sum(row.state == "running" for row in rows)
    if running_count:
        say(f"{running_count} trials are still at work in another process; the process that ends last keeps the best")
        return
    best_row = rows[0]
    if best_row.state != "finished" or best_row.val_loss is None:
        raise GenError(f"no trial was finished; see {sweep.folder / 'sweep.csv'} for the reasons")
    run = sweep.keep_best(best_row, export=export)
    for line in run.read_verdict():
        say(line)
    say(f"the best is trial {best_row.number}; table and picture are in {sweep.folder}")
    say(f"next: {command_line('sample' if export else 'export', run.path)}")
