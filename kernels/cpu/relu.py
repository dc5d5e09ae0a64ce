"""Rectified linear unit, max(x, 0), and its input gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cpu.threads import Threads
from kernels.geometry import strips

Array = NDArray[Any]

# Elements a strip: 512 KiB of float32, which stays in a second-level cache.
_STRIP = 1 << 17


def relu(threads: Threads, input: Array, *, out: Array | None = None) -> Array:
    """Return max(input, 0); not-a-number stays. Complex numbers branch on the sign of the real part.

    Parameters
    ----------
    input : any shape, C-contiguous, floating or complex.
    out : where to write, C-contiguous; may be ``input`` itself.

    Source: ONNX Relu (opset 14).
    """
    output = threads.output(input.shape, input.dtype) if out is None else out
    flat, flat_output = input.reshape(-1), output.reshape(-1, copy=False)

    def strip(bounds: tuple[int, int]) -> None:
        part = slice(*bounds)
        rectify(flat[part], flat_output[part])

    threads.map(strip, strips(flat.size, _STRIP))
    return output


def rectify(input: Array, output: Array) -> None:
    """Write max(input, 0) to ``output``: the ReLU of one strip."""
    if np.iscomplexobj(input):
        np.copyto(output, np.where(input.real <= 0, 0, input))
    else:
        # Three times as fast as np.maximum with a number, and not-a-number stays as well.
        np.clip(input, 0, np.inf, out=output)


def relu_mask(threads: Threads, output: Array) -> NDArray[np.uint8]:
    """Return where the ReLU's output is positive, one bit a value, in order: all that the input gradient needs."""
    flat = output.reshape(-1)
    bits = threads.output((-(-flat.size // 8),), np.uint8)

    def strip(bounds: tuple[int, int]) -> None:
        start, stop = bounds
        bits[start // 8 : -(-stop // 8)] = np.packbits(flat[start:stop].real > 0)

    threads.map(strip, strips(flat.size, _STRIP))
    return bits


def relu_input_gradient(
    threads: Threads, output_gradient: Array, output_or_mask: Array, *, out: Array | None = None
) -> Array:
    """Return the gradient with respect to the input: ``output_gradient`` where the output is positive, else 0.

    At an input of exactly 0 the gradient is 0; equations 2 and 6 of Gatys, Ecker and Bethge 2015 leave that case open.

    Parameters
    ----------
    output_gradient : any shape, C-contiguous.
    output_or_mask : the ReLU's output (same shape), or its mask from ``relu_mask`` (uint8).
    out : where to write, C-contiguous; may be ``output_gradient`` itself.
    """
    result = threads.output(output_gradient.shape, output_gradient.dtype) if out is None else out
    gradient, kept = output_gradient.reshape(-1), output_or_mask.reshape(-1)
    flat_result = result.reshape(-1, copy=False)

    def strip(bounds: tuple[int, int]) -> None:
        start, stop = bounds
        if kept.dtype == np.uint8:
            positive = np.unpackbits(kept[start // 8 : -(-stop // 8)], count=stop - start)
        else:
            positive = (kept[start:stop].real > 0).view(np.uint8)
        np.multiply(gradient[start:stop], positive, out=flat_result[start:stop])

    threads.map(strip, strips(gradient.size, _STRIP))
    return result
