"""Measures what each part of a preset's recipe gains: trains the preset, and variants that differ in one setting.

    python research/recipe.py TEXT RESULTS.jsonl [--preset base] [--seeds 1,2,3] [--only base,no-skip]

The last tenth of the text is cut off first, so that a choice made here is not made on the text on which presets
are compared. All variants read the same number of characters. They train one after another, seed by seed, and results
that are in RESULTS already are not measured again: stop it at any time, and go on by starting it with the same words.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import common
import trainings

BASE = "base"
#: The changed values of each variant. The first one is the recipe itself.
VARIANTS: dict[str, dict[str, Any]] = {
    BASE: {},
    "adamw": {"trainer.optimizer": "adamw"},
    **{f"muon-{scale:g}": {"trainer.muon_scale": scale} for scale in (1.0, 4.0)},
    "one-network": {"model.members": 1},
    "no-skip": {"model.skip": False},
    "no-norm": {"model.norm": False},
    "no-ngrams": {"model.ngram_length": 0},
    "one-hot": {"model.embedding": 0, "model.ngram_length": 0},
    "no-tuned-init": {"model.tuned_init": False},
    "dropout-0.1": {"model.dropout": 0.1},
    **{f"batch-{size}": {"batcher.batch": size} for size in (8, 32, 64)},
    **{f"length-{size}": {"batcher.length": size} for size in (50, 200)},
    **{f"rate-{rate:g}": {"trainer.rate": rate} for rate in (2e-3, 4e-3, 6e-3)},
    "beta2-0.999": {"trainer.beta2": 0.999},
    "clip-5": {"trainer.clip": 5.0},
    **{f"decay-{decay:g}": {"trainer.weight_decay": decay} for decay in (0.0, 0.1)},
    **{f"warmup-{steps}": {"trainer.warmup": steps} for steps in (0, 200)},
    **{f"final-{share:g}": {"trainer.final": share} for share in (0.0, 0.1)},
    "constant": {"trainer.schedule": "constant"},
    "no-offset": {"batcher.offset": False},
}


def read_results(path: Path) -> list[dict[str, Any]]:
    """Return the lines of the results file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def train(text: Path, values: Mapping[str, Any], characters: int, seed: int, words: list[str]) -> dict[str, Any]:
    """Train one variant and measure once, at the end. The error of a variant that fails is a result, too."""
    steps = trainings.steps_for(characters, values)
    values = {**values, "trainer.eval_every": steps}
    with trainings.temporary_folder() as folder:
        budget = ["--steps", str(steps), "--seed", str(seed), *words]
        try:
            result = trainings.run_training(text, Path(folder) / "run", values, *budget)
        except trainings.TrainingFailed as error:
            return {"failed": str(error)}
    del result["curve"]
    return result


def row(name: str, results: list[dict[str, Any]], base_loss: float | None) -> dict[str, Any]:
    """Return a variant's line of the table: means over its seeds, and the spread from best to worst.

    :param base_loss: the mean loss of the first variant, from which ``difference`` counts.
    """
    succeeded = [result for result in results if "failed" not in result]
    losses = [result["val_loss"] for result in succeeded]
    mean = statistics.mean(losses) if losses else None

    def average(key: str) -> float | None:
        return statistics.mean(result[key] for result in succeeded) if succeeded else None

    return {
        "variant": name,
        "seeds": len(succeeded),
        "failed": len(results) - len(succeeded),
        "val loss": mean,
        "spread": max(losses) - min(losses) if losses else None,
        "difference": None if mean is None or base_loss is None else mean - base_loss,
        "characters/s": average("characters_per_second"),
        "seconds": average("seconds"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", help="a file, or a name of the catalogue")
    parser.add_argument("results", type=Path, help="a JSONL file; lines are added")
    parser.add_argument("--preset", default="base")
    parser.add_argument("--characters", type=int, default=900_000, help="what each variant reads")
    parser.add_argument("--seeds", type=trainings.whole_numbers, default=[1, 2, 3])
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(VARIANTS), metavar="NAMES")
    parser.add_argument("--set", action="append", default=[], help="a setting of all variants, as in gen train")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if unknown := [name for name in options.only if name not in VARIANTS]:
        parser.error(f"--only {','.join(unknown)}: expected some of {', '.join(VARIANTS)}")
    names = [name for name in VARIANTS if name in options.only]
    # The lines of the results file that belong to this comparison have these fields.
    comparison = {
        "text": options.text,
        "preset": options.preset,
        "characters": options.characters,
        "set": options.set,
    }
    train_missing(options, names, comparison)
    results = [line for line in read_results(options.results) if comparison.items() <= line.items()]
    by_name = {
        name: [line["result"] for line in results if line["variant"] == name and line["seed"] in options.seeds]
        for name in names
    }
    base_loss = row(names[0], by_name[names[0]], None)["val loss"]
    title = f"recipe: preset {options.preset}, {options.characters:,} characters of {options.text}"
    common.print_table(title, [row(name, by_name[name], base_loss) for name in names], options.json)


def train_missing(options: argparse.Namespace, names: list[str], comparison: dict[str, Any]) -> None:
    """Train the variants that are not among the results, and add them."""
    recipe, words = trainings.preset_values(options.preset), trainings.as_words(options.set)
    with trainings.temporary_folder() as folder:
        text = trainings.write_part(options.text, Path(folder) / "text.txt", 0.0, 0.9)
        for seed, name in itertools.product(options.seeds, names):
            key = {"variant": name, "seed": seed, **comparison}
            if any(key.items() <= line.items() for line in read_results(options.results)):
                continue
            print(f"{name}, seed {seed}", file=sys.stderr)
            result = train(text, recipe | VARIANTS[name], options.characters, seed, words)
            with options.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**key, "result": result}) + "\n")


if __name__ == "__main__":
    main()
