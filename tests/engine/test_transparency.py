"""A style image's alpha weighs the positions of its Gram matrices, and what is hidden takes no part."""

import numpy as np
import pytest

from engine.color import match_colors
from engine.load import load_network
from engine.multiscale import stylize_coarse_to_fine
from engine.objective import Objective
from engine.reconstruct import gram_errors, texture_synthesis
from engine.stylize import Settings, prepare
from engine.transparency import area_average, split_alpha
from tests.engine import models

LAYERS = ("conv1_1", "conv2_1", "conv3_1")
PAINTING = models.random_image(21, 18, seed=2)
PHOTO = models.random_image(16, 19, seed=1)


def soft_alpha():
    """Return an alpha of 0, 1 and all between, in 8 bits."""
    alpha = np.round(np.clip(np.random.default_rng(5).normal(0.5, 0.6, (21, 18)), 0, 1) * 255) / 255
    alpha[:, 9:12] = 0
    assert 0 in alpha
    assert 1 in alpha
    return alpha


ALPHA = soft_alpha()


def with_alpha(image, alpha):
    return np.concatenate([image, 255.0 * alpha[..., None]], axis=2)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    content = models.vgg(models.parameters((2, 2, 2)))
    return models.save(content, tmp_path_factory.mktemp("models") / "tiny.onnx")


@pytest.fixture(scope="module")
def network(path):
    return load_network(path, dtype="float64", threads=1)


def targets(network, style, layers=LAYERS):
    objective = Objective(network, None, style, style_layers=layers)
    return {term.layer: term.A for term in objective.summands}


def area_by_definition(alpha, height, width):
    """Return the mean over each part of the area, in pixels' parts: every pixel cut as often as it takes."""
    rows, columns = alpha.shape
    fine = alpha.repeat(height, axis=0).repeat(width, axis=1)  # each part is now rows x columns of these
    return fine.reshape(height, rows, width, columns).mean(axis=(1, 3))


def target_by_definition(F, alpha):
    """Return sum_k m_k F_k F_k^T / sum_k m_k, one position after the other; F is (N, H, W)."""
    channels, height, width = F.shape
    m = area_by_definition(alpha, height, width)
    G = np.zeros((channels, channels))
    for y in range(height):
        for x in range(width):
            G += m[y, x] * np.outer(F[:, y, x], F[:, y, x])
    return G / m.sum()


def test_the_target_is_the_mean_over_what_is_seen(network):
    found = targets(network, with_alpha(PAINTING, ALPHA))
    hidden = ALPHA == 0
    mean = (ALPHA[..., None] * PAINTING).sum(axis=(0, 1)) / ALPHA.sum()
    features = network.features(np.where(hidden[..., None], mean, PAINTING), LAYERS)
    for layer in LAYERS:
        np.testing.assert_allclose(found[layer], target_by_definition(features[layer], ALPHA), rtol=1e-12)
    opaque = targets(network, PAINTING)
    assert not np.allclose(found["conv2_1"], opaque["conv2_1"], rtol=0.01)


def test_colors_under_an_alpha_of_zero_do_not_change_a_bit(network):
    other = np.where((ALPHA == 0)[..., None], [0.0, 255.0, 7.0], PAINTING)
    first, second = (targets(network, with_alpha(image, ALPHA)) for image in (PAINTING, other))
    for layer in LAYERS:
        np.testing.assert_array_equal(first[layer], second[layer])


def test_an_opaque_alpha_gives_the_bits_of_an_image_without_one(network):
    plain = targets(network, PAINTING)
    for image in (with_alpha(PAINTING, np.ones((21, 18))), [(with_alpha(PAINTING, np.ones((21, 18))), 3.0)]):
        for layer, A in targets(network, image).items():
            np.testing.assert_array_equal(A, plain[layer])


def test_eight_bits_and_floating_numbers_give_the_same_style(network):
    image = np.round(with_alpha(PAINTING, ALPHA))
    for layer, A in targets(network, image.astype(np.uint8)).items():
        np.testing.assert_allclose(A, targets(network, image)[layer], rtol=1e-12)


def test_several_paintings_are_averaged_by_their_weights_each_with_its_own_alpha(network):
    cutout, other = with_alpha(PAINTING, ALPHA), models.random_image(27, 14, seed=3)
    blended = targets(network, [(cutout, 1.0), (other, 3.0)])
    for layer, A in targets(network, cutout).items():
        np.testing.assert_allclose(blended[layer], 0.25 * A + 0.75 * targets(network, other)[layer], rtol=1e-12)


