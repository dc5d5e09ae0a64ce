"""Convolution as an implicit matrix product on tensor cores, compute capability 8.0 and later; see implicit_gemm.cu.

Not yet run on a GPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.cuda.gemm import sum_of_parts
from kernels.cuda.geometry import Size, split_product
from kernels.cuda.launcher import Array, Launcher
from kernels.geometry import Window, output_size, resolved_pads

PIECE_BYTES = 16
"""What a thread copies at a time."""

TILE_PIXELS = 128
"""Outputs of a block."""

STEP_BYTES = 64
"""Of the inner dimension, in a step."""

STAGES = {64: 4, 128: 3}
"""Steps in shared memory at a time, by the filters of a block: 48 KB, so that every card holds two blocks a
multiprocessor."""

THREADS = 256

_MOST_PIECES = 1 << 31


def implicit_gemm_suits(channels: int, dtype: np.dtype[Any]) -> bool:
    """Say whether the kernel takes an input of so many channels: it copies whole pieces of 16 bytes."""
    return dtype in (np.float16, np.float32) and channels * dtype.itemsize % PIECE_BYTES == 0


def filters_of_block(filters: int, split: bool = False) -> int:
    """Return how many filters a block owns: 128, or 64 where those cover them with less to spare.

    Where floats are split there are registers for 64 only.
    """
    return 128 if -(-filters // 64) % 2 == 0 and not split else 64


def shared_bytes(block_filters: int) -> int:
    """Return the dynamic shared memory of a block."""
    return STAGES[block_filters] * STEP_BYTES * (TILE_PIXELS + block_filters)


def schedule(pixels: int, filters: int, inner: int, itemsize: int, block_filters: int) -> tuple[Size, int]:
    """Return the grid and how much of the inner dimension a part has, in pieces; see ``geometry.split_product``."""
    values = PIECE_BYTES // itemsize
    tile = (TILE_PIXELS, block_filters, STEP_BYTES // itemsize)
    (down, across, splits), part = split_product(pixels, filters, inner, tile)
    return (down * across, 1, splits), part // values


def implicit_gemm_conv(
    gpu: Launcher,
    input: Array,
    packed: Array,
    bias: Array | None,
    window: Window,
    *,
    relu: bool = False,
    mask: Array | None = None,
    split: bool = False,
) -> Array:
    """Return the convolution (cross-correlation) of ``input`` with a packed weight, plus ``bias``, zero-padded.

    Sums are in float32. Factors in float32 are rounded to tf32 (11 bits, the exponent of float32); with ``split`` they
    are the sum of two such numbers, three products of which leave an error near float32's own.

    Parameters
    ----------
    input : (H, W, C), C-contiguous, float32 or float16; C a multiple of 16 bytes.
    packed : (K, taps C), of the input's dtype, from ``pack_weight``.
    bias : (K,), float32, or None.
    window : kernel size, strides, pads and dilations.
    relu : apply max(x, 0) to the result.
    mask : from ``relu_mask`` of an array of the result's shape: where that is not positive, the result is 0. What is
        computed is then the gradient with respect to a ReLU's input.
    split : for float32 only.

    Returns
    -------
    (H', W', K).

    Source: ONNX Conv (opset 22), group 1.
    """
    height, width, channels = input.shape
    filters, inner = packed.shape
    of_bias = (filters,) if bias is None else bias.shape
    if inner != len(window.taps) * channels or not implicit_gemm_suits(channels, input.dtype) or of_bias != (filters,):
        raise ValueError(f"an input of {input.shape}, a weight of {packed.shape} and a bias of {of_bias} do not fit")
    if packed.dtype != input.dtype or (split and input.dtype != np.float32):
        raise TypeError(f"input and weight must be float32, or float16 unless split, got {input.dtype}, {packed.dtype}")
    if input.size * input.dtype.itemsize // PIECE_BYTES >= _MOST_PIECES:
        raise ValueError(f"an input of {input.shape} is too large for the kernels")
    rows, columns = output_size(window, height, width)
    output = gpu.empty((rows, columns, filters), input.dtype)
    values, pixels = PIECE_BYTES // input.dtype.itemsize, rows * columns
    block_filters = filters_of_block(filters, split)
    grid, part = schedule(pixels, filters, inner, input.dtype.itemsize, block_filters)
    splits = grid[2]
    # Where there is nothing to put there, any array does: it is neither read nor written.
    nothing = gpu.empty((1,), np.float32)
    parts = nothing if splits == 1 else gpu.empty((splits, pixels, filters), np.float32)
    finish = (nothing if bias is None else bias, int(bias is not None), int(relu))
    top, left = resolved_pads(window, height, width)[:2]
    if mask is not None and mask.shape != (-(-output.size // 8),):
        raise ValueError(f"mask must have {-(-output.size // 8)} values, got {mask.shape}")
    masked = (gpu.empty((1,), np.uint8) if mask is None else mask, int(mask is not None))
    sizes = (height, width, channels // values, columns, pixels, filters, window.kernel[1], inner // values, part)
    arguments = (input, packed, output, parts, *sizes, *window.strides, *window.dilations, top, left, *finish, *masked)
    kind = "split" if split else "half" if input.dtype == np.float16 else "tf32"
    name = f"implicit_gemm_{kind}_{block_filters}"
    gpu.launch("implicit_gemm.cu", name, grid, (THREADS, 1, 1), arguments, shared_bytes(block_filters))
    if splits > 1:
        sum_of_parts(gpu, parts, output, (1.0, 0, *finish), mask)
    return output
