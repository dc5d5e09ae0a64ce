"""How much memory there is."""

from __future__ import annotations

from pathlib import Path

from kernels import Cuda, Device
from tools.cli.progress import byte_count


def check_free(device: Device | None, needed: int, size: tuple[int, int], advice: str) -> None:
    """Raise ValueError when there are fewer than ``needed`` bytes on a device.

    Parameters
    ----------
    device : that they are needed on; None means the machine's memory.
    size : (height, width) of the picture that needs them.
    advice : the end of the message, what to do.
    """
    free = device.free_bytes() if isinstance(device, Cuda) else available_memory()
    if free is not None and needed > free:
        height, width = size
        memory = "the GPU's memory" if isinstance(device, Cuda) else "memory"
        raise ValueError(
            f"{width}x{height} pixels need about {byte_count(needed)} of {memory}, {byte_count(free)} are available: "
            f"{advice}"
        )


def peak_memory(device: Device, needed: int, decoded: int) -> int:
    """Return the bytes that this process will have held at its peak, on a GPU those that it will have held there.

    Parameters
    ----------
    needed : bytes that the work is going to take on the device.
    decoded : bytes of the pictures that have been read; counted where the system does not tell what is in use.
    """
    if isinstance(device, Cuda):
        return needed
    status = Path("/proc/self/status")
    in_use, most = (kernel_bytes(status, key) for key in ("VmRSS", "VmHWM"))
    return needed + decoded if in_use is None or most is None else max(in_use + needed, most)


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
