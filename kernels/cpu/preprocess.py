"""From an RGB image to the network's input, and back for the gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Three = tuple[float, float, float]


def normalize_pixels(image: Array, bgr: bool, scale: float, mean: Three, std: Three, dtype: np.dtype[Any]) -> Array:
    """Return ``(image * scale - mean) / std``, channel by channel, computed in double precision.

    Parameters
    ----------
    image : (H, W, 3), RGB.
    bgr : whether the result's channels are in the order blue, green, red.
    scale : factor on the image.
    mean, std : in the result's channel order.
    dtype : of the result.

    Returns
    -------
    (H, W, 3), C-contiguous.
    """
    channels = image[:, :, ::-1] if bgr else image
    wide = np.result_type(dtype, np.float64)
    scaled = channels.astype(wide) * scale
    return np.ascontiguousarray((scaled - np.array(mean)) / np.array(std), dtype)


def normalize_pixels_input_gradient(output_gradient: Array, bgr: bool, scale: float, std: Three) -> Array:
    """Return the gradient with respect to the RGB image: (H, W, 3), in double precision."""
    wide = np.result_type(output_gradient.dtype, np.float64)
    gradient = output_gradient.astype(wide) * (scale / np.array(std))
    return np.ascontiguousarray(gradient[:, :, ::-1] if bgr else gradient)
