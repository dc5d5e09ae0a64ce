from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.graph import Node
from engine.load import load_network
from engine.network import Network, Tape
from engine.onnx.reader import read_onnx
from engine.onnx.writer import write_onnx
from engine.ops import AveragePool, Conv
from engine.preprocessing import PREPROCESSING, preprocessing_metadata
from kernels.geometry import Window
from tools.models.random_vgg import random_vgg
from tools.models.table import layer_table


def support(network: Network, tape: Tape, layer: str, unit: tuple[int, int]) -> list[tuple[int, int]]:
    """First and one-past-last row and column of the image that one value of a layer depends on, by its gradient."""
    one = np.zeros_like(tape.features[layer])
    one[unit] = 1
    reached = (network.backward(tape.copy(), {layer: lambda flowing: one}) != 0).any(2)
    touched = [np.flatnonzero(reached.any(axis)) for axis in (1, 0)]
    return [(int(indices[0]), int(indices[-1]) + 1) for indices in touched]


def assert_reach_is_the_gradient_s(nodes: list[Node], path: Path, size: int) -> list[tuple[int, int]]:
    """Compare field and stride with the support of gradients; return the fields."""
    positive = [
        Node(node.name, Conv(np.abs(node.operator.weight), None, node.operator.window, relu=True), *values)
        if isinstance(node.operator, Conv)
        else node
        for node, values in ((node, (node.input, node.output)) for node in nodes)
    ]
    write_onnx(path, positive, preprocessing_metadata(PREPROCESSING["raw"]))
    rows, _ = layer_table(read_onnx(path), size, size)
    network = load_network(path, dtype="float64")
    tape = network.forward(np.ones((size, size, 3)), network.layers)
    for row in rows:
        if row.is_layer:
            assert row.shape is not None
            middle = (row.shape[0] // 2, row.shape[1] // 2)
            here = support(network, tape, row.name, middle)
            there = support(network, tape, row.name, (middle[0] + 1, middle[1] + 1))
            assert row.field == tuple(end - begin for begin, end in here), row.name
            assert row.stride == tuple(b[0] - a[0] for a, b in zip(here, there, strict=True)), row.name
    return [row.field for row in rows if row.is_layer]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vgg16", (3, 5, 10, 14, 24, 32, 40, 60, 76, 92, 132, 164, 196)),
        ("vgg19", (3, 5, 10, 14, 24, 32, 40, 48, 68, 84, 100, 116, 156, 188, 220, 252)),
    ],
)
def test_the_receptive_field_is_the_support_of_the_gradient(tmp_path, name, expected):
    nodes = list(random_vgg(name, width=1 / 64))
    fields = assert_reach_is_the_gradient_s(nodes, tmp_path / "model.onnx", 304)
    assert fields == [(size, size) for size in expected]


def test_the_receptive_field_counts_dilations_and_uneven_strides(tmp_path):
    weights = [np.ones((*kernel, channels, 1), np.float32) for kernel, channels in (((3, 5), 3), ((3, 2), 1))]
    nodes = [
        Node("a", Conv(weights[0], None, Window((3, 5), (2, 3), dilations=(2, 1)), relu=True), "x", "a"),
        Node("b", AveragePool(Window((2, 3), (1, 2))), "a", "b"),
        Node("c", Conv(weights[1], None, Window((3, 2), dilations=(1, 3)), relu=True), "b", "c"),
    ]
    fields = assert_reach_is_the_gradient_s(nodes, tmp_path / "model.onnx", 80)
    assert fields == [(5, 5), (11, 29)]
