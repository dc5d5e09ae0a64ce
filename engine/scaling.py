"""Keeping activations and gradients within the range of 16-bit numbers, by exact powers of two.

ReLU, pooling and padding commute with a positive factor, so only convolutions have to know about it: a weight is
multiplied by the factor of its output over that of its input, a bias by the former. The largest 16-bit number is 65504,
the smallest with all digits 6e-5; VGG's activations reach thousands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from engine.graph import Node
from engine.losses import content_loss
from engine.ops import Array, AveragePool, Conv, MaxPool, Pad, Relu
from kernels import Device

LARGEST = 512.0
"""Largest stored activation of the sample picture; other pictures have room above it."""

SAMPLE_SIZE = 128


def sample_picture() -> Array:
    """Return the picture that the factors are found with: patches of all sizes, (H, W, 3), always the same."""
    rng = np.random.default_rng(0)
    layers = []
    for side in (1, 4, 32):
        count = SAMPLE_SIZE // side
        layers.append(np.kron(rng.uniform(0.0, 255.0, (count, count, 3)), np.ones((side, side, 1))))
    return np.mean(layers, axis=0)


def scaled_nodes(nodes: Sequence[Node], largest: Mapping[str, float]) -> tuple[tuple[Node, ...], dict[str, float]]:
    """Return nodes whose values are stored times powers of two, and the power for each value.

    Parameters
    ----------
    nodes : in running order.
    largest : the largest activation in some of the values; the others take the power of what they are made from.

    Raises ValueError for anything but convolutions, ReLU and pooling.
    """
    powers = {nodes[0].input: 1.0}
    result = []
    for node in nodes:
        operator = node.operator
        if not isinstance(operator, Conv | Relu | AveragePool | MaxPool | Pad):
            raise ValueError(
                f"dtype 'float16' is for networks of convolutions, ReLU, pooling and padding, not for {node.label}"
            )
        before = power = powers[node.input]
        if isinstance(operator, Conv):
            if largest.get(node.output, 0.0) > 0:
                power = float(2.0 ** np.floor(np.log2(LARGEST / largest[node.output])))
            bias = None if operator.bias is None else operator.bias * np.float32(power)
            operator = replace(operator, weight=operator.weight * np.float32(power / before), bias=bias)
        powers[node.output] = power
        result.append(replace(node, operator=operator))
    return tuple(result), powers


# ---- gradients ----


def gradient_factor(size: float) -> float:
    """Return the power of two that brings gradients of this size near 1."""
    return float(2.0 ** -np.round(np.log2(size))) if 0 < size < np.inf else 1.0


def content_gradient_size(device: Device, F: Array, P: Array, scale: float) -> float:
    """Return the root mean square of the content loss's derivative (equation 2): of F - P.

    Parameters
    ----------
    F, P : (H, W, N), as stored.
    scale : how many times as large as they are they are stored.
    """
    (loss,) = device.numbers([content_loss(device, F, P, scale)])
    return float(np.sqrt(2 * loss / F.size))


def style_gradient_size(device: Device, F: Array, G: Array, A: Array) -> float:
    """Return the root mean square of a layer's style loss's derivative (equation 6), by Gram matrices alone.

    Parameters
    ----------
    F : (H, W, N), as stored.
    G : its Gram matrix.
    A : the target, a Gram matrix over its number of positions.
    """
    G, A = (device.fetch(matrix).astype(np.float64) for matrix in (G, A))
    N_l, M_l = len(G), F.shape[0] * F.shape[1]
    difference = G / M_l - A
    # |(G - A) F|^2 is the trace of (G - A) F F^T (G - A).
    square = float(((difference @ G) * difference).sum()) / (N_l**2 * M_l) ** 2
    return float(np.sqrt(max(square, 0.0) / F.size))
