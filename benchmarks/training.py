"""How fast training gets somewhere: against the notebook, within a budget, by size of text and number of processes.

    python benchmarks/training.py notebook-loss [anna] [--characters 1900000] [--seeds 1,2,3]
    python benchmarks/training.py budget [anna] [--preset base] [--minutes 5]
    python benchmarks/training.py shakespeare [tinyshakespeare] [--seconds 60]
    python benchmarks/training.py throughput [anna] [--steps 40] [--rounds 3]
    python benchmarks/training.py scaling [anna] [--sizes 1000000,100000000] [--ranks 1,2]

All times are those of training steps, on both sides: no start, no evaluation, no checkpoint. `--set` goes to every
`gen train` of ours, and `--json` prints JSON in place of a table.
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
from gentext.describe import load_tokenizer
from gentext.errors import GenError
from gentext.events import Progress
from gentext.hookspecs import hookimpl
from gentext.manager import host
from gentext.pipeline import train
from gentext.plugins.pytorch import checkpoint as ckpt
from gentext.plugins.pytorch.sampler import TorchModel
from gentext.resolve import TrainOptions
from gentext.run import HELD_OUT, Run
from gentext.score import notebook_loss

#: What the notebook's 20 passes over anna.txt end with, by its own formula, and how many steps they take.
NOTEBOOK_LOSS, NOTEBOOK_STEPS = 1.3007, 2780
NOTEBOOK_CHARACTERS = 128 * 100
#: Measurements of the loss on the way.
POINTS = 20
MOST_PARAMETERS = 1_000_000

Row = dict[str, Any]


class Formula:
    """Measures the loss by the notebook's formula at every checkpoint of a run in this process."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float, float]] = []
        """Characters read, seconds of steps, loss."""

    @hookimpl
    def checkpoint_saved(self, run: Run, progress: Progress, path: Path) -> None:
        self.points.append((progress.tokens, progress.seconds, by_formula(run, ckpt.build_model(run, ckpt.read(path)))))


def by_formula(run: Run, model: Any) -> float:
    """Return the loss of a model on its run's held-out text, by the notebook's formula."""
    opened = TorchModel(model, None, "cpu")  # type: ignore[arg-type]  # it only has to advance
    tokens = load_tokenizer(*run.read_tokenizer()).encode((run.path / HELD_OUT).read_text(encoding="utf-8"))
    loss = notebook_loss(opened.advance, opened.initial, tokens)
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


def notebook_loss_rows(given: argparse.Namespace, text: Path, folder: Path) -> list[Row]:
    """One row a seed: where the loss first was at the target, and how long the notebook would take."""
    formula, rows = Formula(), []
    host().observe(formula)
    values = trainings.spelled_out(given.preset)
    steps = trainings.steps_for(given.characters, values)
    settings = [*trainings.settings(values), f"trainer.eval_every={max(1, steps // POINTS)}", *given.set]
    for seed in given.seeds:
        rate = notebook_rate(text, given.notebook_steps)
        flags = {"steps": steps, "seed": seed, "export": False}
        formula.points.clear()
        train(TrainOptions(str(text), folder / str(seed), given.preset, settings=settings, flags=flags))
        reached = next((point for point in formula.points if point[2] <= given.target), None)
        theirs = NOTEBOOK_STEPS * NOTEBOOK_CHARACTERS / rate
        rows.append(
            {
                "seed": seed,
                "budget": steps * values["batcher.batch"] * values["batcher.length"],
                "loss at the end": formula.points[-1][2],
                f"characters to {given.target}": reached and reached[0],
                "seconds": reached and reached[1],
                "notebook characters/s": rate,
                "notebook seconds": theirs,
                "times faster": reached and theirs / reached[1],
                "times fewer characters": reached and NOTEBOOK_STEPS * NOTEBOOK_CHARACTERS / reached[0],
            }
        )
    return rows


def budget_rows(given: argparse.Namespace, text: Path, folder: Path) -> list[Row]:
    """One row a seed: the best loss of a preset, as a user starts it, within some minutes."""
    rows = []
    for seed in given.seeds:
        run = folder / str(seed)
        words = ["--preset", given.preset, "--minutes", str(given.minutes), "--seed", str(seed)]
        result = trainings.run_training(text, run, {}, *words, *given.words)
        model = ckpt.build_model(Run(run), ckpt.load_best(Run(run)))
        rows.append(
            {
                "preset": given.preset,
                "seed": seed,
                "val loss": result["val_loss"],
                "by the notebook's formula": by_formula(Run(run), model),
                "seconds": result["seconds"],
                "characters": result["characters"],
                "characters/s": result["characters_per_second"],
                "parameters": sum(one.numel() for one in model.parameters()),
            }
        )
    return rows


