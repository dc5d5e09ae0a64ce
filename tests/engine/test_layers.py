"""The names that a layer goes by: the list has one, and others are understood wherever a layer is named."""

import numpy as np
import pytest

from engine import Objective, load_network
from engine.layers import LayerNames
from engine.vgg import other_names
from tests.engine import models

BLOCKS = models.parameters((2, 2, 4, 2))
IMAGE = models.random_image(24, 20)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A VGG as far as conv4_2."""
    return load_network(models.save(models.vgg(BLOCKS), tmp_path_factory.mktemp("vgg") / "m.onnx"), threads=1)


@pytest.mark.parametrize("name", ["relu4_2", "block4_conv2", "features.21", "features.22"])
def test_a_layer_answers_to_the_names_that_other_programs_have_for_it(network, name):
    assert network.layers == models.names(BLOCKS)
    found = network.features(IMAGE, name)
    assert list(found) == [name]
    np.testing.assert_array_equal(found[name], network.features(IMAGE, "conv4_2")["conv4_2"])
    assert network.shapes(24, 20, [name]) == {name: (3, 2, 8)}
    values = [Objective(network, content=IMAGE / 2, content_layers=(one,))(IMAGE) for one in (name, "conv4_2")]
    assert values[0][0] == values[1][0]
    np.testing.assert_array_equal(values[0][1], values[1][1])


def test_torchvisions_numbers_count_batch_normalizations_where_there_were_some(tmp_path):
    """Of vgg19_bn, features.40 is conv5_1's convolution; of vgg19 it is no layer."""
    names = [f"conv{b}_{i}" for b, count in enumerate((2, 2, 4, 4, 4), 1) for i in range(1, count + 1)]
    plain, normalized = other_names(names, False), other_names(names, True)
    assert [plain[f"features.{number}"] for number in (0, 5, 21, 28)] == ["conv1_1", "conv2_1", "conv4_2", "conv5_1"]
    assert [normalized[f"features.{number}"] for number in (0, 7, 30, 40)] == [
        "conv1_1",
        "conv2_1",
        "conv4_2",
        "conv5_1",
    ]
    assert "features.4" not in plain

    def conv(builder, value, weight, bias):
        value = models.plain_conv(builder, value, weight, bias)
        return builder.node("BatchNormalization", value, *(builder.weight(np.ones(bias.size)) for _ in range(4)))

    path = models.save(models.vgg(models.parameters((2, 1)), conv=conv), tmp_path / "bn.onnx")
    found = load_network(path, threads=1).features(IMAGE, ["features.7", "conv2_1"])
    np.testing.assert_array_equal(found["features.7"], found["conv2_1"])


def test_what_is_no_name_is_answered_with_those_that_are_listed(network):
    with pytest.raises(ValueError, match=r"unknown layer 'relu9_1'; .*choose from conv1_1, conv1_2, conv2_1") as error:
        network.features(IMAGE, "relu9_1")
    assert "relu4_2" not in str(error.value)


def test_other_names_are_not_listed():
    names = LayerNames({"conv1_1": "a"}, {"relu1_1": "conv1_1"})
    assert list(names) == ["conv1_1"]
    assert len(names) == 1
    assert names["relu1_1"] == "a"
    assert "relu1_1" in names
    assert "relu1_2" not in names
    assert names.get("relu1_2", "none") == "none"
