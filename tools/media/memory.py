"""How much memory the machine has to spare."""

from __future__ import annotations

from pathlib import Path


def available_memory(system: Path = Path("/proc"), group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the bytes that can still be allocated without swapping, or None where the system does not tell.

    Parameters
    ----------
    system, group : where Linux tells of the whole machine, and of the container that this runs in.
    """
    free = kernel_bytes(system / "meminfo", "MemAvailable")
    most = _number(group / "memory.max")
    if most is not None:
        # What was read from files and not used lately counts as in use there, and is given up when memory is short.
        in_use = (_number(group / "memory.current") or 0) - _forgettable(group / "memory.stat")
        free = most - in_use if free is None else min(free, most - in_use)
    return free


def _forgettable(statistics: Path) -> int:
    try:
        lines = [line.split() for line in statistics.read_text().splitlines()]
    except OSError:
        return 0
    return sum(int(value) for name, value in lines if name == "inactive_file")


def kernel_bytes(path: Path, key: str) -> int | None:
    """Return the line ``key: N kB`` of one of Linux's files under /proc in bytes, or None where there is none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return int(values[0]) * 1024 if values else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
