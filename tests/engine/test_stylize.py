"""Setting up a picture: what is wrong with an argument is said in a sentence; what is not needed is not asked for."""

from __future__ import annotations

import numpy as np
import pytest

from engine.load import load_network
from engine.network import Network
from engine.regions import Region
from engine.stylize import Settings, first_style_image, prepare, stylize
from tests.engine import models

PHOTO, PAINTING = models.random_image(40, 48, seed=1), models.random_image(40, 48, seed=2)
LAYERS = {"content_layers": ("conv2_1",), "style_layers": ("conv1_1", "conv2_1")}


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Network:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    return load_network(models.save(models.vgg(models.parameters((2, 2), (8, 8))), path), threads=1)


@pytest.mark.parametrize(
    ("content", "style", "changes", "message"),
    [
        (PHOTO, PAINTING, {"optimizer": "lbfgs"}, "unknown optimizer 'lbfgs'; did you mean 'l-bfgs'"),
        (PHOTO, [], {}, "the list of style images is empty"),
        (PHOTO, {}, {}, "a style for each layer names none, the style layers are conv1_1, conv2_1"),
        (PHOTO, None, {"init": "style"}, "init 'style' needs a painting, and there is none"),
        (PHOTO, [], {"init": "style"}, "init 'style' needs a painting, and there is none"),
        (PHOTO, PAINTING[:30], {"init": "style"}, "init 'style' needs a painting of the photograph's shape"),
        (np.zeros((0, 0, 3)), PAINTING, {}, "a picture has at least 1 pixel a side, got 0"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(network, content, style, changes, message):
    with pytest.raises(ValueError, match=message):
        stylize(network, content, style, Settings(**LAYERS, iterations=1, **changes))


def test_without_a_style_image_there_is_the_content_alone(network):
    assert prepare(network, PHOTO, None, Settings(**LAYERS)).objective.layers == ("conv2_1",)


def test_regions_without_style_layers_are_nothing(network):
    settings = Settings(content_layers=("conv2_1",), style_layers=())
    job = prepare(network, PHOTO, None, settings, regions=[Region(np.ones(PHOTO.shape[:2]), PAINTING)])
    assert {term.kind for term in job.objective.summands} == {"content"}


def test_the_first_style_image_is_found_in_every_form_of_a_style():
    for style in (PAINTING, [(PAINTING, 1.0), (PHOTO, 2.0)], {"conv1_1": PAINTING, "conv2_1": PHOTO}):
        np.testing.assert_array_equal(first_style_image(style), PAINTING)
    np.testing.assert_array_equal(first_style_image({"conv1_1": [(PAINTING, 1.0)]}), PAINTING)
    seen = np.dstack([PAINTING, np.full(PAINTING.shape[:2], 255.0)])
    np.testing.assert_array_equal(first_style_image(seen), PAINTING)
    assert first_style_image([]) is first_style_image({}) is first_style_image(None) is None
