"""Small runs for the checks of trainers and samplers: their texts, their folders, and a model that is trained."""

from __future__ import annotations

import dataclasses
import json
import random
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from gentext.config import to_table
from gentext.run import CONFIG_FILE, HELD_OUT_FILE, TOKENIZER_FILE, Run, create_run, write_text
from gentext.settings import Settings
from gentext.token_corpus import TokenCorpus

#: Options of the built-in components under which a step takes a millisecond.
TINY_SETTINGS: dict[str, Any] = {
    "model.hidden": 16,
    "model.embedding": 8,
    "batcher.batch": 4,
    "batcher.length": 16,
    "run.threads": 1,
}
#: Characters of the text of a small run.
TEXT_LENGTH = 6_000


def make_text(length: int = TEXT_LENGTH) -> str:
    """Return the same text each time: a few short words in any order, so that there is something to learn."""
    rng = random.Random(0)
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "dog", "ate", "it"]
    text = " ".join(rng.choice(words) for _ in range(length // 2))
    return text[: length - 1] + "\n"


@dataclasses.dataclass(frozen=True)
class SmallCorpus:
    """The text of a small run as ids of the built-in tokenizer ``char``."""

    state: dict[str, Any]
    """The state of the tokenizer."""
    train: TokenCorpus
    val: TokenCorpus
    held_out: str
    vocab_size: int

    @classmethod
    def read(cls) -> SmallCorpus:
        """Encode the text; its last tenth is held out."""
        from gentext.plugins.tokenizers.char import CharConfig, CharTokenizer

        text = make_text()
        begin = len(text) * 9 // 10
        tokenizer = CharTokenizer.build([text], CharConfig())
        train, val = tokenizer.encode(text[:begin]), tokenizer.encode(text[begin:])
        train.flags.writeable = False  # as that of a real run, which is mapped from a file
        return cls(tokenizer.state(), TokenCorpus(train), TokenCorpus(val), text[begin:], tokenizer.vocab_size)

    def create_run(self, path: Path, settings: Settings, model_options: dict[str, Any]) -> Run:
        """Create the folder of a run with the files that training and previews read."""
        import tomli_w

        run = create_run(path, "kit")
        tokenizer = {"name": "char", "state": self.state, "start": int(np.argmax(np.bincount(self.train.tokens)))}
        config = {
            "tokenizer": {"name": "char"},
            "batcher": {"name": "stream"},
            "model": {"name": "lstm", **model_options},
            "trainer": {"name": "bptt"},
            "chain": {"links": []},
            "run": to_table(settings),
            "corpus": {"name": "kit", "characters": TEXT_LENGTH},
        }
        write_text(run.path / TOKENIZER_FILE, json.dumps(tokenizer))
        write_text(run.path / HELD_OUT_FILE, self.held_out)
        write_text(run.path / CONFIG_FILE, tomli_w.dumps(config))
        return run


def train_small_run(folder: Path, records: str | None = None) -> Path:
    """Train and export a small model with an unknown symbol, and return the run's folder. Needs the ``train`` extra.

    ``records`` is that of `gentext.train`: None, or ``lines`` for a model of records.
    """
    from gentext.training.train import train

    text = folder / "text.txt"
    text.write_text(textwrap.fill(make_text(), 40) + "é", encoding="utf-8")
    settings = {**TINY_SETTINGS, "tokenizer.min_count": 2, "chain.links": ["top_k", "temperature"]}
    settings["run.export_precision"] = "fp32"
    train(text, records=records, settings=settings, steps=4, run=folder / "run", device="cpu", precision="fp32")
    return folder / "run"
