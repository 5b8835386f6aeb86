"""What the examples are changes of: a finished run and its files, and a text."""

from __future__ import annotations

import dataclasses
import functools
import json
import tomllib
from pathlib import Path
from typing import Any

#: Options under which a training run ends within a fraction of a second.
SMALL = ("--set", "model.hidden=8", "--set", "model.embedding=4", "--set", "batcher.batch=2", "--set")
SMALL = (*SMALL, "batcher.length=8", "--set", "run.threads=1", "--precision", "fp32", "--no-export")


class Content(bytes):
    """Bytes of a file, which hypothesis can show in a line."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


@dataclasses.dataclass(frozen=True)
class Material:
    """A finished run of four steps, and the text that it has learned."""

    run: Path
    text: Content

    @functools.cached_property
    def model(self) -> Content:
        return Content((self.run / "model.onnx").read_bytes())

    @functools.cached_property
    def generator(self) -> Content:
        return Content((self.run / "generator.onnx").read_bytes())

    @functools.cached_property
    def config_text(self) -> bytes:
        return (self.run / "config.toml").read_bytes()

    @property
    def config(self) -> dict[str, Any]:
        return tomllib.loads(self.config_text.decode())

    @functools.cached_property
    def checkpoint_path(self) -> Path:
        return max((self.run / "checkpoints").glob("last-*.safetensors"))

    @functools.cached_property
    def checkpoint(self) -> Content:
        return Content(self.checkpoint_path.read_bytes())

    @functools.cached_property
    def tokenizer(self) -> Any:
        return json.loads((self.run / "tokenizer.json").read_bytes())

    def unfinished_config(self, steps: int = 6) -> dict[str, Any]:
        """Return the config of a run that has some steps to go, and is not exported afterwards."""
        config = self.config
        config["run"] |= {"steps": steps, "export": False}
        config["corpus"]["origin"] = "tiny.txt"
        return config
