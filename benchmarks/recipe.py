"""What each part of a preset's recipe is worth: the preset, and variants that differ from it in one setting.

    python benchmarks/recipe.py TEXT RESULTS.jsonl [--preset base] [--seeds 1,2,3] [--only base,no-skip]

The last tenth of the text is cut off first, so that what is chosen here was not chosen on the text that the presets
are compared on. All variants read the same number of characters. One trains at a time, seed by seed, and what is in
RESULTS already is not trained again: stop it at any time, and start it with the same words to go on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common
import trainings

BASE = "base"
#: The first is the recipe itself; each other one changes it.
VARIANTS: dict[str, dict[str, Any]] = {
    BASE: {},
    "adamw": {"trainer.optimizer": "adamw"},
    **{f"muon-{scale:g}": {"trainer.muon_scale": scale} for scale in (1.0, 4.0)},
    "no-skip": {"model.skip": False},
    "no-norm": {"model.norm": False},
    "one-hot": {"model.embedding": 0},
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
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def train(text: Path, values: Mapping[str, Any], characters: int, seed: int, words: list[str]) -> dict[str, Any]:
    """Train one variant, and measure once, at its end. A variant that fails is a result, too."""
    steps = trainings.steps_for(characters, values)
    values = {**values, "trainer.eval_every": steps}
    with trainings.temporary() as folder:
        budget = ["--steps", str(steps), "--seed", str(seed), *words]
        try:
            result = trainings.run_training(text, Path(folder) / "run", values, *budget)
        except trainings.Failed as failed:
            return {"failed": str(failed)}
    del result["curve"]
    return result


def row(name: str, results: list[dict[str, Any]], first: float | None) -> dict[str, Any]:
    """Return a variant's line of the table: means over its seeds, and the spread from best to worst."""
    good = [one for one in results if "failed" not in one]
    losses = [one["val_loss"] for one in good]
    mean = statistics.mean(losses) if losses else None

    def average(key: str) -> float | None:
        return statistics.mean(one[key] for one in good) if good else None

    return {
        "variant": name,
        "seeds": len(good),
        "failed": len(results) - len(good),
        "val loss": mean,
        "spread": max(losses) - min(losses) if losses else None,
        "difference": None if mean is None or first is None else mean - first,
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
    given = parser.parse_args()
    if unknown := [name for name in given.only if name not in VARIANTS]:
        parser.error(f"--only {','.join(unknown)}: expected some of {', '.join(VARIANTS)}")
    recipe = trainings.spelled_out(given.preset)
    names = [name for name in VARIANTS if name in given.only]
    words = trainings.as_words(given.set)
    asked = {"text": given.text, "preset": given.preset, "characters": given.characters, "set": given.set}
    with trainings.temporary() as folder:
        text = trainings.write_part(given.text, Path(folder) / "text.txt", 0.0, 0.9)
        for seed in given.seeds:
            for name in names:
                key = {"variant": name, "seed": seed, **asked}
                if any(key.items() <= one.items() for one in read_results(given.results)):
                    continue
                print(f"{name}, seed {seed}", file=sys.stderr)
                result = train(text, recipe | VARIANTS[name], given.characters, seed, words)
                with given.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({**key, "result": result}) + "\n")
    found = [one for one in read_results(given.results) if asked.items() <= one.items()]
    by_name = {
        name: [one["result"] for one in found if one["variant"] == name and one["seed"] in given.seeds]
        for name in names
    }
    first = row(names[0], by_name[names[0]], None)["val loss"]
    title = f"recipe: preset {given.preset}, {given.characters:,} characters of {given.text}"
    common.show(title, [row(name, by_name[name], first) for name in names], given.json)


if __name__ == "__main__":
    main()
