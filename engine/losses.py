"""The equations of "A Neural Algorithm of Artistic Style" (Gatys, Ecker and Bethge 2015, arXiv:1508.06576).

Each value stands directly above its gradient, in the paper's letters:

    F, P   N_l x M_l    activations of layer l for the generated image and for the content image, after the ReLU
    G, A   N_l x N_l    Gram matrices of the generated image and of the style image
    N_l                 number of feature maps (channels) of layer l
    M_l                 their size: height times width
    w_l                 weight of layer l in the style loss
    alpha, beta         weights of content and style in the total

The paper's gradients (equations 2 and 6) have a second case, zero where F < 0: it is the derivative with respect to the
ReLU's input, of a loss on the ReLU's output. Here F is the output, nothing in it is negative, and these are the plain
derivatives with respect to it; the ReLU's own input gradient (``kernels/cpu/relu.py``) makes the zero.

Images of different sizes: the Gram matrix of each is divided by its own M before the two are compared. Where the sizes
agree that is the paper's formula.

Arrays lie on the ``device`` given, as (height, width, N_l), channels last, so that "row i of F" is ``F[:, :, i]``.
Transposes are plain, never conjugate: everything stays analytic and can be differentiated by a complex step.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from engine.ops import Array
from kernels import Device

Number = float | complex
"""On a GPU, a sum that is still there: the device's ``numbers`` fetches it."""


def content_loss(device: Device, F: Array, P: Array, scale: float = 1.0, m: Array | None = None) -> Number:
    """Equation 1: ``L_content = 1/2 sum_ij (F_ij - P_ij)^2``.

    Parameters
    ----------
    F, P : (H_l, W_l, N_l), of the same shape.
    scale : how many times as large as they are F and P are stored: 1 but for 16-bit numbers.
    m : (H_l, W_l), weights of the positions j; None counts each once.
    """
    if F.shape != P.shape:
        raise ValueError(f"F has the shape {F.shape}, P {P.shape}")
    if m is not None:
        F, P = (device.weigh_positions(features, root(device, m)) for features in (F, P))
    return device.squared_distance(F, P, 2.0 * scale**2)


def content_loss_gradient(
    device: Device, F: Array, P: Array, weight: float = 1.0, add_to: Array | None = None, m: Array | None = None
) -> Array:
    """Equation 2: ``dL_content / dF_ij = (F - P)_ij``, times ``weight``.

    With ``add_to``, of F's shape, it is added there in place. With weights m of the positions, it is m_j times that.
    """
    if m is not None:
        F, P = (device.weigh_positions(features, m) for features in (F, P))
    return device.weighted_difference(F, P, weight, add_to=add_to)


def gram_matrix(device: Device, F: Array, scale: float = 1.0, m: Array | None = None) -> Array:
    """Equation 3: ``G_ij = sum_k F_ik F_jk``, that is G = F F^T; (N_l, N_l), in double precision (on a GPU in single).

    Parameters
    ----------
    F : (H_l, W_l, N_l).
    scale : how many times as large as it is F is stored.
    m : (H_l, W_l), weights of the positions: ``G_ij = sum_k m_k F_ik F_jk``; None counts each once.
    """
    if m is not None:
        F = device.weigh_positions(F, root(device, m))
    gram: Array = device.gram(F, factor=1 / scale**2)
    return gram


def root(device: Device, m: Array) -> Array:
    """Return the square root of the positions' weights, which stands on both sides of a product."""
    return device.put(np.sqrt(device.fetch(m)))


def style_layer_loss(device: Device, G: Array, A: Array, M_l: float, M_a: float | None = None) -> Number:
    """Equation 4: ``E_l = 1 / (4 N_l^2 M_l^2) sum_ij (G_ij - A_ij)^2``.

    Parameters
    ----------
    G, A : (N_l, N_l), Gram matrices of the generated image and of the style image.
    M_l, M_a : the sizes of their feature maps, or the sums of their positions' weights; None means that they agree.
    """
    N_l = G.shape[0]
    return device.quotient_distance(G, M_l, A, M_l if M_a is None else M_a, 4 * N_l**2)


