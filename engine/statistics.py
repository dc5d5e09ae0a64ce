"""Other statistics of a layer's features than the Gram matrix, whose agreement with the style image's is style as well.

Each value stands directly above its gradient, in the letters of ``engine/losses.py``, with

    mu = 1 / M sum_k F_k           mean of the features, (N,), F_k the features at position k
    Q  = 1 / M sum_k F_k F_k^T     the Gram matrix over its size, (N, N)
    C  = Q - mu mu^T               covariance; sigma_i = sqrt(C_ii + epsilon)
    S  = 1 / M sum_k F_k F_k+d^T   Gram matrix of the features and themselves shifted by d, over all pairs

and the same of the style image with an index a. With weights m of the positions the sums are weighted, and M is the sum
of m. The first three statistics are functions of mu and Q alone, so that one rule leads from them to the features:

    dL/dF_k = m_k / M (2 dL/dQ F_k + dL/dmu)    with dL/dQ symmetric

All of it is small and is computed on the CPU, in double precision. A complex step goes through it: transposes are
plain, and a root of a complex matrix is one in complex numbers.

Sources: means and deviations as in Li, Wang, Liu and Hou 2017, "Demystifying Neural Style Transfer", section 4.2 (BN),
and Huang and Belongie 2017; covariance as in Li et al. 2017 (WCT) and Sun and Saenko 2016 (CORAL); the Wasserstein
distance between normal distributions by Olkin and Pukelsheim 1982, for style as in K. Crowson's style-transfer-pytorch;
shifts by Berger and Memisevic 2016, "Incorporating long-range consistency in CNN-based texture generation".

The sixth, ``"sliced"``, sorts the features: see ``engine/sliced.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[Any]
Number = float | complex

STATISTICS = ("gram", "means", "covariance", "wasserstein", "shifted", "sliced")
"""What a style may consist of."""

DIRECTIONS = ("right", "down")

SHIFT = 4
"""By how many positions the features are shifted, once along the rows and once along the columns."""

FLATTEST = 1e-2
"""Least variance of a direction of the features, of the mean square of the style image's: below it all is rounding."""


@dataclass(frozen=True, eq=False)
class Moments:
    """The first two moments of a layer's features.

    Parameters
    ----------
    mu : (N,), float64 or complex128.
    Q : (N, N).
    """

    mu: Matrix
    Q: Matrix
    _transports: dict[int, tuple[Number, Matrix]] = field(default_factory=dict)

    @property
    def C(self) -> Matrix:
        """The covariance."""
        return self.Q - np.outer(self.mu, self.mu)

    @property
    def epsilon(self) -> float:
        """What is added to the variances, where these are the style image's moments."""
        return FLATTEST * float(np.trace(self.Q).real) / len(self.mu)

    def transport(self, target: Target) -> tuple[Number, Matrix]:
        """Return the trace of the root that ``wasserstein_loss`` has, and the map of the transport; made once."""
        if id(target) not in self._transports:
            epsilon = target.moments.epsilon
            self._transports[id(target)] = transport(self.C + epsilon * np.eye(len(self.mu)), target.root, epsilon)
        return self._transports[id(target)]


class Target:
    """What a style image's moments are compared by.

    Parameters
    ----------
    moments : of the style image.
    """

    def __init__(self, moments: Moments) -> None:
        self.moments = Moments(moments.mu.real, moments.Q.real)
        self._root: Matrix | None = None

    @property
    def root(self) -> Matrix:
        """R, the root of the covariance with ``epsilon`` on its diagonal; made once."""
        if self._root is None:
            epsilon, C = self.moments.epsilon, self.moments.C
            if not np.isfinite(C).all():  # what comes of it names the layer; eigh would only say that it failed
                return np.full_like(C, np.nan)
            values, vectors = np.linalg.eigh(C + epsilon * np.eye(len(C)))
            self._root = (vectors * np.sqrt(np.maximum(values, epsilon))) @ vectors.T
        return self._root


