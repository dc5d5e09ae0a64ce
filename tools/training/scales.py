"""The scale of a network's responses, which Gram losses weigh by and training leaves to chance.

ReLU and average pooling are positively homogeneous: when a layer's weights and bias are multiplied by a positive number
for each output channel and the next layer's weights divided by it, every later response is what it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from engine.graph import Node
from engine.network import Network
from engine.ops import Conv

Scales = Mapping[str, npt.NDArray[np.float64]]


def mean_responses(network: Network, pictures: Sequence[npt.NDArray[np.float32]]) -> dict[str, npt.NDArray[np.float64]]:
    """Return each layer's mean response by channel, (N_l,), over the positions of all pictures ((H, W, 3), 0..255)."""
    sums = {layer: np.zeros(1) for layer in network.layers}
    for picture in pictures:
        for layer, F in network.features(picture, network.layers).items():
            sums[layer] = sums[layer] + F.mean((1, 2), dtype=np.float64)
    return {layer: total / len(pictures) for layer, total in sums.items()}


def unit_scales(means: Scales, weights: Mapping[str, float]) -> dict[str, npt.NDArray[np.float64]]:
    """Return the factors that bring every channel's mean response to the fourth root of its layer's weight.

    The style loss grows with the fourth power of the responses, so that a layer of weight 2 has twice the style loss.
    A channel that hardly ever responds (less than a hundredth of its layer's mean) gets its layer's common factor: its
    own would only amplify noise.

    Source: Gatys, Ecker and Bethge, "Texture Synthesis Using Convolutional Neural Networks" (2015), section 2, where
    the mean of each response is brought to 1.
    """
    scales = {}
    for layer, mean in means.items():
        usual = mean.mean()
        scales[layer] = weights[layer] ** 0.25 / np.where(mean > usual / 100, mean, usual)
    return scales


def scaled(nodes: Sequence[Node], scales: Scales) -> tuple[Node, ...]:
    """Return the nodes of a chain of convolutions (each with its ReLU) and poolings with their responses scaled.

    Parameters
    ----------
    nodes : the network.
    scales : positive factors on each layer's channels, (N_l,), by the name of the convolution's output.
    """
    result = []
    before: npt.NDArray[np.float64] | None = None
    for node in nodes:
        operator = node.operator
        if isinstance(operator, Conv):
            now = scales[node.output]
            weight = operator.weight * now
            if before is not None:
                weight = weight / before[:, None]
            bias = np.zeros(len(now)) if operator.bias is None else operator.bias * now
            operator = replace(operator, weight=weight.astype(np.float32), bias=bias.astype(np.float32))
            before = now
        result.append(replace(node, operator=operator))
    return tuple(result)
