"""How many processors a container's quota leaves to this process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

#: Where Linux shows the control groups, and those of this process.
CGROUP_FOLDER, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def read_cpu_quota(folder: Path = CGROUP_FOLDER, own_cgroups: Path = OWN_CGROUPS) -> float | None:
    """Return the smallest quota of the control groups that this process is in, in processors; None: there is none.

    Both versions of control groups are read. A group and all those around it limit a process.
    """
    quotas = []
    for group in _groups(folder, own_cgroups):
        with contextlib.suppress(OSError, ValueError):
            quota = _read_quota(group)
            if quota is not None:
                quotas.append(quota)
    return min(quotas, default=None)


def _groups(folder: Path, own_cgroups: Path) -> Iterator[Path]:
    """Yield the folders of the groups of this process, and of those around them.

    A container often sees its own group as the root, so the root counts too.
    """
    try:
        lines = own_cgroups.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        lines = []
    yield from (folder, folder / "cpu", folder / "cpu,cpuacct")
    for line in lines:
        _, controllers, path = line.split(":", 2) if line.count(":") >= 2 else ("", "", "/")
        root = folder / controllers if "cpu" in controllers.split(",") else folder
        parts = [part for part in path.split("/") if part not in ("", "..")]
        yield from (root.joinpath(*parts[:count]) for count in range(1, len(parts) + 1))


def _read_quota(group: Path) -> float | None:
    """Return the quota of one group; None where it has none. Raises OSError or ValueError where it has no file."""
    version_2 = group / "cpu.max"
    if version_2.is_file():
        limit, period = version_2.read_text(encoding="ascii").split()
        return None if limit == "max" else _processors(int(limit), int(period))
    limit = (group / "cpu.cfs_quota_us").read_text(encoding="ascii")
    return _processors(int(limit), int((group / "cpu.cfs_period_us").read_text(encoding="ascii")))


def _processors(limit: int, period: int) -> float | None:
    """Return how many processors run all of the time for so many microseconds in each period; None: no limit."""
    return limit / period if limit > 0 and period > 0 else None
