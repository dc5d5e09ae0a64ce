from __future__ import annotations

import numpy as np
import pytest

from engine.load import load_network
from engine.onnx_writer import write_onnx
from engine.preprocessing import PREPROCESSING, preprocessing_metadata
from kernels.cpu.threads import SERIAL
from tools.progress import Progress
from tools.samples import SAMPLES
from tools.training.network import LAYERS, fitted
from tools.training.recipe import Recipe

PICTURES = [SAMPLES[name](192, 256, 3).astype(np.float32) for name in ("swirls", "shapes")]


def made(seed):
    with Progress(len(LAYERS), "layers", "test", quiet=True) as progress:
        return fitted(PICTURES, Recipe(patches=3000, seed=seed), SERIAL, progress)


@pytest.fixture(scope="module")
def nodes():
    return made(0)


def test_the_same_seed_makes_the_same_network(nodes):
    def weights(network):
        return [node.operator.weight for node in network if node.output in LAYERS]

    assert all((one == other).all() for one, other in zip(weights(nodes), weights(made(0)), strict=True))
    assert any((one != other).any() for one, other in zip(weights(nodes), weights(made(1)), strict=True))


def test_half_of_the_responses_are_above_zero_in_every_layer(nodes, tmp_path):
    """The two of a pair share them, so that what a layer sees reaches the next: none falls silent with depth."""
    write_onnx(tmp_path / "draft.onnx", nodes, preprocessing_metadata(PREPROCESSING["caffe"]))
    network = load_network(tmp_path / "draft.onnx")
    assert network.layers == LAYERS
    for layer, F in network.features(PICTURES[0], LAYERS[1:]).items():
        inside = F[:, 2:-2, 2:-2]
        assert 0.35 < (inside > 0).mean() < 0.65, layer
        first, second = np.split(inside, 2)
        assert (first * second == 0).all(), layer