def style_layer_loss_gradient(
    device: Device,
    F: Array,
    G: Array,
    A: Array,
    M_a: float | None = None,
    weight: float = 1.0,
    add_to: Array | None = None,
    m: Array | None = None,
    M_l: float | None = None,
) -> Array:
    """Equation 6: ``dE_l / dF_ij = 1 / (N_l^2 M_l^2) ((F)^T (G - A))_ji``, that is (G - A) F / (N_l^2 M_l^2).

    From equation 4: E_l changes by 1 / (2 N_l^2 M_l^2) sum (G - A) dG, dG = dF F^T + F dF^T, and G - A is symmetric,
    so that both halves of dG give the same. With weights m of the positions dG is sum_k m_k (dF_k F_k^T + F_k dF_k^T),
    so that the derivative at position k is m_k times that.

    Parameters
    ----------
    F : (H_l, W_l, N_l), the features that G is the Gram matrix of.
    weight : a factor on the result, taken into the small matrix instead of the large array.
    add_to : (H_l, W_l, N_l), to which the gradient is added in place.
    m, M_l : weights of the positions and their sum; None counts each once.

    Returns
    -------
    (H_l, W_l, N_l).
    """
    N_l, M_l = G.shape[0], F.shape[0] * F.shape[1] if M_l is None else M_l
    difference = device.quotient_difference(G, M_l, A, M_l if M_a is None else M_a)
    if m is not None:
        F = device.weigh_positions(F, m)
    return device.gram_product(difference, F, factor=weight / (N_l**2 * M_l), add_to=add_to)


def style_loss(E: Mapping[str, Number], w: Mapping[str, float]) -> Number:
    """Equation 5: ``L_style = sum_l w_l E_l``."""
    total: Number = 0.0
    for layer, E_l in E.items():
        total += w[layer] * E_l
    return total


def total_loss(L_content: Number, L_style: Number, alpha: float, beta: float) -> Number:
    """Equation 7: ``L_total = alpha L_content + beta L_style``."""
    return alpha * L_content + beta * L_style


# ---- beyond the paper ----


def total_variation(device: Device, x: Array, epsilon: float | None = None, *, wrap: bool = False) -> Number:
    """Return how far neighboring pixels are apart, a mean over the image's values: 0 where it is of one color.

    ``1 / (2 n) sum (d_y^2 + d_x^2)``, which softens edges and grain alike; or with ``epsilon``, in gray levels, ``1 / n
    sum (sqrt(d_y^2 + d_x^2 + epsilon^2) - epsilon)``, which leaves edges.

    Parameters
    ----------
    x : (H, W, 3), the image; d_y and d_x are the steps to the pixel below and to the right, n = 3 H W.
    wrap : whether the image is a tile, whose first row and column come again behind its last; else no step leads there.

    Sources: Rudin, Osher and Fatemi 1992 (isotropic); Mahendran and Vedaldi 2015, equation 4 with beta = 2 (squared).
    """
    return device.variation(x, x.size, epsilon, wrap=wrap)


def total_variation_gradient(
    device: Device,
    x: Array,
    epsilon: float | None = None,
    weight: float = 1.0,
    add_to: Array | None = None,
    *,
    wrap: bool = False,
) -> Array:
    """Return ``weight`` times the derivative of ``total_variation`` with respect to the image.

    In the squared form it is each pixel less the mean of its neighbors, times their number. In the other each step is
    divided by ``sqrt(d_y^2 + d_x^2 + epsilon^2)`` of the pixel where it begins. With ``add_to`` it is added in place.
    """
    return device.variation_gradient(x, weight / x.size, epsilon, wrap=wrap, add_to=add_to)
