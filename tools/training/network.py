"""The draft network in PyTorch while it learns, its heads, and the way from there to the engine's operators."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as nn
from torch import Tensor
from torch.nn import BatchNorm1d, BatchNorm2d, Conv2d, Linear, Module, ModuleDict

from engine.onnx_reader import Node
from engine.ops import Array, AveragePool, Conv
from engine.preprocessing import PREPROCESSING
from engine.vgg import CONVOLUTIONS
from kernels.geometry import Window
from tools.training.views import CHANNEL_ORDERS, DEFECTS

WIDTHS = (16, 32, 64, 128, 128)
"""Channels of the blocks: a quarter of VGG-19's."""

LAYERS = tuple(
    f"conv{block}_{number}"
    for block, count in enumerate(CONVOLUTIONS["vgg19"], 1)
    for number in range(1, (count if block < 5 else 1) + 1)
)
"""VGG-19's layers up to conv5_1."""

JUDGED = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv4_2", "conv5_1")
"""The layers that the paper's losses look at. Each has to answer the question of ``tools.training.views`` by itself."""

GIVEN = 6
"""First channels that do not learn."""

EMBEDDING = 128
LEVEL = 1.0
"""Mean of every learned channel before its ReLU, in units of its standard deviation. With 1 the ReLU cuts off a sixth
of the responses. With 0 it cuts off half, rare strong responses dominate the Gram matrices, and a picture can have the
right ones by a few bright spots instead of strokes everywhere."""

SCALE = 58.0
"""By which the centred input is divided in training: about the standard deviation of natural pictures."""

_CAFFE = PREPROCESSING["caffe"]


