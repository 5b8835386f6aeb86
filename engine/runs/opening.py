"""Opens an exported file with the built-in sampler."""

from __future__ import annotations

from pathlib import Path

from gentext.config import build_config, config_class
from gentext.interfaces import OpenSampler, Sampler
from gentext.manager import host
from gentext.runs.source import FILE_SAMPLER


def open_exported(path: Path, device: str, threads: int = 0, verify: bool = True) -> OpenSampler:
    """Open an exported file, or that of a run's folder.

    :param device: auto, cpu or cuda.
    :param threads: how many threads it computes with; 0 lets it choose.
    :param verify: whether the bytes of the file must fit its check.
    """
    sampler_class = host().registry.get("sampler", FILE_SAMPLER)
    options = {"threads": threads, "verify": verify}
    sampler: Sampler = sampler_class(build_config(config_class(sampler_class), options, "sampler"))
    return sampler.open(path, device)
