"""Rectified linear unit, max(x, 0), and its input gradient; the counterpart of ``kernels/cpu/relu.py``."""

from __future__ import annotations

import numpy as np

from kernels.cuda.launcher import Array, Launcher


def relu(gpu: Launcher, input: Array, *, out: Array | None = None) -> Array:
    """Return max(input, 0); not-a-number stays.

    Parameters
    ----------
    input : any shape, C-contiguous, float32 or float16.
    out : where to write; may be ``input`` itself.

    Source: ONNX Relu (opset 14).
    """
    output = gpu.empty(input.shape, input.dtype) if out is None else out
    gpu.launch_for_each("relu.cu", "relu", input.size, (input, output, input.size), REAL=input.dtype)
    return output


def relu_mask(gpu: Launcher, output: Array) -> Array:
    """Return where the ReLU's output is positive, one bit a value, in order: all that the input gradient needs."""
    size = -(-output.size // 8)
    bits = gpu.empty((size,), np.uint8)
    gpu.launch_for_each("relu.cu", "relu_mask", size, (output, bits, output.size), REAL=output.dtype)
    return bits


def relu_input_gradient(
    gpu: Launcher, output_gradient: Array, output_or_mask: Array, *, out: Array | None = None
) -> Array:
    """Return the gradient with respect to the input: ``output_gradient`` where the output is positive, else 0.

    At an input of exactly 0 the gradient is 0, as in equations 2 and 6 of Gatys, Ecker and Bethge 2015.

    Parameters
    ----------
    output_gradient : any shape, C-contiguous.
    output_or_mask : the ReLU's output (same shape and dtype), or its mask from ``relu_mask`` (uint8).
    out : where to write; may be ``output_gradient`` itself.
    """
    result = gpu.empty(output_gradient.shape, output_gradient.dtype) if out is None else out
    name = "relu_input_gradient_from_mask" if output_or_mask.dtype == np.uint8 else "relu_input_gradient"
    arguments = (output_gradient, output_or_mask, result, output_gradient.size)
    gpu.launch_for_each("relu.cu", name, output_gradient.size, arguments, REAL=output_gradient.dtype)
    return result
