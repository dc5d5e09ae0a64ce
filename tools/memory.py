"""How much memory there is."""

from __future__ import annotations

from pathlib import Path


def available_memory() -> int | None:
    """Return the bytes that can still be allocated without swapping, or None where the system does not tell."""
    free = kernel_bytes(Path("/proc/meminfo"), "MemAvailable")
    group = _number(Path("/sys/fs/cgroup/memory.max"))
    if group is not None:
        used = _number(Path("/sys/fs/cgroup/memory.current")) or 0
        free = group - used if free is None else min(free, group - used)
    return free


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
