"""A VGG as plain arrays, with the gradients of its weights: what learning needs and the engine, by design, lacks.

The engine moves only the image, so its operators have no weight gradients. Here they are, for the one kind of network
that is learnt: 3x3 convolutions with ReLU, and the mean over 2x2 positions between blocks. Activations are (H, W, C),
float32; weights (3, 3, C_in, C_out).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.graph import Node
from engine.ops import AveragePool, Conv
from kernels.geometry import Window

Array = NDArray[np.float32]


@dataclass(eq=False)
class Layer:
    """One convolution with its ReLU; ``pooled`` where the mean over 2x2 positions is taken before it."""

    name: str
    weight: Array
    bias: Array
    pooled: bool


Chain = list[Layer]


def chain_of(nodes: tuple[Node, ...], last: str = "conv5_1") -> Chain:
    """Return a network's convolutions up to the layer ``last`` as a chain; raises ValueError where there is more."""
    layers: Chain = []
    pooled = False
    for node in nodes:
        if not isinstance(node.operator, Conv):
            pooled = True
            continue
        operator = node.operator
        if operator.weight.shape[:2] != (3, 3) or operator.bias is None or not operator.relu:
            raise ValueError(f"{node.label}: a teacher has 3x3 convolutions with a bias and a ReLU only")
        layers.append(Layer(node.name, operator.weight, operator.bias, pooled))
        pooled = False
        if node.name == last:
            return layers
    raise ValueError(f"the teacher has no layer {last!r}")


def nodes_of(chain: Chain) -> tuple[Node, ...]:
    """Return the engine's nodes of a chain."""
    nodes: list[Node] = []
    value = "image"
    for layer in chain:
        if layer.pooled:
            pool = f"pool{int(layer.name[4]) - 1}"
            nodes.append(Node(pool, AveragePool(Window((2, 2), (2, 2)), count_include_pad=False), value, pool))
            value = pool
        window = Window((3, 3), pads=(1, 1, 1, 1))
        nodes.append(Node(layer.name, Conv(layer.weight, layer.bias, window, relu=True), value, layer.name))
        value = layer.name
    return tuple(nodes)


def pool(x: Array) -> Array:
    """Return the mean over 2x2 positions; a last odd row or column is left out, as the engine's pooling does."""
    height, width, channels = x.shape
    x = x[: height // 2 * 2, : width // 2 * 2].reshape(height // 2, 2, width // 2, 2, channels)
    return 0.25 * (x[:, 0, :, 0] + x[:, 0, :, 1] + x[:, 1, :, 0] + x[:, 1, :, 1])


def pool_gradient(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Return the gradient of ``pool`` with respect to its input of this shape."""
    result = np.zeros(shape, np.float32)
    spread = np.repeat(np.repeat(gradient, 2, 0), 2, 1)
    result[: spread.shape[0], : spread.shape[1]] = 0.25 * spread
    return result


def patches(x: Array) -> Array:
    """Return the 3x3 surroundings of every position, zero outside: (H W, 9 C), in the order of a flattened weight."""
    height, width, channels = x.shape
    padded = np.zeros((height + 2, width + 2, channels), np.float32)
    padded[1:-1, 1:-1] = x
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
    return windows.transpose(0, 1, 3, 4, 2).reshape(height * width, 9 * channels)


def patches_gradient(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Return the gradient of ``patches`` with respect to its input of this shape."""
    height, width, channels = shape
    by_place = gradient.reshape(height, width, 3, 3, channels)
    padded = np.zeros((height + 2, width + 2, channels), np.float32)
    for i in range(3):
        for j in range(3):
            padded[i : i + height, j : j + width] += by_place[:, :, i, j]
    return padded[1:-1, 1:-1]


def convolve(layer: Layer, x: Array) -> Array:
    """Return what stands before a layer's ReLU, for its input before the pooling."""
    x = pool(x) if layer.pooled else x
    z = patches(x) @ layer.weight.reshape(-1, layer.weight.shape[3])
    z += layer.bias
    return z.reshape(*x.shape[:2], -1)


def features(chain: Chain, x: Array) -> list[Array]:
    """Return the image and every layer's activations behind its ReLU."""
    values = [x]
    for layer in chain:
        z = convolve(layer, values[-1])
        values.append(np.maximum(z, 0, out=z))
    return values


def weight_gradients(chain: Chain, values: list[Array], at: Mapping[int, Array]) -> list[Array]:
    """Return the gradient of a loss with respect to each layer's weight and bias, one after the other.

    Parameters
    ----------
    values : of ``features``.
    at : the loss's derivatives with respect to activations, by their place in ``values``.
    """
    result: list[Array] = []
    flowing: Array | None = None
    for place in range(len(chain), 0, -1):
        layer, output, before = chain[place - 1], values[place], values[place - 1]
        if place in at:
            flowing = at[place] if flowing is None else flowing + at[place]
        assert flowing is not None  # the last layer has a loss
        dz = np.where(output > 0, flowing, np.float32(0)).reshape(-1, output.shape[2])
        x = pool(before) if layer.pooled else before
        result += [dz.sum(axis=0), (patches(x).T @ dz).reshape(layer.weight.shape)]
        if place > 1:
            flowing = patches_gradient(dz @ layer.weight.reshape(-1, dz.shape[1]).T, x.shape)
            if layer.pooled:
                flowing = pool_gradient(flowing, before.shape)
    return result[::-1]