def balance(target: Target) -> float:
    """Return what makes a loss in squares of features comparable with equation 4, which is in their fourth powers.

    Equation 4 and the losses by means, and by the Wasserstein distance, shall cost the same where there are no features
    at all, F = 0: their ratio there is ``sum Q_a^2 / (4 N^2)`` over ``tr Q_a / N``.
    """
    square = target.moments.Q
    trace = float(np.trace(square))
    return float((square * square).sum()) / (4 * len(square) * trace) if trace > 0 else 0.0


# ---- means and deviations ----


def means_loss(own: Moments, target: Target) -> Number:
    """Return ``1 / N sum_i (mu_i - mu_a,i)^2 + (sigma_i - sigma_a,i)^2``."""
    of_style, epsilon = target.moments, target.moments.epsilon
    steps = own.mu - of_style.mu, _deviations(own, epsilon) - _deviations(of_style, epsilon)
    return _number(sum((step * step).sum() for step in steps) / len(own.mu))


def means_loss_gradient(own: Moments, target: Target) -> tuple[Matrix, Matrix]:
    """Return dL/dmu and dL/dQ of ``means_loss``.

    sigma_i^2 = Q_ii - mu_i^2 + epsilon, so that d sigma_i = (dQ_ii - 2 mu_i dmu_i) / (2 sigma_i). Where sigma_i is 0,
    which needs a style image without any features in the layer, it is taken for 0.
    """
    of_style, epsilon = target.moments, target.moments.epsilon
    N, sigma = len(own.mu), _deviations(own, epsilon)
    steps = sigma - _deviations(of_style, epsilon)
    of_square = np.diag(np.divide(steps, N * sigma, out=np.zeros_like(sigma), where=sigma != 0))
    return 2 / N * (own.mu - of_style.mu) - 2 * of_square @ own.mu, of_square


def _deviations(moments: Moments, epsilon: float) -> Matrix:
    variances = np.diag(moments.C)
    # Rounding makes a variance of nothing negative.
    return np.sqrt(np.where(variances.real > 0, variances, 0) + epsilon)


# ---- covariance ----


def covariance_loss(own: Moments, target: Target) -> Number:
    """Return ``1 / (4 N^2) sum_ij (C_ij - C_a,ij)^2``: equation 4 of features that have lost their mean."""
    difference = own.C - target.moments.C
    return _number((difference * difference).sum() / (4 * len(difference) ** 2))


def covariance_loss_gradient(own: Moments, target: Target) -> tuple[Matrix, Matrix]:
    """Return dL/dmu and dL/dQ of ``covariance_loss``: with dC = dQ - dmu mu^T - mu dmu^T, -2 dL/dC mu and dL/dC."""
    of_square = (own.C - target.moments.C) / (2 * len(own.mu) ** 2)
    return -2 * of_square @ own.mu, of_square


# ---- Wasserstein distance ----


def wasserstein_loss(own: Moments, target: Target) -> Number:
    """Return ``1 / N (|mu - mu_a|^2 + tr(C + C_a - 2 (R C R)^1/2))``, R = C_a^1/2.

    It is the squared distance of optimal transport between two normal distributions with these moments: how far the
    features have to be moved to be distributed as the style image's. ``epsilon`` is added to both diagonals.
    """
    N, of_style = len(own.mu), target.moments
    step, (trace, _) = own.mu - of_style.mu, own.transport(target)
    traces = np.trace(own.C) + np.trace(of_style.C) + 2 * N * of_style.epsilon - 2 * trace
    return _number(((step * step).sum() + traces) / N)


def wasserstein_loss_gradient(own: Moments, target: Target) -> tuple[Matrix, Matrix]:
    """Return dL/dmu and dL/dQ of ``wasserstein_loss``.

    d tr X^1/2 = 1/2 tr(X^-1/2 dX), so that dL/dC = (1 - R (R C R)^-1/2 R) / N: one less the map of the transport.
    """
    N, (_, moved) = len(own.mu), own.transport(target)
    of_square = (np.eye(N) - moved) / N
    return 2 / N * (own.mu - target.moments.mu) - 2 * of_square @ own.mu, of_square


