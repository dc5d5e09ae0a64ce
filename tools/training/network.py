"""The draft network, fitted layer by layer from the picture upwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from engine.graph import Node
from engine.ops import AveragePool, Conv
from engine.preprocessing import PREPROCESSING
from engine.vgg import CONVOLUTIONS
from kernels.cpu.threads import Workers
from kernels.geometry import Window
from tools.progress import Progress
from tools.training.filters import first_filters, fitted_filters, sampled_patches
from tools.training.pictures import Pixels
from tools.training.recipe import Recipe

WIDTHS = (16, 32, 64, 128, 128)
"""Channels of the blocks: a quarter of VGG-19's."""

LAYERS = tuple(
    f"conv{block}_{number}"
    for block, count in enumerate(CONVOLUTIONS["vgg19"], 1)
    for number in range(1, (count if block < 5 else 1) + 1)
)
"""VGG-19's layers up to conv5_1."""


def fitted(pictures: Sequence[Pixels], recipe: Recipe, workers: Workers, progress: Progress) -> tuple[Node, ...]:
    """Return the network's operators, for input of the "caffe" convention.

    Each layer is fitted to the responses of the one below. These are taken without padding, so that no filter is
    fitted to the borders of the pictures.

    Parameters
    ----------
    pictures : (H, W, 3), RGB, 0..255.
    workers : the threads to use.
    progress : counts the layers.
    """
    random = np.random.default_rng(recipe.seed)
    responses = [PREPROCESSING["caffe"].apply(picture, np.dtype(np.float32)) for picture in pictures]
    nodes: list[Node] = []
    value = "image"
    for layer in LAYERS:
        if layer.endswith("_1") and layer != LAYERS[0]:
            pool, label = AveragePool(Window((2, 2), (2, 2))), f"pool{int(layer[4]) - 1}"
            responses = [pool.forward(F, True, workers)[0] for F in responses]
            nodes.append(Node(label, pool, value, label))
            value = label
        patches = sampled_patches(responses, recipe.patches, random)
        if layer == LAYERS[0]:
            weight, bias = first_filters(patches, random)
        else:
            weight, bias = fitted_filters(patches, WIDTHS[int(layer[4]) - 1], recipe.floor, random)
        conv = Conv(np.ascontiguousarray(weight, np.float32), bias.astype(np.float32), Window((3, 3)), relu=True)
        responses = [conv.forward(F, True, workers)[0] for F in responses]
        nodes.append(Node(layer, replace(conv, window=Window((3, 3), pads=(1, 1, 1, 1))), value, layer))
        value = layer
        progress.update(1, layer)
    return tuple(nodes)
