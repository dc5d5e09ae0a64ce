"""What a network does to the image's pixels before its first layer, and what that leaves for the preprocessing.

A model may bring its own mean, scale and order of colors. They are part of the network; what it takes as input is then
what its weights were trained on with these undone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.graph import Node
from engine.ops import Affine, Array, Conv
from engine.preprocessing import PREPROCESSING, Preprocessing
from kernels.geometry import Window

OWN = "what the model's own arithmetic leaves"
"""The name of a convention that has none of its own."""

GRAY_LEVELS = 1.5
"""How far means may lie from each other and count as the same: published ones are rounded to whole numbers or not."""

# The mean color of ImageNet's pictures, in red, green and blue of 0..255, as the original networks have it.
_MEAN = np.array([123.68, 116.779, 103.939])


def front_of(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Return the nodes at the beginning that compute from each pixel alone: scales, shifts, mixtures of its colors."""
    front: list[Node] = []
    for node in nodes:
        operator = node.operator
        is_mixture = isinstance(operator, Conv) and operator.window == Window((1, 1)) and not operator.relu
        if (front and node.input != front[-1].output) or not (is_mixture or isinstance(operator, Affine)):
            break
        front.append(node)
    return tuple(front)


def remaining_preprocessing(front: Sequence[Node], trained_on: Preprocessing | None) -> Preprocessing | None:
    """Return the input convention of a network that begins with ``front``, or None where that does not tell.

    Parameters
    ----------
    trained_on : what the first layer's weights take, where they are known. Where they are not, the mean that the front
        subtracts tells, if it is that of ImageNet: whether of red, green and blue or backwards, of 0..255 or of 0..1.
    """
    arithmetic = _arithmetic(front)
    if arithmetic is None:
        return None
    matrix, shift = arithmetic
    if trained_on is None:
        return _by_mean(-np.linalg.solve(matrix, shift))
    order = [2, 1, 0] if trained_on.bgr else [0, 1, 2]
    mean, std = np.array(trained_on.mean), np.array(trained_on.std)
    # From red, green and blue to what the front takes: to what the first layer takes, and the front's arithmetic back.
    mixture = np.linalg.solve(matrix, np.eye(3)[order] * (trained_on.scale / std)[:, None])
    rest = np.linalg.solve(matrix, -mean / std - shift)
    for bgr in (False, True):
        of_color = mixture[:, ::-1] if bgr else mixture
        factor = np.diagonal(of_color)
        if (factor > 0).all() and np.allclose(of_color, np.diag(factor), rtol=0, atol=1e-4 * factor.max()):
            return _named(bgr, factor, rest)
    return None


def _arithmetic(front: Sequence[Node]) -> tuple[Array, Array] | None:
    """Return the matrix and the shift that a front stands for; None where it cannot be undone, or there is none."""
    matrix, shift = np.eye(3), np.zeros(3)
    for node in front:
        operator = node.operator
        if isinstance(operator, Affine):
            if operator.scale.size not in (1, 3) or operator.shift.size not in (1, 3):
                return None
            scale, more = (np.broadcast_to(values, 3) for values in (operator.scale, operator.shift))
            matrix, shift = scale[:, None] * matrix, scale * shift + more
        elif isinstance(operator, Conv):
            if (*operator.weight.shape, operator.group) not in ((1, 1, 3, 3, 1), (1, 1, 1, 3, 3)):
                return None
            weight = operator.weight[0, 0].T.astype(np.float64)
            if operator.group == 3:  # each color by itself
                weight = np.diag(weight[:, 0])
            matrix, shift = weight @ matrix, weight @ shift + (0 if operator.bias is None else operator.bias)
    invertible = np.isfinite(matrix).all() and np.linalg.cond(matrix) < 1e6
    return (matrix, shift) if front and invertible else None


def _by_mean(mean: Array) -> Preprocessing | None:
    """Return the convention of an input whose mean color is given; None where it is not that of ImageNet."""
    for scale in (1.0, 1 / 255):
        for bgr in (False, True):
            if np.abs(mean / scale - (_MEAN[::-1] if bgr else _MEAN)).max() < GRAY_LEVELS:
                return _named(bgr, np.full(3, scale), np.zeros(3))
    return None


def _named(bgr: bool, factor: Array, shift: Array) -> Preprocessing:
    """Return ``factor * color + shift`` as a convention, that of a name where there is one."""
    for known in PREPROCESSING.values():
        factors, mean = known.scale / np.array(known.std), np.array(known.mean) / known.scale
        same_scale = np.allclose(factor, factors, rtol=1e-3)
        if known.bgr == bgr and same_scale and np.abs(-shift / factor - mean).max() < GRAY_LEVELS:
            return known
    first, second, third = (float(one) for one in -shift / factor)
    stds = [float(one) for one in 1 / factor]
    return Preprocessing(OWN, bgr, 1.0, (first, second, third), (stds[0], stds[1], stds[2]))
