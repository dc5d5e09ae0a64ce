"""A 3x3 convolution with what stands around it in a VGG: bias, ReLU and 2x2 average pooling in one pass over memory.

Forward, a strip of the convolution's output is rectified, its ReLU mask is noted and it is pooled while it is in cache;
with pooling the unpooled activations are never written to memory. Backward, the output's gradient is spread over the
pooling windows and masked while a strip of it is read. The convolution itself is Winograd's both ways.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cpu.relu import rectify
from kernels.cpu.threads import Threads
from kernels.cpu.winograd import winograd_conv

Array = NDArray[Any]

POOL = 2


def conv_block(
    threads: Threads,
    input: Array,
    transformed: Array,
    bias: Array | None,
    pads: tuple[int, int, int, int],
    *,
    pool: bool = False,
    keep_mask: bool = True,
) -> tuple[Array, NDArray[np.uint8] | None]:
    """Return max(conv(input) + bias, 0), averaged over windows of 2x2 if asked, and the ReLU mask before the averaging.

    Parameters
    ----------
    input : (H, W, C).
    transformed : (36, C, K), from ``transform_weight``; K is a multiple of 8.
    bias : (K,) or None.
    pads : zeros at the top, left, bottom and right.
    pool : average windows of 2x2 with stride 2; an odd last row or column is dropped.
    keep_mask : whether to return the mask.

    Returns
    -------
    output : (H', W', K), or (H' // 2, W' // 2, K) with pooling.
    mask : (H', W', K / 8) uint8, one bit a value, or None.
    """
    filters = transformed.shape[2]
    rows, columns = input.shape[0] + pads[0] + pads[2] - 2, input.shape[1] + pads[1] + pads[3] - 2
    shape = (rows // POOL, columns // POOL) if pool else (rows, columns)
    output = threads.output((*shape, filters), input.dtype)
    mask = threads.output((rows, columns, filters // 8), np.uint8) if keep_mask else None

    def load(down: slice, along: slice, out: Array) -> None:
        np.copyto(out, input[down, along])

    def store(down: slice, along: slice, values: Array) -> None:
        if mask is not None:
            # The bits of a value below zero and of not-a-number are 0, and what is not positive is cut off below.
            # Without an axis: that is four times as fast, and the channels are whole bytes.
            mask[down, along] = np.packbits(values > 0).reshape(*values.shape[:2], -1)
        if not pool:
            rectify(values, output[down, along])
            return
        rectify(values, values)
        # Blocks begin at multiples of four, so that no window is divided among two of them.
        part = output[down.start // POOL : down.stop // POOL, along.start // POOL : along.stop // POOL]
        height, width = POOL * part.shape[0], POOL * part.shape[1]
        # The same order of additions as kernels/cpu/pool.py.
        np.add(values[0:height:2, 0:width:2], values[0:height:2, 1:width:2], out=part)
        part += values[1:height:2, 0:width:2]
        part += values[1:height:2, 1:width:2]
        part *= np.asarray(1 / POOL**2, part.dtype)

    winograd_conv(threads, load, store, input.shape[:2], pads, transformed, bias)
    return output, mask


def conv_block_input_gradient(
    threads: Threads,
    output_gradient: Array,
    transformed: Array,
    size: tuple[int, int],
    pads: tuple[int, int, int, int],
    *,
    pool: bool = False,
    output: Array | None = None,
    mask: NDArray[np.uint8] | None = None,
) -> Array:
    """Return the gradient with respect to the input of ``conv_block``.

    Parameters
    ----------
    output_gradient : of the output's shape.
    transformed : (36, C, K), as in ``conv_block``.
    size : H' and W' of the convolution's output, before the pooling.
    pads : of the convolution.
    pool : as in ``conv_block``.
    output, mask : what ``conv_block`` returned: the output (without pooling) or the mask.

    Returns
    -------
    (H, W, C).
    """
    channels = transformed.shape[1]
    mirrored = (2 - pads[0], 2 - pads[1], 2 - pads[2], 2 - pads[3])
    height, width = size[0] + 2 - pads[0] - pads[2], size[1] + 2 - pads[1] - pads[3]
    gradient = threads.output((height, width, channels), output_gradient.dtype)

    def load(down: slice, along: slice, out: Array) -> None:
        if pool:
            _spread(output_gradient, down, along, out)
        positive: Array
        if mask is not None:
            positive = np.unpackbits(mask[down, along]).reshape(out.shape)
        elif output is not None:
            positive = output[down, along] > 0
        else:
            raise ValueError("the gradient of a ReLU needs its output or its mask")
        np.multiply(out if pool else output_gradient[down, along], positive, out=out)

    def store(down: slice, along: slice, values: Array) -> None:
        np.copyto(gradient[down, along], values)

    winograd_conv(threads, load, store, size, mirrored, transformed, transposed=True)
    return gradient


def _spread(pooled: Array, down: slice, along: slice, out: Array) -> None:
    """Write to ``out`` some rows and columns of the gradient of a 2x2 average: a quarter of the window's to each."""
    rows = min(down.stop, POOL * pooled.shape[0]) - down.start
    columns = min(along.stop, POOL * pooled.shape[1]) - along.start
    out[max(rows, 0) :] = 0
    out[:, max(columns, 0) :] = 0
    shares = pooled[down.start // POOL : -(-down.stop // POOL), along.start // POOL : -(-along.stop // POOL)] / POOL**2
    for y in range(POOL):
        for x in range(POOL):
            # The first row and column of this parity, counted from the slices' beginnings.
            first_y, first_x = (y - down.start) % POOL, (x - along.start) % POOL
            target = out[first_y : max(rows, 0) : POOL, first_x : max(columns, 0) : POOL]
            # Which share is the first: not that of a window whose row or column of this parity lies before the slices.
            top = (down.start + first_y) // POOL - down.start // POOL
            left = (along.start + first_x) // POOL - along.start // POOL
            np.copyto(target, shares[top : top + target.shape[0], left : left + target.shape[1]])
