"""The precision fits the processor; memory that training frees stays with it from step to step, and goes back."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from gentext.plugins.pytorch.device import bf16_on_cpu

pytest.importorskip("resource")

#: Prints how many pages a large tensor touches for the first time: before, while and after the memory is kept. In a
#: process of its own, because memory that other tests hold may be in the way of what the C library would reuse.
COUNT_FAULTS = """
import json, resource
import torch
from gentext.plugins.pytorch.device import keep_memory

def count_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 26, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

mapped = count_faults()
with keep_memory():
    count_faults()
    reused = count_faults()
print(json.dumps([mapped, reused, count_faults()]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides for itself")
def test_a_large_tensor_takes_the_memory_of_the_one_before() -> None:
    output = subprocess.run([sys.executable, "-c", COUNT_FAULTS], capture_output=True, text=True, check=True).stdout
    mapped, reused, mapped_again = json.loads(output)
    assert reused < mapped / 4
    assert reused < mapped_again / 4


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="reads the processor's flags")
def test_bf16_takes_instructions_for_it() -> None:
    """With AVX-512 alone oneDNN emulates bf16: the LSTM runs, at a fourth of the speed of fp32."""
    flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")).split()
    assert bf16_on_cpu() == ("avx512_bf16" in flags or "amx_bf16" in flags)
