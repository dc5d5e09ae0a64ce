"""How much memory there is."""

from __future__ import annotations

from pathlib import Path

from kernels import gpu_free_bytes
from tools.progress import byte_count


def check_free(device: str, needed: int, size: tuple[int, int], advice: str) -> None:
    """Raise ValueError when there are fewer than ``needed`` bytes on a device.

    Parameters
    ----------
    device : ``"cpu"`` or ``"cuda"``.
    size : (height, width) of the picture that needs them.
    advice : the end of the message, what to do.
    """
    free = gpu_free_bytes() if device == "cuda" else available_memory()
    if free is not None and needed > free:
        height, width = size
        memory = "the GPU's memory" if device == "cuda" else "memory"
        raise ValueError(
            f"{width}x{height} pixels need about {byte_count(needed)} of {memory}, {byte_count(free)} are available: "
            f"{advice}"
        )


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
