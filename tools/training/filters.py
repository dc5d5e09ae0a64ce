"""The filters of the draft network: the first layer's, which are given, and those fitted to what they look at.

Weights are (3, 3, C, K), as ``engine.ops.Conv`` takes them, for input of the "caffe" convention: BGR, centred.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engine.ops import Array
from engine.preprocessing import PREPROCESSING

Filters = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Weight, (3, 3, C, K), and bias, (K,)."""


def colour_filters() -> Filters:
    """Return the first six channels, blurred over 3 x 3 pixels.

    They are the brightness, what it lacks to white, and the two opponent colours, red against green and blue against
    yellow, each in both directions. The first two are never negative, so that no ReLU changes them. So the Gram matrix
    of the six holds the mean of the brightness and of each side of the opponent colours, and all their second moments:
    without them the Gram matrix of sixteen channels can be right and the colours wrong. White has a brightness of 4.
    """
    mixtures = np.array([[1.0, 1.0, 1.0], [1.5, -1.5, 0.0], [-0.75, -0.75, 1.5]]) / 3 * 4 / 255  # of red, green, blue
    both = np.repeat(mixtures, 2, axis=0) * np.tile([1.0, -1.0], 3)[:, None]
    both = both[:, ::-1]
    bias = both @ np.array(PREPROCESSING["caffe"].mean)
    bias[1] += 4
    return np.outer(_BELL, _BELL)[:, :, None, None] * both.T, bias


def edge_filters(random: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return the weights of the other first channels, (3, 3, 3, 10), of no response to a plain colour.

    Differences of brightness between pixels (steps along and across in both directions, steps along the diagonals,
    spots and their opposite) and two random ones between colours.
    """
    step = np.array([1.0, 0.0, -1.0]) / 2
    ridge = np.array([-1.0, 2.0, -1.0]) / 2
    along, spot = np.outer(_BELL, step), np.outer(ridge, _BELL) + np.outer(_BELL, ridge)
    slope = np.array([[0.0, 1.0, 1.0], [-1.0, 0.0, 1.0], [-1.0, -1.0, 0.0]]) / 3
    planes = np.stack([along, -along, along.T, -along.T, slope, slope[:, ::-1], spot, -spot], axis=-1)
    grey = np.repeat(planes[:, :, None], 3, axis=2)
    colours = random.standard_normal((3, 3, 3, 2))
    colours -= colours.mean(2, keepdims=True)
    colours -= colours.mean((0, 1), keepdims=True)
    return np.concatenate([grey, colours], axis=-1)


def first_filters(patches: Array, random: np.random.Generator) -> Filters:
    """Return the sixteen filters of conv1_1; the edges are brought to a variance of 1 over the patches, (n, 27)."""
    weight, bias = colour_filters()
    edges = edge_filters(random)
    edges /= (patches @ edges.reshape(patches.shape[1], -1)).std(0)
    return np.concatenate([weight, edges], axis=-1), np.concatenate([bias, np.zeros(edges.shape[-1])])


def fitted_filters(patches: Array, width: int, floor: float, random: np.random.Generator) -> Filters:
    """Return filters for patches of a layer's input, half of them the negatives of the others.

    They are the strongest principal components of the patches, brought to nearly the same variance (whitened) and
    turned by a random rotation, so that every filter looks at a bit of all components and none at the same. With its
    negative, the ReLU loses nothing: the difference of the two is what they look at, their sum is its absolute value,
    from which the next layer can learn. The responses have a mean of 0 before the ReLU and a variance of 1.

    Sources: Chan et al., "PCANet: A Simple Deep Learning Baseline for Image Classification?" (2015), for layers of
    principal components fitted one after the other; Shang et al., "Understanding and Improving Convolutional Neural
    Networks via Concatenated Rectified Linear Units" (2016), for the pairs.

    Parameters
    ----------
    patches : (n, 3 * 3 * C), rows by kernel row, kernel column, channel.
    width : number of filters, even.
    floor : part of the components' mean variance that is added to each before it is whitened.
    """
    mean = patches.mean(0, dtype=np.float64)
    centred = patches - mean.astype(patches.dtype)
    covariance = (centred.T @ centred).astype(np.float64) / len(patches)
    variances, components = np.linalg.eigh(covariance)
    strongest = slice(-1, -1 - width // 2, -1)
    variance, component = np.maximum(variances[strongest], 0), components[:, strongest]
    whitening = component / np.sqrt(variance + floor * variance.mean())
    rotation = np.linalg.qr(random.standard_normal((width // 2, width // 2)))[0]
    filters = whitening @ rotation
    filters /= np.sqrt(np.einsum("pk,pq,qk->k", filters, covariance, filters, optimize=True))
    filters = np.concatenate([filters, -filters], axis=1)
    return filters.reshape(3, 3, -1, width), -mean @ filters


def sampled_patches(responses: Sequence[Array], count: int, random: np.random.Generator) -> Array:
    """Return about ``count`` patches of 3 x 3 positions from all of the responses, (H, W, C) each, by their area.

    Rows as ``fitted_filters`` takes them.
    """
    places = [(F.shape[0] - 2) * (F.shape[1] - 2) for F in responses]
    parts = []
    for F, area in zip(responses, places, strict=True):
        drawn = random.choice(area, max(1, min(area, count * area // sum(places))), replace=False)
        y, x = np.divmod(drawn, F.shape[1] - 2)
        windows = np.lib.stride_tricks.sliding_window_view(F, (3, 3), axis=(0, 1))[y, x]
        parts.append(windows.transpose(0, 2, 3, 1).reshape(len(drawn), -1))
    return np.concatenate(parts)


_BELL = np.array([1.0, 2.0, 1.0]) / 4
