"""Measures how fast training lowers the loss: against the notebook, and within a budget; and its rate.

    python benchmarks/training.py notebook-loss [anna] [--characters 1900000] [--seeds 1,2,3]
    python benchmarks/training.py budget [anna] [--preset base] [--minutes 5]
    python benchmarks/training.py shakespeare [tinyshakespeare] [--seconds 60]
    python benchmarks/training.py throughput [anna] [--steps 40] [--rounds 3]
    python benchmarks/training.py scaling [anna] [--sizes 1000000,100000000] [--ranks 1,2]

All times are those of training steps, for gentext and for the notebook: no start, no evaluation, no checkpoint.
`--set` goes to every `gen train`, and `--json` prints JSON instead of a table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import common
import trainings

from gentext.data.corpus import read_corpus
from gentext.describe import load_run_tokenizer
from gentext.errors import GenError
from gentext.events import Progress
from gentext.hookspecs import hookimpl
from gentext.manager import host
from gentext.plugins.pytorch import build_model, load_best_checkpoint
from gentext.plugins.pytorch.checkpoint import read_checkpoint
from gentext.plugins.pytorch.sampler import TorchReader
from gentext.run import HELD_OUT_FILE, Run
from gentext.runs.resolve import TrainOptions
from gentext.scoring.score import notebook_loss
from gentext.training.pipeline import run_training

#: The notebook's loss after 20 passes over anna.txt, by its own formula, and the number of their steps.
NOTEBOOK_LOSS, NOTEBOOK_STEPS = 1.3007, 2780
#: Characters of one step of the notebook.
NOTEBOOK_CHARACTERS = 128 * 100
#: Number of measurements of the loss during a run.
POINTS = 20
MAX_PARAMETERS = 1_000_000

Row = dict[str, Any]


class FormulaObserver:
    """Measures the loss by the notebook's formula at every checkpoint of a run in this process."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float, float]] = []
        """Characters read, seconds of steps, loss."""

    @hookimpl
    def checkpoint_saved(self, run: Run, progress: Progress, path: Path) -> None:
        loss = loss_by_formula(run, build_model(run, read_checkpoint(path)))
        self.points.append((progress.tokens, progress.seconds, loss))


def loss_by_formula(run: Run, model: Any) -> float:
    """Return the loss of a model on its run's held-out text, by the notebook's formula."""
    opened = TorchReader(model)
    tokens = load_run_tokenizer(run).encode((run.path / HELD_OUT_FILE).read_text(encoding="utf-8"))
    loss = notebook_loss(opened, tokens)
    if loss is None:
        raise SystemExit("the held-out text is too short for the notebook's formula: 12,800 characters at least")
    return loss


def notebook_rate(text: Path, steps: int) -> float:
    """Return the characters a second of the notebook's own loop, in a process of its own."""
    script = Path(__file__).with_name("notebook.py")
    done = subprocess.run(
        [sys.executable, str(script), "train", str(text), "--steps", str(steps)], check=True, stdout=subprocess.PIPE
    )
    return float(json.loads(done.stdout)["characters_per_second"])


def notebook_loss_rows(options: argparse.Namespace, text: Path, folder: Path) -> list[Row]:
    """One row a seed: when the loss first reached the target, and how long the notebook would take."""
    observer = FormulaObserver()
    rows: list[Row] = []
    host().observe(observer)
    values = trainings.preset_values(options.preset)
    steps = trainings.steps_for(options.characters, values)
    settings = [
        *trainings.settings(values),
        f"trainer.eval_every={max(1, steps // POINTS)}",
        *trainings.WHOLE_HELD_OUT,
        *options.set,
    ]
    for seed in options.seeds:
        rate = notebook_rate(text, options.notebook_steps)
        flags = {"steps": steps, "seed": seed, "export": False}
        observer.points.clear()
        run_training(TrainOptions(str(text), folder / str(seed), options.preset, settings=settings, flags=flags))
        reached = next((point for point in observer.points if point[2] <= options.target), None)
        notebook_seconds = NOTEBOOK_STEPS * NOTEBOOK_CHARACTERS / rate
        rows.append(
            {
                "seed": seed,
                "budget": steps * values["batcher.batch"] * values["batcher.length"],
                "loss at the end": observer.points[-1][2],
                f"characters to {options.target}": reached and reached[0],
                "seconds": reached and reached[1],
                "notebook characters/s": rate,
                "notebook seconds": notebook_seconds,
                "times faster": reached and notebook_seconds / reached[1],
                "times fewer characters": reached and NOTEBOOK_STEPS * NOTEBOOK_CHARACTERS / reached[0],
            }
        )
    return rows


def budget_rows(options: argparse.Namespace, text: Path, folder: Path) -> list[Row]:
    """One row a seed: the best loss of a preset with its rules within some minutes."""
    rows = []
    for seed in options.seeds:
        run = folder / str(seed)
        words = ["--preset", options.preset, "--minutes", str(options.minutes), "--seed", str(seed)]
        result = trainings.run_training(text, run, {}, *words, *options.words)
        model = build_model(Run(run), load_best_checkpoint(Run(run)))
        rows.append(
            {
                "preset": options.preset,
                "seed": seed,
                "val loss": result["val_loss"],
                "by the notebook's formula": loss_by_formula(Run(run), model),
                "seconds": result["seconds"],
                "characters": result["characters"],
                "characters/s": result["characters_per_second"],
                "parameters": sum(weights.numel() for weights in model.parameters()),
            }
        )
    return rows


