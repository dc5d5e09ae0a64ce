"""Give one image the colors of another: as a rule a style image those of the content image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engine.errors import unknown_name

METHODS = ("optimal", "principal", "cholesky", "histogram")
"""Maps that give one image the colors of another: three linear ones, and one of each channel's values."""

LUMA = (0.299, 0.587, 0.114)
"""What red, green and blue contribute to the luminance, as in the YIQ of Gatys et al. 2017 (ITU-R BT.601)."""

FLATTEST = 1.0
"""Gray levels by which the colors of an image vary at least, in every direction: of less, nothing is made larger."""


def match_colors(
    image: npt.NDArray[np.floating],
    reference: npt.NDArray[np.floating],
    alpha: npt.NDArray[np.floating] | None = None,
    method: str = "optimal",
) -> npt.NDArray[np.float32]:
    """Return an image with the colors of another, float32 of the image's shape.

    Mean and covariance become the other's: each color x becomes ``A (x - m) + n``; m and n are the two means, and A
    makes the covariance of the one, C, that of the other, ``A C A^T = C'``. What leaves 0..255 is cut off.

    Parameters
    ----------
    image, reference : as a rule the style image and the content image, (H, W, 3), 0..255, of any size.
    alpha : of the image, (H, W), 0..1, not all 0: how much each of its pixels counts. None counts each once.
    method : which of the many A: ``"optimal"``, the symmetric one, which of all moves the colors least,
        ``C^-1/2 (C^1/2 C' C^1/2)^1/2 C^-1/2``; ``"principal"``, ``C'^1/2 C^-1/2``, along the principal axes; or
        ``"cholesky"``, ``L' L^-1`` of the Cholesky factors, which depends on the order of the channels. Not linear is
        ``"histogram"``: in each channel the value that a share of the image's pixels lie below becomes that which the
        same share of the reference's lie below, so that both have the same histograms.

    Raises ValueError for an unknown method.

    Source: Gatys, Bethge, Hertzmann and Shechtman, "Preserving Color in Neural Artistic Style Transfer" (2016), section
    5.1, which has principal axes and Cholesky; the first is that of optimal transport between normal distributions
    (Olkin and Pukelsheim 1982).

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> style, content = random.uniform(0, 100, (20, 30, 3)), random.uniform(80, 160, (40, 40, 3))
    >>> matched = match_colors(style, content)
    >>> bool(np.allclose(matched.mean(axis=(0, 1)), content.mean(axis=(0, 1)), atol=0.1))
    True
    """
    if method not in METHODS:
        raise ValueError(unknown_name("color method", method, METHODS))
    if method == "histogram":
        channels = [_with_histogram(image[..., c], reference[..., c], alpha) for c in range(3)]
        return np.stack(channels, axis=-1).astype(np.float32)
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


def _with_histogram(
    values: npt.NDArray[np.floating], reference: npt.NDArray[np.floating], alpha: npt.NDArray[np.floating] | None
) -> npt.NDArray[np.float64]:
    """Return values, (H, W), by their rank replaced by the reference's of the same rank; equal ones stay equal."""
    _, place = np.unique(values, return_inverse=True)
    counts = np.bincount(place.ravel(), None if alpha is None else alpha.ravel().astype(np.float64))
    share = (np.cumsum(counts) - counts / 2) / counts.sum()
    wanted = np.sort(reference, axis=None).astype(np.float64)
    matched: npt.NDArray[np.float64] = np.interp(share, (np.arange(wanted.size) + 0.5) / wanted.size, wanted)
    return matched[place].reshape(values.shape)


# ---- luminance ----


def luminance(image: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the luminance of an image (H, W, 3), 0..255: ``.299 R + .587 G + .114 B``, (H, W)."""
    found: npt.NDArray[np.float64] = image.astype(np.float64) @ np.array(LUMA)
    return found


def in_gray(image: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Return the luminance of an image (H, W, 3) as an image, all three channels alike."""
    return _of_gray(luminance(image))


def match_luminance(
    image: npt.NDArray[np.floating],
    reference: npt.NDArray[np.floating],
    alpha: npt.NDArray[np.floating] | None = None,
) -> npt.NDArray[np.float32]:
    """Return the luminance of an image as a gray one, with the mean and the deviation of another's luminance.

    With ``in_gray`` of the content image and ``with_luminance`` at the end only the luminance takes part in the style.

    Parameters
    ----------
    image, reference, alpha : as in ``match_colors``.

    Source: Gatys, Ecker, Bethge, Hertzmann and Shechtman, "Controlling Perceptual Factors in Neural Style Transfer"
    (2017), section 5.1: ``L = sigma_c / sigma_s (L_s - mu_s) + mu_c``.
    """
    own, wanted = luminance(image), luminance(reference)
    mean = np.average(own, weights=alpha)
    deviation = np.sqrt(np.average((own - mean) ** 2, weights=alpha) + FLATTEST**2)
    return _of_gray((own - mean) * (np.sqrt(wanted.var() + FLATTEST**2) / deviation) + wanted.mean())


def with_luminance(image: npt.NDArray[np.floating], stylized: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return an image (H, W, 3) with the luminance of another of its size, and its own chrominance (I and Q of YIQ).

    Examples
    --------
    >>> photo, picture = np.array([[[200.0, 100.0, 50.0]]]), np.array([[[100.0, 100.0, 100.0]]])
    >>> with_luminance(photo, picture).round(1).tolist()
    [[[175.8, 75.8, 25.8]]]
    """
    moved = image + (luminance(stylized) - luminance(image))[..., None]
    return np.clip(moved, 0.0, 255.0).astype(np.float64)


def _of_gray(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    return np.repeat(np.clip(values, 0.0, 255.0).astype(np.float32)[..., None], 3, axis=2)
