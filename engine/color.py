"""Give one image the colors of another: as a rule a style image those of the content image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engine.errors import unknown_name

METHODS = ("optimal", "principal", "cholesky")
"""Linear maps that give one image's colors the mean and covariance of another's."""

FLATTEST = 1.0
"""Gray levels by which the colors of an image vary at least, in every direction: of less, nothing is made larger."""


def match_colors(
    image: npt.NDArray[np.floating],
    reference: npt.NDArray[np.floating],
    alpha: npt.NDArray[np.floating] | None = None,
    method: str = "optimal",
) -> npt.NDArray[np.float32]:
    """Return an image whose colors have the mean and the covariance of another's, float32 of the image's shape.

    Each color x becomes ``A (x - m) + n``: m and n are the two means, and A makes the covariance of the one, C, that of
    the other, ``A C A^T = C'``. What leaves 0..255 is cut off.

    Parameters
    ----------
    image, reference : as a rule the style image and the content image, (H, W, 3), 0..255, of any size.
    alpha : of the image, (H, W), 0..1, not all 0: how much each of its pixels counts. None counts each once.
    method : which of the many A: ``"optimal"``, the symmetric one, which of all moves the colors least,
        ``C^-1/2 (C^1/2 C' C^1/2)^1/2 C^-1/2``; ``"principal"``, ``C'^1/2 C^-1/2``, along the principal axes; or
        ``"cholesky"``, ``L' L^-1`` of the Cholesky factors, which depends on the order of the channels.

    Raises ValueError for an unknown method.

    Source: Gatys, Bethge, Hertzmann and Shechtman, "Preserving Color in Neural Artistic Style Transfer" (2016), section
    5.1, which has the last two; the first is that of optimal transport between normal distributions (Olkin and
    Pukelsheim 1982).

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> painting, photo = random.uniform(0, 100, (20, 30, 3)), random.uniform(80, 160, (40, 40, 3))
    >>> matched = match_colors(painting, photo)
    >>> bool(np.allclose(matched.mean(axis=(0, 1)), photo.mean(axis=(0, 1)), atol=0.1))
    True
    """
    if method not in METHODS:
        raise ValueError(unknown_name("color method", method, METHODS))
    (m, own), (n, wanted) = _moments(image, alpha), _moments(reference)
    if method == "optimal":
        root, inverse = _power(own, 0.5), _power(own, -0.5)
        A = inverse @ _power(root @ wanted @ root, 0.5) @ inverse
    elif method == "principal":
        A = _power(wanted, 0.5) @ _power(own, -0.5)
    else:
        of_wanted, of_own = (np.linalg.cholesky(matrix).astype(np.float64) for matrix in (wanted, own))
        A = of_wanted @ np.linalg.inv(of_own)
    return np.clip((image - m) @ A.T + n, 0.0, 255.0).astype(np.float32)


def _moments(
    image: npt.NDArray[np.floating], alpha: npt.NDArray[np.floating] | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean (3,) and covariance (3, 3), with at least ``FLATTEST`` in every direction."""
    colors = image.reshape(-1, 3).astype(np.float64)
    weights = None if alpha is None else alpha.reshape(-1).astype(np.float64)
    mean = colors.mean(axis=0) if weights is None else np.average(colors, axis=0, weights=weights)
    return mean, np.cov(colors, rowvar=False, bias=True, aweights=weights) + FLATTEST**2 * np.eye(3)


def _power(matrix: npt.NDArray[np.float64], exponent: float) -> npt.NDArray[np.float64]:
    """Return the power of a symmetric positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    result: npt.NDArray[np.float64] = (vectors * values**exponent) @ vectors.T
    return result
