"""The quota of a container, read from a folder of control groups, and the cores that follow from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gentext import settings
from gentext.files.cpu_quota import read_cpu_quota


def write_groups(folder: Path, files: dict[str, str]) -> None:
    """Write the files of control groups."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.mark.parametrize(
    ("own_cgroups", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        ("0::/slice/job\n", {"slice/cpu.max": "200000 100000\n", "slice/job/cpu.max": "max 100000\n"}, 2.0),
        ("0::/slice/job\n", {"slice/cpu.max": "400000 100000\n", "slice/job/cpu.max": "50000 100000\n"}, 0.5),
        (
            "3:memory:/job\n2:cpu,cpuacct:/job\n",
            {"cpu,cpuacct/job/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n"},
            2.5,
        ),
        ("2:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("no group\n", {"cpu.max": "damaged\n"}, None),
    ],
)
def test_a_quota_is_the_smallest_of_all_groups(
    tmp_path: Path, own_cgroups: str, files: dict[str, str], quota: float | None
) -> None:
    write_groups(tmp_path, {"own": own_cgroups} | {f"groups/{name}": content for name, content in files.items()})
    assert read_cpu_quota(tmp_path / "groups", tmp_path / "own") == quota


@pytest.mark.parametrize(("quota", "expected"), [(None, 8), (0.5, 1), (1.9, 1), (2.5, 2), (100.0, 8)])
def test_cores_follow_from_quota_and_affinity(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(settings, "read_cpu_quota", lambda: quota)
    assert settings.cores() == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_process_on_one_core_has_one() -> None:
    code = (
        "import os; from gentext.settings import cores; "
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(cores())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "1\n"
