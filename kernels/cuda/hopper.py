"""3x3 convolution on the tensor cores of compute capability 9.0; see hopper.cu. Not yet run on a GPU."""

from __future__ import annotations

import numpy as np

from kernels.cpu.threads import SERIAL, Workers
from kernels.cuda import runtime
from kernels.cuda.geometry import Size
from kernels.cuda.runtime import Array, empty

TILE_WIDTH, TILE_HEIGHT = 16, 8
"""Pixels of a block's tile."""

CHANNELS = 64
"""Channels of a step: a row of 128 bytes."""

STAGES = 4
"""Steps that are fetched ahead."""

THREADS = 384


def suits(channels: int, filters: int) -> bool:
    """Say whether the kernel takes a convolution of so many channels and filters."""
    return channels % CHANNELS == 0 and filters % CHANNELS == 0


def filters_of_block(filters: int) -> int:
    """Return how many filters a block owns: 128, or 64 where they are not a multiple of that."""
    return 128 if filters % 128 == 0 else 64


def tiles(height: int, width: int) -> tuple[int, int]:
    """Return how many tiles cover an image, down and across."""
    return -(-height // TILE_HEIGHT), -(-width // TILE_WIDTH)


def shared_bytes(block_filters: int) -> int:
    """Return the dynamic shared memory of a block."""
    return STAGES * 2 * CHANNELS * (TILE_WIDTH * TILE_HEIGHT + block_filters)


def hopper_conv(input: Array, packed: Array, bias: Array, *, relu: bool = False, workers: Workers = SERIAL) -> Array:
    """Return the convolution with padding 1, plus ``bias``: sums in float32, rounded to float16 at the end.

    Parameters
    ----------
    input : (H, W, C), float16; C a multiple of 64.
    packed : (K, 9 C), float16, from ``pack_weight``; K a multiple of 64.
    bias : (K,), float32.
    relu : apply max(x, 0) to the result.

    Returns
    -------
    (H, W, K), float16.
    """
    height, width, channels = input.shape
    filters, inner = packed.shape
    if inner != 9 * channels or not suits(channels, filters) or bias.shape != (filters,):
        raise ValueError(f"an input of {input.shape}, a weight of {packed.shape} and a bias of {bias.shape} do not fit")
    if input.dtype != np.float16 or packed.dtype != np.float16:
        raise TypeError(f"input and weight must be float16, got {input.dtype} and {packed.dtype}")
    output = empty((height, width, filters), np.float16)
    block = filters_of_block(filters)
    down, across = tiles(height, width)
    grid: Size = (down * across, filters // block, 1)
    device, item = runtime.backend(), input.dtype.itemsize
    maps = (
        device.tensor_map(
            input,
            (channels, width, height),
            (item * channels, item * channels * width),
            (CHANNELS, TILE_WIDTH, TILE_HEIGHT),
        ),
        device.tensor_map(packed, (inner, filters), (item * inner,), (CHANNELS, block)),
    )
    arguments = (*maps, bias, output, height, width, channels, filters, across, int(relu))
    name = f"hopper_conv_{block}"
    runtime.launch_with_memory("hopper.cu", name, grid, (THREADS, 1, 1), arguments, shared_bytes(block))
    return output
