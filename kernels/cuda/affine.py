"""Scale and shift of each channel, and its input gradient; the counterpart of ``kernels/cpu/affine.py``."""

from __future__ import annotations

from kernels.cuda.launcher import Array, Launcher


def affine(gpu: Launcher, input: Array, scale: Array, shift: Array) -> Array:
    """Return ``scale * input + shift``.

    Parameters
    ----------
    input : (H, W, C), float32 or float16.
    scale, shift : (C,) or (1,), float32.
    """
    output, channels = gpu.empty(input.shape, input.dtype), input.shape[2]
    steps = (int(scale.size > 1), int(shift.size > 1))
    arguments = (input, scale, shift, output, input.size, channels, *steps)
    gpu.launch_for_each("affine.cu", "affine", input.size, arguments, REAL=input.dtype)
    return output


def affine_input_gradient(gpu: Launcher, output_gradient: Array, scale: Array) -> Array:
    """Return the gradient with respect to the input, ``scale * output_gradient``, of shape (H, W, C)."""
    gradient, channels = gpu.empty(output_gradient.shape, output_gradient.dtype), output_gradient.shape[2]
    arguments = (output_gradient, scale, gradient, gradient.size, channels, int(scale.size > 1))
    gpu.launch_for_each("affine.cu", "affine_input_gradient", gradient.size, arguments, REAL=gradient.dtype)
    return gradient
