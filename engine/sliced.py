"""How far a layer's features are from being distributed as a style image's: the sliced Wasserstein distance.

The distributions are compared along fixed directions, the rows of V: projected onto one, each position's features are a
number. With p_n = V_n F, P_n(u) its quantile function and T_n(u) the style image's,

    L = 1 / N sum_n integral_0^1 (P_n(u) - T_n(u))^2 du
    dL/dp_nk = 2 / (N M) residual_nk          dL/dF = V^T dL/dp

where ``transport_residual`` of the kernels has integral and residual, one above the other. Along one direction the
integral is the squared distance of optimal transport. Unlike a Gram matrix it knows whole distributions, not their
second moments alone: how often a color or a stroke is there, and what lies between them.

Source: Heitz, Vanhoey, Chambon and Belcour 2021, "A Sliced Wasserstein Loss for Neural Texture Synthesis". They draw
other directions for each evaluation; L-BFGS needs one function, and so they are fixed here. With those of an
orthonormal basis no features at all cost the mean square of the style image's.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from kernels import Cpu

QUANTILES = 1024
"""At most so many of a style image's projections onto a direction are kept; each is the mean of an equal share."""


@cache
def directions(count: int) -> NDArray[np.float64]:
    """Return V, (N, N): a fixed random orthonormal basis, aligned with no feature.

    V is symmetric as well, a reflection at a random subspace of half of the dimensions: so V^T is V.

    Parameters
    ----------
    count : N, of the features.
    """
    random = np.random.default_rng(count)
    with Cpu.computing():  # the bits shall not depend on the number of threads
        subspace, _ = np.linalg.qr(random.standard_normal((count, (count + 1) // 2)))
        basis = np.eye(count) - 2 * subspace @ subspace.T
    basis.flags.writeable = False
    return basis
