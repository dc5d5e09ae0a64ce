"""A style image with the content image's colors: the same mean and covariance, moved as little as that allows."""

import itertools

import numpy as np
import pytest

from engine.color import FLATTEST, METHODS, match_colors


def colors(seed, spread=1.0, mean=128.0, shape=(40, 50)):
    """Return an image whose colors are correlated: they vary by 20, 12 and 7 gray levels along three directions."""
    rng = np.random.default_rng(seed)
    mixing = np.diag([20.0, 12.0, 7.0]) @ np.linalg.qr(rng.standard_normal((3, 3)))[0] * spread
    return np.clip(rng.standard_normal((*shape, 3)) @ mixing + mean + rng.uniform(-20, 20, 3), 0, 255)


def moments(pixels):
    flat = pixels.reshape(-1, 3)
    return flat.mean(axis=0), np.cov(flat, rowvar=False, bias=True)


@pytest.mark.parametrize("method", METHODS)
def test_mean_and_covariance_become_the_other_s(method):
    style, content = colors(0), colors(1, mean=100.0, shape=(30, 70))
    result = match_colors(style, content, method=method)
    assert (result.shape, result.dtype) == (style.shape, np.float32)
    for found, expected in zip(moments(result.astype(np.float64)), moments(content), strict=True):
        # The least variance that is assumed is added to both.
        np.testing.assert_allclose(found, expected, atol=2 * FLATTEST**2, rtol=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_an_image_keeps_its_own_colors(method):
    style = colors(2)
    np.testing.assert_allclose(match_colors(style, style, method=method), style, atol=1e-3)


def test_the_methods_are_maps_of_their_own():
    """Principal axes are turned with the colors; the Cholesky factors keep the first channel to itself."""
    style, content = colors(3), colors(4)
    results = [match_colors(style, content, method=method) for method in METHODS]
    assert all(np.abs(one - other).max() > 1 for one, other in itertools.pairwise(results))
    red, other = style[..., 0].ravel().astype(float), results[2][..., 0].ravel().astype(float)
    assert np.corrcoef(red, other)[0, 1] > 1 - 1e-6
    with pytest.raises(ValueError, match="unknown color method 'pca'"):
        match_colors(style, content, method="pca")


def test_of_all_linear_maps_this_one_moves_the_colors_least():
    """Any other map with the same effect is this one after a rotation of the whitened colors."""
    style, content = colors(3), colors(4)
    (m, of_style), (n, of_content) = moments(style), moments(content)
    moved = np.square(match_colors(style, content) - style).mean()
    rng = np.random.default_rng(5)
    for _ in range(20):
        rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
        other = (style - m) @ np.linalg.inv(np.linalg.cholesky(of_style)).T @ rotation @ np.linalg.cholesky(
            of_content
        ).T + n
        np.testing.assert_allclose(moments(other)[1], of_content, rtol=1e-6, atol=1e-6)
        assert np.square(other - style).mean() > 0.99 * moved


@pytest.mark.parametrize("gray", [0.0, 90.0])
def test_images_of_one_color_give_no_noise(gray):
    flat, content = np.full((8, 9, 3), gray), colors(6)
    np.testing.assert_allclose(
        match_colors(flat, content), np.broadcast_to(content.mean(axis=(0, 1)), flat.shape), rtol=1e-5
    )
    into_gray = match_colors(content, flat)
    assert np.abs(into_gray - gray).max() < 6 * FLATTEST


def test_a_gray_style_image_takes_the_content_image_s_colors_without_noise():
    gray = np.repeat(colors(7)[..., :1], 3, axis=2)
    result = match_colors(gray, colors(8)).astype(np.float64)
    # All its colors lie on one line, as before.
    assert np.linalg.matrix_rank(np.cov(result.reshape(-1, 3), rowvar=False), tol=1.0) == 1


def test_the_result_is_within_the_scale():
    result = match_colors(colors(9, spread=3), colors(10, spread=6, mean=200))
    assert result.min() >= 0
    assert result.max() <= 255
