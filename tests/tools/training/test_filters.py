from __future__ import annotations

import numpy as np
import pytest

from engine.preprocessing import PREPROCESSING
from tools.training.filters import (
    colour_filters,
    edge_filters,
    first_filters,
    fitted_filters,
    sampled_patches,
)

IMAGE = np.random.default_rng(0).uniform(0, 255, (32, 48, 3)).astype(np.float32)
CENTRED = PREPROCESSING["caffe"].apply(IMAGE, np.dtype(np.float64))


def everywhere(image):
    """Return all patches of an image of shape (H, W, C), row by row."""
    return sampled_patches([image], image.size, np.random.default_rng(0))


def test_the_given_channels_hold_the_colours_mean_and_second_moments():
    """Their Gram matrix fixes them, whatever the rest of the picture is: no colour can be mistaken for another."""
    weight, bias = colour_filters()
    values = (everywhere(CENTRED) @ weight.reshape(27, 6) + bias).T
    F = np.maximum(values, 0)
    G = F @ F.T / F.shape[1]
    brightness, lack = F[:2]
    np.testing.assert_allclose(brightness + lack, 4)
    # E[x b] + E[x (4 - b)] = 4 E[x], for the brightness itself and for both sides of the opponent colours.
    np.testing.assert_allclose((G[0] + G[1]) / 4, F.mean(1))
    plain = IMAGE.mean(2, dtype=np.float64)
    bell = np.array([1, 2, 1]) / 4
    blurred = sum(bell[i] * bell[j] * plain[i : i + 30, j : j + 46] for i in range(3) for j in range(3))
    np.testing.assert_allclose(np.sort(F[0]), np.sort((blurred * 4 / 255).ravel()))
    for side in (2, 4):
        assert G[side, side + 1] == 0
        np.testing.assert_allclose(G[side, side] + G[side + 1, side + 1], (values[side] ** 2).mean())


def test_red_and_blue_are_told_apart():
    weight, bias = colour_filters()

    def response(*colour):
        plain = PREPROCESSING["caffe"].apply(np.full((3, 3, 3), colour, np.float64), np.dtype(np.float64))
        return everywhere(plain)[0] @ weight.reshape(27, 6) + bias

    red, blue = response(255, 0, 0), response(0, 0, 255)
    assert red[2] > 0.5 > blue[2]
    assert red[4] < -0.5 < blue[4]


def test_grey_has_no_opponent_colour_and_flat_pictures_no_edges():
    flat = everywhere(PREPROCESSING["caffe"].apply(np.full((8, 8, 3), 77.0), np.dtype(np.float64)))
    weight, bias = colour_filters()
    np.testing.assert_allclose((flat @ weight.reshape(27, 6) + bias)[:, 2:], 0, atol=1e-12)
    np.testing.assert_allclose(flat @ edge_filters(np.random.default_rng(0)).reshape(27, 10), 0, atol=1e-12)


def test_edges_have_unit_variance():
    patches = everywhere(CENTRED)
    weight, bias = first_filters(patches, np.random.default_rng(0))
    assert weight.shape == (3, 3, 3, 16)
    np.testing.assert_allclose((patches @ weight.reshape(27, 16) + bias)[:, 6:].std(0), 1)


@pytest.fixture
def patches():
    """Patches of two channels that depend on each other, with a mean."""
    random = np.random.default_rng(1)
    smooth = np.cumsum(random.standard_normal((30, 40, 2)), axis=1)
    return everywhere(smooth @ np.array([[1.0, 0.5], [0.0, 0.3]]) + 7)


def test_fitted_filters_respond_in_pairs_with_mean_0_and_variance_1(patches):
    weight, bias = fitted_filters(patches, 8, 1e-3, np.random.default_rng(0))
    assert weight.shape == (3, 3, 2, 8)
    responses = patches @ weight.reshape(18, 8) + bias
    np.testing.assert_allclose(responses[:, :4], -responses[:, 4:], atol=1e-9)
    np.testing.assert_allclose(responses.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(responses.std(0), 1)


def test_fitted_filters_are_whitened_and_hold_the_strongest_components(patches):
    weight, bias = fitted_filters(patches, 8, 0.0, np.random.default_rng(0))
    responses = (patches @ weight.reshape(18, 8) + bias)[:, :4]
    np.testing.assert_allclose(responses.T @ responses / len(responses), np.eye(4), atol=1e-6)
    centred = patches - patches.mean(0)
    reconstructed = responses @ (responses.T @ centred) / len(responses)
    kept = np.linalg.svd(centred, compute_uv=False)[:4]
    np.testing.assert_allclose((reconstructed**2).sum(), (kept**2).sum(), rtol=1e-6)


def test_patches_are_drawn_by_area_and_laid_out_as_weights_are():
    small, large = np.zeros((6, 6, 2)), np.ones((10, 18, 2))
    drawn = sampled_patches([small, large], 72, np.random.default_rng(0))
    assert drawn.shape == (8 + 64, 18)
    assert (drawn == 1).all(1).sum() == 64
    ramp = np.arange(18.0).reshape(3, 3, 2)
    np.testing.assert_array_equal(everywhere(ramp)[0].reshape(3, 3, 2), ramp)
