"""Memory that training frees stays with it from step to step, and goes back afterwards."""

from __future__ import annotations

import platform

import pytest
import torch

from gentext.plugins.pytorch.device import keep_memory

resource = pytest.importorskip("resource")
BYTES = 1 << 26


def faults() -> int:
    """Return how many pages a large tensor touches for the first time."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(BYTES, dtype=torch.uint8)
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides for itself")
def test_a_large_tensor_takes_the_memory_of_the_one_before() -> None:
    mapped = faults()
    with keep_memory():
        faults()
        reused = faults()
    assert reused < mapped / 4
    assert reused < faults() / 4
