from __future__ import annotations

import math

import numpy as np
import pytest

from engine.ops import Conv, MaxPool
from kernels.geometry import Window
from tools.models.random_vgg import random_vgg


@pytest.mark.slow
@pytest.mark.parametrize(("name", "convolutions", "last"), [("vgg16", 13, "conv5_3"), ("vgg19", 16, "conv5_4")])
def test_a_random_vgg_has_the_full_size_and_he_s_variance(name, convolutions, last):
    nodes = random_vgg(name)
    convs = {node.output: node.operator for node in nodes if isinstance(node.operator, Conv)}
    assert len(convs) == convolutions
    assert nodes[-1].output == last
    assert [node.operator for node in nodes if not isinstance(node.operator, Conv)] == [
        MaxPool(Window((2, 2), (2, 2)))
    ] * 4
    assert sum(conv.parameters for conv in convs.values()) == {"vgg16": 14_714_688, "vgg19": 20_024_384}[name]
    for label, conv in convs.items():
        assert conv.weight.dtype == np.float32
        assert conv.window == Window((3, 3), pads=(1, 1, 1, 1))
        assert conv.relu
        assert conv.bias is not None
        assert not conv.bias.any()
        inputs = math.prod(conv.weight.shape[:3])
        # Five standard errors of a normal sample's mean and standard deviation.
        tolerance = 5 / math.sqrt(conv.weight.size)
        assert conv.weight.mean(dtype=float) == pytest.approx(0, abs=tolerance * math.sqrt(2 / inputs)), label
        assert conv.weight.std(dtype=float) == pytest.approx(math.sqrt(2 / inputs), rel=tolerance), label
