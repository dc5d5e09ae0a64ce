"""Give one image the colors of another: as a rule a style image those of the content image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FLATTEST = 1.0
"""Gray levels by which the colors of an image vary at least, in every direction: of less, nothing is made larger."""


def match_colors(image: npt.NDArray[np.floating], reference: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Return an image whose colors have the mean and the covariance of another's, float32 of the image's shape.

    Each color x becomes ``A (x - m) + n``: m and n are the two means, and A is the symmetric matrix that makes the
    covariance of the one, C, that of the other, ``A C A = C'``. Of all such matrices it moves the colors least. What
    leaves 0..255 is cut off.

    Parameters
    ----------
    image, reference : as a rule the style image and the content image, (H, W, 3), 0..255, of any size.

    Source: the linear method of Gatys, Bethge, Hertzmann and Shechtman, "Preserving Color in Neural Artistic Style
    Transfer" (2016), section 5.1; the symmetric solution is that of optimal transport between normal distributions
    (Olkin and Pukelsheim 1982).

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> painting, photo = random.uniform(0, 100, (20, 30, 3)), random.uniform(80, 160, (40, 40, 3))
    >>> matched = match_colors(painting, photo)
    >>> bool(np.allclose(matched.mean(axis=(0, 1)), photo.mean(axis=(0, 1)), atol=0.1))
    True
    """
    (m, own), (n, wanted) = _moments(image), _moments(reference)
    root, inverse = _power(own, 0.5), _power(own, -0.5)
    A = inverse @ _power(root @ wanted @ root, 0.5) @ inverse
    return np.clip((image - m) @ A + n, 0.0, 255.0).astype(np.float32)


def _moments(image: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean (3,) and covariance (3, 3), with at least ``FLATTEST`` in every direction."""
    colors = image.reshape(-1, 3).astype(np.float64)
    return colors.mean(axis=0), np.cov(colors, rowvar=False, bias=True) + FLATTEST**2 * np.eye(3)


def _power(matrix: npt.NDArray[np.float64], exponent: float) -> npt.NDArray[np.float64]:
    """Return the power of a symmetric positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    result: npt.NDArray[np.float64] = (vectors * values**exponent) @ vectors.T
    return result
