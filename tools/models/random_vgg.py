"""Networks of random weights, in the shape of a VGG."""

from __future__ import annotations

import math

import numpy as np

from engine.graph import Node
from engine.onnx.writer import MAX_WEIGHT_BYTES
from engine.ops import Conv, MaxPool
from engine.vgg import CONVOLUTIONS, WIDTHS
from kernels.geometry import Window
from tools.media.files import byte_count
from tools.media.memory import available_memory


def random_vgg(name: str, seed: int = 0, width: float = 1.0) -> tuple[Node, ...]:
    """Return the convolution part of a VGG with random weights, up to the last convolution's ReLU.

    Parameters
    ----------
    name : ``"vgg16"`` or ``"vgg19"``.
    seed : of the random numbers; the same seed gives the same weights.
    width : factor on the numbers of channels, at least one of which is left.

    The weights are normal with mean 0 and variance 2 / (inputs of one output), in float32; the biases are zero.

    Source: He, Zhang, Ren and Sun, "Delving Deep into Rectifiers" (2015), equation 10.
    """
    random = np.random.default_rng(seed)
    nodes: list[Node] = []
    value, channels = "image", 3
    _check_width(name, width)
    for block, (count, full_width) in enumerate(zip(CONVOLUTIONS[name], WIDTHS, strict=True), 1):
        if block > 1:
            label = f"pool{block - 1}"
            nodes.append(Node(label, MaxPool(Window((2, 2), (2, 2))), value, label))
            value = label
        filters = _scaled(full_width, width)
        for number in range(1, count + 1):
            label = f"conv{block}_{number}"
            weight = random.standard_normal((3, 3, channels, filters), dtype=np.float32)
            weight *= np.float32(math.sqrt(2 / (9 * channels)))
            conv = Conv(weight, np.zeros(filters, np.float32), Window((3, 3), pads=(1, 1, 1, 1)), relu=True)
            nodes.append(Node(label, conv, value, label))
            value, channels = label, filters
    return tuple(nodes)


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _check_width(name: str, width: float) -> None:
    """Raise ValueError, before any number is drawn, where the weights do not fit into one file."""
    parameters, channels = 0.0, 3.0
    for count, full_width in zip(CONVOLUTIONS[name], WIDTHS, strict=True):
        for _ in range(count):
            parameters += 9 * channels * full_width * width
            channels = full_width * width
    if 4 * parameters > MAX_WEIGHT_BYTES:
        raise ValueError(
            f"--width {width:g} makes {parameters:.3g} weights, one ONNX file holds at most {MAX_WEIGHT_BYTES // 4:.3g}"
        )
    # The weights themselves, their float64 draft layer by layer, and the file's message and bytes.
    free = available_memory()
    if free is not None and 16 * parameters > free:
        raise ValueError(
            f"--width {width:g} needs about {byte_count(int(16 * parameters))} of memory, "
            f"{byte_count(free)} are available"
        )
