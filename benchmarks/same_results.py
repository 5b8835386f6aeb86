"""Prints a hash of what each way to train, export, write and score gives: two versions agree where two outputs do.

    python benchmarks/same_results.py [--python PYTHON] > before.txt
    python benchmarks/same_results.py [--python PYTHON] > after.txt
    diff before.txt after.txt

PYTHON is the interpreter of the environment to try; without it, this one. Small networks are trained for some steps on
a text and on records that this program makes up. What is hashed: losses, weights and states of checkpoints; graphs and
metadata of exports, without dates and random names; texts, tokens and log-probabilities of the chain in NumPy, of the
compiled generator, of many texts at a time, of records, of searches, of the server and its sessions; scores; what
commands print and what they say on stderr, without times, rates and names of folders. Takes some minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import safetensors.numpy

#: Options of all trainings: nothing may follow from the speed of the machine.
FIXED = (
    *("--seed", "1", "--set", "run.threads=1", "--set", "run.measurements=2", "--set", "run.measured_symbols=2000"),
    *("--set", "run.held_out=3000", "--precision", "fp32"),
)
SMALL = ("--set", "model.hidden=24", "--set", "batcher.batch=4", "--set", "batcher.length=24")
#: Command lines that train a run of each name. The text is `text.txt`, the records are `names.txt`.
TRAININGS: Mapping[str, tuple[str, ...]] = {
    "base": ("train", "text.txt", "--preset", "base", "--steps", "6", *FIXED, *SMALL),
    "small": ("train", "text.txt", "--preset", "small", "--steps", "12", *FIXED, *SMALL),
    "tiny": ("train", "text.txt", "--preset", "tiny", "--steps", "12", *FIXED),
    "notebook": ("train", "text.txt", "--preset", "notebook", "--steps", "4", *FIXED, *SMALL),
    "records": ("train", "names.txt", "--records", "lines", "--preset", "small", "--steps", "12", *FIXED, *SMALL),
    "distilled": ("distill", "small", "--hidden", "16", "--steps", "6", *FIXED),
}
ALL_LINKS = ("--chain", "all", "--export-precision", "fp32")
#: Command lines that write texts of a run; what they print is hashed.
TEXTS: Mapping[str, tuple[str, ...]] = {
    "one text": ("small", "--length", "300"),
    "NumPy": ("small", "--length", "80", "--chain", "top_k,temperature", "--top-k", "5", "--count", "3", "--json"),
    "many texts": ("small", "--length", "90", "--count", "70", "--json", "--stop", "ab"),
    "primes": ("small", "--prime", "deep ", "--length", "60", "--count", "5", "--json"),
    "int8": ("int8/generator.onnx", "--length", "200", "--count", "3"),
    "all links": (
        "all/generator.onnx",
        "--length",
        "120",
        "--count",
        "4",
        "--json",
        "--dry-multiplier",
        "0.8",
        "--min-p",
        "0.05",
    ),
    "mirostat": ("all/generator.onnx", "--length", "120", "--chain", "mirostat", "--seed", "5"),
    "match": ("small", "--match", "[a-z]{3,9}( [a-z]+)*", "--length", "40", "--count", "20", "--json"),
    "records": ("records", "--count", "300", "--json", "--unique"),
    "matched records": ("records", "--count", "40", "--match", "[a-m]+", "--json"),
}
MASKS = (
    (re.compile(r"\d[\d,.]* (symbols|texts|records|characters|steps|it)/s"), "RATE"),
    (re.compile(r"\b\d+(\.\d+)? ?(h|min|s|ms)\b( \d+ (min|s)\b)?"), "TIME"),
    (re.compile(r"\b\d+:\d\d(:\d\d)?\b"), "TIME"),
    (re.compile(r"[\d.,]+ [KMG]i?B"), "SIZE"),
)
#: Lines that progress writes, whose number follows from the speed.
PROGRESS = re.compile(r": \d+%, ")


def digest(*parts: Any) -> str:
    """Return a hash of values that json can write, bytes and arrays."""
    result = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            part = f"{part.dtype}{part.shape}".encode() + part.tobytes()
        result.update(part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode())
    return result.hexdigest()[:16]


def mask(text: str, folder: Path) -> list[str]:
    """Return the lines of stderr without what follows from the clock or the folder."""
    for pattern, name in MASKS:
        text = pattern.sub(name, text.replace(str(folder), "FOLDER"))
    return [line for line in text.splitlines() if not PROGRESS.search(line)]


class Commands:
    """Runs gen in a folder."""

    def __init__(self, python: str, folder: Path) -> None:
        self.python, self.folder = python, folder
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}

    def gen(self, *words: str) -> tuple[str, list[str]]:
        """Return what a command prints, and its lines on stderr. Raises RuntimeError where it fails."""
        process = subprocess.run(
            [self.python, "-m", "gentext", *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        if process.returncode:
            raise RuntimeError(f"gen {' '.join(words)}: {process.stderr}")
        return process.stdout, mask(process.stderr, self.folder)


# -- results ------------------------------------------------------------------------------------


def write_corpora(folder: Path) -> None:
    """Write a text of words that repeat, and names."""
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(1, 8))) for _ in range(300)]
    sentences = (" ".join(rng.choices(words, k=rng.randint(3, 9))).capitalize() + "." for _ in range(1500))
    (folder / "text.txt").write_text("\n".join(sentences), "utf-8")
    (folder / "names.txt").write_text("\n".join(dict.fromkeys(w + rng.choice(words) for w in words * 4)), "utf-8")


def hash_run(run: Path) -> Iterator[tuple[str, str]]:
    """Yield hashes of the losses, of each checkpoint and of each export of a run."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    clock = ("seconds", "symbols_per_second")
    yield "losses", digest([{key: value for key, value in line.items() if key not in clock} for line in lines])
    for path in sorted(run.rglob("*.safetensors")):
        arrays = safetensors.numpy.load_file(path)
        yield str(path.relative_to(run)), digest(*(part for name in sorted(arrays) for part in (name, arrays[name])))
    for path in sorted(run.glob("*.onnx")):
        yield path.name, hash_graph(path)


