from __future__ import annotations

import numpy as np
import pytest

from engine.load import load_network
from engine.onnx_writer import write_onnx
from engine.preprocessing import PREPROCESSING, preprocessing_metadata
from tools.random_vgg import random_vgg
from tools.training.scales import mean_responses, scaled, unit_scales

CAFFE = preprocessing_metadata(PREPROCESSING["caffe"])
PICTURES = [np.random.default_rng(seed).uniform(0, 255, (32, 48, 3)).astype(np.float32) for seed in range(2)]


@pytest.fixture
def network(tmp_path):
    def network(nodes):
        path = tmp_path / "model.onnx"
        write_onnx(path, nodes, CAFFE)
        return load_network(path, dtype="float64")

    return network


NODES = random_vgg("vgg19", width=0.1)


def test_scaling_changes_each_channel_by_its_factor_and_nothing_else(network):
    before = network(NODES)
    random = np.random.default_rng(1)
    features = before.features(PICTURES[0], before.layers)
    scales = {layer: random.uniform(0.1, 10, len(F)) for layer, F in features.items()}
    after = network(scaled(NODES, scales)).features(PICTURES[0], before.layers)
    for layer, F in features.items():
        np.testing.assert_allclose(after[layer], F * scales[layer][:, None, None], rtol=1e-4, atol=1e-6 * F.max())


def test_channels_come_to_the_fourth_root_of_their_layers_weight(network):
    before = network(NODES)
    weights = dict.fromkeys(before.layers, 1.0) | {"conv1_1": 16.0}
    means = mean_responses(before, PICTURES)
    after = mean_responses(network(scaled(NODES, unit_scales(means, weights))), PICTURES)
    for layer, mean in after.items():
        alive = means[layer] > means[layer].mean() / 100
        np.testing.assert_allclose(mean[alive], weights[layer] ** 0.25, rtol=1e-3)


def test_a_dead_channel_is_not_amplified():
    scales = unit_scales({"conv1_1": np.array([1.0, 3.0, 1e-9])}, {"conv1_1": 1.0})["conv1_1"]
    np.testing.assert_allclose(scales, [1.0, 1 / 3, 1 / np.mean([1.0, 3.0, 1e-9])])
