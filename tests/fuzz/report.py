"""Counts of what was tried, and the examples that did not fulfil a condition."""

from __future__ import annotations

import collections
import dataclasses
import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fuzz.example import Example, Outcome, Runner, copy_regular_files, find_violation

#: Opens a file with onnxruntime alone, in 3 GB of address space. What it asks for is the memory of the graph.
OPEN_ALONE = """
import resource, sys
import onnxruntime
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
onnxruntime.set_default_logger_severity(4)
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
"""
#: Failures of one class that are kept with their files; the others are counted.
MAX_FILES_A_CLASS = 3


@dataclasses.dataclass
class Counts:
    """What one kind of example has come to."""

    examples: int = 0
    commands: int = 0
    seconds: float = 0.0
    statuses: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    slowest: tuple[float, str] = (0.0, "")
    largest: tuple[int, str] = (0, "")
    """Bytes above those of the start, and the command."""


def asks_for_memory(folder: Path) -> bool:
    """Return whether the graph of a file in a folder takes so much memory by itself, which gentext cannot limit."""
    command = [sys.executable, "-c", OPEN_ALONE]
    results = [subprocess.run([*command, path], capture_output=True, text=True) for path in folder.rglob("*.onnx")]
    return any("alloc" in result.stderr or "MemoryError" in result.stderr for result in results)


class Report:
    """Runs examples, counts them by kind, and keeps the files of those that fail."""

    def __init__(self, runner: Runner, folder: Path) -> None:
        self.runner = runner
        self.folder = folder
        self.by_kind: dict[str, Counts] = {}
        self.failures: collections.Counter[str] = collections.Counter()
        """How often each class of failure came: the kind, the violation, and the last line of stderr."""

    def try_example(self, kind: str, example: Example, seed: int) -> None:
        """Run the commands of an example, and count what comes of them."""
        counts = self.by_kind.setdefault(kind, Counts())
        begin = time.monotonic()
        self.runner.place(example)
        for command in example.commands:
            outcome = self.runner.run_command(example, command)
            line = shlex.join(command)[:200]
            counts.commands += 1
            counts.statuses[f"{outcome.status}{' after Ctrl-C' if outcome.interrupted else ''}"] += 1
            if not outcome.interrupted:
                counts.slowest = max(counts.slowest, (round(outcome.seconds, 2), line))
            counts.largest = max(counts.largest, (outcome.bytes, line))
            violation = find_violation(outcome, example.own_statuses)
            if violation == "memory" and asks_for_memory(self.runner.folder / "place"):
                counts.statuses["the memory of a graph, as docs/security.md says"] += 1
            elif violation:
                self._keep(kind, example, command, outcome, violation, seed)
        counts.examples += 1
        counts.seconds += time.monotonic() - begin

    def _keep(self, kind: str, example: Example, command: Any, outcome: Outcome, violation: str, seed: int) -> None:
        lines = outcome.err.strip().splitlines()
        name = re.sub(r"[0-9]+|'[^']*'|/\S+", "#", f"{kind} {command[:1]}: {violation}: {lines[-1] if lines else ''}")
        name = name[:150]
        self.failures[name] += 1
        if self.failures[name] > MAX_FILES_A_CLASS:
            return
        folder = self.folder / f"{kind}-{len(self.failures)}-{self.failures[name]}"
        copy_regular_files(self.runner.folder, folder)
        details = {"violation": violation, "seed": seed, "command": list(command), "shell": shlex.join(command)}
        outcome_fields = dataclasses.asdict(outcome) | {"out": outcome.out[:5000], "err": outcome.err[-5000:]}
        details |= {"environment": dict(example.environment), "base": example.base, "outcome": outcome_fields}
        (folder / "failure.json").write_text(json.dumps(details, indent=1))
        print(f"\n{folder}: {violation}, seed {seed}: gen {shlex.join(command)[:300]}", flush=True)

    def summary(self) -> dict[str, Any]:
        """Return all counts as plain data."""
        kinds = {kind: vars(counts) | {"statuses": dict(counts.statuses)} for kind, counts in self.by_kind.items()}
        for counts in kinds.values():
            counts["a_second"] = round(counts["examples"] / max(counts["seconds"], 1e-9), 1)
            counts["seconds"] = round(counts["seconds"], 1)
        return {"kinds": kinds, "failures": dict(self.failures)}

    def write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "report.json").write_text(json.dumps(self.summary(), indent=1))

    def lines(self) -> list[str]:
        """Return the counts as lines to print."""
        lines = []
        for kind, counts in self.summary()["kinds"].items():
            statuses = ", ".join(f"{status}: {count}" for status, count in sorted(counts["statuses"].items()))
            lines.append(
                f"{kind}: {counts['examples']} examples ({counts['a_second']} a second), {counts['commands']} commands"
                f", by status {statuses}; slowest {counts['slowest'][0]} s ({counts['slowest'][1]}); "
                f"most memory {counts['largest'][0] / 1e6:.0f} MB ({counts['largest'][1]})"
            )
        return lines + [f"failed {count} times: {name}" for name, count in self.failures.items()]
