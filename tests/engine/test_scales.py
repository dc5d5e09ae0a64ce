"""A style for each layer: of fine layers from one painting, of coarse ones from another."""

import numpy as np
import pytest

from engine import Objective, Settings, load_network
from engine.multiscale import stylize_coarse_to_fine
from engine.selection import PAPER_STYLE_LAYERS
from engine.targets import at_scales
from tests.engine import models

SIZE = (22, 18)
LAYERS = ("conv1_1", "conv1_2", "conv2_1")
CONTENT, IMAGE = models.random_image(*SIZE, seed=1), models.random_image(*SIZE, seed=2)
FINE, COARSE = models.random_image(20, 25, seed=3), models.random_image(17, 16, seed=4)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = models.save(models.vgg(models.parameters((2, 2))), tmp_path_factory.mktemp("models") / "tiny.onnx")
    return load_network(path, dtype="float64", threads=1)


def style_terms(network, style):
    objective = Objective(network, style=style, style_layers=LAYERS)
    objective(IMAGE)
    return objective.terms["style"]


def test_the_lower_half_of_the_layers_is_fine():
    assert at_scales("f", "c", PAPER_STYLE_LAYERS) == {
        "conv1_1": "f",
        "conv2_1": "f",
        "conv3_1": "c",
        "conv4_1": "c",
        "conv5_1": "c",
    }
    assert at_scales("f", "c", ("a", "b")) == {"a": "f", "b": "c"}
    with pytest.raises(ValueError, match="two scales of style need two style layers at least, there is 1"):
        at_scales("f", "c", ("a",))


def test_each_layer_s_loss_is_that_of_its_own_painting(network):
    found = style_terms(network, at_scales(FINE, [(COARSE, 1.0), (FINE, 2.0)], LAYERS))
    fine, coarse = style_terms(network, FINE), style_terms(network, [(COARSE, 1.0), (FINE, 2.0)])
    assert found == {"conv1_1": fine["conv1_1"], "conv1_2": coarse["conv1_2"], "conv2_1": coarse["conv2_1"]}


def test_one_painting_at_both_scales_is_one_style_to_the_bit(network):
    split, plain = (
        Objective(network, CONTENT, style, ["conv2_1"], LAYERS) for style in (at_scales(FINE, FINE, LAYERS), FINE)
    )
    assert split(IMAGE)[0] == plain(IMAGE)[0]
    np.testing.assert_array_equal(split(IMAGE)[1], plain(IMAGE)[1])


def test_the_layers_have_to_be_those_of_the_style(network):
    with pytest.raises(ValueError, match="a style for each layer names conv1_1, the style layers are conv1_1, conv2_1"):
        Objective(network, CONTENT, {"conv1_1": FINE}, ["conv2_1"], ("conv1_1", "conv2_1"))


def test_it_goes_from_small_to_large_and_begins_with_the_fine_painting(network):
    sizes = []

    def nearest(image, height, width):
        sizes.append(image.shape[:2])
        rows, columns = np.arange(height) * image.shape[0] // height, np.arange(width) * image.shape[1] // width
        return image[rows][:, columns]

    settings = Settings(
        content_layers=["conv2_1"],
        style_layers=LAYERS,
        iterations=1,
        content_weight=1e-6,
        init="style",
        style_weight=1.0,
    )
    style = at_scales(FINE, [(COARSE, 1.0)], LAYERS)
    result = stylize_coarse_to_fine(network, CONTENT, style, settings, resize=nearest, levels=2)
    assert result.image.shape == CONTENT.shape
    assert {FINE.shape[:2], COARSE.shape[:2]} <= set(sizes)
