"""Regions with styles of their own, and a mask on the content: by their definition, and what does not fit."""

import numpy as np
import pytest

from engine import Objective, load_network
from engine.regions import Region, at_layer, guides_of
from tests.engine import models

SIZE = (22, 18)
LAYERS = ("conv1_1", "conv2_1")
CONTENT, IMAGE = models.random_image(*SIZE, seed=1), models.random_image(*SIZE, seed=2)
ONE, OTHER = models.random_image(20, 25, seed=3), models.random_image(17, 16, seed=4)
LEFT = np.zeros(SIZE)
LEFT[:, :7] = 1.0


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return models.save(models.vgg(models.parameters((2, 2))), tmp_path_factory.mktemp("models") / "tiny.onnx")


@pytest.fixture(scope="module")
def network(path):
    return load_network(path, dtype="float64", threads=1)


def objective(network, **options):
    return Objective(network, CONTENT, content_layers=["conv2_1"], style_layers=LAYERS, content_weight=1e-4, **options)


def gram(features, weights=None):
    """Return sum_k t_k F_k F_k^T / sum_k t_k, position by position."""
    weights = np.ones(features.shape[1:]) if weights is None else weights
    total = np.zeros((len(features),) * 2)
    for y, x in np.ndindex(weights.shape):
        total += weights[y, x] * np.outer(features[:, y, x], features[:, y, x])
    return total / weights.sum()


def test_a_region_s_loss_is_equation_4_of_its_guided_gram_matrices(network):
    found = objective(network, regions=[Region(LEFT, ONE), Region(1 - LEFT, OTHER)])
    value, _ = found(IMAGE)
    F = network.features(IMAGE, [*LAYERS])
    expected, masks = 0.0, (LEFT, 1 - LEFT)
    for number, (mask, style) in enumerate(zip(masks, (ONE, OTHER), strict=True), 1):
        A = {layer: gram(features) for layer, features in network.features(style, LAYERS).items()}
        for layer in LAYERS:
            t = at_layer(mask, *F[layer].shape[1:])
            E = np.square(gram(F[layer], t) - A[layer]).sum() / (4 * len(A[layer]) ** 2)
            assert found.terms["style"][f"{layer}, region {number}"] == pytest.approx(E, rel=1e-12)
            expected += 0.5 * t.mean() * E
    content = found.terms["content"]["conv2_1"]
    assert value == pytest.approx(1e-4 * content + expected, rel=1e-12)


def test_one_region_that_is_the_whole_picture_is_one_style(network):
    whole = objective(network, regions=[Region(np.ones(SIZE), [(ONE, 2.0), (OTHER, 1.0)])])
    plain = objective(network, style=[(ONE, 2.0), (OTHER, 1.0)])
    for found, expected in zip(whole(IMAGE), plain(IMAGE), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)


def test_a_style_does_not_reach_beyond_its_region_but_for_what_the_network_sees_around_it(network):
    changed = objective(network, regions=[Region(LEFT, ONE), Region(1 - LEFT, OTHER)], style_weight=1.0)
    other = objective(network, regions=[Region(LEFT, ONE), Region(1 - LEFT, ONE)], style_weight=1.0)
    difference = np.abs(changed(IMAGE)[1] - other(IMAGE)[1]).max(axis=(0, 2))
    # conv2_1 sees 10 pixels: 5 to the left of the border, and one more for the area that a guide averages over.
    assert not difference[: 7 - 6].any()
    assert difference[10:].all()


def test_guides_sum_to_one_where_there_is_any(network):
    masks = [LEFT, 0.5 * np.ones(SIZE), np.zeros(SIZE)]
    masks[2][3, 4] = 1.0
    masks[1][5:] = 0
    total = sum(guides_of(masks, CONTENT.shape))
    np.testing.assert_allclose(total[:5], 1)
    assert set(np.unique(total)) <= {0.0, 1.0}


def test_a_content_mask_weighs_the_positions(network):
    counts = np.random.default_rng(0).uniform(0, 4, SIZE)
    found = objective(network, content_mask=counts)
    found(IMAGE)
    F, P = (network.features(image, "conv2_1")["conv2_1"] for image in (IMAGE, CONTENT))
    expected = 0.5 * (at_layer(counts, *F.shape[1:]) * np.square(F - P)).sum()
    assert found.terms["content"]["conv2_1"] == pytest.approx(expected, rel=1e-12)


def test_on_a_gpu_it_is_the_same(emulator, path, network):
    options = {"regions": [Region(LEFT, ONE), Region(1 - LEFT, OTHER)], "content_mask": 2 * LEFT}
    value, gradient = objective(load_network(path, device="cuda"), **options)(IMAGE)
    expected, of_cpu = objective(network, **options)(IMAGE)
    assert value == pytest.approx(expected, rel=1e-5)
    assert np.linalg.norm(gradient - of_cpu) < 1e-4 * np.linalg.norm(of_cpu)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style": ONE, "regions": [Region(LEFT, ONE)]}, "one style for the whole picture, or regions"),
        (
            {"regions": [Region(LEFT, ONE), Region(LEFT[1:], ONE)]},
            r"the mask of region 2 has the shape \(21, 18\)",
        ),
        ({"regions": [Region(2 * LEFT, ONE)]}, "the mask of region 1 has values outside of 0..1"),
        ({"regions": [Region(0 * LEFT, ONE)]}, "the mask of region 1 is empty"),
        ({"style": ONE, "content_mask": LEFT[:, 1:]}, r"the content mask has the shape \(22, 17\), the content image"),
        ({"style": ONE, "content_mask": -LEFT}, "the content mask has values that are negative or not finite"),
    ],
)
def test_what_does_not_fit_is_named(network, options, message):
    with pytest.raises(ValueError, match=message):
        objective(network, **options)