def transport(C: Matrix, R: Matrix, epsilon: float) -> tuple[Number, Matrix]:
    """Return ``tr (R C R)^1/2`` and ``R (R C R)^-1/2 R``, by eigenvectors.

    Parameters
    ----------
    C : (N, N), symmetric, real, or complex with a small imaginary part: the root of the real part then becomes one of
        the whole by a step of Newton's method on ``Y Y = R C R``. What is not finite gives what is not a number.
    R : (N, N), symmetric, real.
    epsilon : what the eigenvalues of C and R^2 are at least, but for rounding.
    """
    if not np.isfinite(C).all():
        return np.nan, np.full(C.shape, np.nan)
    values, vectors = np.linalg.eigh(R @ C.real @ R)
    roots = np.sqrt(np.maximum(values, epsilon**2 or np.finfo(float).tiny))
    turned = vectors.T @ R  # first: where a root is small, this is too
    trace = roots.sum()
    if np.iscomplexobj(C):
        trace = trace + 1j * (np.einsum("ij,jk,ik->i", turned, C.imag, turned) / (2 * roots)).sum()
    return _number(trace), turned.T @ (turned / roots[:, None])


# ---- shifted Gram matrices ----


@dataclass(frozen=True, eq=False)
class Pairs:
    """The pairs of positions of a shift.

    Parameters
    ----------
    offset : from the first position of a pair to the second, in running order.
    weights : (H, W), how much the pair counts that begins at a position; 0 where there is none.
    size : their sum.
    """

    offset: int
    weights: Matrix
    size: float


def pairs_of(counts: Matrix, direction: str, begins: tuple[int, ...] | None = None) -> Pairs:
    """Return the pairs of positions ``SHIFT`` apart.

    Parameters
    ----------
    counts : (H, W), how much each position counts: a pair counts the product.
    direction : ``"right"`` or ``"down"``.
    begins : the rows and columns that a pair begins in, of those; None for all of them.
    """
    weights = np.zeros(counts.shape)
    if direction == "right":
        weights[:, :-SHIFT] = counts[:, :-SHIFT] * counts[:, SHIFT:]
    else:
        weights[:-SHIFT] = counts[:-SHIFT] * counts[SHIFT:]
    if begins is not None:
        weights[begins[0] :] = 0
        weights[:, begins[1] :] = 0
    offset = SHIFT if direction == "right" else SHIFT * counts.shape[1]
    return Pairs(offset, weights, float(weights.sum()))


def positions_ahead(layers: Iterable[str], statistics: Collection[str]) -> dict[str, int]:
    """Return by how many rows and columns statistics look at layers beyond a piece's own positions, where they do."""
    return dict.fromkeys(layers, SHIFT) if "shifted" in statistics else {}


def shifted_loss(S: Matrix, S_a: Matrix) -> Number:
    """Return ``1 / (4 N^2) sum_ij (S_ij - S_a,ij)^2``: equation 4 of features at pairs of positions."""
    difference = S - S_a
    return _number((difference * difference).sum() / (4 * len(S) ** 2))


def shifted_loss_gradient(S: Matrix, S_a: Matrix) -> Matrix:
    """Return dL/dS of ``shifted_loss``.

    From dS = 1 / M sum_k (dF_k F_k+d^T + F_k dF_k+d^T) it is ``dL/dF_k = 1 / M (dL/dS F_k+d + dL/dS^T F_k-d)``, each of
    the two where that position exists: ``shifted_product`` of the kernels.
    """
    return (S - S_a) / (2 * len(S) ** 2)


def _number(value: Any) -> Number:
    number: Number = value.item() if isinstance(value, np.generic) else value
    return number
