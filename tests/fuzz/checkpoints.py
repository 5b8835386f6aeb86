"""Checkpoints: changed headers, tensors, metadata, names and bytes of safetensors files."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

import tomli_w
from fuzz.example import Example, Special
from fuzz.material import SMALL, Material
from fuzz.mutations import changed_bytes, changed_data, clean_text
from hypothesis import strategies as st

COMMANDS: list[list[str]] = [
    ["sample", "run", "--sampler", "torch", "--length", "3", "--seed", "1"],
    ["sample", "run", "--sampler", "torch", "--length", "3", "--seed", "1", "--device", "cpu"],
    ["train", "--resume", "--run", "run"],
    ["train", "tiny.txt", "--init-from", "run", "--run", "new", "--steps", "1", *SMALL],
]
DTYPES = ["F32", "F64", "F16", "BF16", "I64", "I32", "I8", "U8", "BOOL", "C64", "F8_E4M3", "nothing", ""]
NAMES = [
    "last-step000004-val3.2621.safetensors",
    "last-step999999999999.safetensors",
    "last-step000000-valnan.safetensors",
    "best-step000004-val3.2621.safetensors",
    "last-step000005.safetensors",
]


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header and the data of a safetensors file."""
    [size] = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def join(header: Any, data: bytes) -> bytes:
    header_bytes = json.dumps(header).encode()
    return struct.pack("<Q", len(header_bytes)) + header_bytes + data


#: The names that PyTorch gives the types of safetensors.
TORCH_TYPES = {"F32": "float32", "F64": "float64", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32"}
TORCH_TYPES |= {"I8": "int8", "U8": "uint8", "BOOL": "bool", "C64": "complex64", "F8_E4M3": "float8_e4m3fn"}


def sealed(header: dict[str, Any], data: bytes) -> bytes:
    """Return a file whose checksum fits its content, where the header makes sense at all."""
    try:
        metadata = header["__metadata__"]
        digest = hashlib.sha256(metadata["gentext"].encode())
        for name, facts in sorted((name, facts) for name, facts in header.items() if name != "__metadata__"):
            first, end = facts["data_offsets"]
            digest.update(f"\n{name} torch.{TORCH_TYPES[facts['dtype']]} {list(facts['shape'])}\n".encode())
            digest.update(data[first:end])
        metadata["sha256"] = digest.hexdigest()
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    return join(header, data)


@st.composite
def changed_checkpoint(draw: st.DrawFn, original: bytes) -> bytes:
    """A checkpoint with a change below or above its checksum."""
    if draw(st.integers(0, 4)) == 0:
        return draw(changed_bytes(original))
    header, data = split(original)
    change = draw(st.sampled_from(["meta", "meta", "dtype", "shape", "header", "data", "name"]))
    names = [name for name in header if name != "__metadata__"]
    name = draw(st.sampled_from(names))
    if change == "meta":
        meta = json.loads(header["__metadata__"]["gentext"])
        header["__metadata__"]["gentext"] = json.dumps(draw(changed_data(meta)))
    elif change == "dtype":
        header[name]["dtype"] = draw(st.sampled_from(DTYPES))
    elif change == "shape":
        header[name]["shape"] = draw(st.permutations([*header[name]["shape"], 1]) | st.just([]))
    elif change == "header":
        header = draw(changed_data(header))
    elif change == "data":
        data = draw(changed_bytes(data))
    else:
        header[draw(clean_text)] = header.pop(name)
    return sealed(header, data) if draw(st.integers(0, 5)) else join(header, data)


def examples(material: Material) -> st.SearchStrategy[Example]:
    """A run with a changed checkpoint, and a command that reads it."""
    config = tomli_w.dumps(material.unfinished_config()).encode()

    def example(content: bytes, name: str, command: list[str]) -> Example:
        files: dict[str, bytes | Special] = {
            "run": Special("run"),
            "tiny.txt": material.text,
            "run/config.toml": config,
        }
        # In place of each checkpoint that the run has, so that no whole one is left to go on from.
        names = {*(path.name for path in material.checkpoint_path.parent.iterdir()), name}
        files |= {f"run/checkpoints/{one}": content for one in sorted(names)}
        return Example(files, [command], base=False, interrupt_after=5)

    return st.builds(
        example, changed_checkpoint(material.checkpoint), st.sampled_from(NAMES), st.sampled_from(COMMANDS)
    )
