"""Whether there is enough memory, on the CPU or on a GPU."""

from __future__ import annotations

import math
from pathlib import Path

from kernels import Cuda, Device
from tools.media.files import byte_count
from tools.media.memory import available_memory, kernel_bytes


def free_bytes(device: Device | None, allowed: int | None = None) -> int | None:
    """Return how many bytes can still be taken on a device, or None where the system does not tell.

    Parameters
    ----------
    device : None means the machine's memory.
    allowed : bytes that this process may hold there in all, or None.
    """
    if isinstance(device, Cuda):
        free: int | None = device.free_bytes()
        in_use: int | None = 0
    else:
        free, in_use = available_memory(), kernel_bytes(Path("/proc/self/status"), "VmRSS")
    if allowed is None:
        return free
    left = max(allowed - (in_use or 0), 0)
    return left if free is None else min(left, free)


def more_memory(allowed: int | None, needed: int) -> str:
    """Return the end of an advice, how much more --memory would do; empty where none was given, or there is no more.

    Parameters
    ----------
    allowed : bytes that this process may hold in all, or None.
    needed : bytes beside those that it holds.
    """
    available = available_memory()
    if allowed is None or (available is not None and available < needed):
        return ""
    least = needed + (kernel_bytes(Path("/proc/self/status"), "VmRSS") or 0)
    return f", or at least --memory {math.ceil(least / 1e7) * 10}M"


def check_free(device: Device | None, needed: int, size: tuple[int, int], advice: str, free: int | None = None) -> None:
    """Raise ValueError when there are fewer than ``needed`` bytes on a device.

    Parameters
    ----------
    device : that they are needed on; None means the machine's memory.
    size : (height, width) of the picture that needs them.
    advice : the end of the message, what to do.
    free : from ``free_bytes``, where that is known.
    """
    free = free_bytes(device) if free is None else free
    if free is not None and needed > free:
        height, width = size
        memory = "the GPU's memory" if isinstance(device, Cuda) else "memory beside the program itself"
        raise ValueError(
            f"{width}x{height} pixels need about {byte_count(needed)} of {memory}, {byte_count(free)} are "
            f"available: {advice}"
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
