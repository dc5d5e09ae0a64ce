"""What is folded into a convolution: the same values by fewer operators, and nothing where another reads between."""

import numpy as np
import pytest

from engine.fuse import fused
from engine.graph import Node
from engine.ops import Add, Affine, Conv, MaxPool, Relu
from kernels import Cpu
from kernels.geometry import Window

RNG = np.random.default_rng(0)
IMAGE = RNG.standard_normal((6, 7, 3))


def conv(bias=True, relu=False):
    return Conv(RNG.standard_normal((3, 3, 3, 4)), RNG.standard_normal(4) if bias else None, Window((3, 3)), relu=relu)


def affine(channels=4):
    return Affine(RNG.standard_normal(channels), RNG.standard_normal(channels))


def chain(*operators):
    """Nodes one behind the other: a reads the image, b reads a, ..."""
    values = ["image", *"abcdef"]
    return [Node(values[at + 1], one, values[at], values[at + 1]) for at, one in enumerate(operators)]


def computed(nodes):
    """All values, operator by operator."""
    values = {"image": IMAGE}
    for node in nodes:
        values[node.output], _ = node.operator.forward(Cpu(1), [values[name] for name in node.inputs], True)
    return values


@pytest.mark.parametrize(
    ("operators", "left"),
    [
        ((conv(), Relu()), ["Conv 'a'"]),
        ((conv(), affine()), ["Conv 'a'"]),
        ((conv(bias=False), affine(), affine(1), Relu()), ["Conv 'a'"]),
        ((conv(), affine(), Relu(), affine()), ["Conv 'a'", "Affine 'd'"]),
        ((conv(relu=True), affine()), ["Conv 'a'", "Affine 'b'"]),
        ((conv(), MaxPool(Window((2, 2))), Relu()), ["Conv 'a'", "MaxPool 'b'", "Relu 'c'"]),
        ((affine(3), conv(), Relu()), ["Affine 'a'", "Conv 'b'"]),
    ],
)
def test_what_is_left_computes_the_same(operators, left):
    nodes = chain(*operators)
    found = fused(nodes)
    assert [node.label for node in found] == left
    expected, values = computed(nodes), computed(found)
    assert found[-1].output == nodes[-1].output
    for name, value in values.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-13, atol=1e-13)


def test_a_value_that_is_read_elsewhere_stays():
    nodes = [*chain(conv(), Relu()), Node("sum", Add(), "a", "sum", ("b",))]
    assert fused(nodes) == tuple(nodes)
    np.testing.assert_array_equal(computed(fused(nodes))["sum"], computed(nodes)["sum"])


def test_a_shift_alone_leaves_the_weights_as_they_are():
    convolution = conv()
    (node,) = fused(chain(convolution, Affine(np.ones(4), np.arange(4.0))))
    assert node.operator.weight is convolution.weight
    np.testing.assert_array_equal(node.operator.bias, convolution.bias + np.arange(4.0))