def hash_graph(path: Path) -> str:
    """Return a hash of a file's graph and metadata, without what differs from export to export."""
    model = onnx.load(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    card = json.loads(metadata["gentext.card"])
    for key in ("created", "export", "fingerprint", "versions", "verdict"):  # a verdict has times
        card.pop(key, None)
    metadata["gentext.card"] = json.dumps(card, sort_keys=True)
    metadata.pop("gentext.check", None)
    return digest(model.graph.SerializeToString(deterministic=True), metadata)


def hash_server(commands: Commands) -> Iterator[tuple[str, str]]:
    """Yield hashes of what a server answers, and of a text that goes on in sessions."""
    port = str(20_000 + os.getpid() % 20_000)
    words = [commands.python, "-m", "gentext", "serve", "small", "records", "--port", port]
    server = subprocess.Popen(words, cwd=commands.folder, env=commands.environment, stderr=subprocess.DEVNULL)

    def ask(route: str, **fields: Any) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{route}", json.dumps(fields).encode(), {"Content-Type": "application/json"}
        )
        return json.loads(urllib.request.urlopen(request, timeout=60).read())

    def choices(**fields: Any) -> list[dict[str, Any]]:
        return list(ask("/v1/completions", **fields)["choices"])

    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5)
                break
            except OSError:
                time.sleep(0.2)
        small = {"model": "small", "prompt": "deep ", "max_tokens": 60, "seed": 3}
        answers = choices(**small, n=9, logprobs=2, echo=True)
        yield "completions", digest([{**answer, "session": None} for answer in answers])
        matched = choices(**small, match="[a-z ]+", temperature=0.7)
        yield "matched completion", digest(matched[0]["text"])
        written, session = [], choices(**small)[0]["session"]
        for _ in range(3):
            answer = choices(model="small", max_tokens=25, session=session)[0]
            written.append(answer["text"])
            session = answer["session"]
        yield "session", digest(written, choices(model="small", max_tokens=25, session=session, seed=9)[0]["text"])
        yield "records of a server", digest([answer["text"] for answer in choices(model="records", n=20, seed=2)])
        yield "score", digest(ask("/score", model="small", text="a bad face"))
        yield "best", digest(ask("/best", model="small", prompt="deep ", count=3, length=4))
    finally:
        server.terminate()
        server.wait()


def results(commands: Commands) -> Iterator[tuple[str, str]]:
    """Yield the name of each result with its hash."""
    folder = commands.folder
    write_corpora(folder)
    for name, words in TRAININGS.items():
        _, lines = commands.gen(*words, "--run", name)
        yield f"{name}: stderr", digest(lines)
        yield from ((f"{name}: {part}", value) for part, value in hash_run(folder / name))
    for name, options in {"int8": ("--precision", "int8"), "all": ("--chain", "all")}.items():
        _, lines = commands.gen("export", "small", "-o", name, *options)
        yield f"export {name}: stderr", digest(lines)
        yield from (
            (f"export {name}: {part.name}", hash_graph(part)) for part in sorted((folder / name).glob("*.onnx"))
        )
    for name, (model, *options) in TEXTS.items():
        stdout, lines = commands.gen("sample", model, "--seed", "1", *options)
        yield f"sample, {name}", digest(stdout)
        yield f"sample, {name}: stderr", digest(lines)
    others: Mapping[str, Iterable[str]] = {
        "best": ("best", "small", "--stop", "\\n", "--count", "5", "--length", "12", "--json"),
        "best records": ("best", "records", "--count", "5", "--json"),
        "eval": ("eval", "small", "text.txt", "--json"),
        "eval records": ("eval", "records", "--json"),
        "score": ("score", "small", "text.txt"),
        "score records": ("score", "records", "names.txt"),
    }
    for name, command in others.items():
        stdout, lines = commands.gen(*command)
        yield name, digest(mask(stdout, folder))
        yield f"{name}: stderr", digest(lines)
    yield from ((f"server, {name}", value) for name, value in hash_server(commands))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, value in results(Commands(os.path.abspath(options.python), Path(folder).resolve())):
            print(f"{value}  {name}", flush=True)


if __name__ == "__main__":
    main()
