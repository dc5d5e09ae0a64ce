"""Parts of the picture with a style of their own, and how much of each position belongs to which.

The guided Gram matrices of Gatys, Ecker, Bethge, Hertzmann and Shechtman, "Controlling Perceptual Factors in Neural
Style Transfer" (2017), section 4.1: with t_r how much of a position belongs to region r (the square of their
T_r, which multiplies F itself), the region's Gram matrix is ``G_r = sum_k t_rk F_k F_k^T``, and in equation 4 its size
M_l is the sum of t_r. A region weighs as much as its share of the picture, so that its style pulls at each position as
hard as one style for the whole would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.ops import Array
from engine.transparency import area_average

Guide = npt.NDArray[np.float64]
"""How much of each position belongs to a region, 0..1, or how much it counts, 0 and above; (H, W)."""


@dataclass(frozen=True, eq=False)
class Region:
    """A part of the picture, and where its style is from.

    Parameters
    ----------
    mask : (H, W), of the picture's size, from 0 (outside) to 1; values between them blend.
    style : as for ``Objective``: one image, or a list of (image, weight). Of an image with an alpha, (H, W, 4), what is
        seen of it is the style: so a part of a style image is chosen.
    """

    mask: Array
    style: Any


def guides_of(masks: Sequence[Array], shape: tuple[int, ...]) -> list[Guide]:
    """Return masks so that their sum is 1 at each position, but where all of them are 0.

    Parameters
    ----------
    masks : (H, W) each.
    shape : of the picture, (H, W, 3).

    Raises ValueError for a mask of another size, with values outside of 0..1, or that is empty.
    """
    guides = []
    for number, mask in enumerate(masks, 1):
        guide = np.asarray(mask, np.float64)
        if guide.shape != tuple(shape[:2]):
            raise ValueError(f"the mask of region {number} has the shape {guide.shape}, the picture {tuple(shape[:2])}")
        if not (guide.min() >= 0 and guide.max() <= 1):
            raise ValueError(f"the mask of region {number} has values outside of 0..1")
        if not guide.any():
            raise ValueError(f"the mask of region {number} is empty")
        guides.append(guide)
    total = sum(guides)
    return [np.divide(guide, total, out=np.zeros_like(guide), where=total > 0) for guide in guides]


def counts_of(mask: Array, shape: tuple[int, ...]) -> Guide:
    """Return how much each position of the content image counts.

    Parameters
    ----------
    mask : (H, W), 0 and above.
    shape : of the content image, (H, W, 3).

    Raises ValueError for a mask of another size, or with values that are negative or not finite.
    """
    counts = np.asarray(mask, np.float64)
    if counts.shape != tuple(shape[:2]):
        raise ValueError(f"the content mask has the shape {counts.shape}, the content image {tuple(shape[:2])}")
    if not (counts.min() >= 0 and np.isfinite(counts).all()):
        raise ValueError("the content mask has values that are negative or not finite")
    return counts


def at_layer(guide: Guide, height: int, width: int) -> Guide:
    """Return a guide at a layer's size: each value the mean over its part of the area."""
    return area_average(guide, height, width)