class Draft(Module):  # type: ignore[misc]  # PyTorch's types are not looked at
    """Convolutions with batch normalisation and ReLU, in VGG-19's blocks with average pooling between them."""

    def __init__(self) -> None:
        super().__init__()
        self.convs, self.norms = ModuleDict(), ModuleDict()
        self.given = Conv2d(3, GIVEN, 3, padding=1).requires_grad_(False)
        weight, bias = colour_filters()
        self.given.weight.copy_(weight)
        self.given.bias.copy_(bias)
        channels = 3
        for layer in LAYERS:
            width = WIDTHS[int(layer[4]) - 1]
            learned = width - GIVEN if layer == LAYERS[0] else width
            self.convs[layer] = Conv2d(channels, learned, 3, padding=1, bias=False)
            self.norms[layer] = BatchNorm2d(learned, affine=False)
            torch.nn.init.kaiming_normal_(self.convs[layer].weight, nonlinearity="relu")
            channels = width

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the responses of the judged layers to RGB images of 0..255, (n, 3, H, W)."""
        mean = torch.tensor(_CAFFE.mean[::-1])[:, None, None]
        values, responses = (images - mean) / SCALE, {}
        given = self.given(values)
        for layer in LAYERS:
            if layer.endswith("_1") and layer != LAYERS[0]:
                values = nn.avg_pool2d(values, 2)
            values = self.norms[layer](self.convs[layer](values)) + LEVEL
            values = nn.relu(torch.cat([given, values], 1) if layer == LAYERS[0] else values)
            if layer in JUDGED:
                responses[layer] = values
        return responses


class Heads(Module):  # type: ignore[misc]
    """What a judged layer's Gram matrix and mean say of a crop: an embedding, the order of its colours, its defect.

    They see no positions, only the statistics that the style loss compares. For layers of more than 32 channels the
    Gram matrix is seen through 256 products of two learned projections.
    """

    PRODUCTS = 256

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = ModuleDict(), ModuleDict()
        self.gram_norms, self.mean_norms, self.answers = ModuleDict(), ModuleDict(), ModuleDict()
        for layer in JUDGED:
            width = WIDTHS[int(layer[4]) - 1]
            seen = width * width if width <= 32 else self.PRODUCTS
            if width > 32:
                self.left[layer], self.right[layer] = Linear(width, seen), Linear(width, seen)
            self.gram_norms[layer], self.mean_norms[layer] = BatchNorm1d(seen), BatchNorm1d(width)
            self.answers[layer] = Linear(seen + width, EMBEDDING + len(CHANNEL_ORDERS) + len(DEFECTS))

    def forward(self, responses: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """Return by layer: embeddings of length 1, (n, EMBEDDING), and scores of colour orders and of defects."""
        answers = {}
        for layer, F in responses.items():
            # Every second position of the largest layer: its statistics are the same, its cost a quarter.
            kept = F[:, :, ::2, ::2] if layer == LAYERS[0] else F
            positions = kept.permute(0, 2, 3, 1).flatten(1, 2)
            if layer in self.left:
                gram = (self.left[layer](positions) * self.right[layer](positions)).mean(1)
            else:
                gram = (positions.transpose(1, 2) @ positions).flatten(1) / positions.shape[1]
            seen = torch.cat([self.gram_norms[layer](gram), self.mean_norms[layer](positions.mean(1))], 1)
            parts = self.answers[layer](seen).split([EMBEDDING, len(CHANNEL_ORDERS), len(DEFECTS)], 1)
            answers[layer] = (nn.normalize(parts[0], dim=1), parts[1], parts[2])
        return answers


def colour_filters() -> tuple[Tensor, Tensor]:
    """Return weight, (6, 3, 3, 3), and bias, (6,), of the first channels, which are given, not learned.

    All are blurred over 3 x 3 pixels: the brightness, what it lacks to white, and the two opponent colours, red against
    green and blue against yellow, each in both directions. The first two are never negative, so that no ReLU changes
    them. So the Gram matrix of the six holds the mean of the brightness and of each side of the opponent colours, and
    all their second moments.

    For input that is centred and divided by SCALE, see ``Draft``; a brightness of white gives 4.
    """
    bell = torch.tensor([1.0, 2.0, 1.0]) / 4
    mixtures = torch.tensor([[1.0, 1.0, 1.0], [1.5, -1.5, 0.0], [-0.75, -0.75, 1.5]]) / 3
    mixtures = mixtures * 4 / 255
    signs = torch.tensor([1.0, -1.0])[None, :, None]
    both = (mixtures[:, None] * signs).flatten(0, 1)
    bias = both @ torch.tensor(_CAFFE.mean[::-1])
    bias[1] += 4
    return both[:, :, None, None] * SCALE * bell[:, None] * bell, bias


def edge_filters(generator: torch.Generator) -> Tensor:
    """Return the weights from which the other first channels begin to learn, (10, 3, 3, 3).

    Differences of brightness between pixels (steps along and across in both directions, steps along the diagonals,
    spots and their opposite) and two random ones between colours.
    """
    step = torch.tensor([[1.0, 0.0, -1.0]]) / 2
    bell = torch.tensor([[1.0, 2.0, 1.0]]) / 4
    ridge = torch.tensor([[-1.0, 2.0, -1.0]]) / 2
    along, spot = bell.T @ step, ridge.T @ bell + bell.T @ ridge
    slope = torch.tensor([[0.0, 1.0, 1.0], [-1.0, 0.0, 1.0], [-1.0, -1.0, 0.0]]) / 3
    planes = [along, -along, along.T, -along.T, slope, slope.flip(1), spot, -spot]
    grey = torch.stack(planes)[:, None].expand(-1, 3, -1, -1)
    colours = torch.randn((2, 3, 3, 3), generator=generator)
    colours = colours - colours.mean(1, keepdim=True)
    colours = colours - colours.mean((2, 3), keepdim=True)
    filters = torch.cat([grey, colours])
    return filters / filters.flatten(1).norm(dim=1)[:, None, None, None]


def folded(draft: Draft) -> tuple[Node, ...]:
    """Return the engine's operators that compute what the network computes, for input of the "caffe" convention."""
    nodes: list[Node] = []
    value = "image"
    for layer in LAYERS:
        if layer.endswith("_1") and layer != LAYERS[0]:
            label = f"pool{int(layer[4]) - 1}"
            nodes.append(Node(f"AveragePool {label!r}", AveragePool(Window((2, 2), (2, 2))), value, label))
            value = label
        norm = draft.norms[layer]
        gain = 1 / np.sqrt(_array(norm.running_var) + norm.eps)
        bias = LEVEL - _array(norm.running_mean) * gain
        weight = _array(draft.convs[layer].weight) * gain[:, None, None, None]
        if layer == LAYERS[0]:
            bias = np.concatenate([_array(draft.given.bias), bias])
            weight = np.concatenate([_array(draft.given.weight), weight])
            weight = weight[:, ::-1] / SCALE  # RGB in training, BGR in the file
        nodes.append(_convolution(layer, weight.transpose(2, 3, 1, 0), bias, value))
        value = layer
    return tuple(nodes)


def _array(values: Tensor) -> Array:
    array: Array = values.detach().double().numpy()
    return array


def _convolution(layer: str, weight: Array, bias: Array, value: str) -> Node:
    window = Window((3, 3), pads=(1, 1, 1, 1))
    conv = Conv(np.ascontiguousarray(weight, np.float32), bias.astype(np.float32), window, relu=True)
    return Node(f"Conv {layer!r}", conv, value, layer)