def shakespeare_rows(options: argparse.Namespace, text: Path, folder: Path) -> list[Row]:
    """The same for a model of at most a million parameters."""
    options.minutes = options.seconds / 60
    rows = budget_rows(options, text, folder)
    if rows[0]["parameters"] > MAX_PARAMETERS:
        raise SystemExit(f"{rows[0]['parameters']:,} parameters; expected {MAX_PARAMETERS:,} at most")
    return rows


def throughput_rows(options: argparse.Namespace, text: Path, folder: Path) -> list[Row]:
    """The rate of the notebook's network, trained by gentext and by the notebook's loop in turns; medians."""
    rates_by_precision: dict[str, list[float]] = {precision: [] for precision in options.precisions.split(",")}
    notebook_rates = []
    for turn in range(options.rounds):
        notebook_rates.append(notebook_rate(text, options.steps))
        for precision, rates in rates_by_precision.items():
            words = ["--preset", "notebook", "--steps", str(options.steps), "--precision", precision, *options.words]
            result = trainings.run_training(text, folder / f"{precision}-{turn}", {}, *words)
            rates.append(result["characters_per_second"])
    loops = [("the notebook's", notebook_rates)]
    loops += [(f"gentext's, {precision}", rates) for precision, rates in rates_by_precision.items()]
    return [
        {
            "loop": name,
            "characters/s": statistics.median(rates),
            "slowest": min(rates),
            "fastest": max(rates),
            "ratio": statistics.median(rates) / statistics.median(notebook_rates),
        }
        for name, rates in loops
    ]


def scaling_rows(options: argparse.Namespace, text: Path, folder: Path) -> list[Row]:
    """The rate of a preset on longer and longer texts (one text, repeated), and in several processes."""
    content, rows = text.read_text(encoding="utf-8"), []
    for size in options.sizes:
        path = folder / f"{size}.txt"
        path.write_text((content * (size // len(content) + 1))[:size], encoding="utf-8")
        for ranks in options.ranks:
            words = ["--preset", options.preset, "--steps", str(options.steps), "--val-frac", str(options.val_frac)]
            values = {"trainer.eval_every": options.steps}
            result = trainings.run_training(
                path, folder / f"{size}-{ranks}", values, *words, *options.words, ranks=ranks
            )
            rows.append({"characters": size, "processes": ranks, "characters/s": result["characters_per_second"]})
        path.unlink()
    return rows


def main() -> None:
    options = parse()
    title = f"{options.benchmark}: {options.text}"
    options.words = trainings.as_words(options.set)
    with trainings.temporary_folder() as folder:
        path = Path(folder) / "text.txt"
        path.write_text(read_corpus(options.text).text, encoding="utf-8", newline="")
        try:
            rows = options.make(options, path, Path(folder))
        except (trainings.TrainingFailed, GenError) as error:
            raise SystemExit(str(error)) from None
    common.print_table(title, rows, options.json)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="benchmark", required=True)

    def command(name: str, make: Any, text: str, preset: str = "", *, seeds: bool = True) -> argparse.ArgumentParser:
        subparser = commands.add_parser(name, help=make.__doc__)
        subparser.set_defaults(make=make)
        subparser.add_argument("text", nargs="?", default=text, help="a file, or a name of the catalogue")
        if preset:
            subparser.add_argument("--preset", default=preset)
        if seeds:
            subparser.add_argument("--seeds", type=trainings.whole_numbers, default=[1, 2, 3])
        subparser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
        subparser.add_argument("--json", action="store_true")
        return subparser

    subparser = command("notebook-loss", notebook_loss_rows, "anna", "base")
    subparser.add_argument("--characters", type=int, default=1_900_000, help="the budget of each run")
    subparser.add_argument("--target", type=float, default=NOTEBOOK_LOSS)
    subparser.add_argument("--notebook-steps", type=int, default=40, help="steps that its rate is measured over")
    subparser = command("budget", budget_rows, "anna", "base")
    subparser.add_argument("--minutes", type=float, default=5.0)
    subparser = command("shakespeare", shakespeare_rows, "tinyshakespeare", "small")
    subparser.add_argument("--seconds", type=float, default=60.0)
    subparser = command("throughput", throughput_rows, "anna", seeds=False)
    subparser.add_argument("--steps", type=int, default=40)
    subparser.add_argument("--rounds", type=int, default=3)
    subparser.add_argument("--precisions", default="auto,fp32")
    subparser = command("scaling", scaling_rows, "anna", "base", seeds=False)
    subparser.add_argument("--steps", type=int, default=100)
    subparser.add_argument("--sizes", type=trainings.whole_numbers, default=[1_000_000, 10_000_000, 100_000_000])
    subparser.add_argument("--ranks", type=trainings.whole_numbers, default=[1, 2])
    subparser.add_argument("--val-frac", type=float, default=0.01)
    return parser.parse_args()


if __name__ == "__main__":
    main()
