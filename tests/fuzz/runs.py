"""Run folders and configs: changed TOML, JSON and logs, and other things in the place of files."""

from __future__ import annotations

import copy
import json
from typing import Any

import tomli_w
from fuzz.example import Example, Special
from fuzz.material import SMALL, Material
from fuzz.mutations import changed_bytes, changed_data, clean_text, number, plain
from hypothesis import strategies as st

#: Commands that read the run folder ``run`` or the config ``config.toml``.
READING: list[list[str]] = [
    ["info", "run"],
    ["info", "run", "--json"],
    ["sample", "run", "--length", "3", "--seed", "1", "--prime", "ab"],
    ["eval", "run", "--json"],
]
TRAINING: list[list[str]] = [
    ["train", "--resume", "--run", "run"],
    ["sample", "run", "--sampler", "torch", "--length", "3", "--seed", "1", "--prime", "ab"],
    ["train", "tiny.txt", "--config", "run/config.toml", "--run", "new", "--steps", "1", "--no-export"],
    ["train", "tiny.txt", "--init-from", "run", "--run", "new", "--steps", "1", *SMALL],
    ["train", "--resume"],
]
SPECIALS = [
    Special("folder"),
    Special("fifo"),
    *(
        Special("link", target)
        for target in ("/dev/zero", "/dev/null", "/dev/full", "/proc/self/mem", "nowhere", "/etc")
    ),
]
FILES = [
    *("config.toml", "tokenizer.json", "metrics.jsonl", "held_out.txt", "samples.txt", "model.onnx", "generator.onnx"),
    *("curves.png", "checkpoints", ".lock", "checkpoints/last-step000009.safetensors"),
]


def examples(material: Material) -> st.SearchStrategy[Example]:
    """A run with one or two changed files, and a command that reads it."""
    config = material.unfinished_config()
    whole: dict[str, bytes] = {"config.toml": tomli_w.dumps(config).encode()}
    names = ("tokenizer.json", "metrics.jsonl", "held_out.txt", "samples.txt")
    whole |= {name: (material.run / name).read_bytes() for name in names}
    changed = st.one_of(
        st.tuples(st.just("config.toml"), changed_toml(config)),
        st.tuples(st.just("config.toml"), changed_toml(config)),
        st.tuples(st.just("tokenizer.json"), changed_data(material.tokenizer).map(json.dumps).map(str.encode)),
        st.tuples(st.just("metrics.jsonl"), changed_lines(whole["metrics.jsonl"])),
        st.sampled_from(sorted(whole)).flatmap(lambda name: st.tuples(st.just(name), changed_bytes(whole[name]))),
        st.tuples(st.sampled_from(FILES), st.sampled_from(SPECIALS) | st.just(b"")),
    )

    def example(changes: list[tuple[str, Any]], command: list[str], is_exported: bool) -> Example:
        files: dict[str, Any] = {
            "runs/run": Special("run"),
            "run": Special("link", "runs/run"),
            "tiny.txt": material.text,
        }
        files["run/config.toml"] = whole["config.toml"]
        files |= {f"run/{name}": content for name, content in changes}
        if not is_exported:
            files |= {"run/model.onnx": Special("link", "nowhere")}
        waits = any(isinstance(content, Special) for content in files.values()) or command in TRAINING
        return Example(files, [command], base=command in READING, interrupt_after=4 if waits else None)

    commands = st.sampled_from(READING) | st.sampled_from(TRAINING)
    return st.builds(example, st.lists(changed, min_size=1, max_size=2), commands, st.booleans())


@st.composite
def changed_toml(draw: st.DrawFn, config: dict[str, Any]) -> bytes:
    """A config with changed or additional settings, of other types, deeply nested, or not TOML at all."""
    config = copy.deepcopy(config)
    change = draw(st.sampled_from(["data", "data", "setting", "setting", "setting", "deep", "bytes"]))
    if change == "bytes":
        return draw(changed_bytes(tomli_w.dumps(config).encode()))
    if change == "deep":
        depth = draw(st.sampled_from([90, 2_000, 50_000]))
        deep = draw(st.sampled_from(["[" * depth + "]" * depth, "{a=" * depth + "0" + "}" * depth, "9" * depth]))
        return tomli_w.dumps(config).replace("seed = 0", f"seed = {deep}").encode()
    if change == "data":
        config = draw(changed_data(config))
    else:
        section = draw(st.sampled_from(sorted(config)))
        name = draw(st.sampled_from(sorted(config[section])) | clean_text)
        config[section][name] = copy.deepcopy(draw(number | plain))
    return to_toml(config)


def to_toml(config: Any) -> bytes:
    """Return plain data as TOML; what TOML cannot hold becomes text."""

    def convert(content: Any) -> Any:
        if isinstance(content, dict):
            return {str(key): convert(part) for key, part in content.items()}
        if isinstance(content, list):
            return [convert(part) for part in content]
        return "null" if content is None else content

    converted = convert(config)
    return tomli_w.dumps(converted if isinstance(converted, dict) else {"a": converted}).encode(errors="replace")


@st.composite
def changed_lines(draw: st.DrawFn, content: bytes) -> bytes:
    """A log with changed JSON in each line."""
    rows = [draw(changed_data(json.loads(line))) for line in content.splitlines()]
    return "\n".join(json.dumps(row) for row in rows).encode() + draw(
        st.sampled_from([b"\n", b"", b"\n{", b"\n\n\xff\n"])
    )
