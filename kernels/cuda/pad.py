"""Padding by zeros, by reflection, or by the edges, and its input gradient; the twin of ``kernels/cpu/pad.py``."""

from __future__ import annotations

from kernels.cuda.launcher import Array, Launcher
from kernels.geometry import padded_size

_MODES = ("constant", "reflect", "edge")


def pad(gpu: Launcher, input: Array, pads: tuple[int, int, int, int], mode: str) -> Array:
    """Return the input with rows and columns around it.

    Parameters
    ----------
    input : (H, W, C).
    pads : top, left, bottom, right.
    mode : ``"constant"`` for zeros, ``"reflect"`` or ``"edge"``.

    Source: ONNX Pad (opset 24).
    """
    height, width, channels = input.shape
    top, left, bottom, right = pads
    rows, columns = padded_size(height, top, bottom, mode), padded_size(width, left, right, mode)
    output = gpu.empty((rows, columns, channels), input.dtype)
    place = (height, width, channels, *pads, _MODES.index(mode))
    gpu.launch_for_each("pad.cu", "pad", output.size, (input, output, output.size, *place), REAL=input.dtype)
    return output


def pad_input_gradient(
    gpu: Launcher,
    output_gradient: Array,
    input_shape: tuple[int, int, int],
    pads: tuple[int, int, int, int],
    mode: str,
) -> Array:
    """Return the gradient with respect to the input: the sum over all places that a value was taken to.

    Parameters
    ----------
    output_gradient : (H + top + bottom, W + left + right, C).
    input_shape : (H, W, C).
    pads, mode : as in ``pad``.
    """
    gradient = gpu.empty(input_shape, output_gradient.dtype)
    place = (*input_shape, *pads, _MODES.index(mode))
    arguments = (output_gradient, gradient, gradient.size, *place)
    gpu.launch_for_each("pad.cu", "pad_input_gradient", gradient.size, arguments, REAL=gradient.dtype)
    return gradient
