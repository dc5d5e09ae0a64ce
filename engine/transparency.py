"""A style image's transparent parts: what is not seen takes no part in the style.

A style image may be (H, W, 4): RGB, and an alpha of the same scale, 0 (transparent) to 255 (opaque). Alpha weighs the
positions k of a layer: the target is ``A = sum_k m_k F_k F_k^T / sum_k m_k`` with m the alpha brought down to the
layer's size, where an opaque image has m = 1. Only the target changes, so that no gradient does.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engine.ops import Array

OPAQUE = 255.0

Alpha = npt.NDArray[np.float64]


def split_alpha(image: Array) -> tuple[Array, Alpha | None]:
    """Return a style image without its alpha, and its alpha from 0 to 1, or None where all of it is opaque.

    Colors under an alpha of 0 are replaced as by ``fill_hidden``: a network sees around a position, and what is hidden
    must not come in from there.

    Parameters
    ----------
    image : (H, W, 3) or (H, W, 4), 0..255, uint8 or floating; an image of 3 channels is given back as it is.

    Raises ValueError for an alpha outside of 0..255, and for an image of which nothing is visible.
    """
    if np.ndim(image) != 3 or np.shape(image)[2] != 4:
        return image, None
    alpha = np.asarray(image)[..., 3].real / OPAQUE
    if not (alpha.min(initial=0) >= 0 and alpha.max(initial=0) <= 1):
        raise ValueError(f"the alpha of a style image must lie in 0..{OPAQUE:g}")
    colors = np.ascontiguousarray(image[..., :3])
    if alpha.min(initial=1) == 1:
        return colors, None
    return fill_hidden(colors, alpha), alpha


def fill_hidden(image: Array, alpha: npt.NDArray[np.floating]) -> Array:
    """Return an image, floating, whose colors under an alpha of 0 are the mean of its visible ones, by alpha.

    Parameters
    ----------
    image : (H, W, 3), 0..255.
    alpha : (H, W), 0..1.

    Raises ValueError where nothing is visible.
    """
    visible = alpha > 0
    if not visible.any():
        raise ValueError("the style image is wholly transparent, there is nothing of it to be seen")
    weights = alpha[visible].astype(np.float64)
    mean = np.average(image[visible].astype(np.float64), axis=0, weights=weights)
    return np.where(visible[..., None], image, mean.astype(image.dtype) if image.dtype.kind in "fc" else mean)


def area_average(alpha: npt.NDArray[np.floating], height: int, width: int) -> Alpha:
    """Return alpha at another size, (height, width): each value the mean over its part of the area, (H, W)."""
    for axis, size in enumerate((height, width)):
        if alpha.shape[axis] != size:
            alpha = _averaged(np.moveaxis(alpha, axis, 0), size)
            alpha = np.moveaxis(alpha, 0, axis)
    return np.ascontiguousarray(alpha, np.float64)


def _averaged(alpha: npt.NDArray[np.floating], size: int) -> Alpha:
    """Return alpha with ``size`` rows in place of its own."""
    # The integral up to each row, and between rows by straight lines: exact, and 0 over what is 0.
    integral = np.concatenate([np.zeros_like(alpha[:1], np.float64), np.cumsum(alpha, axis=0, dtype=np.float64)])
    edges = np.arange(size + 1) * (len(alpha) / size)
    below = np.minimum(edges.astype(int), len(alpha) - 1)
    part = (edges - below)[:, None]
    at_edges = integral[below] + part * (integral[below + 1] - integral[below])
    averaged: Alpha = np.maximum(np.diff(at_edges, axis=0), 0) * (size / len(alpha))
    return averaged
