"""Keeping a network's responses within the range of 16-bit numbers, by powers of two that change no digit.

ReLU and pooling commute with a positive factor, so that only convolutions have to know of it: a weight is multiplied by
the factor of its output over that of its input, a bias by the former. The largest 16-bit number is 65504, the smallest
with all digits 6e-5; VGG's responses reach thousands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from engine.graph import Node
from engine.ops import Array, AveragePool, Conv, MaxPool, Relu

LARGEST = 512.0
"""Responses to the sample picture are stored no larger than this, so that those to others have room above."""

SAMPLE_SIZE = 128


def sample_picture() -> Array:
    """Return the picture that the factors are found with: patches of all sizes, (H, W, 3), always the same."""
    rng = np.random.default_rng(0)
    layers = []
    for side in (1, 4, 32):
        count = SAMPLE_SIZE // side
        layers.append(np.kron(rng.uniform(0.0, 255.0, (count, count, 3)), np.ones((side, side, 1))))
    picture: Array = np.mean(layers, axis=0)
    return picture


def scaled_nodes(nodes: Sequence[Node], largest: Mapping[str, float]) -> tuple[tuple[Node, ...], dict[str, float]]:
    """Return a chain of nodes whose values are stored times powers of two, and the power for each value.

    Parameters
    ----------
    nodes : in running order.
    largest : the largest response in some of the values; the others take the power of the value before them.

    Raises ValueError for anything but convolutions, ReLU and pooling.
    """
    power = 1.0
    result, powers = [], {}
    for node in nodes:
        operator = node.operator
        if not isinstance(operator, Conv | Relu | AveragePool | MaxPool):
            raise ValueError(f"dtype 'float16' is for chains of convolutions, ReLU and pooling, not for {node.label}")
        if isinstance(operator, Conv):
            before = power
            if largest.get(node.output, 0.0) > 0:
                power = float(2.0 ** np.floor(np.log2(LARGEST / largest[node.output])))
            bias = None if operator.bias is None else operator.bias * np.float32(power)
            operator = replace(operator, weight=operator.weight * np.float32(power / before), bias=bias)
        powers[node.output] = power
        result.append(replace(node, operator=operator))
    return tuple(result), powers
