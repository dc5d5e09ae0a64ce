"""3x3 convolution on the tensor cores of compute capability 9.0; see hopper.cu. Not yet run on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from operator import mul
from typing import Any

import numpy as np

from kernels.cuda.gemm import sum_of_parts
from kernels.cuda.launcher import Array, Launcher

CHANNELS = 64
"""Channels of a step: a row of 128 bytes."""

TILE_WIDTH = 8
"""Pixels of a tile across: with ``CHANNELS`` the period of the swizzle, 1024 bytes."""

STAGES = {(16, 64): 4, (16, 128): 3, (32, 64): 3, (32, 128): 2, (64, 64): 2}
"""Steps that are in shared memory at a time, by height of a tile and filters of a block: the kinds of kernels."""

THREADS = 384

CLOCK_PRODUCTS = 2048
"""Products in 16 bits of a multiprocessor in a clock: a tensor core does 512 (990 TFLOP/s at 1.83 GHz)."""

CLOCK_BYTES = 28
"""Bytes from the second-level cache to a multiprocessor in a clock. An estimate: never measured."""

ITEM_CLOCKS, LAUNCH_CLOCKS = 1500, 4000
"""Clocks that an item takes besides its steps, and another launch. Estimates: never measured."""

MOST_SPLITS = 8
"""Parts of a sum at most."""


@dataclass(frozen=True)
class Tiling:
    """How a convolution is cut into items.

    Parameters
    ----------
    tile_height : lines of a tile.
    block : filters of an item.
    splits : parts of the sum over channels and columns of the kernel.
    blocks : that run, at most, one a multiprocessor; each takes one item after the other.
    """

    tile_height: int
    block: int
    splits: int
    blocks: int

    def items(self, height: int, width: int, filters: int) -> int:
        """Return how many items there are for an image."""
        return -(-height // self.tile_height) * -(-width // TILE_WIDTH) * (filters // self.block) * self.splits

    @property
    def stage_bytes(self) -> int:
        """Bytes of a step: the input's box and three of the weight."""
        return 2 * CHANNELS * ((self.tile_height + 2) * TILE_WIDTH + 3 * self.block)

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a block: the stages, and 64 pixels times 64 filters of each of two warpgroups."""
        return STAGES[self.tile_height, self.block] * self.stage_bytes + 2 * 2 * 64 * 64

    def clocks(self, height: int, width: int, channels: int, filters: int) -> float:
        """Predict how long the convolution takes: by its waves, each as long as multiplying or fetching takes."""
        steps = -(-steps_of(channels) // self.splits)
        products = self.tile_height * TILE_WIDTH * self.block * CHANNELS * 3
        step = max(products / CLOCK_PRODUCTS, self.stage_bytes / CLOCK_BYTES)
        waves = -(-self.items(height, width, filters) // self.blocks)
        # The parts of a sum are written and read, in float32.
        moved = 2 * 4 * self.splits * height * width * filters / (CLOCK_BYTES * self.blocks)
        return waves * (ITEM_CLOCKS + steps * step) + (LAUNCH_CLOCKS + moved if self.splits > 1 else 0)


def hopper_suits(channels: int, filters: int) -> bool:
    """Say whether the kernel takes a convolution of so many channels and filters."""
    return channels % CHANNELS == 0 and filters % CHANNELS == 0


def steps_of(channels: int) -> int:
    """Return the steps of a whole sum: one for each 64 channels and each column of the kernel."""
    return 3 * (channels // CHANNELS)


def tilings(channels: int, filters: int, multiprocessors: int) -> Iterator[Tiling]:
    """Yield every way to cut a convolution that leaves no part of a sum empty."""
    steps = steps_of(channels)
    for tile_height, block in STAGES:
        for splits in range(1, MOST_SPLITS + 1):
            if filters % block == 0 and (splits - 1) * -(-steps // splits) < steps:
                yield Tiling(tile_height, block, splits, multiprocessors)


@cache
def best_tiling(height: int, width: int, channels: int, filters: int, multiprocessors: int) -> Tiling:
    """Return the tiling that is predicted to be fastest; of equals that with fewer parts."""

    def predicted(tiling: Tiling) -> tuple[float, int]:
        return tiling.clocks(height, width, channels, filters), tiling.splits

    return min(tilings(channels, filters, multiprocessors), key=predicted)


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """A weight as the kernel reads it.

    Parameters
    ----------
    values : (3, 3, K, C), float16.
    """

    values: Array
    _maps: dict[int, Any] = field(default_factory=dict)

    def tensor_map(self, gpu: Launcher, block: int) -> Any:
        """Return the tensor map for blocks of so many filters; made once, because the weight stays where it is."""
        if block not in self._maps:
            self._maps[block] = _tensor_map(gpu, self.values, (CHANNELS, block, 1, 3))
        return self._maps[block]


def pack_hopper_weight(gpu: Launcher, weight: Array) -> PackedWeight:
    """Return a weight as the kernel reads it, from (3, 3, C, K), float16."""
    rows, columns, channels, filters = weight.shape
    if (rows, columns) != (3, 3):
        raise ValueError(f"a weight of {weight.shape} is not that of a 3x3 convolution")
    values = gpu.empty((rows, columns, filters, channels), np.float16)
    gpu.launch_for_each("hopper.cu", "hopper_weight", values.size, (weight, values, values.size, channels, filters))
    return PackedWeight(values)


def hopper_conv(
    gpu: Launcher,
    input: Array,
    packed: PackedWeight,
    bias: Array | None,
    *,
    relu: bool = False,
    mask: Array | None = None,
    tiling: Tiling | None = None,
) -> Array:
    """Return the convolution with padding 1, plus ``bias``: sums in float32, rounded to float16 at the end.

    Parameters
    ----------
    input : (H, W, C), float16; C a multiple of 64.
    packed : from ``pack_hopper_weight``; K a multiple of 64.
    bias : (K,), float32, or None.
    relu : apply max(x, 0) to the result.
    mask : from ``relu_mask`` of an array of the result's shape: where that is not positive, the result is 0. What is
        computed is then the gradient with respect to a ReLU's input.
    tiling : how it is cut; the predicted best if None.

    Returns
    -------
    (H, W, K), float16.
    """
    height, width, channels = input.shape
    filters, inner = packed.values.shape[2:]
    if inner != channels or not hopper_suits(channels, filters) or (bias is not None and bias.shape != (filters,)):
        of_bias = "no bias" if bias is None else f"a bias of {bias.shape}"
        raise ValueError(f"an input of {input.shape}, a weight of {packed.values.shape} and {of_bias} do not fit")
    if input.dtype != np.float16:
        raise TypeError(f"input must be float16, got {input.dtype}")
    if mask is not None and mask.shape != (height * width * filters // 8,):
        raise ValueError(f"mask must have {height * width * filters // 8} values, got {mask.shape}")
    output = gpu.empty((height, width, filters), np.float16)
    cut = best_tiling(height, width, channels, filters, gpu.multiprocessors) if tiling is None else tiling
    split = cut.splits > 1
    parts = gpu.empty((cut.splits, height, width, filters) if split else (1,), np.float32)
    # Where there is none, any array does: it is not read.
    masks = gpu.empty((1,), np.uint8) if mask is None else mask
    biases, biased = parts if bias is None else bias, int(bias is not None)
    maps = (
        _tensor_map(gpu, input, (CHANNELS, TILE_WIDTH, cut.tile_height + 2)),
        packed.tensor_map(gpu, cut.block),
        _tensor_map(gpu, output, (CHANNELS, TILE_WIDTH, 8)),
    )
    numbers = (height, width, channels, filters, cut.splits, biased, int(relu), int(mask is not None))
    blocks = min(cut.items(height, width, filters), cut.blocks)
    gpu.launch(
        "hopper.cu",
        f"hopper_conv_{cut.tile_height}_{cut.block}",
        (blocks, 1, 1),
        (THREADS, 1, 1),
        (*maps, biases, masks, parts, *numbers),
        cut.shared_bytes,
    )
    if split:
        sum_of_parts(gpu, parts, output, (1.0, 0, biases, biased, int(relu)), mask)
    return output


def _tensor_map(gpu: Launcher, array: Array, box: tuple[int, ...]) -> Any:
    """Return the tensor map of a whole array, for boxes of these sides, the fastest first."""
    sizes = tuple(array.shape[::-1])
    steps = tuple(accumulate((array.dtype.itemsize * sizes[0], *sizes[1:-1]), mul))
    return gpu.tensor_map(array, sizes, steps, box)
