"""From RGB image to network input, and back for the gradient; the counterpart of ``kernels/cpu/preprocess.py``."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.cuda.launcher import Array, Launcher

Three = tuple[float, float, float]


def normalize_pixels(
    gpu: Launcher, image: Array, bgr: bool, scale: float, mean: Three, std: Three, dtype: np.dtype[Any]
) -> Array:
    """Return ``(image * scale - mean) / std``, channel by channel, computed in double precision.

    Parameters
    ----------
    image : (H, W, 3), RGB, float64.
    bgr : whether the result's channels are in the order blue, green, red.
    scale : factor on the image.
    mean, std : in the result's channel order.
    dtype : of the result, float32 or float16.

    Returns
    -------
    (H, W, 3), C-contiguous.
    """
    output, pixels = gpu.empty(image.shape, dtype), image.shape[0] * image.shape[1]
    arguments = (image, output, pixels, int(bgr), scale, *mean, *std)
    gpu.launch_for_each("preprocess.cu", "normalize_pixels", pixels, arguments, REAL=dtype)
    return output


def normalize_pixels_input_gradient(
    gpu: Launcher, output_gradient: Array, bgr: bool, scale: float, std: Three
) -> Array:
    """Return the gradient with respect to the RGB image: (H, W, 3), float64."""
    gradient, pixels = gpu.empty(output_gradient.shape, np.float64), output_gradient.shape[0] * output_gradient.shape[1]
    factors = [scale / deviation for deviation in std]
    arguments = (output_gradient, gradient, pixels, int(bgr), *factors)
    gpu.launch_for_each(
        "preprocess.cu", "normalize_pixels_input_gradient", pixels, arguments, REAL=output_gradient.dtype
    )
    return gradient
