"""Whether there is enough memory, on the CPU or on a GPU."""

from __future__ import annotations

from kernels import Cuda, Device
from tools.media.files import byte_count
from tools.media.memory import available_memory


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