def shakespeare_rows(given: argparse.Namespace, text: Path, folder: Path) -> list[Row]:
    """The same for a model of at most a million parameters."""
    given.minutes = given.seconds / 60
    rows = budget_rows(given, text, folder)
    if rows[0]["parameters"] > MOST_PARAMETERS:
        raise SystemExit(f"{rows[0]['parameters']:,} parameters; expected {MOST_PARAMETERS:,} at most")
    return rows


def throughput_rows(given: argparse.Namespace, text: Path, folder: Path) -> list[Row]:
    """The notebook's network in our loop and in its own, in turns; medians."""
    ours: dict[str, list[float]] = {precision: [] for precision in given.precisions.split(",")}
    theirs = []
    for turn in range(given.rounds):
        theirs.append(notebook_rate(text, given.steps))
        for precision, rates in ours.items():
            words = ["--preset", "notebook", "--steps", str(given.steps), "--precision", precision, *given.words]
            result = trainings.run_training(text, folder / f"{precision}-{turn}", {}, *words)
            rates.append(result["characters_per_second"])
    return [
        {
            "loop": name,
            "characters/s": statistics.median(rates),
            "slowest": min(rates),
            "fastest": max(rates),
            "ratio": statistics.median(rates) / statistics.median(theirs),
        }
        for name, rates in [("the notebook's", theirs), *((f"ours, {name}", rates) for name, rates in ours.items())]
    ]


def scaling_rows(given: argparse.Namespace, text: Path, folder: Path) -> list[Row]:
    """The rate of a preset on longer and longer texts (the same one again and again), and in several processes."""
    once, rows = text.read_text(encoding="utf-8"), []
    for size in given.sizes:
        path = folder / f"{size}.txt"
        path.write_text((once * (size // len(once) + 1))[:size], encoding="utf-8")
        for ranks in given.ranks:
            words = ["--preset", given.preset, "--steps", str(given.steps), "--val-frac", str(given.val_frac)]
            values = {"trainer.eval_every": given.steps}
            result = trainings.run_training(path, folder / f"{size}-{ranks}", values, *words, *given.words, ranks=ranks)
            rows.append({"characters": size, "processes": ranks, "characters/s": result["characters_per_second"]})
        path.unlink()
    return rows


def main() -> None:
    given = parse()
    title = f"{given.what}: {given.text}"
    given.words = trainings.as_words(given.set)
    with trainings.temporary() as folder:
        path = Path(folder) / "text.txt"
        path.write_text(read_corpus(given.text).text, encoding="utf-8", newline="")
        try:
            rows = given.make(given, path, Path(folder))
        except (trainings.Failed, GenError) as error:
            raise SystemExit(str(error)) from None
    common.show(title, rows, given.json)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)

    def command(name: str, make: Any, text: str, preset: str = "", *, seeds: bool = True) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=make.__doc__)
        one.set_defaults(make=make)
        one.add_argument("text", nargs="?", default=text, help="a file, or a name of the catalogue")
        if preset:
            one.add_argument("--preset", default=preset)
        if seeds:
            one.add_argument("--seeds", type=trainings.whole_numbers, default=[1, 2, 3])
        one.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
        one.add_argument("--json", action="store_true")
        return one

    one = command("notebook-loss", notebook_loss_rows, "anna", "base")
    one.add_argument("--characters", type=int, default=1_900_000, help="the budget of each run")
    one.add_argument("--target", type=float, default=NOTEBOOK_LOSS)
    one.add_argument("--notebook-steps", type=int, default=40, help="steps that its rate is measured over")
    one = command("budget", budget_rows, "anna", "base")
    one.add_argument("--minutes", type=float, default=5.0)
    one = command("shakespeare", shakespeare_rows, "tinyshakespeare", "small")
    one.add_argument("--seconds", type=float, default=60.0)
    one = command("throughput", throughput_rows, "anna", seeds=False)
    one.add_argument("--steps", type=int, default=40)
    one.add_argument("--rounds", type=int, default=3)
    one.add_argument("--precisions", default="auto,fp32")
    one = command("scaling", scaling_rows, "anna", "base", seeds=False)
    one.add_argument("--steps", type=int, default=100)
    one.add_argument("--sizes", type=trainings.whole_numbers, default=[1_000_000, 10_000_000, 100_000_000])
    one.add_argument("--ranks", type=trainings.whole_numbers, default=[1, 2])
    one.add_argument("--val-frac", type=float, default=0.01)
    return parser.parse_args()


if __name__ == "__main__":
    main()