def test_single_precision_has_the_same_targets(network, path):
    single = load_network(path, dtype="float32", threads=1)
    double = targets(network, with_alpha(PAINTING, ALPHA))
    for layer, A in targets(single, with_alpha(PAINTING, ALPHA)).items():
        np.testing.assert_allclose(A, double[layer], rtol=1e-4, atol=1e-5 * abs(double[layer]).max())


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 5e-3)])
def test_a_gpu_has_the_same_targets(network, path, emulator, dtype, tolerance):
    on_gpu = load_network(path, device="cuda", dtype=dtype)
    double = targets(network, with_alpha(PAINTING, ALPHA))
    for layer, A in targets(on_gpu, with_alpha(PAINTING, ALPHA)).items():
        assert on_gpu.device.holds(A)
        np.testing.assert_allclose(on_gpu.device.fetch(A), double[layer], atol=tolerance * abs(double[layer]).max())


@pytest.mark.parametrize("size", [(21, 18), (10, 9), (5, 4), (7, 18), (21, 1), (1, 1), (30, 25)])
def test_alpha_is_brought_to_a_layers_size_by_the_area(size):
    averaged = area_average(ALPHA, *size)
    np.testing.assert_allclose(averaged, area_by_definition(ALPHA, *size), atol=1e-13)
    assert averaged.min() >= 0


def test_what_is_hidden_stays_exactly_without_weight():
    alpha = np.full((64, 60), 1 / 3)
    alpha[:, 20:] = 0
    for size in ((32, 30), (13, 11)):
        averaged = area_average(alpha, *size)
        first_hidden = -(-20 * size[1] // 60)
        assert (averaged[:, first_hidden:] == 0).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_a_wholly_transparent_painting_is_an_error(network, dtype):
    hidden = with_alpha(PAINTING, np.zeros((21, 18))).astype(dtype)
    for call in (lambda: targets(network, hidden), lambda: texture_synthesis(network, hidden, LAYERS)):
        with pytest.raises(ValueError, match="wholly transparent"):
            call()


@pytest.mark.parametrize("value", [-1.0, 255.5, np.nan])
def test_an_alpha_outside_of_its_scale_is_an_error(network, value):
    image = with_alpha(PAINTING, ALPHA)
    image[3, 4, 3] = value
    with pytest.raises(ValueError, match=r"must lie in 0\.\.255"):
        targets(network, image)


def test_a_picture_begun_with_a_cutout_begins_with_what_is_seen_of_it(network):
    cutout = with_alpha(PAINTING, ALPHA)
    colors, _ = split_alpha(cutout)
    settings = Settings(content_layers=["conv2_1"], style_layers=["conv1_1"], init="style", iterations=1)
    job = prepare(network, models.random_image(21, 18, seed=7), cutout, settings)
    np.testing.assert_array_equal(job.initial, colors)
    assert np.unique(job.initial[ALPHA == 0], axis=0).shape == (1, 3)


def test_from_small_to_large_a_cutout_is_resized_with_its_alpha(network):
    shapes = []

    def resize(image, height, width):
        shapes.append((*image.shape[:1], image.shape[2]))
        rows, columns = np.arange(height) * len(image) // height, np.arange(width) * image.shape[1] // width
        return image[rows][:, columns]

    settings = Settings(content_layers=["conv2_1"], style_layers=["conv1_1"], init="style", iterations=1)
    cutout = with_alpha(PAINTING, ALPHA)
    result = stylize_coarse_to_fine(network, PHOTO, cutout, settings, resize=resize, levels=2)
    assert result.image.shape == PHOTO.shape
    assert (21, 4) in shapes


def test_a_texture_is_that_of_what_is_seen_and_its_errors_as_well(network):
    cutout = with_alpha(PAINTING, ALPHA)
    job = texture_synthesis(network, cutout, LAYERS, Settings(iterations=2))
    assert job.initial.shape == PAINTING.shape
    job.objective(job.initial)
    errors = gram_errors(network, job.initial, cutout, LAYERS)
    features = network.features(job.initial, LAYERS)
    for layer, A in targets(network, cutout).items():
        G = target_by_definition(features[layer], np.ones((21, 18)))
        assert errors[layer] == pytest.approx(np.linalg.norm(G - A) / np.linalg.norm(A), rel=1e-10)
    visible_only = with_alpha(PAINTING, np.ones((21, 18)))
    assert gram_errors(network, PAINTING, visible_only, LAYERS)["conv1_1"] == pytest.approx(0, abs=1e-12)


def test_hidden_colors_do_not_count_where_colors_are_matched():
    other = np.where((ALPHA == 0)[..., None], [0.0, 255.0, 7.0], PAINTING)
    first, second = (match_colors(image, PHOTO, ALPHA) for image in (PAINTING, other))
    np.testing.assert_allclose(first[ALPHA > 0], second[ALPHA > 0], rtol=1e-6)
    assert not np.allclose(first[ALPHA > 0], match_colors(PAINTING, PHOTO)[ALPHA > 0], atol=0.5)
    # A weight of 2 is the same pixel twice.
    twice = np.concatenate([PAINTING, PAINTING[:4]])
    weights = np.ones((21, 18))
    weights[:4] = 2
    np.testing.assert_allclose(match_colors(PAINTING, PHOTO, weights / 2), match_colors(twice, PHOTO)[:21], atol=1e-3)
