"""Run the commands of the stored curves again, and store their facts: `python tests/curves/store.py NAME...`

Run it in a folder with the texts that the commands name, each of which has a line in the file that says how to get it.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
import tempfile
from pathlib import Path

from gentext.cli.app import main
from gentext.training import pipeline
from gentext.training.verdict import RunFacts, Verdict, judge


def store_facts(path: Path) -> None:
    """Run the command of a file, and replace the facts in it."""
    record = json.loads(path.read_text(encoding="utf-8"))
    collected: list[RunFacts] = []

    def judge_and_collect(facts: RunFacts) -> Verdict:
        collected.append(facts)
        return judge(facts)

    pipeline.judge = judge_and_collect
    with tempfile.TemporaryDirectory() as folder:
        _, *arguments = shlex.split(record["command"])
        main([*arguments, "--run", f"{folder}/run"])
    [facts] = collected
    table = {**dataclasses.asdict(facts), "options": sorted(facts.options)}
    table["curve"] = [list(dataclasses.astuple(point)) for point in facts.curve]
    record["facts"] = table
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        store_facts(Path(__file__).with_name(f"{name}.json"))
