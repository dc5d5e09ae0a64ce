"""How far a layer's features are from being distributed as a painting's: the sliced Wasserstein distance.

The distributions are compared along fixed directions, the rows of V, in each of which features are numbers. With
p_n = V_n F, its values in ascending order as a function P_n of the part u of them that is lower, 0..1, and T_n as the
same of the style image,

    L = 1 / N sum_n integral_0^1 (P_n(u) - T_n(u))^2 du
    dL/dp_nk = 2 / (N M) residual_nk          dL/dF = V^T dL/dp

where ``transport_residual`` of the kernels has integral and residual, one above the other. Along one direction the
integral is the squared distance of optimal transport. Unlike a Gram matrix it knows whole distributions, not their
second moments alone: how often a color or a stroke is there, and what lies between them.

Source: Heitz, Vanhoey, Chambon and Belcour 2021, "A Sliced Wasserstein Loss for Neural Texture Synthesis". They draw
other directions for each evaluation; L-BFGS needs one function, and so they are fixed here. With those of an
orthonormal basis no features at all cost the mean square of the painting's.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[Any]

STEPS = 1024
"""Of a painting's distribution along a direction, at most: each is the mean of so many of its values."""


@cache
def directions(count: int) -> NDArray[np.float64]:
    """Return V, (N, N): an orthonormal basis in no direction of its own, the same at all times.

    V is symmetric as well, a reflection at a random subspace of half of the dimensions: so V^T is V.

    Parameters
    ----------
    count : N, of the features.
    """
    random = np.random.default_rng(count)
    subspace, _ = np.linalg.qr(random.standard_normal((count, (count + 1) // 2)))
    basis = np.eye(count) - 2 * subspace @ subspace.T
    basis.flags.writeable = False
    return basis


def steps_of(projected: Matrix, weights: Matrix) -> NDArray[np.float64]:
    """Return T: of each direction the values in ascending order, as the means of equal parts of them.

    Parameters
    ----------
    projected : (M, N), features seen along the directions.
    weights : (M,), how much each position counts.

    Returns
    -------
    (N, R), R being ``STEPS``, or M where that is less.
    """
    edges = np.linspace(0, 1, min(STEPS, len(projected)) + 1)
    steps = np.empty((projected.shape[1], len(edges) - 1))
    for number, values in enumerate(np.ascontiguousarray(projected.T)):
        order = np.argsort(values)
        share = weights[order] / weights.sum()
        level, integral = (np.concatenate(([0.0], np.cumsum(one))) for one in (share, share * values[order]))
        steps[number] = np.diff(np.interp(edges, level / level[-1], integral)) * (len(edges) - 1)
    return steps


def blank_loss(steps: Matrix) -> float:
    """Return L where there are no features, F = 0."""
    return float(np.square(steps).mean())
