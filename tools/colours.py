"""Giving one picture the colours of another: a painting those of the photograph, before its style is taken."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FLATTEST = 1.0
"""Grey levels by which the colours of a picture vary at least, in every direction: of less, nothing is made larger."""


def with_colours_of(pixels: npt.NDArray[np.floating], reference: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Return a picture whose colours have the mean and the covariance of another's.

    Each colour x becomes ``A (x - m) + n``: m and n are the two means, and A is the symmetric matrix that makes the
    covariance of the one, C, that of the other, ``A C A = C'``. Of all such matrices it moves the colours least. What
    leaves 0..255 is cut off.

    Parameters
    ----------
    pixels, reference : (H, W, 3), 0..255, of any size.

    Source: the linear method of Gatys, Bethge, Hertzmann and Shechtman, "Preserving Color in Neural Artistic Style
    Transfer" (2016), section 5.1; the symmetric solution is that of optimal transport between normal distributions
    (Olkin and Pukelsheim 1982).
    """
    (m, own), (n, wanted) = _moments(pixels), _moments(reference)
    root, inverse = _power(own, 0.5), _power(own, -0.5)
    A = inverse @ _power(root @ wanted @ root, 0.5) @ inverse
    return np.clip((pixels - m) @ A + n, 0.0, 255.0).astype(np.float32)


def _moments(pixels: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean (3,) and covariance (3, 3), with at least ``FLATTEST`` in every direction."""
    colours = pixels.reshape(-1, 3).astype(np.float64)
    return colours.mean(axis=0), np.cov(colours, rowvar=False, bias=True) + FLATTEST**2 * np.eye(3)


def _power(matrix: npt.NDArray[np.float64], exponent: float) -> npt.NDArray[np.float64]:
    """Return the power of a symmetric positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    result: npt.NDArray[np.float64] = (vectors * values**exponent) @ vectors.T
    return result
